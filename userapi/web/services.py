"""/, /services/NAME: what there is, how it is, and what one may do with it (commands.py)."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from flask import Blueprint, Response, request

from policy import messages
from policy.names import SIGNALS
from userapi.cli import plain
from userapi.cli.render import age, said_of, settings_of
from userapi.client import Refusal
from userapi.http.guard import named, parts, sentence
from userapi.http.logs import opener
from userapi.http.problems import Problem
from userapi.tail import Tail
from userapi.web.guard import Asker, asker, nobody, page, told

LINES = 50  # of a log
BYTES = 32 * 1024  # of a log, however long its lines are
ACTIONS = ("start", "stop", "restart")
MORE = ("signal", "scale", "enable", "disable")  # that a service's own page has too
USUAL = ("HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "CONT", "WINCH", "ALRM")  # where its configuration does not say
REASON = "with a reason"  # as policy/rules says what a rule demands
RIGHTS = {"disable": "enable"}  # what an action takes that has not its own name

blueprint = Blueprint("services", __name__)


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
    more: list[str]  # of MORE, those that would change something


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
    may, more = ([one for one in some if RIGHTS.get(one, one) in right.actions] for some in (ACTIONS, MORE))
    more = [one for one in more if one != ("enable" if service.enabled else "disable")]
    return Service(service.name, rows_of(service), service.text, service.next, may, more)


def signals_of(settings: Mapping[str, str]) -> tuple[str, ...]:
    """Those that its configuration allows."""
    return tuple(re.findall(rf"\b(?:{SIGNALS})\b", settings["signals"])) if "signals" in settings else USUAL


def most_of(service: messages.ServiceInfo, settings: Mapping[str, str]) -> int:
    """How many processes its configuration allows; it may have more as long as they end."""
    told = settings.get("max_processes") or settings.get("processes", "")
    return max(int(told) if told.isdigit() else 1, len(service.processes))


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
    service, settings = seen(reply.service, right), settings_of(msgspec.to_builtins(reply))
    vain = {"signal": not signals_of(reply.settings), "scale": most_of(reply.service, reply.settings) == 1}
    service = service._replace(more=[action for action in service.more if not vain.get(action)])
    values: dict[str, object] = {
        "user": rights.user, "service": service, "right": right, "settings": settings,
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
