"""How long a large policy takes to be told in rights, compared and judged: 10,000 rules, 1,000 services in 50 groups,
500 people in 200. In process, no root."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sized
from typing import TypeVar

import pytest

from policy.diff import diff
from policy.lint import lint
from policy.listing import gathered, matrix, what_can, who_can
from policy.machine import Machine, Place, Service
from policy.parse import parse
from policy.rights import Book, groups_named, places
from policy.rules import Policy

pytestmark = pytest.mark.bench

WHO_CAN, WHAT_CAN, ALL, LINT = 1.0, 2.0, 30.0, 10.0  # seconds
T = TypeVar("T", bound=Sized)
SERVICES = {f"service-{n}": (f"group-{n % 50}", *([f"group-{n * 7 % 50}"] if n % 3 == 0 else [])) for n in range(1000)}
MAY = ('"view"', '"view", "restart"', '"view", "logs"', '"start", "stop", "restart"')
NOW = 1_795_521_600.0


def rules(without: int = 0) -> list[str]:
    """One in ten is about a group of services, a few are about everything. without: every nth one is left out."""
    dice, found = random.Random(1), []
    for number in range(10_000):
        kind, may = "deny" if number % 50 == 0 else "grant", dice.choice(MAY)
        who = f"user:user-{dice.randrange(500)}" if number % 2 else f"group:team-{dice.randrange(200)}"
        on = f"service-{dice.randrange(1000)}"
        if number % 10 == 0:
            on = f"group:group-{dice.randrange(50)}"
        elif number % 500 == 1:
            on = "*"
        rule = f'[[{kind}]]\nid = "r{number}"\nwho = ["{who}"]\nmay = [{may}]\non = ["{on}"]\n'
        if number % 7 == 0:
            rule += 'when = { days = "Mon-Fri", hours = "08:00-18:00", timezone = "UTC" }\n'
        if kind == "grant" and "start" in may:
            rule += 'limit = "6 in 10m"\n' if number % 11 == 0 else "reason = true\n" if number % 13 == 0 else ""
        found += [] if without and number % without == 0 else [rule]
    return found


def loaded(without: int = 0) -> Policy:
    told = rules(without)
    files = [(f"policy.d/{file:02}.toml", "".join(told[file * 1000 : file * 1000 + 1000])) for file in range(10)]
    policy = parse(files, SERVICES)
    assert isinstance(policy, Policy), policy[:3]
    return policy


def timed(what: str, most: float, work: Callable[[], T]) -> T:
    begun = time.process_time()  # it waits for nothing, so what others do on the machine is left out
    result = work()
    took = time.process_time() - begun
    print(f"\n{what} {took:.2f} s, {len(result)} rows", end="")
    assert took < most, what
    assert len(result)
    return result


def test_a_large_policy_is_told_in_rights_and_compared_within_seconds() -> None:
    policy, other = loaded(), loaded(without=997)
    known = places(SERVICES, groups_named(policy) | groups_named(other))
    timed("who-can", WHO_CAN, lambda: who_can(Book(policy), "restart", known["service-7"]))
    for groups in (["team-3", "team-9"], []):
        timed("what-can", WHAT_CAN, lambda: gathered(what_can(Book(policy), known.values(), "user-3", groups)))  # noqa: B023
    gc.disable()  # as the command does
    timed("what-can, in any group", WHAT_CAN, lambda: gathered(what_can(Book(policy), known.values(), "user-3", None)))
    gc.enable()
    timed("matrix", ALL, lambda: gathered(matrix(Book(policy), known.values())))
    timed("diff", ALL, lambda: diff(Book(policy), known, Book(other), known))
    assert diff(Book(policy), known, Book(policy), known) == []


def test_a_large_policy_is_judged_within_seconds() -> None:
    policy = loaded()
    users = {f"user-{n}": frozenset({f"team-{n % 200}", f"team-{n % 7}"}) for n in range(500)}
    groups = {f"team-{n}": frozenset(user for user, own in users.items() if f"team-{n}" in own) for n in range(200)}
    program = Place("its program", "/srv/serve", "/srv", users=frozenset({"user-3"}), groups=frozenset({"team-5"}))
    services = {
        name: Service(own, "www", "runs as root" if name.endswith("50") else "", (program,))
        for name, own in SERVICES.items()
    }
    timed("lint", LINT, lambda: lint(policy, Machine(services, True, users, groups), NOW))
