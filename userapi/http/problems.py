"""Every error as RFC 9457 problem details: application/problem+json, whoever found it.

`kind` is a refusal kind of policy.messages, and decides the status. Nothing of the request is repeated but
the names of its fields and parameters, and of an exception of ours nothing is told: it goes to the api's own log.
"""

from __future__ import annotations

import http
import logging

import msgspec
from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from policy import messages
from userapi.client import Refusal

STATUS: dict[messages.RefusalKind, int] = {
    "no-session": 401,
    "forbidden": 403,
    "unknown": 404,
    "not-running": 409,
    "conflict": 409,
    "invalid": 400,
    "later": 503,
    "failed": 500,
}
TEXT = {
    404: "there is no such address in this API",
    405: "this address does not know that method",
    413: "the request is too large",
    415: "a body must be application/json",
}
_log = logging.getLogger("durward.api")


class Problem(Exception):
    """An error that the api itself found."""

    def __init__(
        self,
        kind: messages.RefusalKind,
        detail: str,
        status: int = 0,
        retry_after: int = 0,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.status = status or STATUS[kind]
        self.retry_after = retry_after
        self.headers = headers or {}


def document(status: int, kind: str, detail: str, refused: messages.Refused | None = None) -> bytes:
    """The body: type, title, status, detail, kind, and rule, file, line, would_help where they are known."""
    body: dict[str, object] = {
        "type": f"urn:durward:problem:{kind}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "kind": kind,
    }
    if refused is not None:
        known = {"rule": refused.rule, "file": refused.file, "line": refused.line, "would_help": refused.would_help}
        body.update({key: value for key, value in known.items() if value})
    return msgspec.json.encode(body)


def respond(problem: Problem, refused: messages.Refused | None = None) -> Response:
    body = document(problem.status, problem.kind, problem.detail, refused)
    response = Response(body, problem.status, content_type="application/problem+json")
    response.headers.update(problem.headers)
    if problem.retry_after:
        response.headers["Retry-After"] = str(problem.retry_after)
    if problem.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="durward"'
    return response


def answer(error: Problem | Refusal) -> Response:
    """What was refused, whoever refused it."""
    if isinstance(error, Problem):
        return respond(error)
    refused = error.refused
    return respond(Problem(refused.kind, refused.text, retry_after=error.retry_after), refused)


def of_werkzeug(error: HTTPException) -> Problem:
    status = error.code or 500
    if status < 400:
        return Problem("unknown", TEXT[404], 404)
    kind: messages.RefusalKind = "failed" if status >= 500 else "unknown" if status == 404 else "invalid"
    detail = TEXT.get(status, "the request is not as it must be" if status < 500 else "something of ours failed")
    allow = dict(error.get_headers()).get("Allow", "")
    return Problem(kind, detail, status, headers={"Allow": allow} if allow else None)


def of_bug(error: Exception) -> Problem:
    """Nothing of it is told: it goes to the api's log."""
    _log.error("an error of ours", exc_info=error)
    return Problem("failed", "something of ours failed; the api's log says what")


def register(app: Flask) -> None:
    app.register_error_handler(Problem, answer)
    app.register_error_handler(Refusal, answer)
    app.register_error_handler(HTTPException, lambda error: answer(of_werkzeug(error)))
    app.register_error_handler(Exception, lambda error: answer(of_bug(error)))
