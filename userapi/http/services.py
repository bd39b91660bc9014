"""GET /api/v1/services, /services/NAME; POST /services/NAME/{start,stop,restart,signal,scale,enable,disable,
clear-log,reopen-log}; POST /reload, /revoke, /shutdown.

GET /services answers {"services": [{"name", "state", "wanted", "processes": [{"name", "state", "pid", "since",
"exit", "text"}], "groups", "text", "enabled", "next"}], "version", "trouble"}, with ?service=NAME that one only; "next"
is when a scheduled one runs next, "" where nothing is due; "version" is the daemon's; "trouble" is "" as long as the
audit log can be written. GET /services/NAME answers {"service", "settings", "sockets", "exits", "chosen_by", "lost"},
chosen_by "" where "enabled" is the configuration's.
POST bodies: restart {"hard": bool}, stop {"with_dependants": bool}, signal {"signal": "HUP"}, scale {"processes": N},
clear-log and reopen-log {"process": "NAME:1"}, each where none is named, reload {"dry_run": bool} or
{"shown": the "mark" of a dry run}, by which nothing is changed that was not shown, revoke
{"user": NAME} or {"everyone": true}, each with {"reason": TEXT} besides; their answers are described in operations.py.
"""

from __future__ import annotations

from flask import Blueprint, Response, request

from policy import messages
from userapi.http.guard import asker, body, json, named, parts
from userapi.http.operations import Why, commanded
from userapi.http.problems import Problem

blueprint = Blueprint("services", __name__)


class Restarting(Why, frozen=True, forbid_unknown_fields=True, kw_only=True):
    hard: bool = False


class Stopping(Why, frozen=True, forbid_unknown_fields=True, kw_only=True):
    with_dependants: bool = False


class Signalling(Why, frozen=True, forbid_unknown_fields=True, kw_only=True):
    signal: messages.Signame


class Scaling(Why, frozen=True, forbid_unknown_fields=True, kw_only=True):
    processes: messages.Processes


class Clearing(Why, frozen=True, forbid_unknown_fields=True, kw_only=True):
    process: messages.Process = ""


class Reloading(Why, frozen=True, forbid_unknown_fields=True, kw_only=True):
    dry_run: bool = False
    shown: messages.Mark = ""


class Revoking(Why, frozen=True, forbid_unknown_fields=True, kw_only=True):
    user: messages.User | None = None
    everyone: bool = False


@blueprint.get("/services")
def status() -> Response:
    token, source = asker()
    only = request.args.get("service")
    command = messages.Status(service=named(only) if only is not None else None)
    reply = parts().supervisor.ask(token, command, source)
    if not isinstance(reply, messages.Services):
        raise Problem("failed", "the supervisor answered something else")
    return json({"services": reply.services, "version": reply.version, "trouble": reply.trouble})


@blueprint.get("/services/<name>")
def describe(name: str) -> Response:
    token, source = asker()
    reply = parts().supervisor.ask(token, messages.Describe(service=named(name)), source)
    if not isinstance(reply, messages.Description):
        raise Problem("failed", "the supervisor answered something else")
    told = {"service": reply.service, "settings": reply.settings, "sockets": reply.sockets, "exits": reply.exits}
    return json({**told, "chosen_by": reply.chosen_by, "lost": reply.lost})


@blueprint.post("/services/<name>/start")
def start(name: str) -> Response:
    return commanded(messages.Start(service=named(name)), body(Why))


@blueprint.post("/services/<name>/stop")
def stop(name: str) -> Response:
    asked = body(Stopping)
    return commanded(messages.Stop(service=named(name), with_dependants=asked.with_dependants), asked)


@blueprint.post("/services/<name>/restart")
def restart(name: str) -> Response:
    asked = body(Restarting)
    return commanded(messages.Restart(service=named(name), hard=asked.hard), asked)


@blueprint.post("/services/<name>/signal")
def signal(name: str) -> Response:
    asked = body(Signalling)
    return commanded(messages.Signal(service=named(name), signal=asked.signal), asked)


@blueprint.post("/services/<name>/enable")
def enable(name: str) -> Response:
    return commanded(messages.Enable(service=named(name)), body(Why))


@blueprint.post("/services/<name>/disable")
def disable(name: str) -> Response:
    return commanded(messages.Disable(service=named(name)), body(Why))


@blueprint.post("/services/<name>/scale")
def scale(name: str) -> Response:
    asked = body(Scaling)
    return commanded(messages.Scale(service=named(name), processes=asked.processes), asked)


@blueprint.post("/services/<name>/clear-log")
def clear_log(name: str) -> Response:
    asked = body(Clearing)
    return commanded(messages.ClearLog(service=named(name), process=asked.process), asked)


@blueprint.post("/services/<name>/reopen-log")
def reopen_log(name: str) -> Response:
    asked = body(Clearing)
    return commanded(messages.ReopenLog(service=named(name), process=asked.process), asked)


@blueprint.post("/reload")
def reload() -> Response:
    asked = body(Reloading)
    return commanded(messages.Reload(dry_run=asked.dry_run, shown=asked.shown), asked)


@blueprint.post("/revoke")
def revoke() -> Response:
    asked = body(Revoking)
    if (asked.user is None) != asked.everyone:
        raise Problem("invalid", 'name one user, or say {"everyone": true}')
    return commanded(messages.Revoke(user=asked.user, everyone=asked.everyone), asked)


@blueprint.post("/shutdown")
def shutdown() -> Response:
    return commanded(messages.Shutdown(), body(Why))
