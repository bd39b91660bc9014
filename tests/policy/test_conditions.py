"""When a rule counts, as it is written: the keys, their mistakes, and what a [[test]] says of the time."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies as st

from policy.conditions import Asking
from policy.messages import Problem
from policy.parse import parse
from policy.rules import Grant, Policy

SERVICES: dict[str, tuple[str, ...]] = {"site": ()}
GRANT = '[[grant]]\nid = "g"\nwho = ["user:bob"]\nmay = ["restart"]\non = ["site"]\n'
WHEN = 'when = { days = "Mon-Fri", hours = "08:00-18:00", timezone = "Europe/Zurich" }\n'
TEST = '[[test]]\nuser = "bob"\nmay = "restart"\non = "site"\n'


def zones(name: str) -> tzinfo | None:
    if name == "Europe/Broken":
        raise ValueError("its file cannot be used")
    return {"UTC": UTC, "Europe/Zurich": ZoneInfo("Europe/Zurich")}.get(name)


def outcome(text: str) -> Policy | list[Problem]:
    return parse([("policy.d/10.toml", text)], SERVICES, zones)


def grant(text: str) -> Grant:
    policy = outcome(text)
    assert isinstance(policy, Policy), policy
    return policy.grants[0]


def only(text: str) -> tuple[int, str, str]:
    problems = outcome(text)
    assert isinstance(problems, list), "this should have been refused"
    (problem,) = problems
    return problem.line, problem.key, problem.text


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_rule_without_conditions_counts_at_every_time() -> None:
    made = grant(GRANT)
    assert not made.timed
    assert all(made.counts(Asking(at)) for at in (None, 0.0, 1e11))


def test_a_window_is_read_inline_and_as_a_table_of_its_own() -> None:
    written = '[grant.when]\ndays = "Mon-Fri"\nhours = "08:00-18:00"\ntimezone = "Europe/Zurich"\n'
    for text in (GRANT + WHEN, GRANT + written):
        made = grant(text)
        assert made.when is not None
        assert (made.when.days, made.when.start, made.when.end) == (frozenset(range(5)), 480, 1080)
        assert made.when.text == "Mon-Fri 08:00-18:00 Europe/Zurich"
        assert made.counts(Asking(moment("2026-11-27T08:00+01:00")))
        assert not made.counts(Asking(moment("2026-11-27T18:00+01:00")))
        assert not made.counts(Asking()), "a time that is not known is in no window"


def test_days_alone_are_whole_days_and_hours_alone_are_every_day() -> None:
    days = grant(GRANT + 'when = { days = "Sat", timezone = "UTC" }\n')
    assert days.when is not None
    assert (days.when.start, days.when.end, days.when.text) == (0, 1440, "Sat UTC")
    hours = grant(GRANT + 'when = { hours = "22:00-06:00", timezone = "UTC" }\n')
    assert hours.when is not None
    assert hours.when.days == frozenset(range(7))


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ('when = "always"\n', "when", "write when = { days"),
        ("when = {}\n", "when", "'when' is always, as it is: say days, hours or both"),
        ('when = { timezone = "UTC" }\n', "when", "say days, hours or both"),
        ('when = { days = "Mon" }\n', "when.timezone", "'timezone' is missing"),
        ('when = { days = "Mo", timezone = "UTC" }\n', "when.days", "'Mo' is no day"),
        ('when = { days = 1, timezone = "UTC" }\n', "when.days", "must be a text in quotes, not a number"),
        ('when = { hours = "8-18", timezone = "UTC" }\n', "when.hours", "'8-18' are no hours"),
        ('when = { days = "Mon", timezone = "Europe/Zuerich" }\n', "when.timezone", "no time zone 'Europe/Zuerich' on"),
        ('when = { days = "Mon", timezone = "Europe/Broken" }\n', "when.timezone", "its file cannot be used"),
        ('when = { days = "Mon", zone = "x", timezone = "UTC" }\n', "when.zone", "there is no key 'zone' here"),
        ("expires = true\n", "expires", "'expires' must be a date"),
        ('expires = "2027-01-31"\n', "expires", "'expires' must be a date"),
        ("expires = 2027-01-31T18:00:00\n", "expires", "with its offset"),
        ("expires = 18:00:00\n", "expires", "'expires' must be a date"),
        ("expires = 9999-12-31\n", "expires", "'expires' must be a date"),
        ("expires = 9999-12-31T00:00:00Z\n", "expires", "'expires' must be a date"),
    ],
)
def test_a_condition_that_is_wrong_is_told_with_its_line_and_key(line: str, key: str, words: str) -> None:
    problems = [outcome(GRANT + line)]
    for found in problems:
        assert isinstance(found, list)
        assert (6, f"grant[0].{key}") in {(problem.line, problem.key) for problem in found}
        assert any(words in problem.text for problem in found)


def test_a_date_counts_to_the_end_of_that_day_in_the_rules_zone() -> None:
    utc = grant(GRANT + "expires = 2028-02-29\n")
    assert utc.counts(Asking(moment("2028-02-29T23:59:59+00:00")))
    assert not utc.counts(Asking(moment("2028-03-01T00:00:00+00:00")))
    zurich = grant(GRANT + 'when = { days = "Mon-Sun", timezone = "Europe/Zurich" }\nexpires = 2027-01-31\n')
    assert zurich.counts(Asking(moment("2027-01-31T23:59:59+01:00")))
    assert not zurich.counts(Asking(moment("2027-02-01T00:00:00+01:00")))
    assert not utc.counts(Asking()), "at a time that is not known it may have expired"


def test_a_date_and_a_time_counts_to_that_time() -> None:
    made = grant(GRANT + "expires = 2027-01-31T18:00:00+01:00\n")
    assert made.counts(Asking(moment("2027-01-31T17:59:59+01:00")))
    assert not made.counts(Asking(moment("2027-01-31T18:00:00+01:00")))


def test_a_deny_has_a_time_too_and_counts_when_that_is_not_known() -> None:
    policy = outcome(GRANT.replace("grant", "deny") + WHEN + "expires = 2027-01-31\n")
    assert isinstance(policy, Policy)
    (deny,) = policy.denies
    assert deny.counts(Asking())
    assert deny.counts(Asking(moment("2026-11-27T12:00+01:00")))
    assert not deny.counts(Asking(moment("2026-11-28T12:00+01:00")))
    assert not deny.counts(Asking(moment("2027-02-01T12:00+01:00")))


def test_a_test_says_at_which_time() -> None:
    inside, outside = "at = 2026-11-27T12:00:00+01:00\n", "at = 2026-11-27T18:00:00+01:00\n"
    good = TEST + inside + 'expect = "allow"\n' + TEST + outside + 'expect = "deny"\n'
    assert isinstance(outcome(GRANT + WHEN + good), Policy)
    line, key, text = only(GRANT + WHEN + TEST + outside + 'expect = "allow"\n')
    assert (line, key) == (12, "test[0].expect")
    assert text == (
        "this test expects allow, and came to: denied: no rule lets bob restart site now; the rule 'g' would, Mon-Fri"
        " 08:00-18:00 Europe/Zurich; it next opens Mon 08:00"
    )


def test_without_data_of_zones_there_is_utc() -> None:
    text = GRANT + 'when = { days = "Mon", timezone = "UTC" }\n'
    assert isinstance(parse([("a.toml", text)], SERVICES), Policy)
    assert isinstance(parse([("a.toml", text.replace("UTC", "Europe/Zurich"))], SERVICES), list)


@pytest.mark.parametrize("condition", [WHEN, "expires = 2027-01-31\n"])
@pytest.mark.parametrize("kind", ["grant", "deny"])
def test_a_test_that_depends_on_the_time_must_say_which(condition: str, kind: str) -> None:
    text = GRANT + GRANT.replace("grant", kind).replace('"g"', '"h"') + condition + TEST + 'expect = "deny"\n'
    assert only(text)[2] == (
        "the rule 'h' (policy.d/10.toml:6) depends on the time: say at = 2026-11-23T12:00:00+01:00"
    )
    other = '[[test]]\nuser = "carol"\nmay = "restart"\non = "site"\nexpect = "deny"\n'
    assert isinstance(outcome(GRANT + WHEN + other), Policy), "it is about somebody whom no such rule names"


FROM = 'from = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"]\n'


@pytest.mark.parametrize(
    ("source", "counts"),
    [
        ("10.1.2.3", True),
        ("11.0.0.1", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("unix:1001", False),
        ("unix", False),
        ("", False),
        ("10.1.2.3 ", False),
        ("a signal", False),
    ],
)
def test_a_grant_counts_from_its_networks_alone(source: str, counts: bool) -> None:
    assert grant(GRANT + FROM).counts(Asking(source=source)) == counts


@given(number=st.integers(0, 2**32 - 1), length=st.integers(0, 32), source=st.integers(0, 2**32 - 1))
def test_networks_hold_what_the_standard_library_says(number: int, length: int, source: int) -> None:
    inside = ipaddress.ip_network((number, length), strict=False)
    address = ipaddress.ip_address(source)
    text = str(ipaddress.ip_network((source, length), strict=False).network_address)
    for asked in (str(address), text):
        expected = ipaddress.ip_address(asked) in inside
        assert grant(GRANT + f'from = ["{inside}"]\n').counts(Asking(source=asked)) == expected
    wide = grant(GRANT + 'from = ["0.0.0.0/0"]\n')
    assert wide.counts(Asking(source=str(address)))
    assert not wide.counts(Asking(source="::1")), "of the other kind"


def test_local_is_the_machines_own_sockets() -> None:
    made = grant(GRANT + 'from = ["local", "127.0.0.1"]\n')
    assert all(made.counts(Asking(source=source)) for source in ("unix", "unix:1001", "127.0.0.1"))
    assert not any(made.counts(Asking(source=source)) for source in ("", "unixes", "127.0.0.2", "local"))


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ('from = "10.0.0.0/8"\n', "from", "'from' must be a list of texts"),
        ("from = []\n", "from", "'from' is empty"),
        ('from = ["10.0.0.1/8"]\n', "from[0]", "'10.0.0.1/8' has bits beyond its prefix: write 10.0.0.0/8"),
        ('from = ["ten"]\n', "from[0]", "'ten' is no network: 10.0.0.0/8, 2001:db8::/32, 192.0.2.7, or local"),
        ('from = ["10.0.0.0/33"]\n', "from[0]", "is no network"),
        ('from = ["10.0.0.0/"]\n', "from[0]", "is no network"),
        ('from = ["10.0.0.0/-1"]\n', "from[0]", "is no network"),
        ('from = ["10.0.0/8"]\n', "from[0]", "is no network"),
        ('from = ["10.0.0.1\\u0000"]\n', "from[0]", "is no network"),
        ('from = ["2001:db8::/129"]\n', "from[0]", "is no network"),
        ('from = ["2001:db8::1/32"]\n', "from[0]", "has bits beyond its prefix: write 2001:db8::/32"),
        ('from = ["local", "local"]\n', "from[1]", "stands here twice"),
    ],
)
def test_a_network_that_is_none_is_told_with_its_line_and_key(line: str, key: str, words: str) -> None:
    at, where, text = only(GRANT + line)
    assert (at, where) == (6, f"grant[0].{key}")
    assert words in text


def test_a_deny_does_not_depend_on_what_the_api_says() -> None:
    assert only(GRANT.replace("grant", "deny") + FROM)[1:] == ("deny[0].from", "there is no key 'from' here")


def test_a_test_says_from_where() -> None:
    for source, expect in (("10.1.2.3", "allow"), ("11.1.2.3", "deny"), ("local", "deny")):
        assert isinstance(outcome(GRANT + FROM + TEST + f'from = "{source}"\nexpect = "{expect}"\n'), Policy)
    assert isinstance(outcome(GRANT + FROM + TEST + 'expect = "deny"\n'), Policy), "from where is not known"
    assert only(GRANT + TEST + 'from = "10.0.0.0/8"\nexpect = "allow"\n')[1:] == (
        "test[0].from", "'10.0.0.0/8' is no address: 192.0.2.7, 2001:db8::7 or local",
    )  # fmt: skip
