"""who-can, what-can and matrix: what they say is what is decided, for everybody in each combination of groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import naive
from examples import examples
from hypothesis import given, strategies as st
from naive import Point, Rule, policy_of

from policy.listing import Excepts, Row, gathered, in_order, matrix, principals, what_can, what_can_gathered, who_can
from policy.rights import DAEMON, OTHER, Atom, Atoms, Book, Place, groups_named, places, possible


def known(policy: Any) -> dict[str, Place]:
    return places(naive.SERVICES, groups_named(policy))


def by_rows(rows: Sequence[Row], point: Point, mine: set[Atom]) -> bool:
    """What the rows say, as a reader would take them."""
    held = point.atoms() | mine
    held = {atom for atom in held if point.service == OTHER or atom.kind != "in"}
    return any(
        point.action in row.actions
        and point.service in row.services
        and {*row.who, *row.conditions, *(Atom("in", group) for group in row.inside)} <= held
        and not any(one <= held for one in row.unless)
        for row in rows
    )


@examples(12)
@given(rules=naive.RULES, circumstances=naive.CIRCUMSTANCES)
def test_the_matrix_and_who_can_say_what_is_decided_on_every_question(
    rules: list[Rule], circumstances: tuple[Any, ...]
) -> None:
    policy = policy_of(rules)
    book, found = Book(policy), known(policy)
    rows = matrix(book, found.values())
    together = gathered(rows)
    assert len(together) <= len(rows)
    for point in naive.points(circumstances):
        expected = naive.allowed(rules, point)
        assert by_rows(together, point, set()) == expected, point
        if point.groups == {"webops", "night"}:
            place = found[point.service] if point.service else DAEMON
            assert by_rows(who_can(book, point.action, place), point, set()) == expected, point


@examples(20)
@given(rules=naive.RULES, groups=st.sampled_from([None, [], ["webops"]]))
def test_rows_that_are_gathered_at_once_are_those_that_are_made_one_by_one_and_then_gathered(
    rules: list[Rule], groups: list[str] | None
) -> None:
    policy = policy_of(rules)
    for user in naive.USERS:
        slowly = gathered(what_can(Book(policy), known(policy).values(), user, groups))
        assert what_can_gathered(Book(policy), known(policy).values(), user, groups) == slowly


def excepts(denies: list[Atoms], one: Atoms) -> tuple[Atoms, ...]:
    """What excepts from it, by its definition, with each deny looked at each time."""
    users, true = {atom for atom in one if atom.kind == "user"}, frozenset().union(*denies) & one
    return in_order({deny - true for deny in denies if possible(users | deny)})


ATOMS = st.frozensets(
    st.sampled_from([Atom(kind, text) for kind in ("user", "group", "in", "when") for text in ("a", "b", "c")]),
    max_size=4,
)


@examples(60)
@given(denies=st.lists(ATOMS, max_size=8, unique=True), ones=st.lists(ATOMS.filter(possible), max_size=4))
def test_what_excepts_from_a_way_is_found_by_what_its_denies_are_about_as_by_looking_at_each(
    denies: list[Atoms], ones: list[Atoms]
) -> None:
    found = Excepts(denies)
    assert [found.of(one) for one in ones] == [excepts(denies, one) for one in ones]


@examples(8)
@given(rules=naive.RULES, circumstances=naive.CIRCUMSTANCES)
def test_what_can_says_what_is_decided_with_the_groups_and_without(
    rules: list[Rule], circumstances: tuple[Any, ...]
) -> None:
    policy = policy_of(rules)
    book, found = Book(policy), known(policy)
    open_ = {user: what_can(book, found.values(), user, None) for user in naive.USERS}
    closed = {
        (user, groups): what_can(book, found.values(), user, groups) for user, groups in naive.people()
    }  # fmt: skip
    for user in naive.USERS:
        others = {atom for row in open_[user] for one in (row.who, *row.unless) for atom in one if atom.kind == "user"}
        assert others <= {Atom("user", user)}, "nobody else is spoken of"
    for point in naive.points(circumstances):
        expected = naive.allowed(rules, point)
        assert by_rows(open_[point.user], point, set()) == expected, point
        rows = closed[point.user, point.groups]
        assert {row.who for row in rows} <= {(Atom("user", point.user),)}
        assert by_rows(rows, point, set()) == expected, point


def test_rows_that_are_alike_are_one_by_service_and_by_action() -> None:
    grant = {"kind": "grant", "id": "g", "who": ["user:bob"], "may": ["view", "logs"], "on": ["*"]}
    policy = policy_of([grant])
    [row] = gathered(matrix(Book(policy), known(policy).values()))
    assert row == Row(
        (Atom("user", "bob"),), ("view", "logs"), ("site", "shop", "worker", OTHER), rules=("g (10.toml:1)",)
    )  # fmt: skip


def test_what_somebody_is() -> None:
    assert principals("alice", ["webops"]) == [Atom("user", "alice"), Atom("group", "webops")]


def test_who_waits_for_the_whole_is_told_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []
    matrix(Book(naive.policy_of([])), places(naive.SERVICES, ()).values(), lambda *done: told.append(done))
    count = len(naive.SERVICES) + 2  # the daemon, and any other service
    assert told == [(number, count) for number in range(count)]
