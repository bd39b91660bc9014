"""What grants demand of who would change something: the least demanding one whose demands are met applies."""

from __future__ import annotations

from typing import Any

import pytest

from policy.conditions import Asking, Limit
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
        "denied: the rule 'asks' (10-web.toml:1) lets bob restart site with a reason only: say why, by --reason TEXT,"
        ' or by "reason" in the body of a request over HTTP',
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


LIMITED = GRANT.format("often") + 'limit = "6 in 10m"\n'
SIX = Limit(6, 600.0, "6 in 10m")


def waits(**rules: float) -> Any:
    return lambda rule, limit: rules.get(rule, 0.0)


@pytest.mark.parametrize(
    ("text", "times", "seconds"),
    [
        ("6 in 10m", 6, 600),
        ("1 in 1s", 1, 1),
        ("1000 in 31d", 1000, 2678400),
        ("3 in 1h", 3, 3600),
        ("1  in  5s", 1, 5),
    ],
)
def test_a_limit_is_read(text: str, times: int, seconds: float) -> None:
    limit = policy_of(LIMITED.replace("6 in 10m", text)).grants[0].limit
    assert limit is not None
    assert (limit.times, limit.seconds, limit.text) == (times, seconds, text)


@pytest.mark.parametrize(
    "value", ['"6"', '"6 in 10"', '"0 in 10m"', '"1001 in 10m"', '"6 in 0m"', '"6 in 32d"', '"6 per 10m"',
              '"6 in 1.5m"', "6", '"٦ in 10m"', '"6 in 10m\\n"'],
)  # fmt: skip
def test_a_limit_that_is_none_is_told_with_its_line_and_key(value: str) -> None:
    line, key, text = only(LIMITED.replace('"6 in 10m"', value))
    assert (line, key) == (6, "grant[0].limit")
    assert "must be a text in quotes" in text or "is no limit: write 6 in 10m" in text


def test_a_limit_that_is_used_up_denies_and_says_when_again() -> None:
    assert decided(LIMITED) == Allow(
        "often", "policy.d/10-web.toml", 1, "at most 6 in 10m", Limit(6, 600.0, "6 in 10m")
    )
    assert decided(LIMITED, wait=waits(often=61.2)) == Deny(
        "denied: the rule 'often' (10-web.toml:1) lets bob restart site 6 in 10m, which is used up: again in 62 s",
        "often",
        "policy.d/10-web.toml",
        1,
    )
    assert isinstance(decided(LIMITED, "view", wait=waits(often=61.2)), Allow)
    assert not explain(policy_of(LIMITED), BOB, "restart", "site", (), Asking(wait=waits(often=61.2))).allowed  # type: ignore[union-attr]


def test_of_demanding_grants_the_least_demanding_that_can_be_met_applies() -> None:
    rare = LIMITED.replace("often", "rare").replace("6 in 10m", "1 in 10m")
    text = ASKS + rare + LIMITED
    assert decided(text).rule == "often", "the wider limit"
    assert decided(text, reason="x").rule == "asks", "a reason is less than a limit"
    assert decided(text, wait=waits(often=9.0)).rule == "rare"
    both = decided(text, wait=waits(often=9.0, rare=5.0))
    assert isinstance(both, Deny)
    assert both.rule == "asks", "what can be given at once is told first"
    both = decided(rare + LIMITED, wait=waits(often=9.0, rare=5.0))
    assert isinstance(both, Deny)
    assert both.text.endswith("again in 5 s"), "the one that is free first"


def test_a_rule_may_demand_several_things_at_once() -> None:
    text = LIMITED + "reason = true\n"
    assert decided(text, reason="x").demands == "with a reason, at most 6 in 10m"  # type: ignore[union-attr]
    assert "with a reason only" in decided(text).text  # type: ignore[union-attr]
    used_up = decided(text, wait=waits(often=1.0))
    assert isinstance(used_up, Deny)
    assert "used up" in used_up.text, "a reason would not help"
