"""/live[?service=NAME]: the states of services as they change, for the pages that show them; and the static files.

Server-sent events `rows`: first all that may be viewed, then what has changed, each a list of {"process", "state",
"pid", "since", "said"}. The first list is made after the watch has begun, so no change is lost between the two.
"""

from __future__ import annotations

import itertools

import msgspec
from flask import Blueprint, Response, request

from policy import messages
from userapi.cli import plain
from userapi.http.guard import named, parts
from userapi.http.problems import Problem
from userapi.http.streams import Span, as_events, streamed, watched
from userapi.web import pages
from userapi.web.guard import asker
from userapi.web.services import Row, rows_of

SOON = b"retry: 500\n\n"  # milliseconds until a browser asks again for what has ended
FOREVER = "public, max-age=31536000, immutable"

blueprint = Blueprint("live", __name__)


@blueprint.get("/live")
def states() -> Response:
    who, here = asker(), parts()
    only = request.args.get("service")
    service = named(only) if only is not None else None
    watch = here.supervisor.watch(who.session, messages.Watch(service=service), who.source)
    events, give = watched(here.streams, who.session, watch)
    try:
        reply = who.ask(messages.Status(service=service))
        if not isinstance(reply, messages.Services):
            raise Problem("failed", "the supervisor answered something else")
    except BaseException:
        give()
        raise
    now = rows([row for one in reply.services for row in rows_of(one)], True)
    stream = as_events(events, Span(request.environ), until_ended=False, spell=spelled)
    return streamed(itertools.chain([SOON, now], stream), give, "text/event-stream", {"X-Accel-Buffering": "no"})


def rows(found: list[Row], whole: bool) -> bytes:
    """`whole`: there is nothing else."""
    told = [
        {
            "process": plain.line(one.process), "state": plain.line(one.state), "pid": one.pid,
            "since": plain.line(one.since), "said": plain.line(one.said),
        }
        for one in found
    ]  # fmt: skip
    return b"event: rows\ndata: " + msgspec.json.encode({"whole": whole, "rows": told}) + b"\n\n"


def spelled(event: messages.Event) -> bytes:
    if not isinstance(event, messages.Changed):
        return b""
    return rows([Row(event.process, event.state, event.pid, event.time, "", event.text)], False)


@blueprint.get("/static/<name>")
def static(name: str) -> Response:
    """Anybody's: there is nothing in them that is not in the source."""
    found = pages.FILES.get(name)
    if found is None:
        raise Problem("unknown", "there is no such file")
    return Response(found.data, content_type=found.content_type, headers={"Cache-Control": FOREVER})
