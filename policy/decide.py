"""Whether somebody may do something: default deny, and a deny wins over every grant.

Rule 1: pure. The answer depends on the rules that name this person (or a group of his), this action and this service,
        and on nothing else: no clock, no files, no order of rules, no rule of somebody else.
Rule 2: an answer is a value with its reason, never a bool; to take it for one raises.
Rule 3: what cannot be (a malformed name, an action without its service) is denied like anything else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice
from posixpath import basename
from typing import NoReturn

import msgspec

from policy.identity import Identity
from policy.messages import Right
from policy.names import GLOBAL_ACTIONS, RESERVED, Action, service_name
from policy.rules import EVERY_SERVICE, GROUP, Grant, Policy, entries_of, first

_WHOLE = tuple(action for action in Action if action in GLOBAL_ACTIONS)
_READING: dict[str, str] = {Action.POLICY: "read the policy", Action.AUDIT: "read the audit log"}
_OF_ONE: dict[str, str] = {
    Action.LOGS: "read the logs of", Action.CLEAR: "clear the logs of", Action.ENABLE: "enable or disable",
}  # fmt: skip
_EACH = tuple(action for action in Action if action not in GLOBAL_ACTIONS)

HINTS = 3  # rules that a refusal names as those that would help


class _Decision(msgspec.Struct, frozen=True):
    def __bool__(self) -> NoReturn:
        raise TypeError("a decision is not a truth value: ask whether it is an Allow")


class Allow(_Decision, frozen=True):
    """By this rule; "root" (no file, line 0) for root."""

    rule: str
    file: str = ""
    line: int = 0


class Deny(_Decision, frozen=True):
    """text: one sentence for the person. rule, file, line: what forbids it, "" and 0 when no rule allows it.

    would_help: rules that would allow it to a member of a group. Only for somebody who may view the service:
    explain.refuse sees to that.
    """

    text: str
    rule: str = ""
    file: str = ""
    line: int = 0
    would_help: tuple[str, ...] = ()


Decision = Allow | Deny


def _targets(action: str, service: str | None, groups: Collection[str]) -> tuple[str, ...]:
    """The entries of `on` that are about this service; for a global action, the one that is about everything."""
    if (action in GLOBAL_ACTIONS) != (service is None):
        return ()
    if service is None:
        return (EVERY_SERVICE,)
    try:
        service_name(service)
    except ValueError:
        return ()
    if service.startswith(RESERVED):
        return (service,)
    return (service, *(GROUP + group for group in groups), EVERY_SERVICE)


def deed(action: str, service: str | None) -> str:
    """As it stands in a sentence. Most actions are verbs that need nothing more."""
    if service is None:
        return _READING.get(action, action)
    return f"{_OF_ONE.get(action, action)} {service}"


def decide(
    policy: Policy, identity: Identity, action: str, service: str | None, groups_of_service: Collection[str] = ()
) -> Decision:
    """May this person do this, to this service (None for a global action)? A name that does not exist has no groups.

    Of several rules that decide it alike, the first in order of files and lines is named.
    """
    if identity.root:
        return Allow("root")
    targets = _targets(action, service, groups_of_service)
    forbidding = first(policy.denied.rows(identity), action, targets)
    if forbidding:
        where = f"{basename(forbidding.file)}:{forbidding.line}"
        what = action if service is None else f"{action} on {service}"
        return Deny(
            f"denied: the rule '{forbidding.id}' ({where}) forbids {what} to {identity.user}",
            forbidding.id,
            forbidding.file,
            forbidding.line,
        )
    allowing = first(policy.granted.rows(identity), action, targets)
    if allowing:
        return Allow(allowing.id, allowing.file, allowing.line)
    text = f"denied: no rule lets {identity.user} {deed(action, service)}"
    hints = _hints(policy, action, targets)
    if hints:
        rule, through = hints[0]
        text += f"; the rule '{rule.id}' would, through {through}"
    would_help = tuple(f"{rule.id} ({basename(rule.file)}:{rule.line}), through {through}" for rule, through in hints)
    return Deny(text, would_help=would_help)


def _hints(policy: Policy, action: str, targets: tuple[str, ...]) -> list[tuple[Grant, str]]:
    """Rules that would allow it, and the groups through which they would, for somebody whom none allows it now.

    Only groups: nobody becomes another person, and who else may do something is not the asker's affair.
    """
    rules = {rule.order: rule for target in targets for rule in policy.through_groups.get((action, target), ())}
    hints = ((rules[order], _through(policy, rules[order], action, targets)) for order in sorted(rules))
    return list(islice(((rule, through) for rule, through in hints if through), HINTS))


def _through(policy: Policy, rule: Grant, action: str, targets: tuple[str, ...]) -> str:
    """The groups of the rule whose members no deny stops."""
    groups = [group for group in rule.groups if not policy.denied.forbids(group, action, targets)]
    return f"group {' or '.join(groups)}" if groups else ""


class _Sight:
    """What decide says, without its reasons, to one person about many services.

    An action's rules are looked through once: what is kept of them is the entries of `on` that they are for.
    """

    def __init__(self, policy: Policy, identity: Identity) -> None:
        self._root = identity.root
        self._granted = policy.granted.rows(identity)
        self._denied = policy.denied.rows(identity)
        self._entries: dict[str, tuple[frozenset[str], frozenset[str]]] = {}

    def allowed(self, action: str, targets: tuple[str, ...]) -> bool:
        if self._root:
            return True
        entries = self._entries.get(action)
        if entries is None:
            entries = self._entries[action] = entries_of(self._granted, action), entries_of(self._denied, action)
        granted, denied = entries
        return not granted.isdisjoint(targets) and denied.isdisjoint(targets)


def visible(policy: Policy, identity: Identity, service: str, groups: Collection[str]) -> bool:
    """May this person know that this service exists?"""
    return _Sight(policy, identity).allowed(Action.VIEW, _targets(Action.VIEW, service, groups))


def viewable(policy: Policy, identity: Identity, services: Mapping[str, Collection[str]]) -> list[str]:
    """Of these services (and their groups), those that this person may view, in the order given."""
    if identity.root:
        return list(services)
    sight = _Sight(policy, identity)
    return [
        service
        for service, groups in services.items()
        if sight.allowed(Action.VIEW, _targets(Action.VIEW, service, groups))
    ]


def rights(policy: Policy, identity: Identity, services: Mapping[str, Collection[str]]) -> list[Right]:
    """All that this person may do, and nobody else's rights: first to the daemon (service ""), then by service."""
    sight = _Sight(policy, identity)
    found = [Right("", [action.value for action in _WHOLE if sight.allowed(action, (EVERY_SERVICE,))])]
    for service in sorted(services):
        targets = _targets(Action.VIEW, service, services[service])
        found.append(Right(service, [action.value for action in _EACH if sight.allowed(action, targets)]))
    return [right for right in found if right.actions]


def unknown_text(service: str) -> str:
    """The one answer about a service that does not exist and about one that the asker may not view."""
    return f"no service '{service}' that you may view"
