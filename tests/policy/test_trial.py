"""policy/trial: what a test of a policy expects, what came, and by which rule."""

from __future__ import annotations

import pytest

from policy.parse import parse
from policy.rules import Policy
from policy.trial import Trial, trial

SERVICES = {"site": ("web",)}
RULES = """
[[grant]]
id = "stops"
who = ["user:alice"]
may = ["stop"]
on = ["group:web"]
approval = { by = ["user:bob"], within = "5m" }
[[grant]]
id = "days"
who = ["user:alice"]
may = ["restart"]
on = ["site"]
when = { days = "Mon-Fri", timezone = "UTC" }
reason = true
[[grant]]
id = "reloads"
who = ["group:ops"]
may = ["reload"]
[[test]]
user = "alice"
expect = "allow"
"""


def run(more: str) -> Trial:
    policy = parse([("p.toml", RULES + more)], SERVICES, run_tests=False)
    assert isinstance(policy, Policy), policy
    [test] = policy.tests
    return trial(test, policy, SERVICES)


MONDAY, SUNDAY = "2026-11-23T12:00:00Z", "2026-11-22T12:00:00Z"


@pytest.mark.parametrize(
    ("test", "came", "rule"),
    [
        ('may = "stop"\non = "site"', "approval", "stops"),
        (f'may = "restart"\non = "site"\nreason = true\nat = {MONDAY}', "allow", "days"),
        (f'may = "restart"\non = "site"\nat = {MONDAY}', "deny", "days"),
        (f'may = "restart"\non = "site"\nat = {SUNDAY}', "deny", ""),
        ('may = "restart"\non = "site"', "", "days"),
        ('may = "reload"\ngroups = ["ops"]', "allow", "reloads"),
        ('may = "reload"', "deny", ""),
    ],
)
def test_what_came_is_told_with_the_rule_that_decided(test: str, came: str, rule: str) -> None:
    found = run(test)
    assert (found.came, found.rule) == (came, rule)
    assert found.passed == (came == "allow")
    assert bool(found.file) == bool(found.line) == bool(rule)


def test_a_test_that_leaves_out_the_time_where_it_matters_is_told_so() -> None:
    assert run('may = "restart"\non = "site"').wrong.startswith("the rule 'days' (p.toml:8) depends on the time")


def test_one_that_has_not_passed_says_what_it_expects_and_what_came() -> None:
    assert run('may = "reload"').wrong.startswith(
        "this test expects allow, and came to: denied: no rule lets alice reload; the rule 'reloads' would"
    )
