"""The desk where every request arrives: who asks, may he, is it written down; then the row of dispatch answers.

Rule 1: policy is asked in one place (_decide), before the service is looked up; who may not view a service gets the
        same answer whether it exists or not.
Rule 2: every decision is recorded. What changes something is done after its record is on disk, and decided again
        then; where it cannot be written, nothing is done, but that root may always stop things.
Rule 3: what only reads waits for no record and delays nothing. Reads and refusals beyond a user's rate are recorded
        as a number (auditing.Rate); what changes something always has a record of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from policy import conditions, decide, explain, messages, rules
from policy.identity import ROOT, Identity
from policy.login import Pull
from policy.names import GLOBAL_ACTIONS, Action
from rootd.supervisor import mentions, watching
from rootd.supervisor.admission import Admission
from rootd.supervisor.approvals import Approvals, Waiting
from rootd.supervisor.auditing import Audit, Rate, Then
from rootd.supervisor.choices import Choices
from rootd.supervisor.clearing import Clearing
from rootd.supervisor.control import Connection, NoConnection
from rootd.supervisor.dispatch import DISPATCH, Row, unknown_operation
from rootd.supervisor.limits import Limits
from rootd.supervisor.operations import Already, Asker, Operation, Refusal
from rootd.supervisor.outcomes import Outcomes
from rootd.supervisor.reload import NOBODY, Reloads
from rootd.supervisor.seconds import Seconds, nothing_of_yours
from rootd.supervisor.sessions import Session, Sessions
from rootd.supervisor.spelled import Spelled

if TYPE_CHECKING:
    from rootd.supervisor.services import Services
    from rootd.supervisor.upgrading import Upgrades

Granted = dict[str, decide.Allow]  # by service


class Call:
    """One request on its way. Who asks is what the session, or the door, says."""

    def __init__(
        self, connection: Connection, command: messages.Command, session: Session | None, source: str, reason: str = ""
    ) -> None:
        self.connection = connection
        self.command = command
        self.session = session  # None for root
        self.source, self.reason = source, reason
        self.id = os.urandom(8).hex()
        self.service = target(command)
        self.approved: tuple[Waiting, str] | None = None  # what it was when it was approved, and by whom
        self.looked = False  # at what a reload would change, before it waits for a second person
        self.refresh(session)

    def refresh(self, session: Session | None) -> None:
        self.identity: Identity = ROOT if session is None else session.identity

    @property
    def user(self) -> str:
        return self.identity.user


class Desk:
    """Where every request arrives, and everything that an answer needs."""

    policy: rules.Policy = NOBODY
    upgrades: Upgrades

    def __init__(
        self, services: Services, sessions: Sessions, audit: Audit, reloads: Reloads, choices: Choices,
        clearing: Clearing, *, clock: Callable[[], float], expires: Callable[[float], str],
        tell_auth: Callable[[Pull], bool], log: str, goes_on: bool, windows: Callable[[], float], limits: Limits,
        approvals: Approvals,
    ) -> None:  # fmt: skip
        """expires: CLOCK_BOOTTIME to RFC 3339; log: the log directory; goes_on: [audit] on_failure = "continue";
        windows: the wall clock in seconds since 1970, for the policy's windows alone."""
        self.services, self.sessions, self.audit = services, sessions, audit
        self.reloads, self.choices, self.clearing = reloads, choices, clearing
        self.clock, self.expires, self.tell_auth, self.log, self.goes_on = clock, expires, tell_auth, log, goes_on
        self.windows, self.limits, self.approvals = windows, limits, approvals
        self.seconds, self.admission = Seconds(self), Admission(sessions, audit, clock)
        self.rate, self.spelled = Rate(audit.record, expires), Spelled(services)
        self.watchers = watching.Watchers(self._may_see)
        sessions.ended = self.watchers.look
        self.unrecorded = 0  # commands that went on before their record was on disk, in this trouble
        self.remember: Callable[[], None] = lambda: None  # what was begun, before anybody is told of it
        self.outcomes = Outcomes(services.operations, audit)

    def ask(self, connection: Connection, request: messages.Request) -> None:
        """One request, from the door's check of the peer on."""
        session = None
        if connection.root and request.session:
            return connection.answer(
                messages.Refused("invalid", "root.sock takes no session: there it is root who asks")
            )
        if not connection.root:
            found = self.admission.session(request)
            if isinstance(found, messages.Refused):
                return connection.answer(found)
            session = found
            touched = session.touch(self.clock())
            if touched is not None:
                self.tell_auth(touched)
        return self.called(Call(connection, request.command, session, request.source, request.reason))

    def signalled(self, command: messages.Command, note: Callable[[str], None]) -> None:
        """Root has sent the daemon a signal, which means this command."""
        self.called(Call(NoConnection(note), command, None, "a signal"))

    def called(self, call: Call) -> None:
        call.connection.sight = partial(self.sight, call)
        row = self._row(call)
        if (self.audit.is_full if call.connection.root else self.audit.is_crowded) and not self._may_go_on(call):
            return call.connection.answer(unwritten("log does not keep up"))
        if not self._decide(call, row, lambda why: self._recorded(call, row, why)):
            return None
        return None if row.changes else self._run(call, row)

    def _row(self, call: Call) -> Row:
        """What is asked of an operation takes the right to what that does, on its service."""
        row = DISPATCH[type(call.command)]
        if isinstance(call.command, messages.Withdraw):
            return self.seconds.row_of(call, row, call.command.approval)
        operation = self._operation(call)
        if operation is None:
            return row
        call.service = operation.service or None
        return row._replace(action=operation.action)

    def _operation(self, call: Call) -> Operation | None:
        command = call.command
        return self.services.operations.find(command.operation) if isinstance(command, messages.Cancel) else None

    def _decide(self, call: Call, row: Row, then: Then | None = None) -> bool:
        """Ask the policy, record what it says, and answer a no.

        then: for what must be on disk first. None: it was recorded as allowed, so a no now is recorded in any case.
        """
        service, groups = call.service, self.groups_of(call.service)
        decision: decide.Decision = decide.Allow("")  # about the asker, or about each service that he may view
        if row.action in GLOBAL_ACTIONS or service is not None:
            decision = self.decided(call, row.action, service)
        refused = None
        if isinstance(decision, decide.Deny):
            refused = explain.refuse(self.policy, call.identity, decision, service, groups, self.asking(call))
        elif service is not None and groups is None:
            refused = explain.unknown(service)
        if isinstance(call.command, messages.Cancel):
            operation = self._operation(call)
            if operation is None or not self.may_view(call, operation.service):
                refused = messages.Refused("unknown", unknown_operation(call.command.operation).text)
        elif isinstance(call.command, messages.Withdraw) and row.action is None:
            refused = messages.Refused("unknown", nothing_of_yours(call.command.approval).text)
        if refused is not None and refused.kind == "forbidden" and isinstance(decision, decide.Unapproved):
            return self.seconds.asked(call, row, decision)
        why = decision.text if isinstance(decision, decide.Deny) else refused.text if refused else ""
        for name in self.also(call) if refused is None else ():
            refused = self.decide_also(call, row, name) or refused
        why = refused.text if refused and not why else why
        changes = row.changes and refused is None
        if changes or then is None or self.rate.lets(call.user, call.identity.uid, self.clock()):
            self.record(call, row, decision, why, refused is None, then if changes else None)
        if refused is not None:
            call.connection.answer(refused)
        return refused is None

    def record(
        self, call: Call, row: Row, decision: decide.Decision, why: str, allowed: bool, then: Then | None,
        target: str | None = None,
    ) -> None:  # fmt: skip
        body = {
            "kind": "decision", "id": call.id, "user": call.user, "uid": call.identity.uid,
            "session": call.identity.session, "from": call.source, "action": str(row.action or "self"),
            "command": spoken(call.command), "target": target or call.service or "", "asked": details(call.command),
            "allowed": allowed,
            "rule": decision.rule, "file": decision.file, "line": decision.line, "why": why,
            "policy": self.policy.hash[:12],
        }  # fmt: skip
        body |= {"token": call.identity.token.name} if call.identity.token else {}
        body |= {"reason": call.reason} if call.reason else {}
        body |= {"approval": call.approved[0].number, "approved_by": call.approved[1]} if call.approved else {}
        self.audit.record(body, then)

    def also(self, call: Call) -> list[str]:
        """Further services that the command is to act on: the right is needed for each, and each is recorded."""
        if isinstance(call.command, messages.Stop) and call.command.with_dependants:
            return [name for name in self.services.order.dependants(call.command.service) if self.services.wanted(name)]
        return []

    def asking(self, call: Call, service: str | None = None) -> conditions.Asking:
        """The circumstances of this question about this service, now."""
        demands = not isinstance(call.command, messages.Cancel | messages.Withdraw)  # who takes back gives no reason
        wait = partial(self.limits.wait, uid=call.identity.uid, service=service or "")
        approved = frozenset([call.approved[0].rule] if call.approved else [])
        return conditions.Asking(self.windows(), call.source, call.reason, demands, wait, approved)

    def decided(
        self, call: Call, action: Action | None, service: str | None, asking: conditions.Asking | None = None
    ) -> decide.Decision:
        groups, asking = self.groups_of(service) or (), asking or self.asking(call, service)
        if isinstance(call.command, messages.Approve) and action == Action.APPROVE:
            return self.seconds.may_approve(call, call.command.approval)
        return decide.decide(self.policy, call.identity, str(action), service, groups, asking)

    def decide_also(self, call: Call, row: Row, name: str) -> messages.Refused | None:
        """Decide and record; the record of the service that was named comes last, and says that all are on disk."""
        decision = self.decided(call, row.action, name)
        denied = isinstance(decision, decide.Deny)
        self.record(
            call, row, decision, decision.text if isinstance(decision, decide.Deny) else "", not denied, None, name
        )
        if not denied:
            return None
        named = mentions.mark(name, name, "another service")
        who = f"no rule lets {call.user}" if call.identity.token is None else f"neither may this token of {call.user}"
        text = f"denied: it would {row.action} {named} too, and {who} {row.action} that"
        return messages.Refused("forbidden", text)

    def _may_go_on(self, call: Call) -> bool:
        return self.goes_on or (call.identity.root and isinstance(call.command, messages.Stop | messages.Shutdown))

    def trouble(self) -> str:
        """One sentence for everybody who asks for the status, "" when all is well."""
        why = self.audit.trouble
        if not why:
            return ""
        what = "goes on without a record" if self.goes_on else "is refused"
        many = f" ({self.unrecorded} so far)" if self.goes_on else ""
        return f"the audit log cannot be written: {why}; what changes something {what}{many}"

    def _count_unrecorded(self, why: str) -> None:
        """[audit] on_failure = "continue": how many, and when the log can be written again it says so."""
        if why:
            self.unrecorded += 1
        elif self.unrecorded:
            self.audit.record({"kind": "unrecorded", "count": self.unrecorded})
            self.unrecorded = 0

    def _recorded(self, call: Call, row: Row, why: str) -> None:
        """The decision is on disk, or (why) it is not. Time has passed: what was decided is decided again."""
        if why and not self._may_go_on(call):
            call.connection.answer(unwritten(why))
            return self.outcome(call, row.action, 0, False, f"not begun: {why}", 0.0)
        self._count_unrecorded(why)
        if call.session is not None:
            session = self.sessions.still(call.session.hash, self.clock())
            if session is None:
                call.connection.answer(messages.Refused("no-session", "the session is over: log in again"))
                return self.outcome(call, row.action, 0, False, "not begun: the session is over", 0.0)
            call.refresh(session)
        granted = self._still_granted(call, row)
        if granted is not None:
            self._run(call, row, granted)
        elif self._decide(call, row):  # the clock has moved on in between
            call.connection.answer(messages.Refused("later", "nothing was done: try again"))
        return None

    def _still_granted(self, call: Call, row: Row) -> Granted | None:
        """By what it is allowed now, on each service; None when it is not."""
        names = [call.service, *self.also(call)]
        found = {name: self.decided(call, row.action, name) for name in names}
        granted = {name or "": by for name, by in found.items() if isinstance(by, decide.Allow)}
        if call.approved and not {*names[1:]} <= {*call.approved[0].also}:
            return None
        is_there = call.service is None or self.groups_of(call.service) is not None
        return granted if is_there and len(granted) == len(found) else None

    def _run(self, call: Call, row: Row, granted: Granted | None = None) -> None:
        limited = [(by.rule, by.limit, service) for service, by in (granted or {}).items() if by.limit]
        for rule, limit, service in limited:
            self.limits.charge(rule, limit, call.identity.uid, service)
        try:
            row.answer(self, call, call.command)
            return
        except Already as done:
            call.connection.answer(messages.Done(done.text))
            self.outcome(call, row.action, 0, True, done.text, 0.0)
        except Refusal as no:
            call.connection.answer(messages.Refused(no.kind, no.text))
            if row.changes:
                self.outcome(call, row.action, 0, False, no.text, 0.0)
        for rule, _, service in limited:  # nothing has begun
            self.limits.take_back(rule, call.identity.uid, service)

    def begin_approved(self, connection: Connection, waiting: Waiting, session: Session, by: str) -> None:
        """What somebody has asked for and somebody else has approved."""
        call = Call(connection, waiting.command, session, waiting.source, waiting.reason)
        call.id, call.approved = waiting.request, (waiting, by)
        row = DISPATCH[type(call.command)]
        self._decide(call, row, lambda why: self._recorded(call, row, why))

    def accept(self, call: Call, operation: int) -> None:
        """An operation has begun, or was joined; its end goes to the audit log."""
        begun = self.services.operations.find(operation)
        if begun is not None and begun.requests[0] == call.id:
            begun.user = call.user
        if begun is not None:
            asker = Asker(call.id, call.service, str(DISPATCH[type(call.command)].action))
            self.outcomes.accept(begun, asker, call.connection)
        self.remember()
        call.connection.answer(messages.Accepted(operation))

    def publish(self, event: watching.Happened) -> None:
        """Something has happened: to the audit log what was asked for, to watchers what they may see."""
        if isinstance(event, messages.Ended):
            self.outcomes.tell(self.services.operations.find(event.operation))
        elif isinstance(event, messages.Step):
            self.outcomes.step(event)
        self.watchers.publish(event)

    def outcome(self, call: Call, action: Action | None, operation: int, ok: bool, result: str, took: float) -> None:
        self.outcomes.record(Asker(call.id, call.service, str(action)), operation, ok, result, took)

    def groups_of(self, service: str | None) -> tuple[str, ...] | None:
        """None when there is no such service."""
        try:
            return None if service is None else self.services.groups_of(service)
        except KeyError:
            return None

    def all_groups(self) -> dict[str, Collection[str]]:
        return {name: self.services.groups_of(name) for name in self.services.names()}

    def may_view(self, call: Call, service: str) -> bool:
        """What is about the daemon as a whole ("") is for those who may reload it or shut it down."""
        if not service:
            asking = structs.replace(self.asking(call), demands=False)
            said = (self.decided(call, do, None, asking) for do in (Action.RELOAD, Action.SHUTDOWN))
            return any(isinstance(decision, decide.Allow) for decision in said)
        who, groups = call.identity, self.groups_of(service)
        return who.root or (groups is not None and decide.visible(self.policy, who, service, groups, self.asking(call)))

    def sight(self, call: Call) -> mentions.Sees:
        """Which names may be told now; of each service, perhaps with its groups, which may not be there (mentions)."""
        may = decide.tellable(self.policy, call.identity, self.asking(call))

        def sees(whose: str) -> bool:
            name, *groups = whose.split(" ")
            known = self.groups_of(name)
            return may(name, (groups or None) if known is None else known)

        return sees

    def _may_see(self, call: watching.Watching, service: str) -> bool | None:
        assert isinstance(call, Call)
        if call.session is None:
            return True
        session = self.sessions.still(call.session.hash, self.clock())
        if session is None:
            return None
        call.refresh(session)
        return self.may_view(call, service)


def target(command: messages.Command) -> str | None:
    """The service that the command is about, None when it is about none, or about several."""
    match command:
        case messages.ListApprovals() | messages.Approve() | messages.Withdraw():
            return None
        case messages.Reload() | messages.Cancel() | messages.Revoke() | messages.Shutdown() | messages.WhatMayI():
            return None
        case messages.OpenAudit() | messages.Upgrade() | messages.ReadPolicy():
            return None
        case _:
            return command.service


def spoken(command: messages.Command) -> str:
    return str(command.__struct_config__.tag)


def details(command: messages.Command) -> dict[str, Any]:
    """What it asks for besides its service: whose sessions, which signal, how."""
    fields = msgspec.to_builtins(command)
    return {key: value for key, value in fields.items() if value and key not in ("do", "service")}


def unwritten(why: str) -> messages.Refused:
    return messages.Refused("later", f"the audit log cannot be written: {why}; nothing was done")
