"""The page at "/": all of its parts as one blueprint, each a file of this folder."""

from __future__ import annotations

from flask import Blueprint, Flask

from userapi.http.guard import PAGES
from userapi.web import approvals, commands, guard, live, operations, reload, services, session

PARTS = tuple(part.blueprint for part in (session, services, commands, operations, approvals, reload, live))


def register(app: Flask) -> None:
    web = Blueprint(PAGES, __name__)
    guard.register(web)
    for part in PARTS:
        web.register_blueprint(part)
    app.register_blueprint(web)
    for status in (404, 405):
        app.register_error_handler(status, guard.nowhere)
