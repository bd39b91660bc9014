"""What grants demand of who would change something: the least demanding one whose demands are met applies."""

from __future__ import annotations

from typing import Any

import pytest

from policy.conditions import Asking
from policy.decide import Allow, Deny, decide, rights, visible
from policy.explain import explain
from policy.identity import ROOT, person
from policy.messages import Decided, Problem
from policy.parse import parse
from policy.rules import Policy

SERVICES: dict[str, tuple[str, ...]] = {"site": ()}
BOB = person("bob", 1002, [], "")
GRANT = '[[grant]]\nid = "{}"\nwho = ["user:bob"]\nmay = ["view", "restart"]\non = ["site"]\n'
ASKS = GRANT.format("asks") + "reason = true\n"


def outcome(text: str) -> Policy | list[Problem]:
    return parse([("policy.d/10-web.toml", text)], SERVICES)


def policy_of(text: str) -> Policy:
    policy = outcome(text)
    assert isinstance(policy, Policy), policy
    return policy


def decided(text: str, action: str = "restart", who: Any = BOB, **asking: Any) -> Allow | Deny:
    return decide(policy_of(text), who, action, "site", (), Asking(**asking))


def only(text: str) -> tuple[int, str, str]:
    problems = outcome(text)
    assert isinstance(problems, list), "this should have been refused"
    (problem,) = problems
    return problem.line, problem.key, problem.text


def test_without_a_reason_it_is_refused_with_how_to_give_one() -> None:
    assert decided(ASKS) == Deny(
        "denied: the rule 'asks' (10-web.toml:1) lets bob restart site with a reason only: say why, by --reason TEXT, or"
        ' by "reason" in the body of a request over HTTP',
        "asks",
        "policy.d/10-web.toml",
        1,
    )


def test_with_a_reason_it_is_allowed() -> None:
    assert decided(ASKS, reason="disk full") == Allow("asks", "policy.d/10-web.toml", 1, "with a reason")


def test_nothing_is_demanded_of_who_only_looks_or_takes_back() -> None:
    assert isinstance(decided(ASKS, "view"), Allow)
    assert isinstance(decided(ASKS, demands=False), Allow)
    assert visible(policy_of(ASKS), BOB, "site", ())
    assert rights(policy_of(ASKS), BOB, SERVICES)[0].actions == ["view", "restart"]


def test_nothing_is_demanded_of_root() -> None:
    assert decided(ASKS, who=ROOT) == Allow("root")


@pytest.mark.parametrize("turned", [False, True])
def test_of_several_grants_the_least_demanding_applies_wherever_it_is(turned: bool) -> None:
    free = GRANT.format("free")
    assert decided(free + ASKS if turned else ASKS + free).rule == "free"
    assert decided(free + ASKS if turned else ASKS + free, reason="x").rule == "free"


def test_a_deny_wins_over_a_grant_whatever_is_given() -> None:
    assert decided(ASKS + GRANT.format("no").replace("grant", "deny"), reason="x").rule == "no"


def test_an_explanation_says_what_is_demanded() -> None:
    told = explain(policy_of(ASKS), BOB, "restart", "site", ())
    assert told == Decided(
        True,
        "allowed: the rule 'asks' (10-web.toml:1) lets bob restart site, with a reason",
        "asks",
        "policy.d/10-web.toml",
        1,
    )


def test_a_demand_that_is_wrong_is_told_with_its_line_and_key() -> None:
    assert only(GRANT.format("g") + 'reason = "yes"\n') == (
        6, "grant[0].reason", "'reason' must be true or false, not 'yes'",
    )  # fmt: skip
    assert only(ASKS.replace('"view", "restart"', '"view", "logs"')) == (
        6, "grant[0].reason", "'reason' is for what changes something, and this rule lets nobody do that",
    )  # fmt: skip
    assert only(ASKS.replace("grant", "deny"))[1:] == ("deny[0].reason", "there is no key 'reason' here")
    assert isinstance(outcome(GRANT.format("g") + "reason = false\n"), Policy)


def test_a_test_says_whether_a_reason_is_given() -> None:
    test = '[[test]]\nuser = "bob"\nmay = "restart"\non = "site"\n'
    policy_of(ASKS + test + 'reason = true\nexpect = "allow"\n' + test + 'expect = "deny"\n')
    assert only(ASKS + test + 'expect = "allow"\n')[2].startswith(
        "this test expects allow, and came to: denied: the rule"
    )
