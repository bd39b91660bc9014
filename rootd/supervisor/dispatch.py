"""The one table: what may be asked, which right it needs, and who answers.

Rule 1: a command that has no row does not exist; nothing is ever looked up by a name from outside.
Rule 2: policy is asked in one place (_decide), before the service is looked up; who may not view a service gets the
        same answer whether it exists or not.
Rule 3: every decision is recorded. What changes something is done after its record is on disk, and decided again
        then; where it cannot be written, nothing is done, but that root may always stop things.
Rule 4: what only reads waits for no record and delays nothing. Reads and refusals beyond a user's rate are recorded
        as a number (auditing.Rate); what changes something always has a record of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from policy import decide, explain, messages, rules
from policy.identity import ROOT, Identity
from policy.login import Pull, RevokeSessions
from policy.names import GLOBAL_ACTIONS, Action
from rootd.supervisor import logs, watching
from rootd.supervisor.auditing import Audit, Rate, Then
from rootd.supervisor.control import Connection
from rootd.supervisor.operations import Already, Refusal
from rootd.supervisor.reload import NOBODY, Reloads
from rootd.supervisor.sessions import Session, Sessions

if TYPE_CHECKING:
    from rootd.supervisor.services import Services

PACKET = 60_000  # bytes of services in one packet
SHOWN = 100  # processes of one service that are shown, where all would not fit into a packet


class Call:
    """One request on its way. Who asks is what the session, or the door, says."""

    def __init__(self, connection: Connection, command: messages.Command, session: Session | None, source: str) -> None:
        self.connection = connection
        self.command = command
        self.session = session  # None for root
        self.source = source
        self.id = os.urandom(8).hex()
        self.service = target(command)
        self.refresh(session)

    def refresh(self, session: Session | None) -> None:
        self.identity: Identity = ROOT if session is None else session.identity

    @property
    def user(self) -> str:
        return self.identity.user


class Row(NamedTuple):
    action: Action | None  # None: about the asker himself
    answer: Callable[[Desk, Call, Any], None]
    changes: bool = False


class Desk:
    """Where every request arrives, and everything that an answer needs."""

    policy: rules.Policy = NOBODY

    def __init__(
        self, services: Services, sessions: Sessions, audit: Audit, reloads: Reloads, *, clock: Callable[[], float],
        expires: Callable[[float], str], tell_auth: Callable[[Pull], bool], log: str, goes_on: bool,
    ) -> None:  # fmt: skip
        """expires: CLOCK_BOOTTIME to RFC 3339; log: the log directory; goes_on: [audit] on_failure = "continue"."""
        self.services, self.sessions, self.audit, self.reloads = services, sessions, audit, reloads
        self.clock, self.expires, self.tell_auth, self.log, self.goes_on = clock, expires, tell_auth, log, goes_on
        self.rate = Rate(audit.record, expires)
        self.watchers = watching.Watchers(self._may_see)
        self._asked: dict[int, list[tuple[Call, Action]]] = {}  # who waits for the outcome of an operation
        self._over: dict[int, messages.Ended] = {}  # operations that ended while they were being asked for

    def ask(self, connection: Connection, request: messages.Request) -> None:
        """One request, from the door's check of the peer on."""
        session = None
        if connection.root and request.session:
            return connection.answer(
                messages.Refused("invalid", "root.sock takes no session: there it is root who asks")
            )
        if not connection.root:
            session = self.sessions.find(request.session, self.clock())
            if session is None:
                return connection.answer(messages.Refused("no-session", "log in first: there is no such session"))
            touched = session.touch(self.clock())
            if touched is not None:
                self.tell_auth(touched)
        call = Call(connection, request.command, session, request.source)
        row = DISPATCH[type(request.command)]
        if (self.audit.is_full if connection.root else self.audit.is_crowded) and not self._may_go_on(call):
            return connection.answer(unwritten("log does not keep up"))
        if not self._decide(call, row, lambda why: self._recorded(call, row, why)):
            return None
        return None if row.changes else self._run(call, row)

    def _decide(self, call: Call, row: Row, then: Then | None = None) -> bool:
        """Ask the policy, record what it says, and answer a no.

        then: for what must be on disk first. None: it was recorded as allowed, so a no now is recorded in any case.
        """
        service, groups = call.service, self.groups_of(call.service)
        decision: decide.Decision = decide.Allow("")  # about the asker, or about each service that he may view
        if row.action in GLOBAL_ACTIONS or service is not None:
            decision = decide.decide(self.policy, call.identity, str(row.action), service, groups or ())
        refused = None
        if isinstance(decision, decide.Deny):
            refused = explain.refuse(self.policy, call.identity, decision, service, groups)
        elif service is not None and groups is None:
            refused = explain.unknown(service)
        why = decision.text if isinstance(decision, decide.Deny) else refused.text if refused else ""
        changes = row.changes and refused is None
        if changes or then is None or self.rate.lets(call.user, call.identity.uid, self.clock()):
            self._record(call, row, decision, why, refused is None, then if changes else None)
        if refused is not None:
            call.connection.answer(refused)
        return refused is None

    def _record(
        self, call: Call, row: Row, decision: decide.Decision, why: str, allowed: bool, then: Then | None
    ) -> None:
        body = {
            "kind": "decision", "id": call.id, "user": call.user, "uid": call.identity.uid,
            "session": call.identity.session, "from": call.source, "action": str(row.action or "self"),
            "command": spoken(call.command), "target": call.service or "", "asked": details(call.command),
            "allowed": allowed,
            "rule": decision.rule, "file": decision.file, "line": decision.line, "why": why,
            "policy": self.policy.hash[:12],
        }  # fmt: skip
        self.audit.record(body, then)

    def _may_go_on(self, call: Call) -> bool:
        return self.goes_on or (call.identity.root and isinstance(call.command, messages.Stop | messages.Shutdown))

    def _recorded(self, call: Call, row: Row, why: str) -> None:
        """The decision is on disk, or (why) it is not. Time has passed: what was decided is decided again."""
        if why and not self._may_go_on(call):
            call.connection.answer(unwritten(why))
            return self._outcome(call, row.action, 0, False, f"not begun: {why}", 0.0)
        if call.session is not None:
            session = self.sessions.still(call.session.hash, self.clock())
            if session is None:
                call.connection.answer(messages.Refused("no-session", "the session is over: log in again"))
                return self._outcome(call, row.action, 0, False, "not begun: the session is over", 0.0)
            call.refresh(session)
        if self._still_allowed(call, row):
            self._run(call, row)
        return None

    def _still_allowed(self, call: Call, row: Row) -> bool:
        groups = self.groups_of(call.service)
        decision = decide.decide(self.policy, call.identity, str(row.action), call.service, groups or ())
        if isinstance(decision, decide.Allow) and (call.service is None or groups is not None):
            return True
        return self._decide(call, row)

    def _run(self, call: Call, row: Row) -> None:
        self._over.clear()
        try:
            row.answer(self, call, call.command)
        except Already as done:
            call.connection.answer(messages.Done(done.text))
            self._outcome(call, row.action, 0, True, done.text, 0.0)
        except Refusal as no:
            call.connection.answer(messages.Refused(no.kind, no.text))
            if row.changes:
                self._outcome(call, row.action, 0, False, no.text, 0.0)

    def accept(self, call: Call, operation: int) -> None:
        """An operation has begun, or was joined; its end goes to the audit log."""
        call.connection.answer(messages.Accepted(operation))
        action = DISPATCH[type(call.command)].action
        ended = self._over.get(operation)
        if ended is None:
            self._asked.setdefault(operation, []).append((call, action or Action.VIEW))
        else:
            self._outcome(call, action, operation, ended.ok, ended.text, ended.seconds)

    def publish(self, event: watching.Happened) -> None:
        """Something has happened: to the audit log what was asked for, to watchers what they may see."""
        if isinstance(event, messages.Ended):
            self._over[event.operation] = event
            for call, action in self._asked.pop(event.operation, ()):
                self._outcome(call, action, event.operation, event.ok, event.text, event.seconds)
        self.watchers.publish(event)

    def _outcome(self, call: Call, action: Action | None, operation: int, ok: bool, result: str, took: float) -> None:
        body = {
            "kind": "outcome", "id": call.id, "operation": operation, "action": str(action),
            "target": call.service or "", "ok": ok, "result": result, "seconds": took,
        }  # fmt: skip
        self.audit.record(body)

    def groups_of(self, service: str | None) -> tuple[str, ...] | None:
        """None when there is no such service."""
        try:
            return None if service is None else self.services.groups_of(service)
        except KeyError:
            return None

    def all_groups(self) -> dict[str, Collection[str]]:
        return {name: self.services.groups_of(name) for name in self.services.names()}

    def may_view(self, identity: Identity, service: str) -> bool:
        """What is about the daemon as a whole ("") is for those who may reload it or shut it down."""
        if not service:
            said = (decide.decide(self.policy, identity, do, None) for do in (Action.RELOAD, Action.SHUTDOWN))
            return any(isinstance(decision, decide.Allow) for decision in said)
        groups = self.groups_of(service)
        return identity.root or (groups is not None and decide.visible(self.policy, identity, service, groups))

    def _may_see(self, call: watching.Watching, service: str) -> bool | None:
        assert isinstance(call, Call)
        if call.session is None:
            return True
        session = self.sessions.still(call.session.hash, self.clock())
        return None if session is None else self.may_view(session.identity, service)


def target(command: messages.Command) -> str | None:
    """The service that the command is about, None when it is about none, or about several."""
    match command:
        case messages.Reload() | messages.Revoke() | messages.Shutdown() | messages.WhatMayI():
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


# -- who answers -----------------------------------------------------------------------------------------------


def answer_status(desk: Desk, call: Call, command: messages.Status) -> None:
    names = [command.service] if command.service else decide.viewable(desk.policy, call.identity, desk.all_groups())
    packets = list(in_packets(desk.services.info(name) for name in names))
    for number, packet in enumerate(packets, 1):
        more = number < len(packets)
        call.connection.answer(messages.Services(packet, more), more=more)


def in_packets(infos: Iterator[messages.ServiceInfo]) -> Iterator[list[messages.ServiceInfo]]:
    """In pieces that fit into a packet each; one empty piece when there is none."""
    room, piece = PACKET, list[messages.ServiceInfo]()
    for info in infos:
        size = len(_encode(info)) + 1
        if size > PACKET:
            text = f"{len(info.processes)} processes, of which {SHOWN} are shown. {info.text}"
            info = msgspec.structs.replace(info, processes=info.processes[:SHOWN], text=text)
            size = len(_encode(info)) + 1
        if size > room:
            yield piece
            room, piece = PACKET, []
        room -= size
        piece.append(info)
    yield piece


_encode = msgspec.json.Encoder().encode


def answer_describe(desk: Desk, call: Call, command: messages.Describe) -> None:
    call.connection.answer(desk.services.description(command.service))


def answer_watch(desk: Desk, call: Call, command: messages.Watch) -> None:
    watcher = watching.Watcher(call, command.service, command.operation)
    operation = desk.services.operations.find(command.operation) if command.operation else None
    if command.operation and (operation is None or not desk.may_view(call.identity, operation.service)):
        raise Refusal("unknown", f"no operation {command.operation} that you may view")
    events = [] if operation is None else operation.events
    if not desk.watchers.add(watcher, events):
        raise Refusal("later", "too many are watching: try again later")


def answer_open_log(desk: Desk, call: Call, command: messages.OpenLog) -> None:
    names = [process.name for process in desk.services.info(command.service).processes]
    process = command.process or names[0]
    if process not in names:
        raise Refusal("unknown", f"'{command.service}' has no process '{process}': it has {', '.join(names[:20])}")
    try:
        fd = logs.open_log(desk.log, process, command.stream, command.rotated)
    except OSError as error:
        raise Refusal("unknown", f"there is no such log of '{process}': {error.strerror or error}") from None
    try:
        opened = messages.LogOpened(command.service, process, command.stream, os.fstat(fd).st_size)
        call.connection.answer(opened, fd)
    finally:
        os.close(fd)


def answer_what_may_i(desk: Desk, call: Call, command: messages.WhatMayI) -> None:
    who = call.identity
    if command.action is not None:
        groups = desk.groups_of(command.service)
        return call.connection.answer(explain.explain(desk.policy, who, command.action, command.service, groups))
    if command.service is not None:
        raise Refusal("invalid", "name an action too")
    own = decide.rights(desk.policy, who, desk.all_groups())
    expires = desk.expires(call.session.ends) if call.session else ""
    return call.connection.answer(messages.Rights(who.user, who.uid, sorted(who.groups), expires, own))


def answer_start(desk: Desk, call: Call, command: messages.Start) -> None:
    desk.accept(call, desk.services.start(command.service, desk.clock(), call.id))


def answer_stop(desk: Desk, call: Call, command: messages.Stop) -> None:
    desk.accept(call, desk.services.stop(command.service, desk.clock(), call.id))


def answer_restart(desk: Desk, call: Call, command: messages.Restart) -> None:
    desk.accept(call, desk.services.restart(command.service, desk.clock(), call.id, command.hard))


def answer_signal(desk: Desk, call: Call, command: messages.Signal) -> None:
    desk.accept(call, desk.services.signal(command.service, command.signal, desk.clock(), call.id))


def answer_reload(desk: Desk, call: Call, command: messages.Reload) -> None:
    desk.accept(call, desk.reloads.begin(call.id, command.dry_run, desk.clock()))


def answer_shutdown(desk: Desk, call: Call, command: messages.Shutdown) -> None:
    desk.accept(call, desk.services.stop_all(desk.clock(), call.id))


def answer_revoke(desk: Desk, call: Call, command: messages.Revoke) -> None:
    """Ended here at once, whatever auth does; auth then forgets them too."""
    if (command.user is None) != command.everyone:
        raise Refusal("invalid", "name a user, or say that everyone is meant")
    ended = desk.sessions.revoke(command.user, desk.clock())
    told = desk.tell_auth(RevokeSessions(command.user or ""))
    whose = f" of {command.user}" if command.user else ""
    text = f"{ended or 'no'} {'session' if ended == 1 else 'sessions'}{whose} ended" + (
        "" if told else "; auth is being started again and will be told"
    )
    call.connection.answer(messages.Done(text))
    desk._outcome(call, Action.REVOKE, 0, True, text, 0.0)


DISPATCH: dict[type[messages.Command], Row] = {
    messages.Status: Row(Action.VIEW, answer_status),
    messages.Describe: Row(Action.VIEW, answer_describe),
    messages.Watch: Row(Action.VIEW, answer_watch),
    messages.OpenLog: Row(Action.LOGS, answer_open_log),
    messages.WhatMayI: Row(None, answer_what_may_i),
    messages.Start: Row(Action.START, answer_start, changes=True),
    messages.Stop: Row(Action.STOP, answer_stop, changes=True),
    messages.Restart: Row(Action.RESTART, answer_restart, changes=True),
    messages.Signal: Row(Action.SIGNAL, answer_signal, changes=True),
    messages.Reload: Row(Action.RELOAD, answer_reload, changes=True),
    messages.Revoke: Row(Action.REVOKE, answer_revoke, changes=True),
    messages.Shutdown: Row(Action.SHUTDOWN, answer_shutdown, changes=True),
}
