"""Times and patterns."""

from __future__ import annotations

import time

import pytest

from userapi.cli import sifting
from userapi.cli.failure import Failure
from userapi.cli.sifting import Sieve, since_of


def test_a_span_is_back_from_now_and_a_time_is_itself():
    assert time.clock_gettime(time.CLOCK_REALTIME) - since_of("2h") == pytest.approx(7200, abs=60)
    assert since_of("2026-01-02T03:04:05Z") == 1_767_323_045
    assert since_of("2026-01-02T04:04:05+01:00") == 1_767_323_045


@pytest.mark.parametrize("text", ["", "yesterday", "10", "10w", "-5m", "2026-13-01"])
def test_any_other_time_is_refused_with_what_is_possible(text):
    with pytest.raises(Failure, match="--since takes"):
        since_of(text)


def test_lines_are_taken_by_their_times_and_those_without_one_go_with_the_line_before():
    sieve = Sieve("2026-01-02T03:00:00Z", None)
    lines = [
        "nobody knows when", "2026-01-02T02:59:59.9Z old", "  its traceback", "2026-01-02T03:00:00.000000Z new",
        "  its traceback", '{"time":"2026-01-02T03:01:00.5Z","line":"x"}', "2026-02-31T00:00:00Z no day",
    ]  # fmt: skip
    assert [line for line in lines if sieve.takes(line)] == lines[3:]
    assert (sieve.timed, sieve.untimed) == (True, 1)


def test_a_pattern_is_pythons_and_sees_a_bounded_part_of_a_line():
    sieve = Sieve(None, r"err(or)?\b")
    assert [sieve.takes(line) for line in ("an error", "terrible", "x" * sifting.REACH + " err")] == [
        True,
        False,
        False,
    ]
    with pytest.raises(Failure, match="--grep takes"):
        Sieve(None, "(")
