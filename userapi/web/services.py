"""/, /services/NAME, /services/NAME/{start,stop,restart}: what there is, how it is, and the three that change it.

GET of the last three asks: what will be done, what the rule demands, a reason. POST asks the supervisor, and leads to
the operation that has begun, or to what somebody else must approve first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from flask import Blueprint, Response, request

from policy import messages
from userapi.cli import plain
from userapi.cli.render import age, said_of, settings_of
from userapi.client import Refusal
from userapi.http.guard import named, parts, sentence
from userapi.http.logs import opener
from userapi.http.problems import Problem
from userapi.tail import Tail
from userapi.web.forms import Asking, fields, form, proven
from userapi.web.guard import Asker, asker, failed, nobody, page, see_other, told, with_typed

LINES = 50  # of a log
BYTES = 32 * 1024  # of a log, however long its lines are
ACTIONS = ("start", "stop", "restart")
REASON = "with a reason"  # as policy/rules says what a rule demands

blueprint = Blueprint("services", __name__)


class Starting(Asking, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Stopping(Asking, frozen=True, forbid_unknown_fields=True, kw_only=True):
    with_dependants: bool = False


class Restarting(Asking, frozen=True, forbid_unknown_fields=True, kw_only=True):
    hard: bool = False


KINDS: dict[str, type[Starting | Stopping | Restarting]] = {
    "start": Starting, "stop": Stopping, "restart": Restarting,
}  # fmt: skip


class Row(NamedTuple):
    """One process, or a service that has none."""

    process: str
    state: str
    pid: int
    since: str  # RFC 3339
    age: str
    said: str


class Service(NamedTuple):
    name: str
    rows: list[Row]
    text: str
    next: str
    may: list[str]  # of ACTIONS


def rows_of(service: messages.ServiceInfo) -> list[Row]:
    """What `durward status` has of a service, a row a process."""
    plainly, now = msgspec.to_builtins(service), time.clock_gettime(time.CLOCK_REALTIME)
    return [
        Row(one["name"], one["state"], one["pid"], one["since"], age(one["since"], now), said_of(plainly, one))
        for one in plainly["processes"] or [{**plainly, "pid": 0, "since": "", "text": ""}]
    ]


def rights_on(rights: messages.Rights, service: str) -> messages.Right:
    return next((right for right in rights.rights if right.service == service), messages.Right(service, []))


def seen(service: messages.ServiceInfo, right: messages.Right) -> Service:
    may = [action for action in ACTIONS if action in right.actions]
    return Service(service.name, rows_of(service), service.text, service.next, may)


@blueprint.get("/")
def every() -> Response:
    who = asker()
    reply = who.ask(messages.Status())
    if not isinstance(reply, messages.Services):
        raise Problem("failed", "the supervisor answered something else")
    rights = who.rights()
    on = {right.service: right for right in rights.rights}
    services = [seen(one, on.get(one.name, messages.Right(one.name, []))) for one in reply.services]
    waiting = who.ask(messages.ListApprovals())
    others = [one for one in waiting.approvals if not one.yours] if isinstance(waiting, messages.Approvals) else []
    values: dict[str, object] = {
        "user": rights.user, "services": services, "trouble": reply.trouble, "version": reply.version,
        "waiting": len(others), "daemon": rights_on(rights, "").actions,
    }  # fmt: skip
    return page("services.html", values, who.session)


@blueprint.get("/services/<name>")
def one(name: str) -> Response:
    who = asker()
    reply = who.ask(messages.Describe(service=named(name)))
    if not isinstance(reply, messages.Description):
        raise Problem("failed", "the supervisor answered something else")
    rights = who.rights()
    right = rights_on(rights, name)
    settings = settings_of(msgspec.to_builtins(reply))
    values: dict[str, object] = {
        "user": rights.user, "service": seen(reply.service, right), "right": right, "settings": settings,
        "log": _log(who, reply.service) if "logs" in right.actions else None,
    }  # fmt: skip
    return page("service.html", values, who.session)


class Log(NamedTuple):
    """The end of a log. process, stream: whose; others: what else can be asked for. trouble: why there is nothing."""

    process: str
    stream: str
    text: str
    cut: bool  # there is more than is shown
    processes: list[str]
    trouble: str


def _log(who: Asker, service: messages.ServiceInfo) -> Log:
    """Raises Problem for a process or stream that cannot be. Who reads too much at once is told so in its place."""
    processes = [process.name for process in service.processes]
    process = request.args.get("process", processes[0] if processes else "")
    asked = {"do": "open-log", "service": service.name, "stream": request.args.get("stream", "stdout")}
    if processes:
        asked["process"] = process
    try:
        command = msgspec.convert(asked, messages.OpenLog)
    except msgspec.ValidationError as error:
        raise Problem("invalid", sentence(error)) from None
    here = parts()
    data, trouble = b"", ""
    tail = Tail(opener(here.supervisor, who.session, command, who.source))
    try:
        with here.streams.one(who.session):
            tail.begin(LINES)
            for piece in tail.more(False):
                data = (data + piece)[-BYTES - 1 :]
    except (Problem, Refusal) as error:
        if nobody(error):
            raise
        trouble = told(error).text
    finally:
        tail.close()
    text = plain.Stream().feed(data[-BYTES:], True)
    return Log(process, command.stream, text, len(data) > BYTES, processes, trouble)


@blueprint.get("/services/<name>/<any(start, stop, restart):action>")
def ask(name: str, action: str) -> Response:
    who, service = asker(), named(name)
    return with_typed("ask.html", lambda text: _asking(who, service, action, {"reason": text}), who.session)


@blueprint.post("/services/<name>/<any(start, stop, restart):action>")
def command(name: str, action: str) -> Response:
    who, service = asker(), named(name)
    asked = form(request, KINDS[action])
    try:
        proven(who.session, asked)
        reply = who.ask(_command(service, action, asked), asked.reason)
    except (Problem, Refusal) as error:
        if nobody(error):
            raise
        values = _asking(who, service, action, fields(request))
        refused = isinstance(error, Refusal) and error.refused.kind == "forbidden"
        if refused and values["needs_reason"] and not asked.reason:
            error = Problem("forbidden", "Say why: you may with a reason.")  # no option of a command
        return failed("ask.html", values, who.session, error)
    if isinstance(reply, messages.Accepted):
        return see_other(f"/operations/{reply.operation}")
    if isinstance(reply, messages.Waits):
        return see_other(f"/approvals/{reply.approval}")
    return see_other(f"/services/{service}")


def _command(service: str, action: str, asked: Starting | Stopping | Restarting) -> messages.Command:
    if isinstance(asked, Stopping):
        return messages.Stop(service=service, with_dependants=asked.with_dependants)
    if isinstance(asked, Restarting):
        return messages.Restart(service=service, hard=asked.hard)
    return messages.Start(service=service)


def _asking(who: Asker, service: str, action: str, typed: Mapping[str, str]) -> dict[str, Any]:
    """What the page that asks shows. Raises Problem with the rule that is missing, and for what may not be viewed."""
    reply = who.ask(messages.Status(service=service))
    if not isinstance(reply, messages.Services) or not reply.services:
        raise Problem("failed", "the supervisor answered something else")
    rights = who.rights()
    right = rights_on(rights, service)
    demands = right.demands.get(action, "")
    refused = None
    if action not in right.actions:
        decided = who.ask(
            msgspec.convert({"do": "what-may-i", "action": action, "service": service}, messages.WhatMayI)
        )
        refused = decided.text if isinstance(decided, messages.Decided) else "no rule lets you"
    return {
        "user": rights.user, "service": seen(reply.services[0], right), "action": action, "demands": demands,
        "needs_reason": REASON in demands, "typed": typed, "refused": refused,
    }  # fmt: skip
