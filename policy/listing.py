"""who-can, what-can and matrix: the rights of a policy as rows that people and programs read.

A row is one way to a right: who (a person, or the members of a group), what, on which services, under which conditions,
and what excepts from it. Rows are complete: a person has exactly the rights of the rows that are about him (by his
name, or by a group of his), but where a row excepts him. Whoever is in no row, "anyone else", may do nothing.

Rule: pure, and of the formulas of policy/rights.py alone. People's groups are an argument, or stay open.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from policy.decide import place as place_of
from policy.rights import (
    APPROVAL,
    DAEMON,
    FROM,
    INSIDE,
    LIMIT,
    MEMBER,
    PRINCIPALS,
    REASON,
    UNTIL,
    USER,
    WHEN,
    Atom,
    Atoms,
    Book,
    Formula,
    Part,
    Parts,
    Place,
    Principals,
    actions,
    anybody,
    possible,
    restricted,
)  # fmt: skip
from policy.rules import Deny, Grant

Denies = dict[Atoms, tuple[Deny, ...]]
Progress = Callable[[int, int], None]  # how many of how many
KINDS = (USER, MEMBER, INSIDE, WHEN, UNTIL, FROM, REASON, LIMIT, APPROVAL)
ORDER = {kind: number for number, kind in enumerate(KINDS)}


def silent(done: int, of: int) -> None:
    pass


class Row(NamedTuple):
    """who: one principal, or several who must be one person; services: "" is the daemon as a whole; inside: groups that
    a service must be in that is not known to be; unless: what excepts from it, each a set that holds together; rules:
    as "id (file:line)"."""

    who: tuple[Atom, ...]
    actions: tuple[str, ...]
    services: tuple[str, ...]
    inside: tuple[str, ...] = ()
    conditions: tuple[Atom, ...] = ()
    unless: tuple[Atoms, ...] = ()
    rules: tuple[str, ...] = ()


class Ways:
    """The rows of a book, made once for all services whose rules about somebody are the same. about: whose."""

    def __init__(self, book: Book, about: Principals = anybody) -> None:
        self._book, self._about = book, about
        self._made: dict[tuple[str, int, int], list[Row]] = {}
        self._excepts: dict[int, Excepts] = {}

    def of(self, action: str, place: Place) -> list[Row]:
        """In the order of principals; they name no service yet."""
        base, own, denies = self.layers(action, place)
        parts, found = base | own, list[Row]()
        for person in sorted(parts, key=_place):
            found += self.by(action, parts[person], denies)
        return found

    def layers(self, action: str, place: Place) -> tuple[Parts, Parts, Denies]:
        """The two of the book, and all that forbids it there."""
        base, own = self._book.layers(action, place, self._about)
        return base, own, self._book.forbids(base, own)

    def by(self, action: str, part: Part, denies: Denies) -> list[Row]:
        """Of one principal."""
        key = (action, id(part), id(denies))  # the book keeps both
        if key not in self._made:
            if id(denies) not in self._excepts:
                self._excepts[id(denies)] = Excepts(denies)
            self._made[key] = _rows(part.grants, self._excepts[id(denies)], action, "")
        return self._made[key]


def who_can(book: Book, action: str, place: Place) -> list[Row]:
    """Everybody who may do this there.

    action: a word of policy.names.Action; place: one of policy.rights.places, or DAEMON for a global action. Rows are
    in the order of their principals; none where nobody may, and where the action cannot be there. Raises nothing.
    """
    return [at(row, place) for row in Ways(book).of(action, place)]


def what_can(
    book: Book, places: Iterable[Place], user: str, groups: Collection[str] | None, tell: Progress = silent
) -> list[Row]:
    """All that this person may do, the daemon's first, then by place.

    places: of policy.rights.places. groups: all that he is in; None: that is not known, and then a row's `who` says
    through which group he would, where it is not by his name. tell: as for matrix. Raises nothing: who is in no rule
    has no row.
    """
    if groups is None:
        return _all(_in_any_group(book, user), places, tell)
    mine = principals(user, groups)
    held = frozenset(mine)
    found, made = [], dict[tuple[str, tuple[int, ...]], list[Row]]()
    for place in _told([DAEMON, *places], tell):
        for action in actions(place):
            parts = book.parts(action, place, held.__contains__)
            key = (action, tuple(map(id, parts.values())))
            if key not in made:
                formula = restricted(book.formula(action, place, held.__contains__), held)
                made[key] = [row._replace(who=(mine[0],)) for row in rows_of(formula, action, "")]
            found += [at(row, place) for row in made[key]]
    return found


def what_can_gathered(
    book: Book, places: Iterable[Place], user: str, groups: Collection[str] | None, tell: Progress = silent
) -> list[Row]:
    """gathered(what_can(…)). Where the groups are not known, without a row for each service in between."""
    if groups is None:
        return _all_gathered(_in_any_group(book, user), places, tell)
    return gathered(what_can(book, places, user, groups, tell))


def _in_any_group(book: Book, user: str) -> Ways:
    himself = Atom(USER, user)
    return Ways(book, lambda atom: atom.kind != USER or atom == himself)


def principals(user: str, groups: Iterable[str]) -> list[Atom]:
    """What somebody is: himself, and a member of these groups."""
    return [Atom(USER, user), *(Atom(MEMBER, group) for group in groups)]


def matrix(book: Book, places: Iterable[Place], tell: Progress = silent) -> list[Row]:
    """Every right there is: one row for each way to it, on each service.

    tell: is told, again and again, how many of how many places have been looked at.
    """
    return _all(Ways(book), places, tell)


def _all(ways: Ways, places: Iterable[Place], tell: Progress) -> list[Row]:
    return [
        at(row, place)
        for place in _told([DAEMON, *places], tell)
        for action in actions(place)
        for row in ways.of(action, place)
    ]


def _all_gathered(ways: Ways, places: Iterable[Place], tell: Progress) -> list[Row]:
    """gathered(_all(…)): where the same rules are about somebody, he has the same rows, which are made and looked at
    once. They come in the order of the first place, action and principal that have them."""
    where = [DAEMON, *places]
    first: dict[tuple[str, int, int], tuple[tuple[int, int, tuple[int, str, int]], Part, Denies]] = {}
    on: dict[tuple[str, int, int], list[int]] = {}
    for number, place in enumerate(_told(where, tell)):
        for rank, action in enumerate(map(str, actions(place))):
            base, own, denies = ways.layers(action, place)
            parts = base | own if own else base
            for person, part in parts.items():
                key = (action, id(part), id(denies))  # the book keeps both
                if key not in first:
                    first[key], on[key] = ((number, rank, _place(person)), part, denies), []
                on[key].append(number)
    services: dict[Row, set[int]] = {}
    for key in sorted(first, key=lambda key: first[key][0]):
        for row in ways.by(key[0], *first[key][1:]):
            services.setdefault(at(row), set()).update(on[key])
    return _acts((row, [where[number].service for number in sorted(found)]) for row, found in services.items())


def at(row: Row, *places: Place) -> Row:
    """The same there. It is made often, and _replace takes four times as long."""
    return Row(row[0], row[1], tuple([place.service for place in places]), *row[3:])


def _told(places: list[Place], tell: Progress) -> Iterator[Place]:
    for number, place in enumerate(places):
        tell(number, len(places))
        yield place


def gathered(rows: Iterable[Row]) -> list[Row]:
    """What is the same but for its service in one row, and then what is the same but for its action."""
    services: dict[Row, list[str]] = {}
    for row in rows:
        services.setdefault(at(row), []).extend(row.services)
    return _acts(services.items())


def _acts(services: Iterable[tuple[Row, list[str]]]) -> list[Row]:
    """What is the same but for its action in one row."""
    acts: dict[Row, list[str]] = {}
    for row, names in services:
        acts.setdefault(row._replace(services=tuple(dict.fromkeys(names)), actions=()), []).extend(row.actions)
    return [row._replace(actions=tuple(dict.fromkeys(names))) for row, names in acts.items()]


class Excepts:
    """What excepts from the ways to a right, in order."""

    def __init__(self, denies: Iterable[Atoms]) -> None:
        self._all = in_order(denies)
        self._about: dict[Atom, set[Atoms]] = {}  # those in which an atom is
        for one in self._all:
            for atom in one:
                self._about.setdefault(atom, set()).add(one)
        self._of: dict[Atoms, tuple[Atoms, ...]] = {}
        self._for: dict[tuple[Atoms, Atoms], tuple[Atoms, ...]] = {}

    def of(self, one: Atoms) -> tuple[Atoms, ...]:
        """From this one: what is true where it holds is not told again, and nobody is two people."""
        users = frozenset([atom for atom in one if atom[0] == USER])
        true = frozenset([atom for atom in one if atom in self._about])
        if (users, true) not in self._for:  # all of it that matters
            self._for[users, true] = self._without(true, self._possible(users))
        return self._for[users, true]

    def _possible(self, users: Atoms) -> tuple[Atoms, ...]:
        if users not in self._of:
            others = [atom for atom in self._about if atom.kind == USER and atom not in users]
            wrong = set[Atoms]().union(*(self._about[atom] for atom in others)) if users else set[Atoms]()
            self._of[users] = tuple([deny for deny in self._all if deny not in wrong and possible(deny)])
        return self._of[users]

    def _without(self, true: Atoms, found: tuple[Atoms, ...]) -> tuple[Atoms, ...]:
        """The order of what has nothing of it stays."""
        touched = set[Atoms]().union(*(self._about[atom] for atom in true))
        rest = [deny for deny in found if deny not in touched]
        known = {*rest}
        for deny in {deny - true for deny in touched.intersection(found)} - known:
            insort(rest, deny, key=_places)
        return tuple(rest)


def rows_of(formula: Formula, action: str, service: str) -> list[Row]:
    """Each way to this right, and what excepts from it."""
    return _rows(formula.grants, Excepts(formula.denies), action, service)


def _rows(grants: Mapping[Atoms, Collection[Grant]], excepts: Excepts, action: str, service: str) -> list[Row]:
    found = []
    for one in in_order(grants):
        rules = tuple([f"{rule.id} ({place_of(rule)})" for rule in grants[one]])
        found.append(Row(*row_of(one, action, service)[:5], excepts.of(one), rules))
    return found


def row_of(one: Atoms, action: str, service: str) -> Row:
    who, inside, conditions = list[Atom](), list[str](), list[Atom]()
    for atom in ordered(one):
        if atom.kind in PRINCIPALS:
            who.append(atom)
        elif atom.kind == INSIDE:
            inside.append(atom.text)
        else:
            conditions.append(atom)
    return Row(tuple(who), (action,), (service,), tuple(inside), tuple(conditions))


def about(formula: Formula, user: str) -> Formula:
    """What of it can be about this person, whatever groups he is in."""
    others = frozenset(atom for one in (*formula.grants, *formula.denies) for atom in one if atom.kind == USER)
    others -= {Atom(USER, user)}
    grants = {one: rules for one, rules in formula.grants.items() if others.isdisjoint(one)}
    return Formula(grants, {one: rules for one, rules in formula.denies.items() if others.isdisjoint(one)})


def ordered(atoms: Iterable[Atom]) -> tuple[Atom, ...]:
    return tuple(sorted(atoms, key=_place))


def in_order(found: Iterable[Atoms]) -> tuple[Atoms, ...]:
    every = tuple(found)
    return every if len(every) == 1 else tuple(sorted(every, key=_places))


@lru_cache(1 << 16)
def _places(one: Atoms) -> list[tuple[int, str, int]]:
    return [_place(atom) for atom in ordered(one)]


def _place(atom: Atom) -> tuple[int, str, int]:
    return ORDER[atom.kind], atom.text, atom.nth
