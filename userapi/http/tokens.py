"""GET /api/v1/tokens, POST /api/v1/tokens, DELETE /api/v1/tokens/NAME: personal tokens of who is logged in.

POST takes {"name", "may": [ACTION, …], "on": [SERVICE or group:NAME or *, …], "expires": "90d"}, times in s, m, h or
d; "on" is left out where every action is about the daemon as a whole. It answers 201 {"token", "name", "expires"}: the
only time that the token is told. GET answers {"tokens": [{"name", "may", "on", "made", "expires", "used",
"trouble"}]}, "used" "" where it never was, "trouble" why it does not work, "" where it does. DELETE answers 204.
All three take a session: a personal token is refused with 403, and POST wants a login of a quarter of an hour ago at
most. A token is sent as Authorization: Bearer durward_…, to any other address.
"""

from __future__ import annotations

import re
from typing import Annotated, get_args

import msgspec
from flask import Blueprint, Response

from policy import scope
from userapi.http.guard import body, json, logged_in, parts
from userapi.http.problems import Problem

LONGEST = 1e10  # seconds: what can be said to auth
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_EXPIRES = re.compile(r"\A([0-9]{1,6})([smhd])\Z")
_NAME = re.compile(r"\A[a-z0-9][a-z0-9_.-]{0,62}\Z")
_ENTRY = re.compile(r"\A(?:\*|(?:group:)?[a-z0-9][a-z0-9_.-]{0,62})\Z")

blueprint = Blueprint("tokens", __name__)


class Making(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(max_length=256)]
    may: Annotated[list[str], msgspec.Meta(max_length=64)]
    expires: Annotated[str, msgspec.Meta(max_length=64)]
    on: Annotated[list[str], msgspec.Meta(max_length=64)] = []


@blueprint.post("/tokens")
def make() -> Response:
    session, source = logged_in()
    asked = body(Making)
    wanted, seconds = scope_of(asked), seconds_of(asked.expires)
    made = parts().auth.make_token(session, wanted, seconds, source)
    return json({"token": made.token, "name": made.name, "expires": made.expires}, 201)


@blueprint.get("/tokens")
def listed() -> Response:
    session, _ = logged_in()
    found = [
        {
            "name": one.scope.name, "may": one.scope.may, "on": one.scope.on, "made": one.made,
            "expires": one.expires, "used": one.used, "trouble": one.trouble,
        }
        for one in parts().auth.tokens(session).tokens
    ]  # fmt: skip
    return json({"tokens": found})


@blueprint.delete("/tokens/<name>")
def revoke(name: str) -> Response:
    session, source = logged_in()
    if not _NAME.match(name):
        raise Problem("unknown", "you have no such token")
    parts().auth.revoke_token(session, name, source)
    answer = Response(status=204)
    del answer.headers["Content-Type"]  # of nothing
    return answer


def scope_of(asked: Making) -> scope.Scope:
    """Raises Problem that says which word is wrong."""
    actions = get_args(scope.ScopeAction)
    for action in asked.may:
        if action in ("approve", "revoke"):
            raise Problem("invalid", f"no token may {action}: that is for people who have logged in")
        if action not in actions:
            raise Problem("invalid", f"may must be of {', '.join(actions)}")
    if not _NAME.match(asked.name):
        raise Problem("invalid", "the name must be 1 to 63 of a-z, 0-9, '_', '.' and '-', not beginning with a mark")
    may, on = list(dict.fromkeys(asked.may)), list(dict.fromkeys(asked.on))
    for word in on:
        if not _ENTRY.match(word):
            raise Problem("invalid", f"{word!r} is none of what on is made of: SERVICE, group:NAME and *")
    try:
        wanted = msgspec.convert({"name": asked.name, "may": may, "on": on}, scope.Scope)
    except msgspec.ValidationError:
        text = f"say at least one action in may, and in on at most {scope.MOST_ON} of SERVICE, group:NAME and *"
        raise Problem("invalid", text) from None
    if wrong := wanted.wrong():
        raise Problem("invalid", wrong)
    return wanted


def seconds_of(text: str) -> float:
    match = _EXPIRES.match(text)
    seconds = int(match[1]) * UNITS[match[2]] if match else 0
    if not 0 < seconds <= LONGEST:
        raise Problem("invalid", "expires must be a time such as 12h or 90d")
    return float(seconds)
