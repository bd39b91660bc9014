"""/login, /login/done, /logout: the same login as the API's, whose answer the browser keeps as a cookie.

GET /login?next=PATH shows the form; POST logs in by PAM and leads to /login/done, which sees whether the browser
has kept the cookie, and from there to PATH. Each login gives a new id, and ends the one that the browser had.
"""

from __future__ import annotations

import contextlib
from typing import Annotated
from urllib.parse import quote

import msgspec
from flask import Blueprint, Response, request

from userapi.client import Refusal
from userapi.http.guard import parts
from userapi.http.problems import Problem
from userapi.http.session import attempt
from userapi.web import cookie
from userapi.web.forms import Form, form, proven
from userapi.web.guard import LONGEST, asker, failed, local, page, see_other

blueprint = Blueprint("session", __name__)


class Credentials(Form, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A login has no session yet, so no proof either: where it is sent from is all that can be asked for."""

    user: Annotated[str, msgspec.Meta(max_length=256)]
    password: Annotated[str, msgspec.Meta(max_length=4096)]
    next: Annotated[str, msgspec.Meta(max_length=LONGEST)] = "/"


@blueprint.get("/login")
def form_of() -> Response:
    typed = "typed" in request.args
    return page("login.html", {"next": local(request.args.get("next", "/")), "name": "", "typed": typed})


@blueprint.post("/login")
def log_in() -> Response:
    asked = form(request, Credentials)
    before = cookie.session_of(request)
    try:
        granted = attempt(asked.user, asked.password)
    except (Problem, Refusal) as error:
        return failed("login.html", {"next": local(asked.next), "name": asked.user, "typed": False}, "", error)
    if before and before != granted.token:
        with contextlib.suppress(Refusal):  # it may be over, or nobody's
            parts().auth.logout(before)
    response = see_other(f"/login/done?next={quote(local(asked.next), safe='')}")
    cookie.give(response, granted.token)
    return response


@blueprint.get("/login/done")
def begun() -> Response:
    """Not every browser keeps a Secure cookie where there is no TLS: then it is said, and not asked for again."""
    if cookie.session_of(request):
        return see_other(local(request.args.get("next", "/")))
    return page("cookie.html", {}, status=400)


@blueprint.post("/logout")
def log_out() -> Response:
    who = asker()
    proven(who.session, form(request, Form))
    parts().auth.logout(who.session)  # where auth is away the session goes on, and so does the cookie
    response = see_other("/login")
    cookie.take_back(response)
    return response
