"""Rules that can never decide anything, because another one always comes before them.

Rule 1: sound, not complete: a rule is called dead only when, whoever asks for whatever, whenever and however, decide
        names another one. Membership in groups is not looked at: it changes without the policy.
Rule 2: it goes cell by cell, a cell being one person or group, one action and one entry of `on` of the rule; each may
        have another rule that comes before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from policy.rules import EVERY_SERVICE, GROUP, Deny, Grant, Policy

Rule = Grant | Deny
Cell = tuple[str, str, str, str]  # "user" or "group", the name, the action, the entry of `on`
R = TypeVar("R", Grant, Deny)


class Dead(NamedTuple):
    """why: "denied", "shadowed" or "duplicate" (which may decide, but says nothing new). by: the rules, by order."""

    rule: Rule
    why: str
    by: tuple[Rule, ...]


def dead(policy: Policy, services: Mapping[str, Collection[str]]) -> Iterator[Dead]:
    """services: each with its groups. Every rule comes once at most."""
    denies, grants = _by_cell(policy.denies), _by_cell(policy.grants)
    yield from _among(policy.denies, denies, services, _forbids_first)
    shadowed = {id(found.rule): found for found in _among(policy.grants, grants, services, _grants_first)}
    for grant in policy.grants:
        found = _covered(grant, denies, services, _holds_with)
        if found:
            yield Dead(grant, "denied", found)
        elif id(grant) in shadowed:
            yield shadowed[id(grant)]


def _among(
    rules: Iterable[R],
    by_cell: Mapping[Cell, list[R]],
    services: Mapping[str, Collection[str]],
    before: Callable[[R, R], bool],
) -> Iterator[Dead]:
    said: dict[object, R] = {}
    for rule in rules:
        first = said.setdefault(_saying(rule), rule)
        if first is not rule:
            yield Dead(rule, "duplicate", (first,))
        elif found := _covered(rule, by_cell, services, before):
            yield Dead(rule, "shadowed", found)


def _saying(rule: Rule) -> object:
    """All that a rule says, whatever its name and place."""
    more: tuple[object, ...] = ()
    if isinstance(rule, Grant):
        sources = rule.sources and (frozenset(rule.sources.networks), rule.sources.local)
        limit = rule.limit and (rule.limit.times, rule.limit.seconds)
        approval = rule.approval
        by = approval and (frozenset(approval.users), frozenset(approval.groups), approval.within)
        more = (sources, rule.reason, limit, by)
    when = rule.when and (rule.when.days, rule.when.start, rule.when.end, rule.when.zone)
    expires = rule.expires and rule.expires.at
    return frozenset(rule.users), frozenset(rule.groups), rule.may, frozenset(rule.on), when, expires, more


def cells(rule: Rule) -> Iterator[Cell]:
    for kind, names in (("user", rule.users), ("group", rule.groups)):
        for name in names:
            for action in sorted(rule.may):
                for target in rule.on:
                    yield kind, name, action, target


def _by_cell(rules: Iterable[R]) -> dict[Cell, list[R]]:
    found: dict[Cell, list[R]] = {}
    for rule in rules:
        for cell in cells(rule):
            found.setdefault(cell, []).append(rule)
    return found


def _covered(
    rule: Rule,
    by_cell: Mapping[Cell, list[R]],
    services: Mapping[str, Collection[str]],
    before: Callable[[R, R], bool] | Callable[[Rule, Rule], bool],
) -> tuple[Rule, ...]:
    """The rules that come before this one, when there is one for each of its cells; else none."""
    found: dict[int, Rule] = {}
    for kind, name, action, target in cells(rule):
        others = (other for entry in wider(target, services) for other in by_cell.get((kind, name, action, entry), ()))
        first = next((other for other in others if other is not rule and before(other, rule)), None)  # type: ignore[arg-type]
        if first is None:
            return ()
        found[first.order] = first
    return tuple(found[order] for order in sorted(found))


def wider(target: str, services: Mapping[str, Collection[str]]) -> Iterator[str]:
    """The entries of `on` that are about all that this one is about: itself, a service's groups, and everything."""
    yield target
    yield from (GROUP + group for group in services.get(target, ()))
    if target != EVERY_SERVICE:
        yield EVERY_SERVICE


def _holds_with(other: Rule, rule: Rule) -> bool:
    """Whether the other one counts at every time at which this one does."""
    if other.expires is not None and (rule.expires is None or rule.expires.at > other.expires.at):
        return False
    return other.when is None or other.when == rule.when


def _forbids_first(other: Deny, rule: Deny) -> bool:
    return other.order < rule.order and _holds_with(other, rule)


def _grants_first(other: Grant, rule: Grant) -> bool:
    """Whether decide takes the other one whenever this one would do.

    A limit can be used up, and an approval is for one rule alone: a rule that demands one is before no other. A reason
    that both want is given to both; of those, decide takes the first by rank and order, or by rank and id.
    """
    if not _holds_with(other, rule) or other.sources not in (None, rule.sources):
        return False
    if (other.rank, other.order) >= (rule.rank, rule.order):
        return False
    if not other.rank:
        return True
    return not other.limit and not other.approval and rule.reason and (other.rank, other.id) < (rule.rank, rule.id)
