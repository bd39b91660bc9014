"""A second person: who may agree, and an approval that would be none is refused when it is read."""

from __future__ import annotations

from typing import Any

import pytest

from policy.approval import alone, may_approve
from policy.conditions import Asking
from policy.decide import Allow, Deny, Unapproved, decide
from policy.explain import explain
from policy.identity import ROOT, Identity, person
from policy.messages import Decided, Problem
from policy.names import Action
from policy.parse import parse
from policy.rules import Grant, Policy, build

SERVICES: dict[str, tuple[str, ...]] = {"site": ("web",), "shop": ()}
TWO = """\
[[grant]]
id = "two"
who = ["group:webops"]
may = ["view", "stop"]
on = ["site"]
approval = { by = ["group:leads", "user:erin"], within = "10m" }
"""
ALICE = person("alice", 1001, ["webops"], "")
BOB = person("bob", 1002, ["leads"], "")


def outcome(text: str) -> Policy | list[Problem]:
    return parse([("policy.d/10-web.toml", text)], SERVICES)


def policy_of(text: str = TWO) -> Policy:
    policy = outcome(text)
    assert isinstance(policy, Policy), policy
    return policy


def only(text: str) -> tuple[int, str, str]:
    problems = outcome(text)
    assert isinstance(problems, list), "this should have been refused"
    (problem,) = problems
    return problem.line, problem.key, problem.text


def agreed(who: Identity, text: str = TWO, rule: str = "two", number: int = 3) -> Allow | Deny:
    return may_approve(policy_of(text), who, rule, "alice", 1001, number, Asking(at=0.0))


def test_alone_it_is_no_and_with_an_approval_of_that_rule_it_is_yes() -> None:
    policy = policy_of()
    decision = decide(policy, ALICE, "stop", "site", ("web",))
    assert isinstance(decision, Unapproved)
    assert decision.text == (
        "denied: the rule 'two' (10-web.toml:1) lets alice stop site once group:leads or user:erin approves"
    )
    assert (decision.approval.within, decision.rule) == (600.0, "two")
    assert isinstance(decide(policy, ALICE, "view", "site", ("web",)), Allow)
    for approved, expected in (("two", Allow), ("other", Unapproved)):
        asking = Asking(approved=frozenset({approved}))
        assert isinstance(decide(policy, ALICE, "stop", "site", ("web",), asking), expected)


def test_those_whom_the_rule_names_may_agree_and_nobody_else() -> None:
    assert agreed(BOB) == Allow("two", "policy.d/10-web.toml", 1)
    assert agreed(person("erin", 1005, [], "")).rule == "two"
    assert agreed(ROOT) == Allow("root")
    assert agreed(person("carol", 1003, ["webops"], "")) == Deny(
        "denied: nothing of the number 3 waits for carol to approve"
    )


@pytest.mark.parametrize(
    "who",
    [person("alice", 1001, ["webops", "leads"], ""), person("alias", 1001, ["leads"], ""),
     person("alice", 7, ["leads"], "")],
)  # fmt: skip
def test_nobody_agrees_to_what_he_has_asked_for_himself_by_whatever_name(who: Identity) -> None:
    assert agreed(who).text == "denied: nobody approves what he has asked for himself"  # type: ignore[union-attr]


def test_b10_a_number_that_is_not_there_is_answered_like_one_of_others() -> None:
    dora = person("dora", 1004, [], "")
    assert agreed(dora) == agreed(dora, rule="") == agreed(dora, rule="gone")


def test_a_deny_of_approve_wins_and_a_grant_of_it_gives_no_approval() -> None:
    deny = '[[deny]]\nid = "never"\nwho = ["user:bob"]\nmay = ["approve"]\n'
    assert agreed(BOB, TWO + deny).rule == "never"
    grant = '[[grant]]\nid = "sees"\nwho = ["user:dora"]\nmay = ["approve"]\n'
    assert isinstance(agreed(person("dora", 1004, [], ""), TWO + grant), Deny)


def test_an_explanation_says_who_must_approve() -> None:
    told = explain(policy_of(), ALICE, "stop", "site", ("web",))
    assert told == Decided(
        True,
        "allowed: the rule 'two' (10-web.toml:1) lets alice stop site, once group:leads or user:erin approves",
        "two",
        "policy.d/10-web.toml",
        1,
    )


def test_who_may_approve_can_be_a_group_of_the_policys_own() -> None:
    text = TWO.replace('["group:leads", "user:erin"]', '["@seniors"]')
    policy = policy_of('[group.seniors]\npeople = ["group:leads", "user:erin"]\n' + text)
    approval = policy.grants[0].approval
    assert approval is not None
    assert (approval.users, approval.groups, approval.text) == (("erin",), ("leads",), "@seniors")


@pytest.mark.parametrize(
    ("value", "key", "words"),
    [
        ("true", "approval", 'write approval = { by = ["group:leads"], within = "10m" }, not true or false'),
        ('{ within = "10m" }', "approval.by", "'by' is missing"),
        ('{ by = [], within = "10m" }', "approval.by", "'by' is empty"),
        ('{ by = ["leads"], within = "10m" }', "approval.by[0]", "'leads' is nobody"),
        ('{ by = ["group:leads"] }', "approval.within", "'within' is missing"),
        ('{ by = ["group:leads"], within = "10" }', "approval.within", "'10' is no time to wait: 30s, 10m or 2h, at"),
        ('{ by = ["group:leads"], within = "2d" }', "approval.within", "is no time to wait"),
        ('{ by = ["group:leads"], within = "0s" }', "approval.within", "is no time to wait"),
        ('{ by = ["group:leads"], within = "1m", two = 1 }', "approval.two", "there is no key 'two' here"),
    ],
)
def test_an_approval_that_is_wrong_is_told_with_its_line_and_key(value: str, key: str, words: str) -> None:
    line, where, text = only(TWO[: TWO.index("approval")] + f"approval = {value}\n")
    assert (line, where) == (6, f"grant[0].{key}")
    assert words in text


def test_an_approval_for_what_only_reads_is_a_mistake() -> None:
    assert only(TWO.replace('"stop"', '"logs"'))[1:] == (
        "grant[0].approval", "'approval' is for what changes something, and this rule lets nobody do that",
    )  # fmt: skip


def test_an_approval_that_only_the_asker_could_give_is_refused() -> None:
    text = TWO.replace("group:webops", "user:erin").replace('"group:leads", ', "")
    assert only(text) == (
        6, "grant[0].approval", "nobody could approve it but erin, who asks: name somebody else in 'by'",
    )  # fmt: skip
    policy_of(text.replace('["user:erin"]\nmay', '["user:erin", "user:frank"]\nmay'))


@pytest.mark.parametrize("on", ["site", "*"])
def test_an_approval_that_another_rule_makes_none_is_refused(on: str) -> None:
    other = f'[[grant]]\nid = "alone"\nwho = ["user:x", "group:webops"]\nmay = ["stop", "view"]\non = ["{on}"]\n'
    assert only(TWO + other) == (
        6,
        "grant[0].approval",
        f"group:webops needs no approval: the rule 'alone' (10-web.toml:7) grants stop on {on} without one",
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"may": '["view", "start"]'},  # other actions
        {"on": '["shop"]'},  # other services
        {"who": '["group:others"]'},  # other people
        {"expires": "2027-01-01"},  # at some times only
        {"from": '["local"]'},  # from some places only
        {"approval": '{ by = ["group:others"], within = "1h" }'},
    ],
)
def test_another_rule_that_leaves_the_approval_its_sense_is_not(changed: dict[str, Any]) -> None:
    keys = {"who": '["group:webops"]', "may": '["stop"]', "on": '["site"]', **changed}
    policy_of(TWO + '[[grant]]\nid = "other"\n' + "".join(f"{key} = {value}\n" for key, value in keys.items()))


def test_a_rule_without_an_approval_has_nothing_to_be_refused() -> None:
    grant = Grant(id="g", users=("a",), groups=(), may=frozenset({Action.STOP}), on=("site",), file="", line=1, order=0)  # type: ignore[arg-type]
    assert list(alone(build([grant], []), grant)) == []


def test_a_test_can_expect_an_approval() -> None:
    test = '[[test]]\nuser = "x"\ngroups = ["webops"]\nmay = "stop"\non = "site"\nexpect = "{}"\n'
    policy_of(TWO + test.format("approval"))
    for other in ("allow", "deny"):
        text = only(TWO + test.format(other))[2]
        assert text.startswith(f"this test expects {other}, and came to: denied: the rule 'two'")
    free = TWO[: TWO.index("approval")]
    assert "expects approval, and came to: allowed by the rule 'two'" in only(free + test.format("approval"))[2]
