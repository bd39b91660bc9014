"""Rights as formulas: who may do what, for everybody whom the rules could ever be about, without anybody's groups.

A right is one action on one place (a service, or any service that is not configured yet). Whether somebody has it is a
formula over atoms: "is the user alice", "is in the group webops", "the service is in the group web", "it is within this
window", "a reason is given", …  allowed = one of `grants` holds, and none of `denies` does; each of those is a set of
atoms that hold together. Nothing but these atoms enters a decision (policy/decide.py), so what is said of a formula is
said of everybody: of each name, of each combination of groups, and of anyone else.

Rule 1: pure, and complete: nobody is sampled. A condition is a symbol; its time, network or counter is not looked at.
Rule 2: formulas are minimal: nothing in `grants` follows from another one of them, or is always forbidden.
Rule 3: two conditions are the same when they mean the same, however they are spelled. Different limits, windows or
        networks are different conditions, even where one lies within the other. Limits of several rules count apart.
Rule 4: how often is not seen of who is two principals at once: one rule for both counts him once, two rules with the
        same limit twice, and their formulas are the same. diff.py counts their rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Any, NamedTuple, TypeVar

from policy.conditions import UNITS, Approval, Limit, Sources
from policy.names import CHANGING, GLOBAL_ACTIONS, Action
from policy.rules import EVERY_SERVICE, GROUP, Deny, Grant, Policy
from policy.windows import DAYS, Window

USER, MEMBER, INSIDE = "user", "group", "in"  # kinds of atoms: who somebody is, a group of his, one of the service
WHEN, UNTIL, FROM, REASON, LIMIT, APPROVAL = "when", "until", "from", "reason", "limit", "approval"
OTHER = EVERY_SERVICE  # stands for any service that is not configured
PRINCIPALS = (USER, MEMBER)
Rule = Grant | Deny
R = TypeVar("R", Grant, Deny)


class Atom(NamedTuple):
    """kind: one of the words above; text: the name, or what the condition is. nth: of limits of one person alike."""

    kind: str
    text: str
    nth: int = 1


Atoms = frozenset[Atom]
ByTarget = dict[str, dict[str, dict[Atom, list[R]]]]  # by action, entry of `on`, and principal


class Formula(NamedTuple):
    """What holds together to allow it, and to forbid it; and the rules that say so, in their order."""

    grants: dict[Atoms, tuple[Grant, ...]]
    denies: dict[Atoms, tuple[Deny, ...]]

    def holds(self, true: Collection[Atom]) -> bool:
        """Whether it is allowed where these atoms hold, and no others."""
        given = frozenset(true)
        return any(one <= given for one in self.grants) and not any(one <= given for one in self.denies)


NEVER = Formula({}, {})
NO_NAMES: frozenset[str] = frozenset()
NO_RULES: dict[Atom, Sequence[Any]] = {}


class Place(NamedTuple):
    """What a right is on. service: its name, OTHER, or "" for the daemon as a whole; targets: entries of `on` that are
    about it; perhaps: groups of services of which it is not known whether it is in them."""

    service: str
    targets: frozenset[str]
    perhaps: frozenset[str] = frozenset()


DAEMON = Place("", frozenset({EVERY_SERVICE}))


def places(services: Mapping[str, Collection[str]], groups: Collection[str], whole: bool = True) -> dict[str, Place]:
    """Every service and OTHER, by name. groups: of services, those that rules name; whole: whether it is known which
    service is in which group, as in policy.source.Source."""
    free = frozenset(groups)
    found = {}
    for name, own in services.items():
        inside = [GROUP + group for group in own] if whole else []
        found[name] = Place(name, frozenset({name, *inside, EVERY_SERVICE}), frozenset() if whole else free)
    return found | {OTHER: Place(OTHER, frozenset({EVERY_SERVICE}), free)}


def groups_named(policy: Policy) -> set[str]:
    """The groups of services that rules are about."""
    rules: Iterable[Rule] = (*policy.grants, *policy.denies)
    return {target.removeprefix(GROUP) for rule in rules for target in rule.on if target.startswith(GROUP)}


class Part(NamedTuple):
    """What of a formula is about one person or group: each of its atoms contains that principal, and no other."""

    grants: dict[Atoms, tuple[Grant, ...]]
    denies: dict[Atoms, tuple[Deny, ...]]


Parts = dict[Atom, Part]
Principals = Callable[[Atom], bool]


def anybody(principal: Atom) -> bool:
    return True


class Book:
    """A policy's rules by action, entry of `on` and principal, and the formulas that have been made of them.

    Every rule names principals, and a way through it is about one of them: so a formula is made of one part for each.
    Most services are alike but for a few rules of their own; parts that are alike are the same object.
    """

    def __init__(self, policy: Policy) -> None:
        self.limited = Counter(
            (frozenset(principals_of(rule)), rule.may, rule.on, conditions(rule, True))
            for rule in policy.grants
            if rule.limit
        )
        self._grants: ByTarget[Grant] = _by_target(policy.grants)
        self._denies: ByTarget[Deny] = _by_target(policy.denies)
        self._known = {
            action: frozenset(self._grants.get(action, {})) | frozenset(self._denies.get(action, {}))
            for action in self._grants.keys() | self._denies.keys()
        }  # by action, the entries of `on` that rules name
        self._conditions: dict[tuple[int, bool], Atoms] = {}
        self._parts: dict[tuple[str, Atom, frozenset[str], frozenset[str]], Part] = {}
        self._of: dict[tuple[object, ...], Parts] = {}
        self._forbids: dict[tuple[object, ...], dict[Atoms, tuple[Deny, ...]]] = {}
        self._none: Parts = {}
        self._denying: dict[int, Parts] = {}

    def formula(self, action: str, place: Place | None, about: Principals = anybody) -> Formula:
        """NEVER for a place that is None, which the policy does not know, and where the action cannot be on it.

        about: of whom it is to be; what is about others is left out.
        """
        base, own = self.layers(action, place, about)
        parts = base | own
        grants = {one: rules for part in parts.values() for one, rules in part.grants.items()}
        return Formula(grants, self.forbids(base, own)) if parts else NEVER

    def parts(self, action: str, place: Place | None, about: Principals = anybody) -> Parts:
        """Those of a formula, by principal. The same object where the same rules are about two places."""
        base, own = self.layers(action, place, about)
        return base | own if own else base

    def layers(self, action: str, place: Place | None, about: Principals = anybody) -> tuple[Parts, Parts]:
        """The same in two. First by the rules that are not of this place alone: one object, which is kept, for all
        that are alike but for rules of their own. Then of whom those name: that counts in place of the first."""
        if place is None or (action in GLOBAL_ACTIONS) != (place == DAEMON):
            return self._none, self._none
        known = self._known.get(action, NO_NAMES)
        perhaps = frozenset(group for group in place.perhaps if GROUP + group in known)
        targets = place.targets & known
        own = targets & {place.service}
        key = (action, shared := targets - own, perhaps, about)
        if key not in self._of:
            named = self._named(action, [*sorted(shared), *sorted(GROUP + group for group in perhaps)])
            self._of[key] = self._made(action, shared, perhaps, filter(about, named))
        if not own:
            return self._of[key], self._none
        return self._of[key], self._made(action, targets, perhaps, filter(about, self._named(action, own)))

    def forbids(self, base: Parts, own: Parts) -> dict[Atoms, tuple[Deny, ...]]:
        """All that forbids it, by the two layers. The same object where it is the same of two places."""
        if id(base) not in self._denying:
            self._denying[id(base)] = {person: part for person, part in base.items() if part.denies}
        denying = [part for person, part in self._denying[id(base)].items() if person not in own]
        denying += [part for part in own.values() if part.denies]
        key = tuple(sorted(map(id, denying)))
        if key not in self._forbids:
            self._forbids[key] = {one: rules for part in denying for one, rules in part.denies.items()}
        return self._forbids[key]

    def _named(self, action: str, targets: Iterable[str]) -> dict[Atom, None]:
        tables: list[Mapping[str, Iterable[Atom]]] = [self._grants.get(action, {}), self._denies.get(action, {})]
        return {person: None for table in tables for target in targets for person in table.get(target, ())}

    def _made(
        self, action: str, targets: frozenset[str], perhaps: frozenset[str], persons: Iterable[Atom]
    ) -> dict[Atom, Part]:
        may, not_may = self._grants.get(action, {}), self._denies.get(action, {})
        found = {}
        for person in persons:
            own = frozenset(one for one in targets if person in may.get(one, ()) or person in not_may.get(one, ()))
            also = frozenset(
                one for one in perhaps if person in may.get(GROUP + one, ()) or person in not_may.get(GROUP + one, ())
            )
            key = (action, person, own, also)
            if key not in self._parts:
                grants = self._entries(may, person, own, also, action in CHANGING)
                denies = self._entries(not_may, person, own, also, False)
                alive = {one: rules for one, rules in grants.items() if not covered(one, denies)} if denies else grants
                self._parts[key] = Part(alive, denies)
            found[person] = self._parts[key]
        return found

    def _entries(
        self,
        rules: Mapping[str, Mapping[Atom, Sequence[Any]]],
        person: Atom,
        targets: Iterable[str],
        perhaps: Iterable[str],
        demands: bool,
    ) -> dict[Atoms, tuple[Any, ...]]:
        """The ways of these rules to somebody's right on these targets, or perhaps on them."""
        ways: list[tuple[Rule, str]] = [
            (rule, "") for target in sorted(targets) if target in rules for rule in rules[target].get(person, ())
        ]
        for group in sorted(perhaps):
            ways += [(rule, group) for rule in rules.get(GROUP + group, NO_RULES).get(person, ())]
        if not ways:
            return {}
        counted = _counted([rule for rule, _ in ways]) if demands and len(ways) > 1 else {}
        found: dict[Atoms, dict[int, Rule]] = {}
        for rule, group in ways:
            one = self._asks(rule, demands) | ({person, Atom(INSIDE, group)} if group else {person})
            if rule.order in counted:
                one = frozenset(atom._replace(nth=counted[rule.order]) if atom.kind == LIMIT else atom for atom in one)
            found.setdefault(one, {})[rule.order] = rule
        return {one: tuple(found[one][order] for order in sorted(found[one])) for one in minimal(found)}

    def _asks(self, rule: Rule, demands: bool) -> Atoms:
        """conditions, found once."""
        key = id(rule), demands  # the policy keeps it
        if key not in self._conditions:
            self._conditions[key] = conditions(rule, demands)
        return self._conditions[key]

    def marks(self, action: str, target: str) -> object:
        """Where they are equal for each entry of `on` that is about a place, the formulas of two books are."""
        grants, denies = self._grants.get(action, {}), self._denies.get(action, {})
        rules = [rule for table in (grants, denies) for own in table.get(target, {}).values() for rule in own]
        return sorted((isinstance(one, Grant), principals_of(one), sorted(self._asks(one, True))) for one in rules)


def restricted(formula: Formula, held: Collection[Atom]) -> Formula:
    """For one person, who is these principals and no others: nothing in it is about people any more."""
    mine = frozenset(held)
    grants, denies = _rest(formula.grants, mine), _rest(formula.denies, mine)
    return Formula({one: rules for one, rules in grants.items() if not covered(one, denies)}, denies)


def _rest(entries: Mapping[Atoms, tuple[R, ...]], mine: Atoms) -> dict[Atoms, tuple[R, ...]]:
    found: dict[Atoms, dict[int, R]] = {}
    for one, rules in entries.items():
        people = frozenset(atom for atom in one if atom.kind in PRINCIPALS)
        if people <= mine:
            found.setdefault(one - people, {}).update({rule.order: rule for rule in rules})
    return {one: tuple(found[one][order] for order in sorted(found[one])) for one in minimal(found)}


def _by_target(rules: Sequence[R]) -> ByTarget[R]:
    found: ByTarget[R] = {}
    for rule in rules:
        persons = principals_of(rule)
        for action in rule.may:
            for target in rule.on:
                entry = found.setdefault(action, {}).setdefault(target, {})
                for person in persons:
                    entry.setdefault(person, []).append(rule)
    return found


def _counted(rules: list[Rule]) -> dict[int, int]:
    """Of rules of one person whose limits are alike, which each is, by its order: each has a counter of its own."""
    alike: dict[str, dict[int, Rule]] = {}
    for rule in rules:
        if isinstance(rule, Grant) and rule.limit:
            alike.setdefault(spell_limit(rule.limit), {})[rule.order] = rule
    found = {}
    for group in alike.values():
        ordered = sorted(group.values(), key=lambda rule: (sorted(conditions(rule, True)), rule.id))
        found.update({rule.order: nth for nth, rule in enumerate(ordered, 1)})
    return found


def principals_of(rule: Rule) -> list[Atom]:
    return [*(Atom(USER, name) for name in rule.users), *(Atom(MEMBER, name) for name in rule.groups)]


def conditions(rule: Rule, demands: bool) -> Atoms:
    """demands: whether what a grant demands counts: it does for what changes something."""
    found = set[Atom]()
    if rule.when is not None:
        found.add(Atom(WHEN, spell_window(rule.when)))
    if rule.expires is not None:
        found.add(Atom(UNTIL, spell_moment(rule.expires.at)))
    if isinstance(rule, Grant):
        if rule.sources is not None:
            found.add(Atom(FROM, spell_sources(rule.sources)))
        if demands and rule.reason:
            found.add(Atom(REASON, ""))
        if demands and rule.limit:
            found.add(Atom(LIMIT, spell_limit(rule.limit)))
        if demands and rule.approval:
            found.add(Atom(APPROVAL, spell_approval(rule.approval)))
    return frozenset(found)


def covered(one: Atoms, by: Iterable[Atoms]) -> bool:
    """Whether, where all of this hold, all of another one do."""
    return any(other <= one for other in by)


def minimal(found: Collection[Atoms]) -> list[Atoms]:
    """Without those that follow from others, in their order."""
    if len(found) == 1:  # most often
        return [*found]
    kept: list[Atoms] = []
    for one in sorted(found, key=len):
        if not covered(one, kept):
            kept.append(one)
    keep = set(kept)
    return [one for one in found if one in keep]


def possible(atoms: Iterable[Atom]) -> bool:
    """Nobody is two people."""
    return len({atom for atom in atoms if atom.kind == USER}) < 2


def actions(place: Place) -> list[Action]:
    """Those that can be on it."""
    return [action for action in Action if (action in GLOBAL_ACTIONS) == (place == DAEMON)]


# -- conditions, each meaning in one spelling


def spell_window(window: Window) -> str:
    runs: list[list[int]] = []
    for day in sorted(window.days):
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    days = ",".join(DAYS[run[0]] + (f"-{DAYS[run[-1]]}" if len(run) > 1 else "") for run in runs)
    start, end = (f"{minute // 60:02}:{minute % 60:02}" for minute in (window.start, window.end))
    return f"{days} {start}-{end} {window.zone}"


def spell_moment(at: float) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}{f'.{moment.microsecond:06}' if moment.microsecond else ''} UTC"


def spell_sources(sources: Sources) -> str:
    networks = []
    for size, first, mask in sorted(set(sources.networks)):
        address = inet_ntop(AF_INET if size == 4 else AF_INET6, first.to_bytes(size))
        networks.append(f"{address}/{mask.bit_count()}")
    return ", ".join([*networks, *(["local"] if sources.local else [])])


def spell_span(seconds: float) -> str:
    unit = max((unit for unit in UNITS if seconds % UNITS[unit] == 0), key=UNITS.__getitem__, default="s")
    return f"{seconds / UNITS[unit]:g}{unit}"


def spell_limit(limit: Limit) -> str:
    return f"{limit.times} in {spell_span(limit.seconds)}"


def spell_approval(approval: Approval) -> str:
    names = [*(f"user:{name}" for name in approval.users), *(f"group:{name}" for name in approval.groups)]
    return f"{' or '.join(sorted(set(names)))} within {spell_span(approval.within)}"
