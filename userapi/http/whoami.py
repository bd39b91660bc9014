"""GET /api/v1/whoami: who I am and what I may do. GET /api/v1/why?action=A&service=S: would that be allowed, and why.

whoami answers {"user", "uid", "groups", "expires", "rights": [{"service", "actions", "demands": {ACTION: TEXT}}],
"token"}, "token" the name of the personal token by which I ask; why answers {"allowed", "text", "rule", "file",
"line"}, with 200 for a no as well: the question was answered. 404 when there is no such service that I may view.
"""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Blueprint, Response, request

from policy import messages, names
from userapi.http.guard import asker, json, named, parts
from userapi.http.problems import Problem

blueprint = Blueprint("whoami", __name__)


@blueprint.get("/whoami")
def whoami() -> Response:
    token, source = asker()
    reply = parts().supervisor.ask(token, messages.WhatMayI(), source)
    if not isinstance(reply, messages.Rights):
        raise Problem("failed", "the supervisor answered something else")
    return json({"token": "", **_plain(reply)})


@blueprint.get("/why")
def why() -> Response:
    token, source = asker()
    try:
        action = msgspec.convert(request.args.get("action"), messages.ActionName)
    except msgspec.ValidationError:
        raise Problem("invalid", f"action must be one of the policy's: {', '.join(names.Action)}") from None
    service = request.args.get("service")
    command = messages.WhatMayI(action=action, service=named(service) if service else None)
    reply = parts().supervisor.ask(token, command, source)
    if not isinstance(reply, messages.Decided):
        raise Problem("failed", "the supervisor answered something else")
    return json(_plain(reply))


def _plain(reply: messages.Reply) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(reply)
    del told["is"]
    return told
