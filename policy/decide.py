"""Whether somebody may do something: default deny, and a deny wins over every grant.

Rule 1: pure. The answer depends on the rules that name this person (or a group of his), this action and this service,
        on the circumstances that are handed in (Asking), and on nothing else: no clock, no files, no order of rules,
        no rule of somebody else. A circumstance that is not known grants nothing and lifts no deny.
Rule 2: an answer is a value with its reason, never a bool; to take it for one raises.
Rule 3: what cannot be (a malformed name, an action without its service) is denied like anything else.
Rule 4: who asks by a personal token is allowed what he may himself, and what the token is for besides: here, where
        every question about anybody's rights comes by.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from math import ceil
from posixpath import basename
from typing import NoReturn

import msgspec

from policy.conditions import Approval, Asking, Limit
from policy.identity import Identity
from policy.messages import Right
from policy.names import CHANGING, GLOBAL_ACTIONS, RESERVED, Action, service_name
from policy.rules import EVERY_SERVICE, GROUP, Deny as Forbid, Grant, Policy, entries_of, first, matching
from policy.scope import Scope

_WHOLE = tuple(action for action in Action if action in GLOBAL_ACTIONS)
_OF_ALL: dict[str, str] = {
    Action.POLICY: "read the policy", Action.AUDIT: "read the audit log", Action.SHUTDOWN: "shut the daemon down",
}  # fmt: skip
_OF_ONE: dict[str, str] = {
    Action.LOGS: "read the logs of", Action.CLEAR: "clear the logs of", Action.ENABLE: "enable or disable",
}  # fmt: skip
_EACH = tuple(action for action in Action if action not in GLOBAL_ACTIONS)

HINTS = 3  # rules that a refusal names as those that would help


UNKNOWN = Asking()


class _Decision(msgspec.Struct, frozen=True):
    def __bool__(self) -> NoReturn:
        raise TypeError("a decision is not a truth value: ask whether it is an Allow")


class Allow(_Decision, frozen=True):
    """By this rule; "root" (no file, line 0) for root. demands: what it demanded, in words; limit: to be charged."""

    rule: str
    file: str = ""
    line: int = 0
    demands: str = ""
    limit: Limit | None = None


class Deny(_Decision, frozen=True):
    """text: one sentence for the person. rule, file, line: what forbids it, or demands what was not given; "" and 0
    when no rule allows it.

    would_help: rules that would allow it to a member of a group. Only for somebody who may view the service:
    explain.refuse sees to that.
    """

    text: str
    rule: str = ""
    file: str = ""
    line: int = 0
    would_help: tuple[str, ...] = ()


class Unapproved(Deny, frozen=True, kw_only=True):
    """Not alone: the rule lets the asker, once somebody else has agreed. Whoever does not ask for this: a Deny."""

    approval: Approval
    demands: str


class Beyond(Deny, frozen=True, kw_only=True):
    """What the asker's personal token is not for, whoever he is.

    told: whether that follows from the names in the token and in the question alone. Else it depends on the groups that
    the service is in, and only who may view that hears it.
    """

    told: bool


Decision = Allow | Deny


def targets_of(action: str, service: str | None, groups: Collection[str]) -> tuple[str, ...]:
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
        return _OF_ALL.get(action, action)
    return f"{_OF_ONE.get(action, action)} {service}"


def decide(
    policy: Policy,
    identity: Identity,
    action: str,
    service: str | None,
    groups_of_service: Collection[str] = (),
    asking: Asking = UNKNOWN,
) -> Decision:
    """May this person do this, to this service (None for a global action)? A name that does not exist has no groups.

    action: a word of policy.names.Action; groups_of_service: groups of services that it is in; asking: the
    circumstances, UNKNOWN where none is known. Returns an Allow, an Unapproved where somebody else must agree first, or
    a Deny. Raises nothing: what cannot be (another word, an action without its service) is denied. Of several rules
    that decide it alike, the first in order of files and lines is named.
    """
    if identity.root:
        return Allow("root")
    targets = targets_of(action, service, groups_of_service)
    if identity.token is not None and not identity.token.covers(action, targets):
        return beyond(identity.token, action, service)
    forbidding = first(policy.denied.rows(identity), action, targets, asking)
    if forbidding:
        what = action if service is None else f"{action} on {service}"
        when = f", {forbidding.when.text}" if forbidding.when else ""
        return Deny(
            f"denied: the rule '{forbidding.id}' ({place(forbidding)}) forbids {what} to {identity.user}{when}",
            forbidding.id,
            forbidding.file,
            forbidding.line,
        )
    rows = policy.granted.rows(identity)
    allowing = first(rows, action, targets, asking)
    if allowing and asking.demands and allowing.rank and action in CHANGING:
        rules = [rule for rule in matching(rows, action, targets) if rule.counts(asking)]
        return _demanded(rules, asking, f"{identity.user} {deed(action, service)}")
    if allowing:
        return Allow(allowing.id, allowing.file, allowing.line)
    text = f"denied: no rule lets {identity.user} {deed(action, service)}"
    closed = _closed(matching(rows, action, targets), asking)
    hints = _hints(policy, action, targets, asking)
    if closed:
        text += f"{' now' if closed.when else ''}; {_not_now(closed, asking)}"
    elif hints:
        rule, through = hints[0]
        text += f"; the rule '{rule.id}' would, through {through}"
    would_help = tuple(f"{rule.id} ({place(rule)}), through {through}" for rule, through in hints)
    return Deny(text, would_help=would_help)


def beyond(token: Scope, action: str, service: str | None) -> Beyond:
    by_groups = service is not None and action in token.may and any(entry.startswith(GROUP) for entry in token.on)
    text = f"denied: the token '{token.name}' is not for that: {deed(action, service)}; it is for {token.text}"
    return Beyond(text, told=not by_groups)


def _demanded(rules: Iterable[Grant], asking: Asking, what: str) -> Decision:
    """By the least demanding rule whose demands are met; what: who would do what. Else why not, by the rule for which
    the asker can do most: one that a reason is enough for, or the one whose limit is free first."""
    rules = sorted(rules, key=lambda rule: (rule.rank, rule.id))
    waits = [(asking.wait(rule.id, rule.limit) if rule.limit else 0.0, rule) for rule in rules]
    for wait, rule in waits:
        if wait <= 0 and (asking.reason or not rule.reason) and (not rule.approval or rule.id in asking.approved):
            return Allow(rule.id, rule.file, rule.line, rule.demands, rule.limit)
    wait, rule = min(waits, key=lambda pair: max(pair[0], 0.0))
    text = f"denied: the rule '{rule.id}' ({place(rule)}) lets {what}"
    if wait > 0 and rule.limit:
        text += f" {rule.limit.text}, which is used up: again in {ceil(wait)} s"
    elif rule.approval and (asking.reason or not rule.reason):
        text += f" once {rule.approval.text} approves"
        return Unapproved(text, rule.id, rule.file, rule.line, approval=rule.approval, demands=rule.demands)
    else:
        text += ' with a reason only: say why, by --reason TEXT, or by "reason" in the body of a request over HTTP'
    return Deny(text, rule.id, rule.file, rule.line)


def timed(
    policy: Policy, identity: Identity, action: str, service: str | None, groups_of_service: Collection[str] = ()
) -> Grant | Forbid | None:
    """A rule by which the decision could be another one at another time."""
    targets = targets_of(action, service, groups_of_service)
    rules: list[Grant | Forbid] = [*matching(policy.denied.rows(identity), action, targets)]
    rules += matching(policy.granted.rows(identity), action, targets)
    return next((rule for rule in rules if rule.timed), None)


def place(rule: Grant | Forbid) -> str:
    return f"{basename(rule.file)}:{rule.line}"


def _closed(rules: Iterable[Grant], asking: Asking) -> Grant | None:
    """Of rules that do not count now, the one to tell of: the first that may again, else the one that expired last."""
    rules = sorted(rules, key=lambda rule: rule.order)
    coming = (rule for rule in rules if not (rule.timed and asking.at is None) and not _over(rule, asking.at))
    expired = (rule for rule in rules if rule.expires is not None)
    return next(coming, None) or max(expired, key=lambda rule: rule.expires.at if rule.expires else 0, default=None)


def _over(rule: Grant, at: float | None) -> bool:
    """Whether it will not count again."""
    if rule.expires is None:
        return False
    opens = rule.when.opens(at) if rule.when and at is not None and not rule.when.holds(at) else None
    return at is None or rule.expires.at <= (at if opens is None else opens)


def _not_now(rule: Grant, asking: Asking) -> str:
    if rule.expires is not None and _over(rule, asking.at):
        return f"the rule '{rule.id}' did, until {rule.expires.text}"
    text = f"the rule '{rule.id}' would{_if(rule, asking)}"
    closed = rule.when is not None and asking.at is not None and not rule.when.holds(asking.at)
    return text + (f"; {rule.when.opening(asking.at)}" if closed and rule.when and asking.at is not None else "")


def _if(rule: Grant, asking: Asking) -> str:
    """What would have to be otherwise for the rule to count."""
    text = ""
    if rule.when is not None and not (asking.at is not None and rule.when.holds(asking.at)):
        text += f", {rule.when.text}"
    if rule.sources is not None and not rule.sources.hold(asking.source):
        text += f", from {rule.sources.text}"
    return text


def _hints(policy: Policy, action: str, targets: tuple[str, ...], asking: Asking) -> list[tuple[Grant, str]]:
    """Rules that would allow it, and the groups through which they would, for somebody whom none allows it now.

    Only groups: nobody becomes another person, and who else may do something is not the asker's affair.
    """
    rules = {rule.order: rule for target in targets for rule in policy.through_groups.get((action, target), ())}
    hints = ((rules[order], _through(policy, rules[order], action, targets, asking)) for order in sorted(rules))
    return list(islice(((rule, through) for rule, through in hints if through), HINTS))


def _through(policy: Policy, rule: Grant, action: str, targets: tuple[str, ...], asking: Asking) -> str:
    """The groups of the rule whose members no deny stops now, and what else would have to be otherwise."""
    groups = [group for group in rule.groups if not policy.denied.forbids(group, action, targets, asking)]
    if not groups or _over(rule, asking.at):
        return ""
    return f"group {' or '.join(groups)}{_if(rule, asking)}"


class _Sight:
    """What decide says, without its reasons, to one person about many services.

    An action's rules are looked through once: what is kept of them is the entries of `on` that they are for.
    """

    def __init__(self, policy: Policy, identity: Identity, asking: Asking) -> None:
        self._asking = asking
        self._root, self._token = identity.root, identity.token
        self._granted = policy.granted.rows(identity)
        self._denied = policy.denied.rows(identity)
        self._entries: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        self._free: dict[str, frozenset[str]] = {}  # by action, the entries of rules that say nothing besides

    def allowed(self, action: str, targets: tuple[str, ...]) -> bool:
        if self._root:
            return True
        if self._token is not None and not self._token.covers(action, targets):
            return False
        entries = self._entries.get(action)
        if entries is None:
            granted = entries_of(self._granted, action, self._asking)
            entries = self._entries[action] = granted, entries_of(self._denied, action, self._asking)
        granted, denied = entries
        return not granted.isdisjoint(targets) and denied.isdisjoint(targets)

    def terms(self, action: str, targets: tuple[str, ...]) -> str:
        """Of an action that is allowed, what its least demanding rule says besides; "" when one says nothing."""
        if self._root:
            return ""
        free = self._free.get(action)
        if free is None:
            rows = (rule for found in self._granted for rules in found.values() for rule in rules)
            plain = [rule for rule in rows if action in rule.may and not rule.terms(action)]
            free = self._free[action] = frozenset(target for rule in plain for target in rule.on)
        rule = first(self._granted, action, targets, self._asking) if free.isdisjoint(targets) else None
        return rule.terms(action) if rule else ""


def visible(
    policy: Policy, identity: Identity, service: str, groups: Collection[str], asking: Asking = UNKNOWN
) -> bool:
    """May this person know that this service exists?"""
    return sight(policy, identity, asking)(service, groups)


def sight(policy: Policy, identity: Identity, asking: Asking = UNKNOWN) -> Callable[[str, Collection[str]], bool]:
    """The same about many services at one moment: what is returned takes a service and its groups."""
    found = _Sight(policy, identity, asking)
    return lambda service, groups: found.allowed(Action.VIEW, targets_of(Action.VIEW, service, groups))


def tellable(
    policy: Policy, identity: Identity, asking: Asking = UNKNOWN
) -> Callable[[str, Collection[str] | None], bool]:
    """May this person be told the names of services at this moment, also of those that are not configured, or not yet?

    What is returned takes a service and the groups that it is or would be in; None: nobody knows them. Then it may be
    in any that a deny is about, and is told to who might view it all the same.
    """
    may = sight(policy, identity, asking)
    forbidding = [entry.removeprefix(GROUP) for deny in policy.denies for entry in deny.on]
    return lambda service, groups: (
        may(service, groups) if groups is not None else may(service, ()) and may(service, forbidding)
    )


def viewable(
    policy: Policy, identity: Identity, services: Mapping[str, Collection[str]], asking: Asking = UNKNOWN
) -> list[str]:
    """Of these services (and their groups), those that this person may view, in the order given."""
    if identity.root:
        return list(services)
    sight = _Sight(policy, identity, asking)
    return [
        service
        for service, groups in services.items()
        if sight.allowed(Action.VIEW, targets_of(Action.VIEW, service, groups))
    ]


def rights(
    policy: Policy, identity: Identity, services: Mapping[str, Collection[str]], asking: Asking = UNKNOWN
) -> list[Right]:
    """All that this person may do, and nobody else's rights: first to the daemon (service ""), then by service."""
    sight = _Sight(policy, identity, asking)

    def right(service: str, every: Iterable[Action], targets: tuple[str, ...]) -> Right:
        actions = [action.value for action in every if sight.allowed(action, targets)]
        return Right(service, actions, {action: terms for action in actions if (terms := sight.terms(action, targets))})

    found = [right("", _WHOLE, (EVERY_SERVICE,))]
    for service in sorted(services):
        found.append(right(service, _EACH, targets_of(Action.VIEW, service, services[service])))
    return [one for one in found if one.actions]


def unknown_text(service: str) -> str:
    """The one answer about a service that does not exist and about one that the asker may not view."""
    return f"no service '{service}' that you may view"
