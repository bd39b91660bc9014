"""/reload: the configuration again. What would change is shown first, and exactly that is taken, or nothing.

POST /reload/look asks for a dry run: an operation, whose page shows what would change. From there
POST /operations/N/reload takes what it has shown, by its mark. Where the files are other ones by now, or somebody else
has taken them, the supervisor changes nothing: that operation fails, and shows what would change now in its turn.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from policy import messages
from userapi.client import Refusal
from userapi.http.problems import Problem
from userapi.web import cookie
from userapi.web.commands import led, why_not, without_reason
from userapi.web.forms import Asking, fields, form, proven
from userapi.web.guard import Asker, asker, failed, nobody, with_typed
from userapi.web.operations import values_of
from userapi.web.services import REASON, rights_on

blueprint = Blueprint("reload", __name__)


class Taking(Asking, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """shown: the mark of what the page has shown. Without one anything would be taken, which no page does."""

    shown: messages.Mark = ""


@blueprint.get("/reload")
def asks() -> Response:
    who = asker()
    return with_typed("reload.html", lambda text: _asking(who, text), who.session)


@blueprint.post("/reload/look")
def look() -> Response:
    who = asker()
    asked = form(request, Asking)
    try:
        proven(who.session, asked)
        reply = who.ask(messages.Reload(dry_run=True), asked.reason)
    except (Problem, Refusal) as error:
        if nobody(error):
            raise
        values = _asking(who, fields(request).get("reason", ""))
        error = without_reason(error, asked.reason, values["needs_reason"])
        return failed("reload.html", values, who.session, error)
    response = led(who, reply, "/", "Back to the services")
    if isinstance(reply, messages.Accepted) and asked.reason:  # what was typed is why it will be taken, too
        cookie.keep_typed(response, response.headers["Location"], asked.reason)
    return response


@blueprint.post("/operations/<int:operation>/reload")
def take(operation: int) -> Response:
    who = asker()
    asked = form(request, Taking)
    try:
        proven(who.session, asked)
        if not asked.shown:
            raise Problem("invalid", "nothing was shown that could be taken: look at what would change first")
        reply = who.ask(messages.Reload(shown=asked.shown), asked.reason)
    except (Problem, Refusal) as error:
        if nobody(error):
            raise
        values = values_of(who, operation, fields(request).get("reason", ""))
        error = without_reason(error, asked.reason, values["needs_reason"])
        return failed("operation.html", values, who.session, error)
    return led(who, reply, "/", "Back to the services")


def _asking(who: Asker, reason: str) -> dict[str, Any]:
    rights = who.rights()
    right = rights_on(rights, "")
    demands = right.demands.get("reload", "")
    refused = None if "reload" in right.actions else why_not(who, "reload", None)
    values = {"user": rights.user, "refused": refused, "reason": reason}
    return {**values, "demands": demands, "needs_reason": REASON in demands}
