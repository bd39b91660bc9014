"""The second person: what a rule lets somebody do once somebody else agrees, on its way through the desk.

Rule 1: who approves gives a number. What runs is the asker's command as it was, in his name, decided anew: with his
        session, by the rules of now, and with the approval of that one rule.
Rule 2: who may approve is policy's word (policy/approval); what is told of others' requests, only to those.
Rule 3: a reload waits as exactly that which it would change when it was asked for (its mark), and changes that or
        nothing. Who is to approve it is shown what that is, in the names that he may read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeGuard

import msgspec

from policy import approval, decide, messages
from policy.names import Action
from rootd.supervisor import mentions
from rootd.supervisor.approvals import Waiting
from rootd.supervisor.control import Connection
from rootd.supervisor.difference import NO_CHANGE
from rootd.supervisor.operations import Refusal

if TYPE_CHECKING:
    from rootd.supervisor.desk import Call, Desk
    from rootd.supervisor.dispatch import Row
    from rootd.supervisor.looks import Seen


NAMED = ("do", "service", "with_dependants", "shown")  # of a command: said otherwise
LONGEST = 8_000  # characters of what somebody is to approve: all of it has to be shown, and in one packet
CHANGES = 30_000  # characters of what a reload would change: what is left out is said
OTHER = "the files, or what counts, have changed since this was asked for: approving it would change nothing"
WRONG = "the files have mistakes by now: approving it would change nothing"


class Through(Connection):
    """Answers to the asker's command go to who has approved it, in words."""

    def __init__(self, call: Call, waiting: Waiting) -> None:
        self.root, self.closed = call.connection.root, False
        self._call, self._what = call, f"{waiting.user}'s {mentions.plain(waiting.info.text)}"

    def answer(self, reply: messages.Reply | messages.Event, fd: int = -1, *, more: bool = False) -> None:
        told = reply
        if isinstance(reply, messages.Accepted):
            number = reply.operation
            told = messages.Done(f"approved: {self._what} has begun, as operation {number}", number)
        elif isinstance(reply, messages.Done):
            told = messages.Done(f"approved: {self._what}: {reply.text}")
        elif isinstance(reply, messages.Refused):
            told = messages.Refused(reply.kind, f"approved, and {self._what} was not done: {reply.text}")
        self._call.connection.answer(told)


def nothing_of_yours(number: int) -> Refusal:
    return Refusal("unknown", f"nothing that you have asked for waits as number {number}")


def action_of(command: messages.Command) -> str:
    from rootd.supervisor.dispatch import DISPATCH  # which imports the desk's parts

    return str(DISPATCH[type(command)].action)


def target_of(command: messages.Command) -> str:
    return str(getattr(command, "service", ""))


def is_reload(command: messages.Command) -> TypeGuard[messages.Reload]:
    return isinstance(command, messages.Reload) and not command.dry_run


def would(command: messages.Command, seen: Seen | str | None) -> tuple[str, str]:
    """What it would change, and why it would nothing."""
    if seen is None or not is_reload(command):
        return "", ""
    if isinstance(seen, str):
        return f"not known now: {seen}", ""
    if seen.unread or seen.wrong:
        return seen.unread, WRONG if seen.wrong else ""
    if command.shown not in ("", seen.mark):
        return "", OTHER
    what, size = mentions.short(seen.what, CHANGES)
    what = what if what == NO_CHANGE else f"would change: {what}"
    return what + (f" … and {size - CHANGES} characters more" if size > CHANGES else ""), ""


class Seconds:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        desk.approvals.expired = lambda waiting: self._over(waiting, "expired: nobody approved in time")

    def asked(self, call: Call, row: Row, decision: decide.Unapproved) -> bool:
        """Keep what was asked for, record it, and tell the asker its number. False: nothing is done now."""
        desk, session = self._desk, call.session
        if is_reload(call.command) and not (call.command.shown or call.looked or call.approved):
            desk.reloads.looks.ask(partial(self._looked, call, row, decision), desk.clock(), afresh=True)
            return False
        also = tuple(desk.also(call))
        for name in also:  # what he may not do in any case is not asked for, and not named to him
            other = desk.decided(call, row.action, name)
            if isinstance(other, decide.Deny) and (type(other), other.rule) != (type(decision), decision.rule):
                refused = desk.decide_also(call, row, name)
                assert refused is not None
                return self._no(call, row, decision, Refusal(refused.kind, refused.text))
        if call.approved:  # the rules have changed between the two
            no = Refusal("conflict", "another rule applies now, which wants an approval of its own: ask again")
            return self._no(call, row, decision, no)
        more = [
            f"{key} {value}" for key, value in msgspec.to_builtins(call.command).items() if value and key not in NAMED
        ]
        service, *others = (mentions.mark(name, name) for name in (call.service or "", *also))
        what = ", ".join(filter(None, [f"{row.action} {service}".strip(), *more, *others]))
        if len(mentions.plain(what)) > LONGEST:
            many = f"{call.service} and {len(also)} services that require it are too many to be shown to who approves"
            return self._no(call, row, decision, Refusal("conflict", f"{many}: ask for some of them first"))

        def make(number: int) -> Waiting:
            now = desk.clock()
            until = now + decision.approval.within
            info = messages.ApprovalInfo(
                number, call.user, what, call.reason, decision.approval.text, desk.expires(now), desk.expires(until)
            )
            return Waiting(
                number, call.id, call.command, also, session.hash if session else "", call.user, call.identity.uid,
                call.source, call.reason, decision.rule, until, info,
            )  # fmt: skip

        try:
            waiting = desk.approvals.add(make)
        except Refusal as no:
            return self._no(call, row, decision, no)
        told = f"{what} waits for approval {waiting.number} by {waiting.info.by}, until {waiting.info.until}"
        desk.record(call, row, decision, told, False, None)
        call.connection.answer(messages.Waits(waiting.number, f"{told}: durward approve {waiting.number}"))
        return False

    def _looked(self, call: Call, row: Row, decision: decide.Unapproved, seen: Seen | str) -> None:
        """It is known what the reload would change, and asked for as that; or nobody can know, or it is not."""
        call.looked = True
        if isinstance(seen, str):
            self._no(call, row, decision, Refusal("later", f"nothing waits for approval: {seen}; try again"))
        elif seen.wrong:
            self._no(call, row, decision, Refusal("conflict", f"nothing waits: the files cannot be used: {seen.wrong}"))
        elif self._still(call):
            call.command = msgspec.structs.replace(call.command, shown=seen.mark)
            self._desk.called(call)

    def _still(self, call: Call) -> bool:
        """Time has passed: whether who has asked is still logged in."""
        session = self._desk.sessions.still(call.session.hash, self._desk.clock()) if call.session else None
        if call.session is not None and session is None:
            call.connection.answer(messages.Refused("no-session", "the session is over: log in again"))
            return False
        call.refresh(session)
        return True

    def _no(self, call: Call, row: Row, decision: decide.Unapproved, no: Refusal) -> bool:
        self._desk.record(call, row, decision, no.text, False, None)
        call.connection.answer(messages.Refused(no.kind, no.text))
        return False

    def may_approve(self, call: Call, number: int) -> decide.Decision:
        desk = self._desk
        waiting = desk.approvals.find(number)
        rule, user, uid = (waiting.rule, waiting.user, waiting.uid) if waiting else ("", "", -1)
        return approval.may_approve(desk.policy, call.identity, rule, user, uid, number, desk.asking(call))

    def approve(self, call: Call, number: int) -> None:
        """It is allowed and on disk: now the asker's own command is decided. Raises Refusal."""
        desk = self._desk
        waiting = desk.approvals.take(number)
        session = desk.sessions.still(waiting.session, desk.clock())
        if session is None or (session.identity.user, session.identity.uid) != (waiting.user, waiting.uid):
            self._over(waiting, f"was approved by {call.user}, but the session of {waiting.user} is over", call.user)
            raise Refusal("conflict", f"the session of {waiting.user} is over: nothing was done")
        desk.outcome(call, Action.APPROVE, 0, True, f"approved: {waiting.info.text} of {waiting.user}", 0.0)
        desk.begin_approved(Through(call, waiting), waiting, session, call.user)

    def row_of(self, call: Call, row: Row, number: int) -> Row:
        """To take something back takes the right to what was asked for, on its service. As it is: there is nothing."""
        waiting = self.own(call, number)
        if waiting is None:
            return row
        call.service = target_of(waiting.command) or None
        return row._replace(action=Action(action_of(waiting.command)))

    def own(self, call: Call, number: int) -> Waiting | None:
        """What the asker may take back."""
        waiting = self._desk.approvals.find(number)
        return waiting if waiting and (call.identity.root or self.is_own(call, waiting)) else None

    def withdraw(self, call: Call, number: int) -> None:
        """Raises Refusal."""
        waiting = self.own(call, number)
        if waiting is None:
            raise nothing_of_yours(number)
        text = self._over(self._desk.approvals.take(number), f"taken back by {call.user}")
        call.connection.answer(messages.Done(text))
        self._desk.outcome(call, Action(action_of(waiting.command)), 0, True, text, 0.0)

    def _over(self, waiting: Waiting, how: str, by: str = "") -> str:
        """It waits no more, and was not done: the end of its story, for the audit log and for whoever may view it.

        by: who had approved it.
        """
        desk, action, service = self._desk, action_of(waiting.command), target_of(waiting.command)
        body = {
            "kind": "outcome", "id": waiting.request, "operation": 0, "action": action, "target": service, "ok": False,
            "result": f"approval {waiting.number} {how}", "seconds": 0.0, "approval": waiting.number,
            "user": waiting.user, "uid": waiting.uid,
        }  # fmt: skip
        desk.audit.record(body | ({"approved_by": by} if by else {}))
        text = f"approval {waiting.number} {how}: {action} {service}".rstrip()
        desk.services.operations.lapsed(waiting.number, service, text)
        return text

    @staticmethod
    def is_own(call: Call, waiting: Waiting) -> bool:
        """Asked for by this person; to a personal token, by that token."""
        if call.identity.token is not None:
            return call.session is not None and waiting.session == call.session.hash
        return (waiting.user, waiting.uid) == (call.user, call.identity.uid)

    def tell(self, call: Call, changes: bool, then: Callable[[list[messages.ApprovalInfo]], None]) -> None:
        """What waits, as the asker may see it. changes: with what a reload among it would change."""
        desk, found = self._desk, self.listed(call)
        waiting = [desk.approvals.find(one.number) for one in found]

        def seen(told: Seen | str) -> None:
            if self._still(call):
                then(self.listed(call, told))

        if changes and any(one is not None and is_reload(one.command) for one in waiting):
            desk.reloads.looks.ask(seen, desk.clock(), afresh=False)
        else:
            then(found)

    def listed(self, call: Call, seen: Seen | str | None = None) -> list[messages.ApprovalInfo]:
        """seen: what a reload would change now, or why that is not known; None: it is not asked for."""
        found, desk = [], self._desk
        said = decide.decide(desk.policy, call.identity, Action.APPROVE, None, (), desk.asking(call))
        sees = isinstance(said, decide.Allow)  # who has this right sees all that waits, and agrees to nothing by it
        for waiting in desk.approvals.all():
            yours, info = self.is_own(call, waiting), waiting.info
            changes, stale = would(waiting.command, seen)
            if isinstance(self.may_approve(call, waiting.number), decide.Allow):
                # he has to know what he approves
                info = msgspec.structs.replace(info, text=mentions.plain(info.text), changes=changes)
            elif not (yours or sees):
                continue
            found.append(msgspec.structs.replace(info, yours=yours, rule=waiting.rule, stale=stale))
        return found
