"""Windows against a second, naive evaluator, over changes of the clock, leap days and midnights."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, strategies as st

from policy.windows import DAYS, MIDNIGHT, Window, days, hours

ZURICH = zoneinfo.ZoneInfo("Europe/Zurich")
ZONES = ("UTC", "Europe/Zurich", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia")


def window(text: str) -> Window:
    on, at, zone = text.split()
    return Window(days(on), *hours(at), zoneinfo.ZoneInfo(zone), text)


def at(text: str, zone: str = "Europe/Zurich", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(zone), fold=fold).timestamp()


def naive(on: str, begin: str, end: str, moment: datetime) -> bool:
    """What the clock shows, as texts: nothing of policy/, and no arithmetic with minutes."""
    shown, today = f"{moment:%H:%M}", DAYS[moment.weekday()]
    yesterday = DAYS[(moment.date() - timedelta(days=1)).weekday()]
    if begin < end:
        return today in on and begin <= shown < end
    return (today in on and shown >= begin) or (yesterday in on and shown < end)


CLOCK = st.builds(lambda hour, minute: f"{hour:02}:{minute:02}", st.integers(0, 23), st.integers(0, 59))
# around the changes of 2026 in all of these zones, and a leap day
TIMES = st.builds(
    lambda day, second: day + second,
    st.sampled_from([1_774_569_600, 1_772_928_000, 1_792_800_000, 1_793_491_200, 1_775_260_800, 1_835_352_000]),
    st.integers(-2 * 86400, 3 * 86400),
)


@given(
    on=st.lists(st.sampled_from(DAYS), min_size=1, max_size=7, unique=True),
    begin=CLOCK,
    end=st.one_of(CLOCK, st.just("24:00")),
    zone=st.sampled_from(ZONES),
    moment=TIMES,
)
@example(on=["Sun"], begin="02:00", end="03:00", zone="Europe/Zurich", moment=1_774_745_999)
def test_a_window_holds_when_the_clock_there_says_so(
    on: list[str], begin: str, end: str, zone: str, moment: int
) -> None:
    if begin == end:
        with pytest.raises(ValueError, match="are no hours"):
            hours(f"{begin}-{end}")
        return
    made = window(f"{','.join(on)} {begin}-{end} {zone}")
    local = datetime.fromtimestamp(moment, zoneinfo.ZoneInfo(zone))
    assert made.holds(moment) == naive(",".join(on), begin, end, local)
    if made.holds(moment):
        return
    opens = made.opens(moment)
    assert opens is not None
    assert opens > moment
    assert made.holds(opens)
    shown = datetime.fromtimestamp(opens, zoneinfo.ZoneInfo(zone))
    before = datetime.fromtimestamp(opens - 60, zoneinfo.ZoneInfo(zone))
    stepped = before.utcoffset() != shown.utcoffset()
    assert f"{shown:%H:%M}" == begin or stepped, "its hours begin there, or the clock has stepped over that"


@pytest.mark.parametrize(
    ("text", "moment", "holds"),
    [
        ("Mon-Fri 08:00-18:00 Europe/Zurich", "2026-11-27T07:59:59", False),
        ("Mon-Fri 08:00-18:00 Europe/Zurich", "2026-11-27T08:00:00", True),
        ("Mon-Fri 08:00-18:00 Europe/Zurich", "2026-11-27T17:59:59", True),
        ("Mon-Fri 08:00-18:00 Europe/Zurich", "2026-11-27T18:00:00", False),
        ("Mon-Fri 08:00-18:00 Europe/Zurich", "2026-11-28T12:00:00", False),
        ("Fri 22:00-06:00 Europe/Zurich", "2026-11-27T05:00:00", False),  # of the night before, which is Thursday's
        ("Fri 22:00-06:00 Europe/Zurich", "2026-11-27T23:00:00", True),
        ("Fri 22:00-06:00 Europe/Zurich", "2026-11-28T05:59:59", True),
        ("Fri 22:00-06:00 Europe/Zurich", "2026-11-28T06:00:00", False),
        ("Sun 22:00-06:00 Europe/Zurich", "2026-11-30T01:00:00", True),  # the week is round
        ("Fri 18:00-24:00 Europe/Zurich", "2026-11-27T23:59:59", True),
        ("Fri 18:00-24:00 Europe/Zurich", "2026-11-28T00:00:00", False),
        ("Tue 00:00-24:00 Europe/Zurich", "2028-02-29T12:00:00", True),  # a leap day
        ("Wed 00:00-24:00 Europe/Zurich", "2028-03-01T00:00:00", True),
    ],
)
def test_a_window_over_its_edges(text: str, moment: str, holds: bool) -> None:
    assert window(text).holds(at(moment)) == holds


def test_an_hour_that_the_clock_skips_does_not_come_and_one_that_it_repeats_comes_twice() -> None:
    hour = window("Sun 02:00-03:00 Europe/Zurich")
    spring, autumn = at("2026-03-29T00:00"), at("2026-10-25T00:00")
    assert sum(hour.holds(spring + 60 * minute) for minute in range(23 * 60)) == 0
    assert sum(hour.holds(autumn + 60 * minute) for minute in range(25 * 60)) == 120
    assert hour.opens(spring) == at("2026-04-05T02:00")
    assert hour.opens(autumn) == at("2026-10-25T02:00")


def test_hours_that_begin_where_the_clock_steps_forward_begin_after_the_step() -> None:
    night = window("Sun 02:30-05:00 Europe/Zurich")
    assert night.opens(at("2026-03-29T00:00")) == at("2026-03-29T03:00")


def test_a_day_that_a_zone_leaves_out_is_waited_for_to_the_next_one() -> None:
    friday = window("Fri 08:00-18:00 Pacific/Apia")  # there was no Friday, 30 December 2011
    assert friday.opens(at("2011-12-28T12:00", "Pacific/Apia")) == at("2012-01-06T08:00", "Pacific/Apia")
    never = Window(frozenset({4}), 0, 1, zoneinfo.ZoneInfo("UTC"), "")
    assert never.opens(at("2011-12-28T12:00")) is not None


def test_what_opens_next_is_said_in_the_windows_own_zone_and_with_its_date_when_it_is_far_off() -> None:
    made = window("Mon-Fri 08:00-18:00 Europe/Zurich")
    assert made.opening(at("2026-11-27T19:00")) == "it next opens Mon 08:00"
    assert made.opening(at("2026-11-27T07:00")) == "it next opens Fri 08:00"
    assert window("Fri 08:00-18:00 UTC").opening(at("2026-11-27T09:00", "UTC")) == "it next opens Fri 2026-12-04 08:00"


def test_a_window_of_no_day_does_not_open() -> None:
    assert Window(frozenset(), 0, MIDNIGHT, UTC, "").opening(0.0) == "it does not open soon"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Mon", {0}),
        ("Mon-Fri", {0, 1, 2, 3, 4}),
        ("Mon,Wed,Sat-Sun", {0, 2, 5, 6}),
        ("Fri-Mon", {4, 5, 6, 0}),
        ("Sun-Sun", {6}),
        ("Mon - Tue , Thu", {0, 1, 3}),
        ("Mon-Sun", set(range(7))),
        ("Sun-Sat", set(range(7))),
    ],
)
def test_days_are_read(text: str, found: set[int]) -> None:
    assert days(text) == found


@pytest.mark.parametrize("text", ["", "mon", "Monday", "Mon-", "-Mon", "Mon-Fri-Sun", "Mon,,Tue", "1-5", "*"])
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no day: Mon, Tue"):
        days(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("08:00-18:00", (480, 1080)),
        ("22:00-06:00", (1320, 360)),
        ("00:00-24:00", (0, 1440)),
        ("23:59-00:00", (1439, 0)),
    ],
)
def test_hours_are_read(text: str, found: tuple[int, int]) -> None:
    assert hours(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "8:00-18:00", "08-18", "08:00", "08:00-08:00", "24:00-06:00", "08:60-09:00", "08:00-24:01", "08:00-25:00",
     "08:00-18:60", "08:00-18:00\n", "٠٨:00-18:00", "08:00 - 18:00"],
)  # fmt: skip
def test_what_are_no_hours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="are no hours: write 08:00-18:00"):
        hours(text)
