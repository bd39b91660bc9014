"""What holds for every page before a view sees the request, and for every answer before it leaves.

http/guard has looked at Host, Origin, size and parameters already. Here: who asks, by the cookie; that a form is sent
from a page of ours; what the browser may do with a page; and errors as pages, with a way back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

import msgspec
from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from policy import messages
from userapi.cli.failure import Failure
from userapi.client import Refusal
from userapi.http import problems
from userapi.http.guard import parts, source
from userapi.http.problems import Problem
from userapi.web import cookie, forms, pages

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    # with no-referrer a browser would send its forms with Origin: null (Fetch, "append a request Origin header")
    "Referrer-Policy": "same-origin",
}
LONGEST = 600  # characters of an address to come back to
_LOCAL = re.compile(r"\A/(?![/\\])[A-Za-z0-9_.~/?&=%+:-]*\Z")
# forms that are sent to an address beneath that of their page
_OF = ("approvals.approve", "approvals.withdraw", "operations.cancel", "reload.look", "reload.take")
BENEATH = frozenset(f"web.{view}" for view in _OF)
# forms with a reason that their page shows again
TYPED = (BENEATH - {"web.operations.cancel"}) | {"web.commands.command"}
# what is answered to a program of ours in the page, not to a person
DATA = frozenset({"web.live.states", "web.operations.live", "web.approvals.live"})


class Typed(msgspec.Struct, frozen=True):
    """Of any form: the other fields do not matter here."""

    reason: messages.Reason = ""


class Asker(NamedTuple):
    """session: its id, as the browser keeps it. source: from where."""

    session: str
    source: str

    def ask(self, command: messages.Command, reason: str = "") -> messages.Reply:
        """The supervisor's answer. Raises Refusal."""
        return parts().supervisor.ask(self.session, command, self.source, reason)

    def rights(self) -> messages.Rights:
        """Who this is, and what he may do. Raises Refusal, Problem."""
        reply = self.ask(messages.WhatMayI())
        if not isinstance(reply, messages.Rights):
            raise Problem("failed", "the supervisor answered something else")
        return reply


def asker() -> Asker:
    """Raises Problem when nobody has logged in, which leads to the login."""
    session = cookie.session_of(request)
    if not session:
        raise Problem("no-session", "log in first")
    return Asker(session, source(request.environ, parts().config.api.behind_proxy))


def local(path: str) -> str:
    """An address to come back to: one of our own pages, else "/". Whatever a link says, nobody is led elsewhere."""
    inside = _LOCAL.match(path) and len(path) <= LONGEST and not path.startswith(("/login", "/logout", "/static"))
    return path if inside else "/"


def here() -> str:
    """The address of this request's own page; of a form, of the page that has it. What was typed is never in it."""
    path = request.full_path.rstrip("?") if request.method != "POST" else request.path
    if request.method == "POST":
        path = path.rpartition("/")[0] if request.endpoint in BENEATH else path
    return local(path)


def keep_typed(response: Response) -> bool:
    """The reason of a form that could not be sent on, for the page that has it. Whether there is one."""
    try:
        text = forms.form(request, Typed).reason if request.endpoint in TYPED and request.method == "POST" else ""
    except Problem:
        text = ""
    if text and here() != "/":
        cookie.keep_typed(response, here(), text)
    return bool(text)


def with_typed(template: str, values: Callable[[str], dict[str, object]], session: str) -> Response:
    """A page with a form, with what was typed there before the browser had to leave it: once. values: by that."""
    text = cookie.typed_of(request)
    response = page(template, values(text), session)
    if text:
        cookie.drop_typed(response, request.path)
    return response


def page(template: str, values: dict[str, object], session: str = "", status: int = 200) -> Response:
    """values["user"] is who has logged in, "" for nobody."""
    more = {"user": "", "path": request.path, "proof": forms.proof(session) if session else "", "failure": None}
    return Response(pages.render(template, more | values), status, content_type="text/html; charset=utf-8")


def see_other(path: str) -> Response:
    """To another page of ours, by GET (RFC 9110, 15.4.4)."""
    return Response(status=303, headers={"Location": path}, content_type="text/plain")


class Told(NamedTuple):
    """An error in the words of the command line: what went wrong, and what would help."""

    status: int
    text: str
    hints: list[str]
    retry_after: int = 0


def told(error: Problem | Refusal) -> Told:
    if isinstance(error, Problem):
        return Told(error.status, error.detail, Failure(error.kind, error.detail).hints(), error.retry_after)
    no = error.refused
    failure = Failure(no.kind, no.text, rule=no.rule, file=no.file, line=no.line, would_help=no.would_help)
    return Told(problems.STATUS[no.kind], no.text, failure.hints(), error.retry_after)


def failed(template: str, values: dict[str, object], session: str, error: Problem | Refusal) -> Response:
    """A page that says what went wrong, with the status that the API would have answered by."""
    what = told(error)
    if what.retry_after:
        what.hints.append(f"wait {what.retry_after} s")
    response = page(template, {**values, "failure": what}, session, what.status)
    if what.retry_after:
        response.headers["Retry-After"] = str(what.retry_after)
    return response


def nobody(error: Problem | Refusal) -> bool:
    kind = error.kind if isinstance(error, Problem) else error.refused.kind
    return kind == "no-session"


def _before() -> Response | None:
    if request.method == "POST":
        forms.from_a_page_of_ours(request)
    elif request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site") and not cookie.session_of(request):
        # a link from elsewhere: the browser keeps the cookie back, and gives it to a page that comes from here
        return page("onward.html", {"onward": here()})
    return None


def nowhere(error: HTTPException) -> Response:
    """An address that is nobody's, or takes no such method: a page for a browser, a problem document for all others."""
    problem = problems.of_werkzeug(error)
    if request.path.startswith("/api/") or "text/html" not in request.headers.get("Accept", ""):
        return problems.answer(problem)
    return _after(
        failed("error.html", {"again": ""}, "", Problem("unknown", "there is no page at this address", problem.status))
    )


def _after(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers[name] = value
    return response


def _refused(error: Problem | Refusal) -> Response:
    if request.endpoint in DATA:
        return problems.answer(error)
    if nobody(error):
        response = see_other(login := f"/login?next={quote(here(), safe='')}")
        if keep_typed(response):
            response.headers["Location"] = f"{login}&typed=yes"
        if cookie.session_of(request):
            cookie.take_back(response)
        return response
    again = here() if told(error).status == 503 else ""
    response = failed("error.html", {"again": again}, "", error)
    if again:
        keep_typed(response)
    return response


def _of_werkzeug(error: HTTPException) -> Response:
    problem = problems.of_werkzeug(error)
    return _refused(problem)


def _bug(error: Exception) -> Response:
    return _refused(problems.of_bug(error))


def register(web: Blueprint) -> None:
    web.before_request(_before)
    web.after_request(_after)
    web.register_error_handler(Problem, _refused)
    web.register_error_handler(Refusal, _refused)
    web.register_error_handler(HTTPException, _of_werkzeug)
    web.register_error_handler(Exception, _bug)
