"""GET /api/v1/services, /services/NAME; POST /services/NAME/{start,stop,restart,signal,scale,enable,disable}; POST
/reload, /revoke.

GET /services answers {"services": [{"name", "state", "wanted", "processes": [{"name", "state", "pid", "since",
"exit", "text"}], "groups", "text", "enabled"}], "trouble"}, with ?service=NAME that one only; trouble is "" as long as
the audit log can be written. GET /services/NAME answers
{"service", "settings", "sockets", "exits", "chosen_by", "lost"}, chosen_by "" where "enabled" is the configuration's.
POST bodies: restart {"hard": bool}, stop {"with_dependants": bool}, signal {"signal": "HUP"}, scale {"processes": N},
reload {"dry_run": bool}, revoke {"user": NAME} or {"everyone": true}; their answers are described in operations.py.
"""

from __future__ import annotations

import msgspec
from flask import Blueprint, Response, request

from policy import messages
from userapi.http.guard import Nothing, asker, body, json, named, parts
from userapi.http.operations import commanded
from userapi.http.problems import Problem

blueprint = Blueprint("services", __name__)


class Restarting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hard: bool = False


class Stopping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    with_dependants: bool = False


class Signalling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    signal: messages.Signame


class Scaling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    processes: messages.Processes


class Reloading(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dry_run: bool = False


class Revoking(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
    return json({"services": reply.services, "trouble": reply.trouble})


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
    body(Nothing)
    return commanded(messages.Start(service=named(name)))


@blueprint.post("/services/<name>/stop")
def stop(name: str) -> Response:
    return commanded(messages.Stop(service=named(name), with_dependants=body(Stopping).with_dependants))


@blueprint.post("/services/<name>/restart")
def restart(name: str) -> Response:
    return commanded(messages.Restart(service=named(name), hard=body(Restarting).hard))


@blueprint.post("/services/<name>/signal")
def signal(name: str) -> Response:
    return commanded(messages.Signal(service=named(name), signal=body(Signalling).signal))


@blueprint.post("/services/<name>/enable")
def enable(name: str) -> Response:
    body(Nothing)
    return commanded(messages.Enable(service=named(name)))


@blueprint.post("/services/<name>/disable")
def disable(name: str) -> Response:
    body(Nothing)
    return commanded(messages.Disable(service=named(name)))


@blueprint.post("/services/<name>/scale")
def scale(name: str) -> Response:
    return commanded(messages.Scale(service=named(name), processes=body(Scaling).processes))


@blueprint.post("/reload")
def reload() -> Response:
    return commanded(messages.Reload(dry_run=body(Reloading).dry_run))


@blueprint.post("/revoke")
def revoke() -> Response:
    asked = body(Revoking)
    if (asked.user is None) != asked.everyone:
        raise Problem("invalid", 'name one user, or say {"everyone": true}')
    return commanded(messages.Revoke(user=asked.user, everyone=asked.everyone))
