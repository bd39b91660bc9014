"""What grants demand, against a naive evaluator: whoever meets what one grant demands, and no deny stops, may."""

from __future__ import annotations

import random
from typing import Any

from examples import examples
from hypothesis import given, strategies as st

from policy.conditions import Asking
from policy.decide import Allow, Unapproved, decide, rights
from policy.identity import ROOT, Identity
from policy.messages import Right
from policy.parse import parse
from policy.rules import Policy

SERVICES: dict[str, tuple[str, ...]] = {"site": (), "shop": ()}
PEOPLE = [Identity(user, 1001, frozenset(groups)) for user in ("alice", "bob") for groups in ((), ("ops",))]
Row = dict[str, Any]
ROW = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["grant", "grant", "grant", "deny"]),
        "who": st.sampled_from(["user:alice", "group:ops"]),
        "on": st.sampled_from(["site", "*"]),
        "reason": st.booleans(),
        "limit": st.sampled_from(["", "6 in 10m", "1 in 1h"]),
        "approval": st.booleans(),
    }
)
ROWS = st.lists(ROW, max_size=6).map(lambda rows: [{**row, "id": f"r{number}"} for number, row in enumerate(rows)])


def policy_of(rows: list[Row]) -> Policy:
    text = ""
    for row in rows:
        text += f'[[{row["kind"]}]]\nid = "{row["id"]}"\nwho = ["{row["who"]}"]\nmay = ["stop"]\non = ["{row["on"]}"]\n'
        if row["kind"] == "grant":
            text += "reason = true\n" if row["reason"] else ""
            text += f'limit = "{row["limit"]}"\n' if row["limit"] else ""
            text += 'approval = { by = ["user:carol"], within = "10m" }\n' if row["approval"] else ""
            text += "expires = 2099-01-01\n"  # or an approval that another grant makes none would be refused
    policy = parse([("a.toml", text)], SERVICES)
    assert isinstance(policy, Policy), policy
    return policy


def mine(rows: list[Row], who: Identity, service: str) -> list[Row]:
    return [
        row for row in rows
        if (row["who"] == f"user:{who.user}" or row["who"][6:] in who.groups) and row["on"] in (service, "*")
    ]  # fmt: skip


def given_or_free(row: Row, reason: str, used_up: set[str]) -> bool:
    return (not row["reason"] or reason != "") and not (row["limit"] and row["id"] in used_up)


def met(row: Row, reason: str, used_up: set[str], approved: set[str]) -> bool:
    return given_or_free(row, reason, used_up) and (not row["approval"] or row["id"] in approved)


def weight(row: Row) -> tuple[bool, bool, float, bool]:
    """What is less to give: no approval, no limit, a wide limit, no reason."""
    rate = {"": 0.0, "6 in 10m": -6 / 600, "1 in 1h": -1 / 3600}[row["limit"]]
    return (row["approval"], row["limit"] != "", rate, row["reason"])


REASONS, SOME = st.sampled_from(["", "x"]), st.sets(st.sampled_from([f"r{number}" for number in range(6)]))


def asking_of(reason: str, used_up: set[str], approved: set[str]) -> Asking:
    wait = lambda rule, limit: 60.0 if rule in used_up else 0.0  # noqa: E731
    return Asking(at=0.0, reason=reason, wait=wait, approved=frozenset(approved))


@examples(25)
@given(rows=ROWS, reason=REASONS, names=SOME, approved=SOME, seed=st.integers(0, 99))
def test_every_decision_is_what_the_rows_demand(
    rows: list[Row], reason: str, names: set[str], approved: set[str], seed: int
) -> None:
    asking = asking_of(reason, names, approved)
    policies = [policy_of(rows), policy_of(random.Random(seed).sample(rows, len(rows)))]
    for who in PEOPLE:
        for service in SERVICES:
            found = mine(rows, who, service)
            good = [row for row in found if row["kind"] == "grant" and met(row, reason, names, approved)]
            expected = bool(good) and not any(row["kind"] == "deny" for row in found)
            for policy in policies:
                decision = decide(policy, who, "stop", service, (), asking)
                assert isinstance(decision, Allow) == expected
                if isinstance(decision, Unapproved):
                    by = next(row for row in rows if row["id"] == decision.rule)
                    assert by["approval"]
                    assert given_or_free(by, reason, names), "an approval is all that it wants"
                if isinstance(decision, Allow):
                    by = next(row for row in rows if row["id"] == decision.rule)
                    assert by in good
                    assert weight(by) == min(map(weight, good)), "the least demanding one"
                    assert (decision.limit is not None) == bool(by["limit"])


@examples(25)
@given(rows=ROWS, added=ROW, reason=REASONS, names=SOME, approved=SOME)
def test_a_further_grant_takes_no_right(
    rows: list[Row], added: Row, reason: str, names: set[str], approved: set[str]
) -> None:
    asking = asking_of(reason, names, approved)
    before, after = policy_of(rows), policy_of([*rows, {**added, "kind": "grant", "id": "added"}])
    for who in PEOPLE:
        for service in SERVICES:
            if isinstance(decide(before, who, "stop", service, (), asking), Allow):
                assert isinstance(decide(after, who, "stop", service, (), asking), Allow)


def test_rights_say_what_the_least_demanding_rule_demands_and_when_it_holds() -> None:
    text = """
[[grant]]
id = "a"
who = ["user:alice"]
may = ["view", "restart", "stop"]
on = ["site"]
reason = true
when = { days = "Mon-Fri", timezone = "UTC" }
from = ["10.0.0.0/8"]
expires = 2099-01-01
[[grant]]
id = "b"
who = ["user:alice"]
may = ["view"]
on = ["site", "shop"]
[[grant]]
id = "c"
who = ["user:alice"]
may = ["stop"]
on = ["*"]
limit = "6 in 10m"
"""
    policy = parse([("a.toml", text)], SERVICES)
    assert isinstance(policy, Policy), policy
    alice, monday = Identity("alice", 1001), Asking(at=1_795_435_200.0, source="10.1.2.3")
    assert rights(policy, alice, SERVICES, monday) == [
        Right("shop", ["view", "stop"], {"stop": "at most 6 in 10m"}),
        Right("site", ["view", "stop", "restart"], {
            "restart": "with a reason, Mon-Fri UTC, until 2099-01-01, from 10.0.0.0/8",
            "stop": "with a reason, Mon-Fri UTC, until 2099-01-01, from 10.0.0.0/8",
        }),
    ]  # fmt: skip
    text = '[[grant]]\nid = "a"\nwho = ["user:alice"]\nmay = ["view", "stop"]\non = ["site"]\nreason = true'
    asked = parse([("a.toml", text)], SERVICES)
    assert isinstance(asked, Policy), asked
    assert rights(asked, alice, SERVICES, monday) == [Right("site", ["view", "stop"], {"stop": "with a reason"})], (
        "who looks gives none"
    )
    assert [right.service for right in rights(policy, alice, SERVICES, Asking(at=0.0))] == ["shop", "site"]
    assert not any(right.demands for right in rights(policy, ROOT, SERVICES))
