"""/approvals, /approvals/N: what waits for a second person, and what has become of what one has asked for oneself.

POST /approvals/N/approve agrees to what was shown under that number, and leads to the operation that has begun;
/withdraw takes back what one has asked for. /approvals/N/live tells by a server-sent event, `ended` {}, that it waits
no more.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import Annotated

import msgspec
from flask import Blueprint, Response, request

from policy import messages
from userapi.client import FIRST, Refusal
from userapi.http.guard import parts
from userapi.http.problems import Problem
from userapi.http.streams import Span, as_events, streamed, watched
from userapi.web.forms import Asking, fields, form, proven
from userapi.web.guard import Asker, asker, failed, nobody, page, see_other, told, with_typed
from userapi.web.live import SOON
from userapi.web.operations import ENDED, WOULD, lines_of, operations_of

LOOK = 5.0  # seconds between two looks, where who asked may not view what happens
MINE = 20  # operations of one's own, and ends of what waited, that are shown

blueprint = Blueprint("approvals", __name__)


class Agreeing(Asking, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """shown: the `seal` of what the page has shown."""

    shown: Annotated[str, msgspec.Meta(max_length=64)] = ""


def seal(info: messages.ApprovalInfo) -> str:
    """64 hex digits that are the same for who is shown this again, and other ones for anything else."""
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(info, yours=False))).hexdigest()


def waiting(who: Asker) -> list[messages.ApprovalInfo]:
    reply = who.ask(messages.ListApprovals(changes=True))
    if not isinstance(reply, messages.Approvals):
        raise Problem("failed", "the supervisor answered something else")
    return reply.approvals


@blueprint.get("/approvals")
def listed() -> Response:
    who = asker()
    found, user = waiting(who), who.rights().user
    mine = [one for one in operations_of(who) if one.user == user][:MINE]
    lapsed, untold = _lapsed(who)
    values: dict[str, object] = {
        "user": user, "others": [one for one in found if not one.yours], "yours": [one for one in found if one.yours],
        "operations": lines_of(mine), "lapsed": lapsed[:MINE], "untold": untold,
    }  # fmt: skip
    return page("approvals.html", values, who.session)


@blueprint.get("/approvals/<int:approval>")
def one(approval: int) -> Response:
    who = asker()
    return with_typed("approval.html", lambda text: _values(who, approval, text), who.session)


@blueprint.post("/approvals/<int:approval>/approve")
def approve(approval: int) -> Response:
    return _done(approval, messages.Approve(_number(approval)), Agreeing)


@blueprint.post("/approvals/<int:approval>/withdraw")
def withdraw(approval: int) -> Response:
    return _done(approval, messages.Withdraw(_number(approval)))


@blueprint.get("/approvals/<int:approval>/live")
def live(approval: int) -> Response:
    who, here, wanted = asker(), parts(), _number(approval)
    watch = here.supervisor.watch(who.session, messages.Watch(), who.source, LOOK)
    events, give = watched(here.waits, who.session, watch)

    def looked() -> Iterator[messages.Event | None]:
        """One event alone, of the approval's own: that it waits no more. Begun after the watch, so none is missed."""
        for event in itertools.chain([None], events):
            if isinstance(event, messages.Changed):
                continue
            reply = here.supervisor.ask(who.session, messages.ListApprovals(), who.source, "")
            if isinstance(reply, messages.Approvals) and all(one.number != wanted for one in reply.approvals):
                yield messages.Lapsed(0, "", wanted, "", "")
                return
            yield None

    stream = as_events(looked(), Span(request.environ), spell=lambda event: ENDED)
    return streamed(itertools.chain([SOON], stream), give, "text/event-stream", {"X-Accel-Buffering": "no"})


def _done(approval: int, command: messages.Command, kind: type[Asking] = Asking) -> Response:
    who = asker()
    asked = form(request, kind)
    try:
        proven(who.session, asked)
        if isinstance(asked, Agreeing):
            _as_shown(who, approval, asked.shown)
        reply = who.ask(command, asked.reason)
    except (Problem, Refusal) as error:
        if nobody(error):
            raise
        values = _values(who, approval, fields(request).get("reason", ""))
        return failed("approval.html", values, who.session, error)
    if not isinstance(reply, messages.Done):
        raise Problem("failed", "the supervisor answered something else")
    if reply.operation and any(one.number == reply.operation for one in operations_of(who)):
        return see_other(f"/operations/{reply.operation}")
    if reply.operation:  # who may agree may have no right to view what becomes of it
        return page(
            "done.html",
            {"user": who.rights().user, "text": reply.text, "back": "/approvals", "word": "Back to the approvals"},
            who.session,
        )
    return see_other(f"/approvals/{approval}")


def _as_shown(who: Asker, approval: int, shown: str) -> None:
    """A supervisor that could not read what the last one kept begins its numbers anew. Raises Problem, Refusal."""
    found = next((one for one in waiting(who) if one.number == approval), None)
    if found is not None and seal(found) != shown:  # what does not wait is the supervisor's to refuse
        raise Problem("conflict", f"what waits as number {approval} is not what you were shown: read it again")


def _number(approval: int) -> int:
    if approval >= 1 << 53:
        raise Problem("unknown", "there is no such approval")
    return approval


def _values(who: Asker, approval: int, reason: str) -> dict[str, object]:
    wanted = _number(approval)
    found = next((one for one in waiting(who) if one.number == wanted), None)
    over, user = "" if found else _over(who, approval), who.rights().user
    begun_lately = [] if found or over else [one for one in operations_of(who) if one.user == user][:3]
    return {
        "user": user, "number": approval, "approval": found, "reason": reason, "over": over,
        "shown": seal(found) if found else "", "operations": lines_of(begun_lately),
        "changes": found.changes.removeprefix(WOULD).split("; ") if found and found.changes else [],
    }  # fmt: skip


def _over(who: Asker, approval: int) -> str:
    """What is still remembered of one that waits no more: that it expired or was taken back; else ""."""
    return next((event.text for event in _lapsed(who)[0] if event.approval == approval), "")


def _lapsed(who: Asker) -> tuple[list[messages.Lapsed], str]:
    """What waited and was not done, of what is still remembered and the asker may view, the newest first; and why that
    is not known now. All that is remembered is read for it: so a permit is needed, and others who take all that may
    watch at once keep nobody from approving. Raises Refusal when the session is over."""
    found = []
    try:
        with parts().waits.one(who.session):
            for event in parts().supervisor.watch(who.session, messages.Watch(after=1), who.source, FIRST):
                if isinstance(event, messages.Lapsed):
                    found.append(event)
                elif event is None or isinstance(event, messages.Watching):
                    break
    except (Problem, Refusal) as error:
        if nobody(error):
            raise
        return [], told(error).text
    return found[::-1], ""
