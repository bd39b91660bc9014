"""GET /api/v1/events[?service=NAME][&after=N]: what happens, as server-sent events, to who may view it.

Events: `changed`, `step`, `ended`, `lapsed` (what waited for a second person waits no more), `missed` (events since N
that are not kept any more: ask for the status), `dropped` (too slow: ask again), `refused` (a problem document; ask no
more). Data is the event as JSON, id its number; a block with an id alone says up to where everything has been told.
The stream ends by itself after some minutes; ask again, with the last id in Last-Event-ID or ?after=, and nothing is
lost or told twice. Last-Event-ID counts for more.
"""

from __future__ import annotations

from flask import Blueprint, Response, request

from policy import messages
from userapi.http.guard import after, asker, named, parts
from userapi.http.streams import Span, as_events, streamed, watched

blueprint = Blueprint("events", __name__)


@blueprint.get("/events")
def events() -> Response:
    token, source = asker()
    only = request.args.get("service")
    command = messages.Watch(service=named(only) if only is not None else None, after=after())
    here = parts()
    found, give = watched(here.streams, token, here.supervisor.watch(token, command, source))
    stream = as_events(found, Span(request.environ), until_ended=False)
    return streamed(stream, give, "text/event-stream", {"X-Accel-Buffering": "no"})
