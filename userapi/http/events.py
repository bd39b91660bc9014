"""GET /api/v1/events[?service=NAME]: what happens, as server-sent events, to who may view it.

Events: `changed`, `step`, `ended`, `dropped` (too slow: ask again), `refused` (a problem document; ask no more).
Data is the event as JSON. The stream ends by itself after some minutes; ask again.
"""

from __future__ import annotations

from flask import Blueprint, Response, request

from policy import messages
from userapi.http.guard import asker, named, parts
from userapi.http.streams import Span, as_events, begun, streamed

blueprint = Blueprint("events", __name__)


@blueprint.get("/events")
def events() -> Response:
    token, source = asker()
    only = request.args.get("service")
    command = messages.Watch(service=named(only) if only is not None else None)
    here = parts()
    give = here.streams.take(token)
    try:
        found = begun(here.supervisor.watch(token, command, source))
    except BaseException:
        give()
        raise
    stream = as_events(found, Span(request.environ), until_ended=False)
    return streamed(stream, give, "text/event-stream", {"X-Accel-Buffering": "no"})
