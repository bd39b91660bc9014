"""The one table: what may be asked, which right it needs, and who answers.

Rule 1: a command that has no row does not exist; nothing is ever looked up by a name from outside.
Rule 2: whoever answers here has been let in: who asks, may he, and is it recorded, is the desk's business.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec.structs import replace

from policy import decide, explain, messages
from policy.names import Action
from rootd.supervisor import logs, mentions, publishing, watching
from rootd.supervisor.operations import Already, Refusal
from rootd.supervisor.spelled import PACKET, cut, fitting, in_packets, spell

if TYPE_CHECKING:
    from rootd.supervisor.desk import Call, Desk

EXITS = 15_000  # bytes of a service's last exits


class Row(NamedTuple):
    action: Action | None  # None: about the asker himself, or that of the operation which it is about
    answer: Callable[[Desk, Call, Any], None]
    changes: bool = False


def answer_status(desk: Desk, call: Call, command: messages.Status) -> None:
    names = [command.service] if command.service else _viewable(desk, call)
    reply = functools.partial(messages.Services, trouble=desk.trouble(), version=desk.upgrades.keeper)
    _answer_in_packets(call, reply, map(desk.spelled.service, names))


def _viewable(desk: Desk, call: Call) -> list[str]:
    return decide.viewable(desk.policy, call.identity, desk.all_groups(), desk.asking(call))


def answer_operations(desk: Desk, call: Call, command: messages.ListOperations) -> None:
    seen = functools.cache(lambda service: desk.may_view(call, service))  # many are about the same service
    listed = (
        msgspec.Raw(spell(one.info()))
        for one in desk.services.operations.all()
        if command.service in (None, one.service) and (command.ended or not one.ended) and seen(one.service)
    )
    _answer_in_packets(call, messages.Listed, listed)


def _answer_in_packets(
    call: Call, reply: Callable[..., Any], things: Iterable[msgspec.Raw], room: int = PACKET
) -> None:
    """reply: Services, Listed, Approvals or Rights, of things that are spelled already."""
    packets = list(in_packets(things, room))
    for number, packet in enumerate(packets, 1):
        more = number < len(packets)
        call.connection.answer(reply(packet, more), more=more)


def answer_describe(desk: Desk, call: Call, command: messages.Describe) -> None:
    found = desk.services.description(command.service)
    settings = mentions.settings(found.settings, lambda name: desk.groups_of(name) is not None)
    found = replace(found, settings=settings, chosen_by=desk.choices.by(command.service))
    found = replace(found, exits=fitting(found.exits, EXITS))
    rest = len(spell(found)) - len(spell(found.service))
    call.connection.answer(replace(found, service=cut(found.service, PACKET - rest)))


def answer_watch(desk: Desk, call: Call, command: messages.Watch) -> None:
    """Who has seen an event from before an operation began, and asks for its next ones, means another operation."""
    watcher = watching.Watcher(call, command.service, command.operation, command.after)
    operation = desk.services.operations.find(command.operation)
    known = operation is not None and operation.is_known_to(command.after) and desk.watchers.knows(command.after)
    if command.operation and (operation is None or not known or not desk.may_view(call, operation.service)):
        raise unknown_operation(command.operation)
    if not desk.watchers.add(watcher, () if operation is None else operation.events):
        raise Refusal("later", "too many are watching: try again later")


def answer_open_log(desk: Desk, call: Call, command: messages.OpenLog) -> None:
    """Without a descriptor where nothing has been written yet: a file is made for its first byte."""
    process = _processes(desk, command)[0]
    try:
        fd = logs.open_log(desk.log, process, command.stream, command.rotated)
    except OSError as error:
        settings = dict(desk.services.description(command.service).settings)
        kept, why = settings.get("log.target", "file"), str(error.strerror or error)
        if kept != "file":
            why = f'what it writes goes elsewhere, log.target = "{kept}"'
        elif isinstance(error, FileNotFoundError) and error.strerror and not command.rotated:
            if command.stream == "stdout" or settings.get("log.stderr") != "stdout":
                return call.connection.answer(messages.LogOpened(command.service, process, command.stream, 0))
            why = 'it is in that of stdout, log.stderr = "stdout"'
        raise Refusal("unknown", f"there is no such log of '{process}': {why}") from None
    try:
        opened = messages.LogOpened(command.service, process, command.stream, os.fstat(fd).st_size)
        call.connection.answer(opened, fd)
    finally:
        os.close(fd)


def _processes(desk: Desk, command: messages.OpenLog | messages.ClearLog | messages.ReopenLog) -> list[str]:
    """The one that is named, or each."""
    names = [process.name for process in desk.services.info(command.service).processes]
    if not command.process:
        return names
    if command.process not in names:
        more = f"it has {', '.join(names[:20])}"
        raise Refusal("unknown", f"'{command.service}' has no process '{command.process}': {more}")
    return [command.process]


def answer_clear_log(desk: Desk, call: Call, command: messages.ClearLog | messages.ReopenLog) -> None:
    """Answered when log has done it, or why it has not."""
    reopen, begun = isinstance(command, messages.ReopenLog), desk.clock()
    name = command.process or command.service
    what, word = ("log files", "opened anew") if reopen else ("logs", "cleared")

    def told(kind: messages.RefusalKind | None, why: str) -> None:
        text = f"the {what} of {name} were not all {word}: {why}" if kind else f"the {what} of {name} are {word}"
        call.connection.answer(messages.Refused(kind, text) if kind else messages.Done(text))
        desk.outcome(call, DISPATCH[type(command)].action, 0, kind is None, text, desk.clock() - begun)

    desk.clearing.ask([one.replace(":", ".") for one in _processes(desk, command)], reopen, begun, told)


def answer_open_audit(desk: Desk, call: Call, command: messages.OpenAudit) -> None:
    try:
        name, fd = logs.open_audit(desk.log, command.rotated)
    except OSError as error:
        raise Refusal("unknown", f"there is no such file of the audit log: {error.strerror or error}") from None
    try:
        call.connection.answer(messages.LogOpened("", name, "audit", os.fstat(fd).st_size), fd)
    finally:
        os.close(fd)


def answer_read_policy(desk: Desk, call: Call, command: messages.ReadPolicy) -> None:
    content = desk.reloads.current.shown
    if not content:
        raise Refusal("failed", "no configuration counts: the files have mistakes, which durward-rootd --check tells")
    fd = publishing.opened(content)
    try:
        call.connection.answer(messages.LogOpened("", "policy.json", "policy", os.fstat(fd).st_size), fd)
    finally:
        os.close(fd)


def answer_what_may_i(desk: Desk, call: Call, command: messages.WhatMayI) -> None:
    who, asking = call.identity, desk.asking(call, command.service)
    if command.action is not None:
        groups = desk.groups_of(command.service)
        told = explain.explain(desk.policy, who, command.action, command.service, groups, asking)
        return call.connection.answer(told)
    if command.service is not None:
        raise Refusal("invalid", "name an action too")
    expires = desk.expires(call.session.ends) if call.session else ""
    token = who.token.name if who.token else ""
    known = sorted(who.groups)

    def reply(rights: Any, more: bool) -> messages.Rights:
        return messages.Rights(who.user, who.uid, known, expires, rights, token, more)

    own = decide.rights(desk.policy, who, desk.all_groups(), asking)
    return _answer_in_packets(call, reply, (msgspec.Raw(spell(one)) for one in own), PACKET - len(spell(known)))


def answer_start(desk: Desk, call: Call, command: messages.Start) -> None:
    desk.accept(call, desk.services.start(command.service, desk.clock(), call.id))


def answer_stop(desk: Desk, call: Call, command: messages.Stop) -> None:
    above = desk.services.order.dependants(command.service)
    wanted = [name for name in above if desk.services.wanted(name)]
    if wanted and not command.with_dependants:
        who = mentions.names(wanted)
        raise Refusal("conflict", f"{command.service} is required by {who}: stop that too, by --with-dependants")
    desk.accept(call, desk.services.stop(command.service, desk.clock(), call.id, above))


def answer_restart(desk: Desk, call: Call, command: messages.Restart) -> None:
    desk.accept(call, desk.services.restart(command.service, desk.clock(), call.id, command.hard))


def answer_signal(desk: Desk, call: Call, command: messages.Signal) -> None:
    desk.accept(call, desk.services.signal(command.service, command.signal, desk.clock(), call.id))


def answer_enable(desk: Desk, call: Call, command: messages.Enable | messages.Disable) -> None:
    """Answered when it is on disk, or why it is not: nothing has changed then."""
    name, enabled, begun = command.service, isinstance(command, messages.Enable), desk.clock()
    word = "enabled" if enabled else "disabled"

    def kept(kind: messages.RefusalKind | None, why: str) -> None:
        text = f"{name} was not {word}: {why}" if kind else f"{name} is {word}"
        call.connection.answer(messages.Refused(kind, text) if kind else messages.Done(text))
        desk.outcome(call, Action.ENABLE, 0, kind is None, text, desk.clock() - begun)

    desk.choices.choose(name, enabled, call.user, begun, kept)


def answer_scale(desk: Desk, call: Call, command: messages.Scale) -> None:
    desk.accept(call, desk.services.scale(command.service, command.processes, desk.clock(), call.id))


def answer_cancel(desk: Desk, call: Call, command: messages.Cancel) -> None:
    operation = desk.services.operations.find(command.operation)
    if operation is None:
        raise unknown_operation(command.operation)
    if operation.ended:
        raise Refusal("conflict", f"operation {operation.number} has ended already: {operation.info().text}")
    if operation.cancelled:
        raise Already(f"operation {operation.number} is cancelled already: {operation.cancelled}")
    why = f"cancelled by {call.user}"
    if operation.kind == "upgrade":
        raise Refusal("conflict", "an upgrade goes on to its end, which is near")
    if operation.kind == "reload":
        desk.reloads.cancel(operation, why, desk.clock())
    else:
        desk.services.cancel(operation, why, desk.clock())
    rest = "" if operation.ended else "; it ends when what has begun of it is over"
    text = f"operation {operation.number} is cancelled{rest}"
    call.connection.answer(messages.Done(text))
    desk.outcome(call, operation.action, operation.number, True, text, 0.0)


def unknown_operation(number: int) -> Refusal:
    """The same for one that is not there and one that the asker may not view."""
    return Refusal("unknown", f"no operation {number} that you may view")


def answer_approvals(desk: Desk, call: Call, command: messages.ListApprovals) -> None:
    def told(found: Iterable[messages.ApprovalInfo]) -> None:
        _answer_in_packets(call, messages.Approvals, (msgspec.Raw(spell(one)) for one in found))

    desk.seconds.tell(call, command.changes, told)


def answer_approve(desk: Desk, call: Call, command: messages.Approve) -> None:
    desk.seconds.approve(call, command.approval)


def answer_withdraw(desk: Desk, call: Call, command: messages.Withdraw) -> None:
    desk.seconds.withdraw(call, command.approval)


def answer_reload(desk: Desk, call: Call, command: messages.Reload) -> None:
    desk.accept(call, desk.reloads.begin(call.id, command.dry_run, desk.clock(), command.shown))


def answer_shutdown(desk: Desk, call: Call, command: messages.Shutdown) -> None:
    desk.accept(call, desk.services.stop_all(desk.clock(), call.id))


def answer_upgrade(desk: Desk, call: Call, command: messages.Upgrade) -> None:
    if not call.connection.root:
        raise Refusal("forbidden", "an upgrade is for root alone: sudo durward --root upgrade")
    desk.accept(call, desk.upgrades.begin(call.id, desk.clock()))


def answer_revoke(desk: Desk, call: Call, command: messages.Revoke) -> None:
    """Ended here at once, whatever auth does; auth then forgets them too."""
    if (command.user is None) != command.everyone:
        raise Refusal("invalid", "name a user, or say that everyone is meant")
    tokens = desk.sessions.tokens(command.user or "")
    try:
        ended = desk.sessions.revoke(command.user or "") - tokens
    except OverflowError as full:
        raise Refusal("later", str(full)) from None
    told = desk.tell_auth(desk.sessions.revoking()[-1])
    whose = f" of {command.user}" if command.user else ""
    more = f" and {tokens} personal {'token' if tokens == 1 else 'tokens'}" if tokens else ""
    text = f"{ended or 'no'} {'session' if ended == 1 else 'sessions'}{more}{whose} ended" + (
        "" if told else "; auth is being started again and will be told"
    )
    call.connection.answer(messages.Done(text))
    desk.outcome(call, Action.REVOKE, 0, True, text, 0.0)


DISPATCH: dict[type[messages.Command], Row] = {
    messages.Status: Row(Action.VIEW, answer_status),
    messages.Describe: Row(Action.VIEW, answer_describe),
    messages.Watch: Row(Action.VIEW, answer_watch),
    messages.ListOperations: Row(Action.VIEW, answer_operations),
    messages.OpenLog: Row(Action.LOGS, answer_open_log),
    messages.ClearLog: Row(Action.CLEAR, answer_clear_log, changes=True),
    messages.ReopenLog: Row(Action.LOGS, answer_clear_log, changes=True),
    messages.OpenAudit: Row(Action.AUDIT, answer_open_audit),
    messages.ReadPolicy: Row(Action.POLICY, answer_read_policy),
    messages.WhatMayI: Row(None, answer_what_may_i),
    messages.Start: Row(Action.START, answer_start, changes=True),
    messages.Stop: Row(Action.STOP, answer_stop, changes=True),
    messages.Restart: Row(Action.RESTART, answer_restart, changes=True),
    messages.Signal: Row(Action.SIGNAL, answer_signal, changes=True),
    messages.Enable: Row(Action.ENABLE, answer_enable, changes=True),
    messages.Disable: Row(Action.ENABLE, answer_enable, changes=True),
    messages.Scale: Row(Action.SCALE, answer_scale, changes=True),
    messages.Cancel: Row(None, answer_cancel, changes=True),
    messages.ListApprovals: Row(Action.VIEW, answer_approvals),
    messages.Approve: Row(Action.APPROVE, answer_approve, changes=True),
    messages.Withdraw: Row(None, answer_withdraw, changes=True),
    messages.Reload: Row(Action.RELOAD, answer_reload, changes=True),
    messages.Revoke: Row(Action.REVOKE, answer_revoke, changes=True),
    messages.Shutdown: Row(Action.SHUTDOWN, answer_shutdown, changes=True),
    messages.Upgrade: Row(Action.SHUTDOWN, answer_upgrade, changes=True),
}
