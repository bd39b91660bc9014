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

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from itertools import combinations
from typing import Literal, NamedTuple

from policy.listing import Progress, Row, gathered, in_order, row_of, silent
from policy.names import CHANGING
from policy.rights import (
    DAEMON,
    INSIDE,
    LIMIT,
    PRINCIPALS,
    Atom,
    Atoms,
    Book,
    Formula,
    Parts,
    Place,
    actions,
    covered,
    minimal,
    possible,
)
from policy.rules import GROUP


class Change(NamedTuple):
    """row: who has gained or lost what; its `unless` is that of the policy that allows it. still: the conditions under
    which the other policy allows it to the same people, there; an empty one: always, but for this row's own. but: whom
    it excepts from that, where this row's `unless` does not."""

    kind: Literal["gained", "lost"]
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
    found: list[Change] = []
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
            mine, theirs = old.formula(action, was), new.formula(action, will)
            found += _told("lost", theirs, mine, action, name) + _told("gained", mine, theirs, action, name)
    return _gathered([*found, *_recounted(old, before, new, after)])


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
                    book, which = (new, parts[1]) if has > had else (old, parts[0])
                    counted = {atom._replace(nth=max(had, has)) if atom.kind == LIMIT else atom for atom in rest}
                    point, denies = pair | counted, book.forbids(which)
                    told = any((len(other[person]) - len(one[person])) * (has - had) > 0 for person in pair)
                    if had != has and not told and possible(pair) and not covered(point, denies):
                        row = row_of(point, action, name)
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


def _told(kind: Literal["gained", "lost"], one: Formula, other: Formula, action: str, service: str) -> list[Change]:
    """What `other` allows and `one` does not."""
    changes = []
    for point in in_order(gained(one, other)):
        unless = in_order({deny - point for deny in other.denies if possible(point | deny)})
        row = row_of(point, action, service)._replace(unless=unless)
        still = in_order(remaining(one, point))
        but = {deny - point for deny in one.denies if possible(point | deny)} if still else set()
        changes.append(Change(kind, row, still, in_order(but - {*unless, frozenset()})))
    return changes


def gained(old: Formula, new: Formula) -> list[Atoms]:
    """The least points at which the new one allows it and the old one does not."""
    found = dict.fromkeys(one for one in new.grants if one not in old.grants and not covered(one, old.grants))
    lifted = [deny for deny in old.denies if deny not in new.denies and not covered(deny, new.denies)]
    for grant in new.grants:
        for deny in lifted:
            point = grant | deny
            if possible(point) and not covered(point, new.denies):
                found[point] = None
    return minimal(found)


def remaining(formula: Formula, point: Atoms) -> list[Atoms]:
    """The conditions under which a formula allows it to the people of a point, on its service."""
    known = frozenset(atom for atom in point if _is_fixed(atom))
    rest = [one - known for one in formula.grants if all(atom in known for atom in one if _is_fixed(atom))]
    denies = [one - known for one in formula.denies if all(atom in known for atom in one if _is_fixed(atom))]
    return [one for one in minimal(dict.fromkeys(rest)) if not covered(one, denies)]


def _is_fixed(atom: Atom) -> bool:
    return atom.kind in (*PRINCIPALS, INSIDE)


def _gathered(changes: list[Change]) -> list[Change]:
    """What is the same but for its services, and then but for its actions, as one."""
    groups: dict[Change, list[Row]] = {}
    for change in changes:
        groups.setdefault(change._replace(row=Row((), (), ())), []).append(change.row)
    found = [change._replace(row=row) for change, rows in groups.items() for row in gathered(rows)]
    return sorted(found, key=lambda change: (change.row.who, change.row.services, change.kind))
