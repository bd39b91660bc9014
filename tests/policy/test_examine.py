"""Every rule that is about it, and why it counts or does not; the verdict is decide's."""

from __future__ import annotations

from typing import Any

import naive
import pytest
from examples import examples
from hypothesis import given
from naive import Rule, policy_of

from policy.conditions import Asking
from policy.decide import decide
from policy.examine import Examined, examine
from policy.identity import Identity


@examples(12)
@given(rules=naive.RULES, circumstances=naive.CIRCUMSTANCES)
def test_what_is_said_of_each_rule_is_what_was_decided(rules: list[Rule], circumstances: tuple[Any, ...]) -> None:
    policy = policy_of(rules)
    written = {rule["id"]: rule for rule in rules}
    for point in naive.points(circumstances):
        if point.groups not in (frozenset(), frozenset({"webops"}), frozenset({"webops", "night"})):
            continue
        asking = point.asking(rules)
        found = examine(policy, point.identity, *point.asked, asking)
        assert found.decision == decide(policy, point.identity, *point.asked, asking)
        assert len(found.looked) + found.others == len(rules)
        for one in found.looked:
            assert one.kind == written[one.rule]["kind"]
            counts = naive.counts(written[one.rule], point)
            assert counts == (one.verdict == "counts" or (one.verdict == "decides" and counts)), one
            assert (one.verdict == "decides") == (one.rule == found.decision.rule)
            assert one.why


def looked(rules: list[Rule], user: str = "alice", groups: Any = ("webops",), **asking: Any) -> Examined:
    more = {"at": naive.MONDAY, "reason": "x", **asking}
    return examine(
        policy_of(rules), Identity(user, 1001, frozenset(groups)), "restart", "site", ("web",), Asking(**more)
    )


def rule(name: str = "r", kind: str = "grant", who: str = "group:webops", **more: Any) -> Rule:
    return {"kind": kind, "id": name, "who": [who], "may": ["restart"], "on": ["site"], **more}


@pytest.mark.parametrize(
    ("one", "asking", "why"),
    [
        (rule(), {}, "through group:webops"),
        (rule(who="user:alice"), {}, "through user:alice"),
        (rule(who="group:dba"), {}, "is for group:dba"),
        (rule(who="user:bob"), {}, "is for user:bob"),
        (rule(when="weekdays"), {}, "through group:webops, Mon-Fri 08:00-18:00 UTC"),
        (rule(when="weekdays"), {"at": naive.SATURDAY}, "counts Mon-Fri 08:00-18:00 UTC; it next opens Mon 08:00"),
        (rule(when="weekdays"), {"at": None}, "depends on the time, which is not known"),
        (rule(expires=True), {"at": naive.LATE}, "is over since 2027-01-31"),
        (rule(**{"from": True}), {}, "counts from 10.0.0.0/8; where it is asked from is not known"),
        (rule(**{"from": True}), {"source": "192.0.2.1"}, "counts from 10.0.0.0/8, not from 192.0.2.1"),
        (rule(reason=True), {"reason": ""}, "wants a reason"),
        (rule(reason=True), {}, "through group:webops, with a reason"),
        (rule(limit="1 in 10m"), {"wait": lambda rule, limit: 9.0}, "its limit, 1 in 10m, is used up"),
        (rule(limit="1 in 10m"), {}, "through group:webops, at most 1 in 10m"),
        (rule(approval=True), {}, "wants the approval of user:carol"),
        (rule(who="user:bob", when="weekdays"), {"at": naive.SATURDAY},
         "is for user:bob; counts Mon-Fri 08:00-18:00 UTC; it next opens Mon 08:00"),
    ],
)  # fmt: skip
def test_why_a_rule_counts_or_does_not(one: Rule, asking: dict[str, Any], why: str) -> None:
    [told] = looked([one], **asking).looked
    assert told.why == why


def test_what_only_looks_demands_nothing_and_neither_does_who_takes_back() -> None:
    assert looked([rule(reason=True)], reason="", demands=False).looked[0].verdict == "decides"
    looks = {**rule(reason=True), "may": ["view", "restart"]}
    [told] = examine(policy_of([looks]), Identity("alice", 1001, frozenset({"webops"})), "view", "site").looked
    assert (told.verdict, told.why) == ("decides", "through group:webops")


def test_a_deny_wins_and_the_grant_says_which() -> None:
    found = looked([rule("a"), rule("d", "deny"), rule("e", "deny")]).looked
    assert [(one.rule, one.verdict) for one in found] == [("d", "decides"), ("e", "counts"), ("a", "counts")]
    assert found[1].why == "through group:webops; 'd' stands before it"
    assert found[2].why == "through group:webops; but 'd' forbids it, and a deny wins"


def test_of_two_grants_the_one_that_demands_less_decides() -> None:
    found = looked([rule("a", reason=True), rule("b")]).looked
    assert [(one.rule, one.verdict) for one in found] == [("a", "counts"), ("b", "decides")]
    assert found[0].why == "through group:webops, with a reason; 'b' demands no more"


def test_what_is_about_something_else_is_counted() -> None:
    other = {**rule("o"), "on": ["shop"]}
    assert looked([other, rule()]).others == 1
    nothing = examine(policy_of([other]), Identity("alice", 1001), "restart", None)
    assert (nothing.looked, nothing.others) == ([], 1)
