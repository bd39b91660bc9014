"""POST /api/v1/session logs in, DELETE logs out.

POST takes {"user", "password"} and answers 201 {"token", "user", "expires"}; 401 for every refusal with the same
text; 429 with Retry-After when auth did not even try. Only so many logins are tried at once.
"""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
from flask import Blueprint, Response, request

from policy import login
from userapi.http.guard import body, json, logged_in, parts, source
from userapi.http.problems import Problem

blueprint = Blueprint("session", __name__)


class Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: Annotated[str, msgspec.Meta(max_length=256)]
    password: Annotated[str, msgspec.Meta(max_length=4096)]


def attempt(user: str, password: str) -> login.Granted:
    """One try, of only so many at once. Raises Problem, Refusal."""
    here = parts()
    with here.logins.one():
        told = here.auth.login(user, password, source(request.environ, here.config.api.behind_proxy))
    if isinstance(told, login.Denied):
        if told.retry_after > 0:
            raise Problem("later", told.text, 429, retry_after=math.ceil(told.retry_after))
        raise Problem("no-session", told.text, 401)
    return told


@blueprint.post("/session")
def log_in() -> Response:
    credentials = body(Credentials)
    told = attempt(credentials.user, credentials.password)
    return json({"token": told.token, "user": told.user, "expires": told.expires}, 201)


@blueprint.delete("/session")
def log_out() -> Response:
    token, _ = logged_in()
    if not parts().auth.logout(token):
        raise Problem("no-session", "there is no such session: it was over already")
    answer = Response(status=204)
    del answer.headers["Content-Type"]  # of nothing
    return answer
