"""who-can, what-can and matrix: the rights of a policy as rows that people and programs read.

A row is one way to a right: who (a person, or the members of a group), what, on which services, under which conditions,
and what excepts from it. Rows are complete: a person has exactly the rights of the rows that are about him (by his
name, or by a group of his), but where a row excepts him. Whoever is in no row, "anyone else", may do nothing.

Rule: pure, and of the formulas of policy/rights.py alone. People's groups are an argument, or stay open.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
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
    Place,
    actions,
    possible,
    restricted,
)  # fmt: skip

ORDER = (USER, MEMBER, INSIDE, WHEN, UNTIL, FROM, REASON, LIMIT, APPROVAL)


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


def who_can(book: Book, action: str, place: Place) -> list[Row]:
    """Everybody who may do this there.

    action: a word of policy.names.Action; place: one of policy.rights.places, or DAEMON for a global action. Rows are
    in the order of their principals; none where nobody may, and where the action cannot be there. Raises nothing.
    """
    return rows_of(book.formula(action, place), action, place.service)


def what_can(book: Book, places: Iterable[Place], user: str, groups: Collection[str] | None) -> list[Row]:
    """All that this person may do, the daemon's first, then by place.

    places: of policy.rights.places. groups: all that he is in; None: that is not known, and then a row's `who` says
    through which group he would, where it is not by his name. Raises nothing: who is in no rule has no row.
    """
    mine = principals(user, groups or ())
    found = []
    for place in (DAEMON, *places):
        for action in actions(place):
            formula = book.formula(action, place)
            if groups is None:
                rows = rows_of(about(formula, user), action, place.service)
            else:
                rows = rows_of(restricted(formula, mine), action, place.service)
                rows = [row._replace(who=(mine[0],)) for row in rows]
            found += rows
    return found


def principals(user: str, groups: Iterable[str]) -> list[Atom]:
    """What somebody is: himself, and a member of these groups."""
    return [Atom(USER, user), *(Atom(MEMBER, group) for group in groups)]


def matrix(book: Book, places: Iterable[Place]) -> list[Row]:
    """Every right there is: one row for each way to it, on each service."""
    return [row for place in (DAEMON, *places) for action in actions(place) for row in who_can(book, action, place)]


def gathered(rows: Iterable[Row]) -> list[Row]:
    """What is the same but for its service in one row, and then what is the same but for its action."""
    services: dict[Row, list[str]] = {}
    for row in rows:
        services.setdefault(row._replace(services=()), []).extend(row.services)
    acts: dict[Row, list[str]] = {}
    for row, names in services.items():
        acts.setdefault(row._replace(services=tuple(dict.fromkeys(names)), actions=()), []).extend(row.actions)
    return [row._replace(actions=tuple(dict.fromkeys(names))) for row, names in acts.items()]


def rows_of(formula: Formula, action: str, service: str) -> list[Row]:
    """Each way to this right, and what excepts from it."""
    found = []
    for one in in_order(formula.grants):
        unless = in_order({deny - one for deny in formula.denies if possible(one | deny)})
        rules = tuple(f"{rule.id} ({place_of(rule)})" for rule in formula.grants[one])
        found.append(row_of(one, action, service)._replace(unless=unless, rules=rules))
    return found


def row_of(one: Atoms, action: str, service: str) -> Row:
    inside = tuple(atom.text for atom in of_kinds(one, INSIDE))
    conditions = tuple(atom for atom in ordered(one) if atom.kind not in (*PRINCIPALS, INSIDE))
    return Row(of_kinds(one, *PRINCIPALS), (action,), (service,), inside, conditions)


def about(formula: Formula, user: str) -> Formula:
    """What of it can be about this person, whatever groups he is in."""
    others = frozenset(atom for one in (*formula.grants, *formula.denies) for atom in one if atom.kind == USER)
    others -= {Atom(USER, user)}
    grants = {one: rules for one, rules in formula.grants.items() if others.isdisjoint(one)}
    return Formula(grants, {one: rules for one, rules in formula.denies.items() if others.isdisjoint(one)})


def ordered(atoms: Iterable[Atom]) -> tuple[Atom, ...]:
    return tuple(sorted(atoms, key=lambda atom: (ORDER.index(atom.kind), atom.text, atom.nth)))


def of_kinds(atoms: Iterable[Atom], *kinds: str) -> tuple[Atom, ...]:
    return ordered(atom for atom in atoms if atom.kind in kinds)


def in_order(found: Iterable[Atoms]) -> tuple[Atoms, ...]:
    return tuple(sorted(found, key=lambda one: [(ORDER.index(atom.kind), *atom[1:]) for atom in ordered(one)]))
