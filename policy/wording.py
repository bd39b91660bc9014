"""Rights in words and as JSON: the rows of policy/listing.py and the changes of policy/diff.py.

Rule: pure; nothing is left out of the JSON, and nothing that matters out of the words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache, lru_cache
from typing import Any

from policy.diff import Change
from policy.listing import Row, ordered
from policy.rights import OTHER, Atom, Atoms

EVERY, DAEMON_WORDS, OTHER_WORDS = "every service", "the daemon", "any other service"
COMPLETE = (
    "complete: every name in the rules was looked at, people in several groups at once, and anyone else, who may do"
    " nothing. Conditions stand as they are written. root may do everything"
)
FORMS = {
    "until": "until {}", "from": "from {}", "reason": "with a reason", "limit": "at most {}",
    "approval": "approved by {}", "in": "in group:{}", "user": "user:{}", "group": "group:{}",
}  # fmt: skip
COLUMNS = ("who", "may", "on", "if", "unless", "rules")


def atom_words(atom: Atom) -> str:
    text = FORMS.get(atom.kind, "{}").format(atom.text)
    return f"{text} (by another rule)" if atom.nth > 1 else text


def who_words(who: Iterable[Atom]) -> str:
    names = [atom_words(atom) for atom in who]
    return " and ".join(names) + (" at once" if len(names) > 1 else "")


def if_words(conditions: Iterable[Atom]) -> str:
    """ "always" when there is none."""
    return ", ".join(map(atom_words, ordered(conditions))) or "always"


def unless_words(unless: Iterable[Atoms]) -> str:
    return "; ".join(map(_all_words, unless))


@lru_cache(1 << 16)
def _all_words(one: Atoms) -> str:
    return ", ".join(map(atom_words, ordered(one)))


def on_words(row: Row, every: bool) -> str:
    """every: whether it names all that are configured, in the groups of `inside`."""
    inside = " and ".join(f"group:{group}" for group in row.inside)
    named = [name for name in row.services if name != OTHER]
    if row.services == ("",):
        return DAEMON_WORDS
    if OTHER in row.services and every:
        return f"{EVERY} in {inside}" if inside else EVERY
    if OTHER in row.services:
        named.append(OTHER_WORDS)
    return ", ".join(named) + (f", if in {inside}" if inside else "")


def folded(rows: Iterable[Row], services: Mapping[str, Collection[str]]) -> list[Row]:
    """Gathered rows, with what holds for all services of a group, and for others in it, as one of that group."""
    found = dict.fromkeys(rows)
    alike: dict[Row, list[Row]] = {}
    for row in found:
        if not row.inside:
            alike.setdefault(row._replace(services=()), []).append(row)
    members = cache(lambda group: {name for name, groups in services.items() if group in groups})
    for row in list(found):
        if row.services == (OTHER,) and len(row.inside) == 1:
            same = alike.get(row._replace(services=(), inside=()), ())
            named = members(row.inside[0]) if same else set()
            twin = next((one for one in same if one in found and {*one.services} == named), None)
            if twin is not None:
                del found[twin]
                del found[row]
                found[row._replace(services=(*twin.services, OTHER))] = None
    return [*found]


def cells(row: Row, known: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """By COLUMNS. known: the configured services and their groups."""
    inside, named = frozenset(row.inside if any(known.values()) else ()), frozenset(row.services)
    every = OTHER in named and all(name in named for name, groups in known.items() if inside.issubset(groups))
    parts = (who_words(row.who), ", ".join(row.actions), on_words(row, every), if_words(row.conditions))
    return (*parts, unless_words(row.unless), ", ".join(row.rules))


def document(row: Row) -> dict[str, Any]:
    """{"who": ["group:webops"], "actions", "services", "inside", "if", "unless", "rules"}; "services" names any that is
    not configured "*", and the daemon as a whole ""."""
    return {
        "who": [atom_words(atom) for atom in row.who],
        "actions": list(row.actions),
        "services": list(row.services),
        "inside": list(row.inside),
        "if": [atom_words(atom) for atom in row.conditions],
        "unless": [[atom_words(atom) for atom in ordered(one)] for one in row.unless],
        "rules": list(row.rules),
    }


def change_document(change: Change) -> dict[str, Any]:
    """As document, with "change", "still" and "but"."""
    still, but = (
        [[atom_words(atom) for atom in ordered(one)] for one in found] for found in (change.still, change.but)
    )
    told = document(change.row)
    del told["rules"]
    return {"change": change.kind, **told, "still": still, "but": but}


def change_cells(changes: Iterable[Change], known: Mapping[str, Collection[str]]) -> list[tuple[str, ...]]:
    """The lines of `policy diff`, what is lost first: "gained" or "lost", COLUMNS but for the rules, and what the other
    policy allows all the same. known: as for cells."""
    alike: dict[tuple[str, str], list[Row]] = {}
    for one in changes:
        alike.setdefault((one.kind, still_words(one)), []).append(one.row)
    return [
        (kind, *cells(row, known)[:-1], still)
        for kind, still in sorted(alike, reverse=True)
        for row in folded(alike[kind, still], known)
    ]


def still_words(change: Change) -> str:
    """What the other policy allows of it all the same."""
    if not change.still:
        return ""
    word = "now" if change.kind == "lost" else "before"
    text = f"{word}: {' or '.join(map(if_words, change.still))}"
    if frozenset() in change.still:
        text = "otherwise as before"
    return text + (f", but not {unless_words(change.but)}" if change.but else "")
