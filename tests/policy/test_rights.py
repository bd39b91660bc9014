"""Formulas of rights: against decide and a naive evaluator, for every combination; and conditions by their meaning."""

from __future__ import annotations

from typing import Any

import naive
import pytest
from examples import examples
from hypothesis import given
from naive import Point, Rule, policy_of

from policy.decide import Allow, decide
from policy.names import GLOBAL_ACTIONS, Action
from policy.parse import parse
from policy.rights import (
    DAEMON,
    NEVER,
    OTHER,
    Atom,
    Book,
    Place,
    actions,
    conditions,
    groups_named,
    places,
    possible,
    restricted,
    spell_span,
)
from policy.rules import Policy


def place_of(known: dict[str, Place], point: Point) -> Place:
    return known[point.service] if point.service else DAEMON


def true_at(point: Point) -> set[Atom]:
    """A configured service's groups are no atoms: they are known."""
    return {atom for atom in point.atoms() if point.service == OTHER or atom.kind != "in"}


@examples(25)
@given(rules=naive.RULES, circumstances=naive.CIRCUMSTANCES)
def test_b7_decide_the_formulas_and_the_naive_evaluator_agree_on_every_question(
    rules: list[Rule], circumstances: tuple[Any, ...]
) -> None:
    policy = policy_of(rules)
    book, known = Book(policy), places(naive.SERVICES, groups_named(policy))
    for point in naive.points(circumstances):
        expected = naive.allowed(rules, point)
        decision = decide(policy, point.identity, *point.asked, point.asking(rules))
        assert isinstance(decision, Allow) == expected, point
        formula = book.formula(point.action, place_of(known, point))
        assert formula.holds(true_at(point)) == expected, point
        mine = {atom for atom in true_at(point) if atom.kind in ("user", "group")}
        assert restricted(formula, mine).holds(true_at(point) - mine) == expected, point


@examples(15)
@given(rules=naive.RULES)
def test_no_part_of_a_formula_says_nothing(rules: list[Rule]) -> None:
    """Minimal: without any one of its grants some right is gone, at the point where that alone holds."""
    policy = policy_of(rules)
    for place in (DAEMON, *places(naive.SERVICES, groups_named(policy)).values()):
        for action in actions(place):
            formula = Book(policy).formula(action, place)
            for one in formula.grants:
                assert formula.holds(one)
                assert not formula._replace(grants={other: () for other in formula.grants if other != one}).holds(one)
            for one in formula.denies:
                assert not any(other < one for other in formula.denies)


def formula_of(text: str, action: str = "restart", services: Any = naive.SERVICES) -> Any:
    policy = parse([("a.toml", text)], services)
    assert isinstance(policy, Policy), policy
    return Book(policy).formula(action, places(services, groups_named(policy))["site"])


GRANT = '[[grant]]\nid = "{}"\nwho = ["{}"]\nmay = ["restart"]\non = ["site"]\n{}\n'


@pytest.mark.parametrize(
    ("one", "same", "words"),
    [
        ('when = { days = "Mon-Wed", timezone = "UTC" }', 'when = { days = "Mon,Tue,Wed", timezone = "UTC" }',
         Atom("when", "Mon-Wed 00:00-24:00 UTC")),
        ('when = { days = "Sat-Mon", timezone = "UTC" }', 'when = { days = "Mon,Sat,Sun", timezone = "UTC" }',
         Atom("when", "Mon,Sat-Sun 00:00-24:00 UTC")),
        ('when = { hours = "22:00-06:00", timezone = "UTC" }',
         'when = { days = "Mon-Sun", hours = "22:00-06:00", timezone = "UTC" }',
         Atom("when", "Mon-Sun 22:00-06:00 UTC")),
        ("expires = 2027-01-31", "expires = 2027-02-01T01:00:00+01:00", Atom("until", "2027-02-01 00:00:00 UTC")),
        ("expires = 2027-01-31T00:00:00.9Z", "expires = 2027-01-31T01:00:00.900+01:00",
         Atom("until", "2027-01-31 00:00:00.900000 UTC")),
        ('from = ["local", "10.0.0.0/8", "2001:db8::/32"]', 'from = ["2001:db8::/32", "10.0.0.0/8", "local"]',
         Atom("from", "10.0.0.0/8, 2001:db8::/32, local")),
        ('from = ["192.0.2.7"]', 'from = ["192.0.2.7/32"]', Atom("from", "192.0.2.7/32")),
        ('limit = "6 in 10m"', 'limit = "6 in 600s"', Atom("limit", "6 in 10m")),
        ("reason = true", "reason = true", Atom("reason", "")),
        ('approval = { by = ["group:leads", "user:dora"], within = "60m" }',
         'approval = { by = ["user:dora", "group:leads"], within = "1h" }',
         Atom("approval", "group:leads or user:dora within 1h")),
    ],
)  # fmt: skip
def test_a_condition_is_the_same_however_it_is_spelled(one: str, same: str, words: Atom) -> None:
    first, second = (formula_of(GRANT.format("a", "group:webops", more)) for more in (one, same))
    assert list(first.grants) == list(second.grants) == [frozenset({Atom("group", "webops"), words})]


@pytest.mark.parametrize(("seconds", "words"), [(1.0, "1s"), (90.0, "90s"), (7200.0, "2h"), (86400.0, "1d")])
def test_a_span_is_in_the_largest_unit_that_fits(seconds: float, words: str) -> None:
    assert spell_span(seconds) == words


def test_limits_of_several_rules_for_the_same_person_are_counters_of_their_own() -> None:
    two = GRANT.format("a", "group:webops", 'limit = "6 in 10m"') + GRANT.format(
        "b", "group:webops", 'limit = "6 in 10m"'
    )
    assert set(formula_of(two).grants) == {
        frozenset({Atom("group", "webops"), Atom("limit", "6 in 10m", nth)}) for nth in (1, 2)
    }
    other = GRANT.format("a", "group:webops", 'limit = "6 in 10m"') + GRANT.format(
        "b", "group:dba", 'limit = "6 in 10m"'
    )
    assert {atom.nth for one in formula_of(other).grants for atom in one} == {1}, "nobody has both by one name"


def test_what_a_grant_demands_is_no_condition_of_what_only_looks() -> None:
    text = GRANT.format("a", "user:alice", "reason = true").replace('"restart"', '"restart", "view"')
    assert list(formula_of(text, "view").grants) == [frozenset({Atom("user", "alice")})]


def test_a_grant_that_is_always_forbidden_is_in_no_formula() -> None:
    deny = '[[deny]]\nid = "d"\nwho = ["group:webops"]\nmay = ["restart"]\non = ["*"]\n'
    assert formula_of(GRANT.format("a", "group:webops", "") + deny).grants == {}
    night = deny + 'when = { hours = "22:00-06:00", timezone = "UTC" }\n'
    assert len(formula_of(GRANT.format("a", "group:webops", "") + night).grants) == 1
    both = GRANT.format("a", "group:webops", 'when = { hours = "22:00-06:00", timezone = "UTC" }')
    assert formula_of(both + night).grants == {}


def test_an_action_is_on_the_daemon_or_on_services_and_never_on_what_is_not_there() -> None:
    book = Book(policy_of([]))
    assert book.formula("restart", DAEMON) == book.formula("reload", places({}, ())[OTHER]) == NEVER
    assert book.formula("restart", None) == NEVER
    assert set(actions(DAEMON)) == GLOBAL_ACTIONS
    assert set(actions(places({}, ())[OTHER])) == set(Action) - GLOBAL_ACTIONS


def test_where_it_is_not_known_which_service_is_in_which_group_that_is_an_atom() -> None:
    policy = policy_of(
        [{"kind": "grant", "id": "g", "who": ["user:bob"], "may": ["view"], "on": ["group:web", "shop"]}]
    )
    known = places({"site": (), "shop": ()}, groups_named(policy), whole=False)
    book = Book(policy)
    assert list(book.formula("view", known["site"]).grants) == [frozenset({Atom("user", "bob"), Atom("in", "web")})]
    assert list(book.formula("view", known["shop"]).grants) == [frozenset({Atom("user", "bob")})]


def test_nobody_is_two_people() -> None:
    assert possible({Atom("user", "alice"), Atom("group", "webops"), Atom("group", "leads")})
    assert not possible({Atom("user", "alice"), Atom("user", "bob")})


def test_a_deny_has_no_demands() -> None:
    deny = policy_of(
        [{"kind": "deny", "id": "d", "who": ["user:bob"], "may": ["view"], "on": ["*"], "when": "weekend"}]
    )
    assert conditions(deny.denies[0], True) == {Atom("when", "Sat-Sun 00:00-24:00 UTC")}


def test_services_that_are_alike_but_for_one_person_share_the_parts_of_all_others() -> None:
    """So that a thousand services cost little more than their groups."""
    services = {"site": ("web",), "shop": ("web",), "blog": ("web",)}
    text = '[[grant]]\nid = "{}"\nwho = ["{}"]\nmay = ["restart"]\non = ["{}"]\n'
    rules = ("a", "group:webops", "group:web"), ("b", "user:alice", "group:web"), ("c", "user:alice", "shop")
    policy = parse([("a.toml", "".join(text.format(*rule) for rule in rules))], services)
    assert isinstance(policy, Policy), policy
    book, known = Book(policy), places(services, groups_named(policy))
    site, shop, blog = (book.parts("restart", known[name]) for name in services)
    webops, alice = Atom("group", "webops"), Atom("user", "alice")
    assert site is blog
    assert site[webops] is shop[webops]
    assert [rule.id for rule in book.formula("restart", known["shop"]).grants[frozenset({alice})]] == ["b", "c"]
    assert [rule.id for rule in book.formula("restart", known["site"]).grants[frozenset({alice})]] == ["b"]
