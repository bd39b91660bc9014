"""What changes between two policies, in rights gained and lost; complete, also for people in several groups at once.

Both are formulas over the same atoms (policy/rights.py). A right is gained where the new one allows something and the
old one does not. Atoms that hold besides only ever make more grants and more denies hold. So a point (a set of atoms
that hold, and no others) where something is gained contains one of these, which are all looked at:
  - where a grant of the new one holds and nothing else: gained, if no grant of the old one holds there;
  - where a grant of the new one and a deny of the old one hold together and nothing else: gained, if no deny of the new
    one holds there.
Each change contains one that is told, and each that is told is one. Two principals in a row are people who are both at
once. What is lost is gained the other way round.

How often is in no formula: somebody who is two principals at once has one counter where one rule with a limit is about
both, and two where two rules are. So the rules of each two are counted, where rules with limits have changed; a further
counter is told as "at most … (by another rule)". Who is three or more at once is looked at as pairs of them.

Rule: pure. A service that only one of the two knows has no rights in the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Literal, NamedTuple

from policy.listing import ORDER, Excepts, Progress, Row, at, gathered, in_order, row_of, silent
from policy.names import CHANGING, Action
from policy.rights import (
    DAEMON,
    INSIDE,
    LIMIT,
    PRINCIPALS,
    USER,
    Atom,
    Atoms,
    Book,
    Formula,
    Part,
    Parts,
    Place,
    actions,
    covered,
    minimal,
    possible,
)
from policy.rules import GROUP, Deny

Kind = Literal["gained", "lost"]
Persons = tuple[Atom, ...]
Pair = tuple[Part, Part]  # of one principal: of the policy that does not allow it, and of the one that does
NOTHING = Part({}, {})
ACTS: dict[str, int] = {action: number for number, action in enumerate(Action)}


class Change(NamedTuple):
    """row: who has gained or lost what; its `unless` is that of the policy that allows it. still: the conditions under
    which the other policy allows it to the same people, there; an empty one: always, but for this row's own. but: whom
    it excepts from that, where this row's `unless` does not."""

    kind: Kind
    row: Row
    still: tuple[Atoms, ...]
    but: tuple[Atoms, ...] = ()


def diff(
    old: Book, before: Mapping[str, Place], new: Book, after: Mapping[str, Place], tell: Progress = silent
) -> list[Change]:
    """What the new policy lets people do that the old one does not, and the other way round.

    before, after: the places of each (policy.rights.places), by name; made with the groups of services that either of
    the two names, or what is about services that are not configured would not be compared. Nothing is left out, and
    nothing is told that is not so. tell: as for policy.listing.matrix. Raises nothing.
    """
    found = _Found()
    alike = cache(lambda action, target: old.marks(action, target) == new.marks(action, target))
    names = dict.fromkeys(("", *before, *after))
    for number, name in enumerate(names):
        tell(number, len(names))
        was, will = (DAEMON, DAEMON) if not name else (before.get(name), after.get(name))
        for action in actions(was or will or DAEMON):
            if was and will and was.perhaps == will.perhaps and was.targets == will.targets:
                named = (*was.targets, *(GROUP + group for group in was.perhaps))
                if all(alike(action, target) for target in named):
                    continue  # most of it, between two versions of the same policy
            mine, theirs = _Side(old, action, was), _Side(new, action, will)
            found.look("lost", action, name, theirs, mine)
            found.look("gained", action, name, mine, theirs)
    for change in _recounted(old, before, new, after):
        found.add(change._replace(row=at(change.row))).extend(change.row.services)
    return _gathered(found.services)


class _Side:
    """What one policy says of an action on a place."""

    def __init__(self, book: Book, action: str, place: Place | None) -> None:
        self.base, self.own = book.layers(action, place)
        self.denies = book.forbids(self.base, self.own)

    def of(self, person: Atom) -> Part:
        return self.own.get(person) or self.base.get(person, NOTHING)


class _Layer(NamedTuple):
    """Of principals: of whom something is gained alone, of whom a deny is lifted, and whom something is granted."""

    gaining: dict[Atom, Pair]
    lifting: dict[Atom, Pair]
    granting: dict[Atom, Pair]


class _Found:
    """The changes that have been found, each with its services.

    Services are mostly alike: what is found of one principal, or of two, is found once for all that say the same of
    them. The books keep what is asked for by its id() here.
    """

    def __init__(self) -> None:
        self.services: dict[Change, list[str]] = {}
        self._alone: dict[tuple[int, int], tuple[list[Atoms], list[Atoms]]] = {}
        self._layers: dict[tuple[int, int], _Layer] = {}
        self._excepts: dict[int, Excepts] = {}
        self._told: dict[tuple[object, ...], list[list[str]]] = {}
        self._shared: dict[tuple[object, ...], list[tuple[Persons, list[str]]]] = {}

    def add(self, change: Change) -> list[str]:
        """Its services, of which it names none itself, to be added to."""
        return self.services.setdefault(change, [])

    def look(self, kind: Kind, action: str, service: str, one: _Side, other: _Side) -> None:
        """What `other` allows there and `one` does not."""
        key = id(one.base), id(other.base)
        if key not in self._layers:
            self._layers[key] = self._layer(
                {
                    person: (one.base.get(person, NOTHING), other.base.get(person, NOTHING))
                    for person in one.base | other.base
                }
            )
        layer = self._layers[key]
        whole = (kind, action, id(one.denies), id(other.denies), *key)
        if whole not in self._shared:
            ways = _ways(layer.gaining, [(layer.lifting, layer.granting)])
            self._shared[whole] = [
                (persons, names)
                for persons, pairs in ways.items()
                for names in self._changes(kind, action, one, other, pairs)
            ]
        own = {person: (one.of(person), other.of(person)) for person in one.own | other.own}
        for persons, names in self._shared[whole]:
            if own.keys().isdisjoint(persons):
                names.append(service)
        if own:
            mine = self._layer(own)
            rest = [{person: pair for person, pair in of.items() if person not in own} for of in layer[1:]]
            twos = [(mine.lifting, mine.granting | rest[1]), (rest[0], mine.granting)]
            for pairs in _ways(mine.gaining, twos).values():
                for names in self._changes(kind, action, one, other, pairs):
                    names.append(service)

    def _layer(self, pairs: Mapping[Atom, Pair]) -> _Layer:
        found = _Layer({}, {}, {})
        for person, pair in pairs.items():
            points, lifted = self._of_one(pair)
            for so, of in zip((points, lifted, pair[1].grants), found, strict=True):
                if so:
                    of[person] = pair
        return found

    def _of_one(self, pair: Pair) -> tuple[list[Atoms], list[Atoms]]:
        """The least points about one principal alone, and what is not forbidden to him any more."""
        key = id(pair[0]), id(pair[1])
        if key not in self._alone:
            one, other = pair
            lifted = [deny for deny in one.denies if deny not in other.denies and not covered(deny, other.denies)]
            points = [way for way in other.grants if way not in one.grants and not covered(way, one.grants)]
            points += [way | deny for way in other.grants for deny in lifted]
            points = minimal(dict.fromkeys(point for point in points if not covered(point, other.denies)))
            self._alone[key] = points, lifted
        return self._alone[key]

    def _points(self, pairs: tuple[Pair, ...]) -> list[Atoms]:
        """The least points about just these principals."""
        if len(pairs) == 1:
            return self._of_one(pairs[0])[0]
        less = [point for pair in pairs for point in self._of_one(pair)[0]]
        found = dict[Atoms, None]()
        for (_, other), pair in (pairs, pairs[::-1]):
            for way in other.grants:
                for deny in self._of_one(pair)[1]:
                    point = way | deny
                    if not any(covered(point, by) for by in (other.denies, pair[1].denies, less)):
                        found[point] = None
        return minimal(found)

    def _changes(self, kind: Kind, action: str, one: _Side, other: _Side, pairs: tuple[Pair, ...]) -> list[list[str]]:
        key = (kind, action, id(one.denies), id(other.denies), *(id(part) for pair in pairs for part in pair))
        if key not in self._told:
            self._told[key] = found = []
            formula = Formula({}, {})
            for part, _ in pairs:
                formula.grants.update(part.grants)
                formula.denies.update(part.denies)
            for point in self._points(pairs):
                unless = self._unless(other.denies, point)
                still = in_order(remaining(formula, point))
                but, known = self._unless(one.denies, point) if still else (), {frozenset[Atom](), *unless}
                but = tuple([deny for deny in but if deny not in known])
                found.append(self.add(Change(kind, at(row_of(point, action, ""))._replace(unless=unless), still, but)))
        return self._told[key]

    def _unless(self, denies: dict[Atoms, tuple[Deny, ...]], point: Atoms) -> tuple[Atoms, ...]:
        if id(denies) not in self._excepts:
            self._excepts[id(denies)] = Excepts(denies)
        return self._excepts[id(denies)].of(point)


def _ways(
    gaining: Mapping[Atom, Pair], twos: Iterable[tuple[Mapping[Atom, Pair], Mapping[Atom, Pair]]]
) -> dict[Persons, tuple[Pair, ...]]:
    """One principal, or two of whom one is granted something and a deny of the other is lifted."""
    found: dict[Persons, tuple[Pair, ...]] = {(person,): (pair,) for person, pair in gaining.items()}
    for lifting, granting in twos:
        for one, its in lifting.items():
            for other, theirs in granting.items():
                if one != other and not one.kind == other.kind == USER:
                    found[(one, other) if one < other else (other, one)] = (
                        (its, theirs) if one < other else (theirs, its)
                    )
    return found


def _recounted(old: Book, before: Mapping[str, Place], new: Book, after: Mapping[str, Place]) -> Iterator[Change]:
    """Where somebody who is two principals at once has more counters of a limit, or fewer, and neither of the two has
    alone."""
    changed = (old.limited - new.limited) + (new.limited - old.limited)
    persons = {person for people, *_ in changed for person in people}
    touched = {action for _, may, *_ in changed for action in may if action in CHANGING}
    for name in dict.fromkeys(("", *before, *after)) if persons else ():
        was, will = (DAEMON, DAEMON) if not name else (before.get(name), after.get(name))
        for action in filter(touched.__contains__, actions(was or will or DAEMON)):
            parts = old.parts(action, was), new.parts(action, will)
            mine, theirs = (_counters(one, persons) for one in parts)
            for rest in in_order(mine.keys() & theirs.keys()):
                one, other = mine[rest], theirs[rest]
                both = one.keys() & other.keys()
                for pair in in_order(_pairs(one, both) | _pairs(other, both)):
                    had, has = (len(set[int]().union(*(held[person] for person in pair))) for held in (one, other))
                    told = any((len(other[person]) - len(one[person])) * (has - had) > 0 for person in pair)
                    if had == has or told or not possible(pair):
                        continue
                    book, where = (new, will) if has > had else (old, was)
                    counted = {atom._replace(nth=max(had, has)) if atom.kind == LIMIT else atom for atom in rest}
                    point, denies = pair | counted, book.forbids(*book.layers(action, where))
                    row = row_of(point, action, name)  # no deny covers it: it would cover one of the two alone
                    unless = in_order({deny - point for deny in denies if possible(point | deny)})
                    yield Change("gained" if has > had else "lost", row._replace(unless=unless), ())


def _counters(parts: Parts, persons: set[Atom]) -> dict[Atoms, dict[Atom, set[int]]]:
    """The rules with a limit, by what else they ask for, and by principal."""
    found: dict[Atoms, dict[Atom, set[int]]] = {}
    for person in persons & parts.keys():
        for one, rules in parts[person].grants.items():
            if any(atom.kind == LIMIT for atom in one):
                rest = frozenset(atom._replace(nth=1) for atom in one - {person})
                found.setdefault(rest, {}).setdefault(person, set()).update(rule.order for rule in rules)
    return found


def _pairs(counters: Mapping[Atom, set[int]], persons: Collection[Atom]) -> set[Atoms]:
    """Each two that one rule is about."""
    about: dict[int, set[Atom]] = {}
    for person in persons:
        for order in counters[person]:
            about.setdefault(order, set()).add(person)
    return {frozenset(pair) for people in about.values() for pair in combinations(people, 2)}


def remaining(formula: Formula, point: Atoms) -> list[Atoms]:
    """The conditions under which a formula allows it to the people of a point, on its service."""
    known = frozenset(atom for atom in point if _is_fixed(atom))
    rest = [one - known for one in formula.grants if all(atom in known for atom in one if _is_fixed(atom))]
    denies = [one - known for one in formula.denies if all(atom in known for atom in one if _is_fixed(atom))]
    return [one for one in minimal(dict.fromkeys(rest)) if not covered(one, denies)]


def _is_fixed(atom: Atom) -> bool:
    return atom.kind in (*PRINCIPALS, INSIDE)


def _gathered(changes: Mapping[Change, Sequence[str]]) -> list[Change]:
    """What is the same but for its actions as one, each with its services."""
    groups: dict[Change, list[Row]] = {}
    for change, names in sorted(changes.items(), key=lambda pair: ACTS[pair[0].row.actions[0]]):
        if not names:
            continue  # wherever it could have been, a rule is about that service alone
        row = change.row._replace(services=tuple(names))
        groups.setdefault(change._replace(row=Row((), (), ())), []).append(row)
    found = [change._replace(row=row) for change, rows in groups.items() for row in gathered(rows)]
    return sorted(found, key=_order)


def _order(change: Change) -> tuple[object, ...]:
    row = change.row
    return (
        row.who,
        row.services,
        change.kind,
        ACTS[row.actions[0]],
        row.inside,
        [(ORDER[atom.kind], atom) for atom in row.conditions],
    )
