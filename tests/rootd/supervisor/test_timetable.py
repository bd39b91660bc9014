"""What is due by a wall clock that may be set to anything: at most once for a time, and nothing in silence."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, strategies as st

from rootd.config.schedules import Schedule
from rootd.supervisor import timetable
from rootd.supervisor.timetable import COUNTED, GRACE, Job, Timetable, look, utc

NOON = datetime.fromisoformat("2026-06-01T12:00:00+00:00").timestamp()
MINUTE, HOUR, DAY, YEAR = 60.0, 3600.0, 86_400.0, 365 * 86_400.0


def schedule(line: str = "* * * * *", missed: str = "skip", delay: float = 0.0) -> Schedule:
    return Schedule(line, "", "", missed, delay)


class Board:
    """A timetable of one service, and what it has done. The wall clock is `wall`, the other one goes on by itself."""

    def __init__(self, spec: Any, *, line: str = "* * * * *", missed: str = "skip", delay: float = 0.0) -> None:
        self.spec = spec(name="job", schedule=schedule(line, missed, delay))
        self.now, self.wall = 1000.0, NOON + 30
        self.runs: list[float] = []  # by the wall clock
        self.told: list[str] = []
        self.busy = ""
        self.shown = 0
        self.table = self.new()
        self.table.load({"job": self.spec}, self.now, self.wall)

    def new(self) -> Timetable:
        return Timetable(self.begin, self.show, lambda name, text: self.told.append(text))

    def begin(self, name: str, now: float) -> str:
        self.runs += [] if self.busy else [self.wall]
        return self.busy

    def show(self, name: str) -> None:
        self.shown += 1

    def pass_by(self, seconds: float) -> Board:
        """Time goes on, from one look to the next."""
        until = self.now + seconds
        while (at := self.table.wake_at()) is not None and at <= until:
            self.wall += max(at - self.now, 0.0)
            self.now = max(self.now, at)
            self.table.wake(self.now, self.wall)
        self.wall += until - self.now
        self.now = until
        return self

    def step(self, seconds: float) -> Board:
        """The clock is set."""
        self.wall += seconds
        return self

    def sleep(self, seconds: float) -> Board:
        """Nobody looks: the machine sleeps, or the supervisor is not there."""
        self.now += seconds
        self.wall += seconds
        return self

    def reborn(self, *, saved: bool = True) -> Board:
        kept = self.table.save()
        self.table = self.new()
        self.table.restore(kept if saved else {})
        self.table.load({"job": self.spec}, self.now, self.wall)
        return self


def test_it_runs_at_each_time_and_wakes_only_for_it(spec: Any) -> None:
    board = Board(spec)
    assert board.table.wake_at() == board.now + 30
    board.pass_by(10 * MINUTE)
    assert board.runs == [NOON + MINUTE * minute for minute in range(1, 11)]
    assert not board.told


def test_with_hours_to_go_it_looks_once_a_minute_whether_the_clock_was_set(spec: Any) -> None:
    board = Board(spec, line="0 3 * * *")
    assert board.table.wake_at() == board.now + timetable.LOOK
    board.pass_by(DAY)
    assert board.runs == [NOON + 15 * HOUR]


def test_with_nothing_scheduled_nobody_wakes(spec: Any) -> None:
    board = Board(spec)
    board.table.load({"job": board.spec._replace(autostart=False)}, board.now, board.wall)
    assert board.table.wake_at() is None
    assert board.table.plan("job") == "disabled: no run is due"
    assert board.table.next("job") is None
    board.table.load({"job": spec(name="job")}, board.now, board.wall)
    assert board.table.wake_at() is None


def test_one_that_is_put_back_in_force_has_missed_nothing(spec: Any) -> None:
    board = Board(spec, missed="once")
    board.table.load({"job": board.spec._replace(autostart=False)}, board.now, board.wall)
    board.sleep(HOUR)
    board.table.load({"job": board.spec}, board.now, board.wall)
    board.pass_by(29)
    assert not board.runs
    board.pass_by(1)
    assert len(board.runs) == 1


def test_another_line_counts_from_now_on(spec: Any) -> None:
    board = Board(spec, line="0 3 * * *", missed="once").sleep(20 * HOUR)
    board.table.load({"job": board.spec._replace(schedule=schedule("30 9 * * *", "once"))}, board.now, board.wall)
    board.pass_by(HOUR)
    assert not board.runs
    assert board.table.plan("job") == "next at 2026-06-02T09:30:00+00:00"


def test_what_comes_due_while_one_goes_on_is_left_out_counted_and_told(spec: Any) -> None:
    board = Board(spec)
    board.busy = "the one before is not over"
    board.pass_by(2 * MINUTE)
    assert board.told == [
        "the run of 2026-06-01T12:01:00+00:00 is left out: the one before is not over",
        "the run of 2026-06-01T12:02:00+00:00 is left out: the one before is not over",
    ]
    assert board.table.counts("job") == "2 left out, as one was going on"
    board.busy = ""
    board.pass_by(MINUTE)
    assert len(board.runs) == 1


def test_what_comes_a_little_late_has_come_in_time(spec: Any) -> None:
    board = Board(spec, line="1 12 * * *").sleep(30 + GRACE)
    board.pass_by(0)
    assert (len(board.runs), board.told) == (1, [])


def test_what_was_missed_is_counted_and_told(spec: Any) -> None:
    board = Board(spec, line="1 12 * * *").sleep(31 + GRACE)
    board.pass_by(0)
    assert (board.runs, board.told) == ([], ["1 of its times passed without a run"])
    assert board.table.counts("job") == "1 missed"


def test_where_it_is_to_catch_up_there_is_one_run_for_all_that_were_missed(spec: Any) -> None:
    board = Board(spec, line="0 3 * * *", missed="once").sleep(7 * DAY)
    board.pass_by(0).pass_by(HOUR)
    assert len(board.runs) == 1
    assert board.told == ["6 of its times passed without a run"]


@pytest.mark.parametrize("missed", ["skip", "once"])
@pytest.mark.parametrize("line", ["* * * * *", "*/2 * * * * *", "0 3 * * *", "0 0 1 1 *"])
def test_a_clock_that_is_set_a_year_ahead_makes_one_run_at_most_and_goes_on_from_there(
    spec: Any, line: str, missed: str
) -> None:
    board = Board(spec, line=line, missed=missed)
    board.pass_by(0.5).step(YEAR)
    board.table.wake(board.now + timetable.LOOK, board.wall)
    assert len(board.runs) <= 1
    assert all(after > board.wall for after in [board.table.next("job")] if after)
    due = board.table.next("job")
    assert due is not None
    before = len(board.runs)
    board.pass_by(min(due - board.wall, 2 * DAY) + 61)
    assert len(board.runs) > before or due - board.wall > DAY


@pytest.mark.parametrize("line", ["* * * * *", "*/2 * * * * *", "0 * * * *"])
def test_a_clock_that_is_set_a_year_back_neither_waits_for_a_year_nor_repeats_it(spec: Any, line: str) -> None:
    board = Board(spec, line=line).pass_by(2 * HOUR).step(-YEAR)
    board.runs.clear()
    board.pass_by(2 * HOUR + 60)
    expected = {"* * * * *": 120, "*/2 * * * * *": 3600, "0 * * * *": 2}[line]
    assert expected - 31 <= len(board.runs) <= expected + 31
    assert board.runs == sorted({*board.runs})


def test_a_clock_that_is_set_ahead_and_back_again_costs_nothing(spec: Any) -> None:
    board = Board(spec).pass_by(MINUTE).step(YEAR).pass_by(MINUTE).step(-YEAR)
    board.runs.clear()
    board.pass_by(5 * MINUTE)
    assert 4 <= len(board.runs) <= 5


def test_a_clock_that_is_set_back_a_little_repeats_nothing(spec: Any) -> None:
    for line, seconds in (("* * * * *", 20.0), ("0 12 * * *", 2 * HOUR)):
        board = Board(spec, line=line).pass_by(DAY - 30 + 1)
        runs = len(board.runs)
        board.step(-seconds).pass_by(seconds)
        assert len(board.runs) == runs
        board.pass_by(DAY)
        assert len(board.runs) > runs


def test_what_runs_often_goes_on_at_once_when_the_clock_is_set_back_by_an_hour(spec: Any) -> None:
    board = Board(spec).pass_by(10 * MINUTE).step(-HOUR)
    board.runs.clear()
    board.pass_by(10 * MINUTE)
    assert 9 <= len(board.runs) <= 10


def test_the_next_supervisor_runs_no_time_again_and_misses_none(spec: Any) -> None:
    board = Board(spec).pass_by(30).reborn().pass_by(10)
    assert len(board.runs) == 1
    board.sleep(55).reborn().pass_by(0)
    assert len(board.runs) == 2


def test_a_new_daemon_that_knows_nothing_runs_nothing_at_once(spec: Any) -> None:
    board = Board(spec, missed="once").pass_by(31).sleep(HOUR).reborn(saved=False).pass_by(1)
    assert len(board.runs) == 1


def test_of_two_words_on_what_is_dealt_with_the_later_one_counts(spec: Any) -> None:
    board = Board(spec, line="0 3 * * *", missed="once")
    [job] = board.table.save().values()
    later = Job(job.schedule, job.handled + DAY)
    for first, second in ((job, later), (later, job)):
        board.table = board.new()
        board.table.restore({"job": first})
        board.table.restore({"job": second})
        assert board.table.save()["job"].handled == later.handled


@pytest.mark.parametrize("handled", [-1e18, -1e300, 1e18, 1e300])
def test_a_time_that_was_never_stops_no_schedule(spec: Any, handled: float) -> None:
    board = Board(spec, missed="once")
    [job] = board.table.save().values()
    board.table = board.new()
    board.table.restore({"job": Job(job.schedule, handled)})
    board.table.load({"job": board.spec}, board.now, board.wall)
    board.pass_by(180)
    assert len(board.runs) >= 2


def test_only_what_catches_up_outlives_the_daemon(spec: Any) -> None:
    assert Board(spec).table.lasting() == {}
    assert [*Board(spec, missed="once").table.lasting()] == ["job"]


def test_a_machine_is_later_by_its_own_delay_and_says_so(spec: Any) -> None:
    board = Board(spec, line="0 * * * *", delay=600.0)
    board.table.seed = "host"
    board.table.load({"job": board.spec}, board.now, board.wall)
    late = board.spec.schedule.delay("host job")
    assert 0 < late <= 600
    board.pass_by(3 * HOUR)
    times = [NOON + HOUR * hour + late for hour in range(5)]
    assert board.runs == [at for at in times if NOON + 30 < at <= board.wall]
    assert board.table.next("job") == min(at for at in times if at > board.wall)


def test_a_schedule_that_has_come_to_its_end_says_so(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Schedule, "times", lambda self, after: iter(()))
    board = Board(spec)
    assert board.table.plan("job") == "no run is due"
    assert board.table.wake_at() == board.now + timetable.LOOK
    board.step(-YEAR).pass_by(HOUR)
    assert not board.runs


def test_times_for_programs_are_utc() -> None:
    assert utc(NOON) == "2026-06-01T12:00:00Z"


LINES = st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "0 0 1 * *", "*/5 * * * * *"])


@given(LINES, st.sampled_from(["skip", "once"]), st.lists(st.floats(-2 * YEAR, 2 * YEAR), max_size=6))
def test_whatever_the_clock_is_set_to_a_look_is_short_makes_one_run_at_most_and_has_a_next(
    line: str, missed: str, steps: list[float]
) -> None:
    one, wall = schedule(line, missed), NOON
    job = Job("", wall, one.after(wall))
    for step in steps:
        wall += step
        found = look(one, job, wall)
        assert found.missed <= COUNTED
        assert found.run is None or found.run <= wall
        assert found.run is None or found.run > job.handled, "it was dealt with before"
        job = found.job
        assert job.due is not None
        assert job.due - wall <= 32 * DAY + timetable.BACK, "it does not wait for a year"
        again = look(one, job, wall)
        assert (again.run, again.missed) == (None, 0), "one time, one run"
