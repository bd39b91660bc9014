"""/services/NAME/{start,stop,restart,signal,scale,enable,disable}: what changes a service.

GET asks: what will be done, what the rule demands, a reason. POST asks the supervisor, and leads to the operation that
has begun, or to what somebody else must approve first; what is done at once is told. What takes processes down, and is
not called so, is asked once more before: a signal that ends them, fewer of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from flask import Blueprint, Response, request

from policy import messages
from userapi.client import Refusal
from userapi.http.guard import named
from userapi.http.problems import Problem
from userapi.web.forms import Asking, fields, form, proven
from userapi.web.guard import Asker, asker, failed, nobody, page, see_other, with_typed
from userapi.web.services import REASON, RIGHTS, most_of, rights_on, seen, signals_of

# what a signal does to a program that has nothing else in mind with it, where that is to serve no more
ENDING = {
    "INT": "asks it to end", "QUIT": "asks it to end", "TERM": "asks it to end", "KILL": "ends it at once",
    "ABRT": "ends it as a crash does", "STOP": "halts it until CONT",
}  # fmt: skip
ACTION = "<any(start, stop, restart, signal, scale, enable, disable):action>"

blueprint = Blueprint("commands", __name__)


class Stopping(Asking, frozen=True, forbid_unknown_fields=True, kw_only=True):
    with_dependants: bool = False


class Restarting(Asking, frozen=True, forbid_unknown_fields=True, kw_only=True):
    hard: bool = False


class Signalling(Asking, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """sure: he has been asked once more."""

    signal: messages.Signame
    sure: bool = False


class Scaling(Asking, frozen=True, forbid_unknown_fields=True, kw_only=True):
    processes: messages.Processes
    sure: bool = False


KINDS: dict[str, type[Asking]] = {"stop": Stopping, "restart": Restarting, "signal": Signalling, "scale": Scaling}


class Sure(NamedTuple):
    """What is asked once more: what would be done, what follows from it, and the field that says so."""

    what: str
    follows: str
    field: str
    value: str


@blueprint.get(f"/services/<name>/{ACTION}")
def ask(name: str, action: str) -> Response:
    who, service = asker(), named(name)
    return with_typed("ask.html", lambda text: _asking(who, service, action, {"reason": text}), who.session)


@blueprint.post(f"/services/<name>/{ACTION}")
def command(name: str, action: str) -> Response:
    who, service = asker(), named(name)
    asked = form(request, KINDS.get(action, Asking))
    try:
        proven(who.session, asked)
        if isinstance(asked, Signalling | Scaling) and not asked.sure:
            values = _asking(who, service, action, fields(request))
            sure = _sure(values, asked)
            if sure and values["refused"] is None and (asked.reason or not values["needs_reason"]):
                return page("sure.html", {**values, "sure": sure}, who.session)
        reply = who.ask(_command(service, action, asked), asked.reason)
    except (Problem, Refusal) as error:
        if nobody(error):
            raise
        values = _asking(who, service, action, fields(request))
        error = without_reason(error, asked.reason, values["needs_reason"])
        return failed("ask.html", values, who.session, error)
    return led(who, reply, f"/services/{service}", f"Back to {service}")


def led(who: Asker, reply: messages.Reply, back: str, word: str) -> Response:
    """To what a command has led to. back, word: the way back from what is done at once."""
    if isinstance(reply, messages.Accepted):
        return see_other(f"/operations/{reply.operation}")
    if isinstance(reply, messages.Waits):
        return see_other(f"/approvals/{reply.approval}")
    if not isinstance(reply, messages.Done):
        raise Problem("failed", "the supervisor answered something else")
    return page("done.html", {"user": who.rights().user, "text": reply.text, "back": back, "word": word}, who.session)


def without_reason(error: Problem | Refusal, reason: str, needed: bool) -> Problem | Refusal:
    """A refusal for want of a reason, in the words of a page: the supervisor's name an option of a command."""
    forbidden = isinstance(error, Refusal) and error.refused.kind == "forbidden"
    return Problem("forbidden", "Say why: you may with a reason.") if forbidden and needed and not reason else error


def _sure(values: Mapping[str, Any], asked: Signalling | Scaling) -> Sure | None:
    """What is asked once more, as processes would go; None: nothing."""
    name = values["service"].name
    if isinstance(asked, Signalling):
        if asked.signal not in ENDING:
            return None
        after = "" if asked.signal == "STOP" else "; whether it is started again, its configuration says"
        follows = f"{asked.signal} {ENDING[asked.signal]}{after}."
        return Sure(f"Send {asked.signal} to {name}", follows, "signal", asked.signal)
    running = sum(bool(row.pid) for row in values["service"].rows)
    fewer = running - asked.processes
    if fewer <= 0:
        return None
    many = f"{asked.processes} process{'es' if asked.processes > 1 else ''}"
    follows = f"{running} are running: {fewer} of them will be stopped."
    return Sure(f"Scale {name} to {many}", follows, "processes", str(asked.processes))


def _command(service: str, action: str, asked: Asking) -> messages.Command:
    match asked:
        case Stopping():
            return messages.Stop(service=service, with_dependants=asked.with_dependants)
        case Restarting():
            return messages.Restart(service=service, hard=asked.hard)
        case Signalling():
            return messages.Signal(service=service, signal=asked.signal)
        case Scaling():
            return messages.Scale(service=service, processes=asked.processes)
    if action == "start":
        return messages.Start(service=service)
    return messages.Enable(service=service) if action == "enable" else messages.Disable(service=service)


def _asking(who: Asker, service: str, action: str, typed: Mapping[str, str]) -> dict[str, Any]:
    """What the page that asks shows. Raises Problem with the rule that is missing, and for what may not be viewed."""
    info, settings = _told(who, service, action)
    rights = who.rights()
    right, name = rights_on(rights, service), RIGHTS.get(action, action)
    demands = right.demands.get(name, "")
    refused = why_not(who, name, service) if name not in right.actions else None
    return {
        "user": rights.user, "service": seen(info, right), "action": action, "demands": demands,
        "needs_reason": REASON in demands, "typed": typed, "refused": refused, "most": most_of(info, settings),
        "signals": [(one, ENDING.get(one, "")) for one in signals_of(settings)],
    }  # fmt: skip


def why_not(who: Asker, action: str, service: str | None) -> str:
    """Which rule is missing. Raises Refusal."""
    asked = {"do": "what-may-i", "action": action} | ({"service": service} if service else {})
    decided = who.ask(msgspec.convert(asked, messages.WhatMayI))
    return decided.text if isinstance(decided, messages.Decided) else "no rule lets you"


def _told(who: Asker, service: str, action: str) -> tuple[messages.ServiceInfo, Mapping[str, str]]:
    """Its state; and how it is configured, where that matters."""
    asked = messages.Describe(service=service) if action in ("signal", "scale") else messages.Status(service=service)
    reply = who.ask(asked)
    if isinstance(reply, messages.Description):
        return reply.service, reply.settings
    if not isinstance(reply, messages.Services) or not reply.services:
        raise Problem("failed", "the supervisor answered something else")
    return reply.services[0], {}
