"""How long a large policy takes to load, and one decision by it: 10,000 rules, 1,000 services. In process, no root."""

from __future__ import annotations

import statistics
import time

import pytest

from policy.conditions import Asking
from policy.decide import decide
from policy.identity import Identity
from policy.parse import parse
from policy.rules import Policy

pytestmark = pytest.mark.bench

LOAD, DECISION = 1.0, 50e-6  # seconds
SERVICES = {f"service-{number}": (f"group-{number % 20}",) for number in range(1000)}


def text(file: int) -> str:
    """A thousand rules: of people and of groups, on services and on groups of them, some in a window, some limited."""
    rules = []
    for number in range(file * 1000, file * 1000 + 1000):
        kind = "deny" if number % 50 == 0 else "grant"
        who = f"user:user-{number % 400}" if number % 2 else f"group:team-{number % 100}"
        on = f"group:group-{number % 20}" if number % 10 == 0 else f"service-{number % 1000}"
        rule = f'[[{kind}]]\nid = "r{number}"\nwho = ["{who}"]\nmay = ["view", "restart"]\non = ["{on}"]\n'
        if number % 7 == 0:
            rule += 'when = { days = "Mon-Fri", hours = "08:00-18:00", timezone = "UTC" }\n'
        if number % 11 == 0 and kind == "grant":
            rule += 'limit = "6 in 10m"\n'
        rules.append(rule)
    return "".join(rules)


def test_a_large_policy_loads_soon_and_decides_at_once() -> None:
    files = [(f"policy.d/{file}.toml", text(file)) for file in range(10)]
    begun = time.process_time()  # it waits for nothing, so what others do on the machine is left out
    policy = parse(files, SERVICES)
    took = time.process_time() - begun
    assert isinstance(policy, Policy), policy[:3]
    people = [Identity(f"user-{n}", 1000 + n, frozenset({f"team-{n % 100}", f"team-{n % 7}"})) for n in range(400)]
    asking, times = Asking(1_795_521_600.0), []
    for number in range(20_000):
        who, service = people[number % 400], f"service-{number * 7 % 1000}"
        groups = SERVICES[service]
        begun = time.perf_counter()
        decide(policy, who, "restart", service, groups, asking)
        times.append(time.perf_counter() - begun)
    median, worst = statistics.median(times), statistics.quantiles(times, n=100)[98]
    print(f"\nload {took:.2f} s, a decision {median * 1e6:.1f} us, 99 of 100 under {worst * 1e6:.1f} us")
    assert took < LOAD
    assert median < DECISION
