"""/operations, /operations/N: what is under way, and how one goes and ended; POST /operations/N/cancel takes it back.

The page of a reload that has only shown what would change has the form that takes exactly that (reload.py).

Without JavaScript the page of an operation asks again by itself until it is over; with it, /operations/N/live tells its
steps as server-sent events: `step` {"text"}, `ended` {}.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import msgspec
from flask import Blueprint, Response, request

from policy import messages
from userapi.cli import plain
from userapi.cli.render import age, step
from userapi.client import Refusal
from userapi.http.guard import parts
from userapi.http.operations import followed
from userapi.http.problems import Problem
from userapi.http.streams import Span, as_events, streamed, watched
from userapi.web import cookie
from userapi.web.forms import Asking, form, proven
from userapi.web.guard import Asker, asker, failed, nobody, page, see_other
from userapi.web.live import SOON
from userapi.web.services import REASON, rights_on

WOULD = "would change: "  # as a dry run of a reload begins, or ends after what went wrong
ENDED = b"event: ended\ndata: {}\n\n"

blueprint = Blueprint("operations", __name__)


def operations_of(who: Asker) -> list[messages.OperationInfo]:
    """All that the asker may view and that is remembered, the newest first. Raises Refusal, Problem."""
    reply = who.ask(messages.ListOperations(ended=True))
    if not isinstance(reply, messages.Listed):
        raise Problem("failed", "the supervisor answered something else")
    return sorted(reply.operations, key=lambda one: -one.number)


def lines_of(operations: list[messages.OperationInfo]) -> list[dict[str, object]]:
    """What a table of operations shows of each."""
    now = time.clock_gettime(time.CLOCK_REALTIME)
    return [
        {
            **msgspec.to_builtins(one), "what": what_of(one), "age": age(one.since, now),
            "how": one.step if one.ok is None else f"{'done' if one.ok else 'failed'}: {one.text}",
        }
        for one in operations
    ]  # fmt: skip


@blueprint.get("/operations")
def listed() -> Response:
    who = asker()
    values: dict[str, object] = {"operations": lines_of(operations_of(who)), "user": who.rights().user}
    return page("operations.html", values, who.session)


@blueprint.get("/operations/<int:operation>")
def one(operation: int) -> Response:
    who = asker()
    values = values_of(who, operation, cookie.typed_of(request))
    response = page("operation.html", values, who.session)
    if values["reason"] and values["told"]["done"]:  # it has been shown in the form
        cookie.drop_typed(response, request.path)
    return response


@blueprint.post("/operations/<int:operation>/cancel")
def cancel(operation: int) -> Response:
    who = asker()
    asked = form(request, Asking)
    try:
        proven(who.session, asked)
        who.ask(messages.Cancel(operation=_number(operation)), asked.reason)
    except (Problem, Refusal) as error:
        if nobody(error):
            raise
        return failed("operation.html", values_of(who, operation), who.session, error)
    return see_other(f"/operations/{operation}")


@blueprint.get("/operations/<int:operation>/live")
def live(operation: int) -> Response:
    who, here = asker(), parts()
    watch = here.supervisor.watch(who.session, messages.Watch(operation=_number(operation)), who.source)
    events, give = watched(here.waits, who.session, watch)
    stream = as_events(events, Span(request.environ), spell=spelled)
    return streamed(itertools.chain([SOON], stream), give, "text/event-stream", {"X-Accel-Buffering": "no"})


def spelled(event: messages.Event) -> bytes:
    if isinstance(event, messages.Step):
        text = plain.line(step(event.service, event.text))
        return b"event: step\ndata: " + msgspec.json.encode({"text": text}) + b"\n\n"
    return ENDED if isinstance(event, messages.Ended) else b""


def _number(operation: int) -> int:
    if operation >= 1 << 53:
        raise Problem("unknown", f"no operation {operation} that you may view")
    return operation


def values_of(who: Asker, operation: int, reason: str = "") -> dict[str, Any]:
    """What the page of one shows. reason: that was typed. Raises Refusal, Problem."""
    watch = messages.Watch(operation=_number(operation))
    told = followed(who.session, who.source, watch, False)
    steps = [{"time": one["time"], "text": step(one["service"], one["text"])} for one in told["steps"]]
    info = next((one for one in operations_of(who) if one.number == operation), None)
    rights = who.rights()
    daemon = rights_on(rights, "")
    may_cancel = info is not None and info.kind in rights_on(rights, info.service).actions
    before, _, after = told["text"].partition(WOULD) if told.get("mark") else ("", "", "")
    return {
        "user": rights.user, "number": operation, "told": {"mark": "", **told, "steps": steps}, "info": info,
        "what": what_of(info), "may_cancel": may_cancel, "may_take": "reload" in daemon.actions, "reason": reason,
        "before": before.removesuffix("Now: "), "changes": after.split("; ") if after else [],
        "demands": (demands := daemon.demands.get("reload", "")), "needs_reason": REASON in demands,
    }  # fmt: skip


def what_of(info: messages.OperationInfo | None) -> str:
    """What it does to what: "restart site"."""
    if info is None:
        return ""
    return f"{info.kind} {info.service or ('the configuration' if info.kind == 'reload' else 'the daemon')}"
