"""Decisions in time: against a naive evaluator, and in the words that people see."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from examples import examples
from hypothesis import given, strategies as st

from policy.conditions import Asking
from policy.decide import Allow, Deny, decide, rights, viewable, visible
from policy.explain import explain, refuse
from policy.identity import Identity, person
from policy.messages import Decided
from policy.names import Action
from policy.parse import parse
from policy.rules import Policy

SERVICES: dict[str, tuple[str, ...]] = {"site": ("web",), "shop": ("web",)}
WEEK = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def zones(name: str) -> tzinfo:
    return ZoneInfo(name)


def text_of(rows: list[dict[str, Any]]) -> str:
    return "".join(
        f'[[{row["kind"]}]]\nid = "{row["id"]}"\nwho = ["{row["who"]}"]\nmay = ["view", "stop"]\non = ["{row["on"]}"]\n'
        + (f"expires = {row['expires']}\n" if row["expires"] else "")
        + (
            f'when = {{ days = "{row["days"]}", hours = "{row["from"]:02}:00-{row["to"]:02}:00",'
            ' timezone = "Europe/Zurich" }\n'
            if row["days"]
            else ""
        )
        for row in rows
    )


def policy_of(text: str) -> Policy:
    policy = parse([("policy.d/10-web.toml", text)], SERVICES, zones)
    assert isinstance(policy, Policy), policy
    return policy


def applies(row: dict[str, Any], who: Identity, service: str, at: datetime) -> bool:
    """Nothing of policy/: the row as it is written, and what the clock in Zurich shows."""
    if row["who"] != f"user:{who.user}" and row["who"].removeprefix("group:") not in who.groups:
        return False
    if row["on"] not in (service, "*", "group:web"):
        return False
    local = at.astimezone(ZoneInfo("Europe/Zurich"))
    if row["expires"]:
        day = local if row["days"] else at.astimezone(UTC)
        if day.date().isoformat() > row["expires"]:
            return False
    if not row["days"]:
        return True
    today, yesterday = WEEK[local.weekday()], WEEK[(local.date() - timedelta(days=1)).weekday()]
    if row["from"] < row["to"]:
        return today in row["days"] and row["from"] <= local.hour < row["to"]
    return (today in row["days"] and local.hour >= row["from"]) or (yesterday in row["days"] and local.hour < row["to"])


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["grant", "grant", "deny"]),
            "who": st.sampled_from(["user:alice", "group:webops", "user:bob"]),
            "on": st.sampled_from(["site", "group:web", "*"]),
            "expires": st.sampled_from(["", "", "2026-03-28", "2026-10-24"]),
            "days": st.sampled_from(["", "Mon,Tue,Wed", "Sat,Sun", "Sun"]),
            "from": st.integers(0, 23),
            "to": st.integers(0, 23),
        }
    ).filter(lambda row: row["from"] != row["to"]),
    max_size=5,
).map(lambda rows: [{**row, "id": f"r{number}"} for number, row in enumerate(rows)])
TIMES = st.builds(
    lambda begin, minute: begin + timedelta(minutes=minute),
    st.sampled_from([datetime(2026, 3, 27, tzinfo=UTC), datetime(2026, 10, 23, tzinfo=UTC)]),  # the clock changes
    st.integers(0, 5 * 1440),
)
PEOPLE = [Identity(user, 1001, frozenset(groups)) for user in ("alice", "bob") for groups in ((), ("webops",))]


@examples(25)
@given(rows=ROWS, at=TIMES, seed=st.integers(0, 99))
def test_every_decision_at_a_time_is_what_the_rows_say_and_lists_say_the_same(
    rows: list[dict[str, Any]], at: datetime, seed: int
) -> None:
    asking = Asking(at=at.timestamp())
    policy = policy_of(text_of(rows))
    shuffled = policy_of(text_of(random.Random(seed).sample(rows, len(rows))))
    for who in PEOPLE:
        seen = []
        for service, groups in SERVICES.items():
            mine = [row["kind"] for row in rows if applies(row, who, service, at)]
            expected = "grant" in mine and "deny" not in mine
            for made in (policy, shuffled):
                decision = decide(made, who, Action.STOP, service, groups, asking)
                assert isinstance(decision, Allow) == expected
            assert visible(policy, who, service, groups, asking) == expected
            seen += [service] if expected else []
        assert viewable(policy, who, SERVICES, asking) == seen
        assert [right.service for right in rights(policy, who, SERVICES, asking)] == sorted(seen)


@examples(25)
@given(rows=ROWS, at=TIMES)
def test_a_time_that_is_not_known_gives_no_right_that_a_known_one_does_not(
    rows: list[dict[str, Any]], at: datetime
) -> None:
    policy = policy_of(text_of(rows))
    for who, service in itertools.product(PEOPLE, SERVICES):
        if isinstance(decide(policy, who, Action.STOP, service, SERVICES[service]), Allow):
            assert isinstance(decide(policy, who, "stop", service, SERVICES[service], Asking(at.timestamp())), Allow)


BOB = person("bob", 1002, [], "")
WINDOW = """\
[[grant]]
id = "office"
who = ["user:bob"]
may = ["view", "restart"]
on = ["site"]
when = { days = "Mon-Fri", hours = "08:00-18:00", timezone = "Europe/Zurich" }
"""


def said(text: str, at: str, who: Identity = BOB) -> Deny:
    asking = Asking(datetime.fromisoformat(at).timestamp())
    decision = decide(policy_of(text), who, "restart", "site", ("web",), asking)
    assert isinstance(decision, Deny)
    return decision


def test_a_window_that_is_closed_says_when_it_opens_next() -> None:
    assert said(WINDOW, "2026-11-27T19:00+01:00") == Deny(
        "denied: no rule lets bob restart site now; the rule 'office' would, Mon-Fri 08:00-18:00 Europe/Zurich;"
        " it next opens Mon 08:00"
    )


def test_a_rule_that_has_expired_says_until_when_it_did() -> None:
    for text in (WINDOW + "expires = 2026-11-27\n", WINDOW[: WINDOW.index("when")] + "expires = 2026-11-27\n"):
        told = said(text, "2026-11-28T12:00+01:00").text
        assert told.endswith("; the rule 'office' did, until 2026-11-27")


def test_a_window_that_will_not_open_before_its_rule_expires_has_closed_for_good() -> None:
    text = said(WINDOW + "expires = 2026-11-29\n", "2026-11-27T19:00+01:00").text
    assert text.endswith("; the rule 'office' did, until 2026-11-29")


def test_of_several_rules_that_do_not_count_the_one_that_will_is_named() -> None:
    old = WINDOW[: WINDOW.index("when")].replace("office", "old") + "expires = 2026-01-01\n"
    assert "the rule 'office' would" in said(old + WINDOW, "2026-11-27T19:00+01:00").text
    older = old.replace('"old"', '"older"').replace("2026-01-01", "2025-01-01")
    assert said(older + old, "2026-11-27T19:00+01:00").text.endswith("the rule 'old' did, until 2026-01-01")


def test_a_time_that_is_not_known_is_told_as_no_rule() -> None:
    decision = decide(policy_of(WINDOW), BOB, "restart", "site", ("web",))
    assert decision == Deny("denied: no rule lets bob restart site")


def test_a_deny_with_a_window_says_when_it_forbids() -> None:
    freeze = (
        '[[deny]]\nid = "freeze"\nwho = ["user:bob"]\nmay = ["restart"]\non = ["*"]\n'
        'when = { days = "Fri-Sun", timezone = "UTC" }\n'
    )
    decision = said(WINDOW + freeze, "2026-11-27T12:00+01:00")
    assert decision.text == "denied: the rule 'freeze' (10-web.toml:7) forbids restart on site to bob, Fri-Sun UTC"
    asking = Asking(datetime.fromisoformat("2026-11-26T12:00+01:00").timestamp())
    assert isinstance(decide(policy_of(WINDOW + freeze), BOB, "restart", "site", (), asking), Allow)


def test_a_hint_through_a_group_says_when_it_would_help() -> None:
    text = WINDOW.replace("user:bob", "group:webops")
    assert said(text, "2026-11-27T19:00+01:00").would_help == (
        "office (10-web.toml:1), through group webops, Mon-Fri 08:00-18:00 Europe/Zurich",
    )
    assert said(text, "2026-11-27T12:00+01:00").would_help == ("office (10-web.toml:1), through group webops",)
    assert said(text + "expires = 2026-11-27\n", "2026-11-27T19:00+01:00").would_help == ()


@pytest.mark.parametrize(("at", "seen"), [("2026-11-27T12:00+01:00", True), ("2026-11-27T19:00+01:00", False)])
def test_b10_outside_of_its_hours_a_service_is_as_unknown_as_one_that_does_not_exist(at: str, seen: bool) -> None:
    policy, asking = policy_of(WINDOW), Asking(datetime.fromisoformat(at).timestamp())
    assert visible(policy, BOB, "site", ("web",), asking) == seen
    told = explain(policy, BOB, "restart", "site", ("web",), asking)
    if seen:
        assert isinstance(told, Decided)
        assert told.allowed
    else:
        decision = decide(policy, BOB, "restart", "site", ("web",), asking)
        assert isinstance(decision, Deny)
        assert refuse(policy, BOB, decision, "site", ("web",), asking).text == "no service 'site' that you may view"
        assert told == explain(policy, BOB, "restart", "site", None, asking)


def test_who_asks_from_elsewhere_is_told_from_where_he_may() -> None:
    text = WINDOW[: WINDOW.index("when")] + 'from = ["10.0.0.0/8", "local"]\n'
    decision = decide(policy_of(text), BOB, "restart", "site", (), Asking(source="192.0.2.7"))
    assert isinstance(decision, Deny)
    assert decision.text == "denied: no rule lets bob restart site; the rule 'office' would, from 10.0.0.0/8, local"
    assert isinstance(decide(policy_of(text), BOB, "restart", "site", (), Asking(source="unix:1002")), Allow)
    both = said(WINDOW + 'from = ["10.0.0.0/8"]\n', "2026-11-27T19:00+01:00").text
    assert both.endswith("would, Mon-Fri 08:00-18:00 Europe/Zurich, from 10.0.0.0/8; it next opens Mon 08:00")
    inside = said(WINDOW + 'from = ["10.0.0.0/8"]\n', "2026-11-27T12:00+01:00").text
    assert inside.endswith("the rule 'office' would, from 10.0.0.0/8")
    last = said(WINDOW + 'from = ["10.0.0.0/8"]\nexpires = 2026-11-27\n', "2026-11-27T12:00+01:00").text
    assert last == inside
