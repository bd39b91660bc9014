"""GET /api/v1/operations[?service=NAME][&all=true], /operations/ID: what is under way, and how an operation goes.
POST /operations/ID/cancel: take it back, as far as that can be; answered by 200 {"text"}.

The list: {"operations": [{"number", "kind", "service", "user", "joined", "since", "step", "ok", "text", "seconds"}]};
"ok" is null while it is under way, and those that have ended are there with ?all=true alone. Of one:

JSON: {"operation", "done", "service", "ok", "text", "seconds", "steps": [{"time", "service", "text"}], "problems",
"mark"} ("mark": of a dry run that would change something, for /reload);
what is not known yet is absent, "done" says so. With ?wait=true it is answered when the operation is over, whatever is
killed meanwhile, or after LIFE with "done": false. With Accept: text/event-stream: its events from its beginning,
`step` and `ended`.
With ?after=N or Last-Event-ID: without the steps up to that event; the end is told in any case.
A command that somebody else must approve first answers 202 {"approval", "text"}: see approvals.py.
Every POST that begins an operation answers 202 {"operation", "text"} with this address in Location, and with
?wait=true 200 and the JSON above: "ok": false is a result, not an error of HTTP. A command that is
refused because too many wait has not begun.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from flask import Blueprint, Response, request
from msgspec.structs import replace

from policy import messages
from userapi.client import FIRST, Refusal
from userapi.http.guard import after, asker, body, flag, json, named, parts
from userapi.http.problems import Problem
from userapi.http.streams import Events, Span, as_events, begun, streamed, watched

AGAIN = 0.1  # seconds until a supervisor that has gone is asked again

blueprint = Blueprint("operations", __name__)


@blueprint.get("/operations")
def listed() -> Response:
    token, source = asker()
    only = request.args.get("service")
    command = messages.ListOperations(service=named(only) if only is not None else None, ended=flag("all"))
    reply = parts().supervisor.ask(token, command, source)
    if not isinstance(reply, messages.Listed):
        raise Problem("failed", "the supervisor answered something else")
    return json({"operations": reply.operations})


@blueprint.get("/operations/<int:operation>")
def follow(operation: int) -> Response:
    token, source = asker()
    if operation >= 1 << 53:
        raise Problem("unknown", "there is no such operation")
    watch = messages.Watch(operation=operation, after=after())
    if "text/event-stream" in request.headers.get("Accept", ""):
        here = parts()
        events, give = watched(here.waits, token, here.supervisor.watch(token, watch, source))
        stream = as_events(events, Span(request.environ))
        return streamed(stream, give, "text/event-stream", {"X-Accel-Buffering": "no"})
    return json(followed(token, source, watch, flag("wait")))


@blueprint.post("/operations/<int:operation>/cancel")
def cancel(operation: int) -> Response:
    why = body(Why)
    if operation >= 1 << 53:
        raise Problem("unknown", "there is no such operation")
    return commanded(messages.Cancel(operation=operation), why)


def followed(token: str, source: str, watch: messages.Watch, wait: bool) -> dict[str, Any]:
    """As outcome, which holds a permit meanwhile. Raises Refusal, Problem."""
    here = parts()
    idle = 1.0 if wait else FIRST
    events, give = watched(here.waits, token, here.supervisor.watch(token, watch, source, idle))
    try:
        return outcome(token, source, watch, wait, events)
    finally:
        give()


def outcome(token: str, source: str, watch: messages.Watch, wait: bool, events: Events | None = None) -> dict[str, Any]:
    """What is known of an operation, at its end or now. The permit must have been taken. events: of a watch of it."""
    result: dict[str, Any] = {"operation": watch.operation, "done": False, "steps": []}
    span, supervisor = Span(request.environ, stream=False), parts().supervisor
    idle = 1.0 if wait else FIRST  # what there is comes at once
    events = events or supervisor.watch(token, watch, source, idle)
    while True:
        for event in events:
            if isinstance(event, messages.Step):
                watch, result["service"] = replace(watch, after=event.number), event.service
                result["steps"].append({"time": event.time, "service": event.service, "text": event.text})
            elif isinstance(event, messages.Ended):
                result.update(done=True, service=event.service, ok=event.ok, text=event.text, seconds=event.seconds)
                result["problems"] = event.problems
                result |= {"mark": event.mark} if event.mark else {}
                return result
            if span.over() or (event is None and not wait):
                return result
        if span.over() or not wait:
            return result
        time.sleep(AGAIN)  # the supervisor was killed: the next one knows how it goes on
        try:
            events = begun(supervisor.watch(token, watch, source))
        except Refusal as error:
            if error.refused.kind == "unknown":  # it cannot read what was written: nobody knows
                return result
            raise


class Why(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the body of every command may say."""

    reason: messages.Reason = ""


def commanded(command: messages.Command, why: Why) -> Response:
    """The answer to a command: its operation, or the operation's outcome with ?wait=true, or that it is done."""
    token, source = asker()
    ask = parts().supervisor.ask
    if not flag("wait"):
        return answered(token, source, ask(token, command, source, why.reason), False)
    with parts().waits.one(token):  # before it is asked for: what is refused for want of a thread has not begun
        return answered(token, source, ask(token, command, source, why.reason), True)


def answered(token: str, source: str, reply: messages.Reply, wait: bool) -> Response:
    if isinstance(reply, messages.Done):
        return json({"text": reply.text})
    if isinstance(reply, messages.Waits):
        return json({"approval": reply.approval, "text": reply.text}, 202)
    if not isinstance(reply, messages.Accepted):
        raise Problem("failed", "the supervisor answered something else")
    if wait:
        return json(outcome(token, source, messages.Watch(operation=reply.operation), True))
    where = f"/api/v1/operations/{reply.operation}"
    return json({"operation": reply.operation, "text": reply.text}, 202, {"Location": where})
