"""Rights in words and as JSON."""

from __future__ import annotations

import json

import pytest

from policy.diff import Change
from policy.listing import Row
from policy.rights import OTHER, Atom
from policy.wording import (
    cells,
    change_cells,
    change_document,
    document,
    folded,
    if_words,
    on_words,
    still_words,
    unless_words,
    who_words,
)  # fmt: skip

ALICE, OPS, NIGHT = Atom("user", "alice"), Atom("group", "ops"), Atom("when", "Mon-Sun 22:00-06:00 UTC")
REASON, LIMIT = Atom("reason", ""), Atom("limit", "6 in 10m")
SERVICES = {"site": ["web"], "shop": ["web"], "worker": []}


def test_who() -> None:
    assert who_words([ALICE]) == "user:alice"
    assert who_words([ALICE, OPS]) == "user:alice and group:ops at once"


def test_conditions_and_exceptions() -> None:
    assert if_words([]) == "always"
    more = [Atom("approval", "group:leads within 10m"), LIMIT, REASON, Atom("from", "10.0.0.0/8"), Atom("until", "x")]
    assert if_words([*more, NIGHT]) == (
        "Mon-Sun 22:00-06:00 UTC, until x, from 10.0.0.0/8, with a reason, at most 6 in 10m,"
        " approved by group:leads within 10m"
    )
    assert if_words([LIMIT._replace(nth=2)]) == "at most 6 in 10m (by another rule)"
    assert (
        unless_words([frozenset({OPS, NIGHT}), frozenset({ALICE})]) == "group:ops, Mon-Sun 22:00-06:00 UTC; user:alice"
    )


@pytest.mark.parametrize(
    ("services", "inside", "words"),
    [
        (("",), (), "the daemon"),
        (("site", "shop", "worker", OTHER), (), "every service"),
        (("site", "shop", "worker"), (), "site, shop, worker"),
        (("site", OTHER), (), "site, any other service"),
        ((OTHER,), ("web",), "any other service, if in group:web"),
        ((OTHER,), ("web", "money"), "any other service, if in group:web and group:money"),
        (("site", "shop", OTHER), ("web",), "site, shop, any other service, if in group:web"),
    ],
)
def test_services(services: tuple[str, ...], inside: tuple[str, ...], words: str) -> None:
    assert on_words(Row((ALICE,), ("view",), services, inside), {*SERVICES} <= {*services}) == words


def test_what_holds_for_a_group_and_for_others_in_it_is_one_row_of_that_group() -> None:
    both = [Row((ALICE,), ("view",), ("site", "shop")), Row((ALICE,), ("view",), (OTHER,), ("web",))]
    [row] = folded(both, SERVICES)
    assert cells(row, SERVICES)[:3] == ("user:alice", "view", "every service in group:web")


@pytest.mark.parametrize(
    "rows",
    [
        [Row((ALICE,), ("view",), ("site",)), Row((ALICE,), ("view",), (OTHER,), ("web",))],
        [Row((OPS,), ("view",), ("site", "shop")), Row((ALICE,), ("view",), (OTHER,), ("web",))],
        [Row((ALICE,), ("view",), (OTHER,), ("empty",))],
        [Row((ALICE,), ("view",), (OTHER,), ("web", "money"))],
    ],
)
def test_and_nothing_else_is_put_together(rows: list[Row]) -> None:
    assert folded(rows, SERVICES) == rows


def test_where_it_is_not_known_which_service_is_in_which_group_every_one_may_be() -> None:
    row = Row((ALICE,), ("view",), ("site", "shop", OTHER), ("web",))
    assert cells(row, {"site": [], "shop": []})[2] == "every service in group:web"


def test_as_json_with_nothing_left_out() -> None:
    row = Row((ALICE,), ("view",), ("site",), (), (REASON,), (frozenset({OPS}),), ("r (a.toml:1)",))
    told = json.loads(json.dumps(document(row)))
    assert told == {
        "who": ["user:alice"], "actions": ["view"], "services": ["site"], "inside": [], "if": ["with a reason"],
        "unless": [["group:ops"]], "rules": ["r (a.toml:1)"],
    }  # fmt: skip
    changed = change_document(Change("lost", row, (frozenset({LIMIT}),)))
    assert changed == {key: value for key, value in told.items() if key != "rules"} | {
        "change": "lost", "still": [["at most 6 in 10m"]], "but": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "still", "words"),
    [
        ("lost", (), ""),
        ("lost", (frozenset({REASON}),), "now: with a reason"),
        ("gained", (frozenset({REASON}), frozenset({NIGHT})), "before: with a reason or Mon-Sun 22:00-06:00 UTC"),
        ("gained", (frozenset(),), "otherwise as before"),
    ],
)
def test_what_the_other_policy_allows_all_the_same(kind, still, words) -> None:  # type: ignore[no-untyped-def]
    change = Change(kind, Row((ALICE,), ("view",), ("site",)), still)
    assert still_words(change) == words
    assert not still or still_words(change._replace(but=(frozenset({OPS}),))) == f"{words}, but not group:ops"


def test_the_lines_of_a_diff_begin_with_what_is_lost_and_have_a_cell_for_each_column() -> None:
    every = Row((OPS,), ("restart",), ("site", "shop", "worker", OTHER))
    changes = [Change("gained", every, ()), Change("lost", Row((ALICE,), ("view",), ("site",)), (frozenset({REASON}),))]
    assert change_cells(changes, SERVICES) == [
        ("lost", "user:alice", "view", "site", "always", "", "now: with a reason"),
        ("gained", "group:ops", "restart", "every service", "always", "", ""),
    ]
