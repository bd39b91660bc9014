"""GET /api/v1/approvals, POST and DELETE /approvals/N: what waits for a second person, to agree, and to take it back.

The list: {"approvals": [{"number", "user", "text", "reason", "by", "since", "until", "yours", "rule", "changes",
"stale"}]}: what the asker may approve, and what he has asked for himself ("yours"); "rule" wants it approved; "changes"
is what a reload would change, as a dry run tells it, for who may approve it, and "stale" why that would be in vain: the
files have become others. Each "" where there is nothing to say. POST, with {"reason": TEXT} or no
body, answers 200 {"text"} when what was asked for has begun; so does DELETE, by who has asked, when it waits no more. A
command that must be approved first answers 202 {"approval": N, "text"}.
"""

from __future__ import annotations

from flask import Blueprint, Response

from policy import messages
from userapi.http.guard import asker, body, json, parts
from userapi.http.operations import Why, commanded
from userapi.http.problems import Problem

blueprint = Blueprint("approvals", __name__)


@blueprint.get("/approvals")
def listed() -> Response:
    token, source = asker()
    reply = parts().supervisor.ask(token, messages.ListApprovals(changes=True), source)
    if not isinstance(reply, messages.Approvals):
        raise Problem("failed", "the supervisor answered something else")
    return json({"approvals": reply.approvals})


@blueprint.post("/approvals/<int:approval>")
def approve(approval: int) -> Response:
    why = body(Why)
    if approval >= 1 << 53:
        raise Problem("unknown", "there is no such approval")
    return commanded(messages.Approve(approval), why)


@blueprint.delete("/approvals/<int:approval>")
def withdraw(approval: int) -> Response:
    why = body(Why)
    if approval >= 1 << 53:
        raise Problem("unknown", "there is no such approval")
    return commanded(messages.Withdraw(approval), why)
