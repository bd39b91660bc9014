"""The index finds the rules that are for somebody, and the first of them."""

from __future__ import annotations

from typing import Any

import pytest

from policy.decide import UNKNOWN
from policy.identity import person
from policy.names import Action
from policy.rules import Deny, Grant, build, first

ALICE = person("alice", 1001, ["webops", "leads"], "")


def fields(order: int, **changed: Any) -> dict[str, Any]:
    usual = {"id": f"r{order}", "users": (), "groups": (), "may": frozenset({Action.STOP}), "on": ("site",)}
    return {**usual, "file": "a.toml", "line": order + 1, "order": order, **changed}


def test_rules_are_found_by_user_and_by_group_and_not_by_the_other_kind_of_name() -> None:
    by_group = Grant(**fields(0, groups=("webops",)))
    by_user = Grant(**fields(1, users=("alice",)))
    others = [Grant(**fields(2, users=("webops",))), Grant(**fields(3, groups=("alice",)))]
    policy = build([by_group, by_user, *others], [])
    assert policy.granted.rows(ALICE) == [{"site": [by_group]}, {"site": [by_user]}]
    assert policy.granted.rows(person("bob", 1002, [], "")) == []
    assert policy.denied.rows(ALICE) == []


def test_of_several_rules_the_first_in_order_is_taken_wherever_it_was_found() -> None:
    rules = [
        Grant(**fields(0, groups=("leads",), may=frozenset({Action.VIEW}))),
        Grant(**fields(1, groups=("webops",), on=("*",))),
        Grant(**fields(2, users=("alice",))),
        Grant(**fields(3, groups=("leads",))),
        Grant(**fields(4, groups=("leads",))),
    ]
    for some in (rules, rules[2:], rules[3:], rules[4:]):
        stopping = [rule for rule in some if Action.STOP in rule.may]
        assert first(build(some, []).granted.rows(ALICE), "stop", ("site", "*"), UNKNOWN) == stopping[0]
    assert first(build(rules, []).granted.rows(ALICE), "stop", ("other",), UNKNOWN) is None
    assert first(build(rules, []).granted.rows(ALICE), "start", ("site", "*"), UNKNOWN) is None


def test_a_deny_forbids_members_of_its_group_only() -> None:
    denied = build([], [Deny(**fields(0, groups=("webops",), users=("alice",)))]).denied
    assert denied.forbids("webops", "stop", ("other", "site"), UNKNOWN)
    assert not denied.forbids("alice", "stop", ("site",), UNKNOWN)
    assert not denied.forbids("webops", "start", ("site",), UNKNOWN)
    assert not denied.forbids("webops", "stop", ("*",), UNKNOWN)


def test_grants_are_known_by_the_groups_that_give_them() -> None:
    through = Grant(**fields(0, users=("bob",), groups=("webops",), may=frozenset({Action.STOP, Action.VIEW})))
    alone = Grant(**fields(1, users=("bob",)))
    policy = build([through, alone], [Deny(**fields(0, groups=("x",)))])
    assert policy.through_groups == {("stop", "site"): [through], ("view", "site"): [through]}


def test_a_rule_and_a_policy_cannot_be_changed() -> None:
    policy = build([Grant(**fields(0))], [], (), "00")
    with pytest.raises(AttributeError):
        policy.grants = ()  # type: ignore[misc]
    with pytest.raises(AttributeError):
        policy.grants[0].users = ("mallory",)  # type: ignore[misc,assignment]
    assert (policy.tests, policy.hash) == ((), "00")
