"""Scheduled services above a simulated privileged: when they run, what people may ask, and kill -9 at every moment."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from policy.messages import Changed
from rootd import ipc
from rootd.config.schedules import Schedule
from rootd.supervisor import mentions, scheduled
from rootd.supervisor.services import Already, Services

NOON = 1_780_315_200.0  # 2026-06-01T12:00:00Z


def minutely(spec: Any, missed: str = "skip", line: str = "* * * * *", **changes: Any) -> Any:
    job = {"name": "job", "ready_kind": "exit", "ready_timeout": 0.0, "restart_policy": "never"}
    return spec(**job | {"schedule": Schedule(line, "", "", missed, 0.0)} | changes)


def begun(House: Any, *specs: Any) -> Any:
    """At half past a minute past noon, by the wall clock."""
    house = House(*specs)
    house.ahead = NOON + 90 - house.now
    return house.begin()


@pytest.fixture
def house(House: Any, spec: Any) -> Any:
    return begun(House, minutely(spec))


def end(house: Any, status: int = 0) -> None:
    for run in house.privileged.mains():
        house.privileged.exit(run.number, status)
    house.deliver()


def shown(house: Any, name: str = "job") -> tuple[str, str]:
    [process] = house.services.info(name).processes
    return process.state, mentions.plain(process.text)


def runs(house: Any) -> int:
    number: int = house.privileged.last
    return number


def texts(house: Any) -> list[str]:
    return [event.text for event in house.events if isinstance(event, Changed)]


def test_nothing_runs_before_its_time_and_people_see_when_that_is(house: Any) -> None:
    assert shown(house) == ("STOPPED", "next at 2026-06-01T12:02:00+00:00")
    assert house.services.info("job").next == "2026-06-01T12:02:00Z"
    assert house.services.info("job").wanted == "up"
    house.later(29.0)
    assert runs(house) == 0


def test_that_there_is_a_new_one_is_written_down_at_once(house: Any, spec: Any) -> None:
    before = house.services.asked
    house.reload(minutely(spec), minutely(spec, name="new", entry=1))
    assert house.services.asked > before
    before = house.services.asked
    house.reload(minutely(spec), minutely(spec, name="new", entry=1))
    assert house.services.asked == before


def test_that_it_starts_is_told_once(house: Any) -> None:
    house.later(30.0)
    told = [(event.state, event.text) for event in house.events if isinstance(event, Changed)]
    assert [text for state, text in told if state == "STARTING"] == ["next at 2026-06-01T12:03:00+00:00"], told


def test_it_runs_at_its_time_and_shows_how_that_ended_and_the_next(house: Any) -> None:
    house.later(30.0)
    assert shown(house) == ("RUNNING", "at work; next at 2026-06-01T12:03:00+00:00")
    end(house)
    assert shown(house) == ("EXITED", "done; next at 2026-06-01T12:03:00+00:00")
    house.later(60.0)
    end(house, 3)
    assert shown(house) == ("EXITED", "next at 2026-06-01T12:04:00+00:00")
    assert house.services.info("job").processes[0].exit == "exit status 3"
    house.later(60.0)
    assert (runs(house), shown(house)[0]) == (3, "RUNNING"), "a failure does not end the schedule"


def test_what_goes_on_at_the_next_time_is_left_alone_and_that_time_is_counted_and_told(house: Any) -> None:
    house.later(90.0)
    assert (runs(house), shown(house)[0]) == (1, "RUNNING")
    assert "the run of 2026-06-01T12:03:00+00:00 is left out: the one before is not over" in texts(house)
    assert house.services.info("job").text == "1 left out, as one was going on"
    end(house)
    house.later(60.0)
    assert runs(house) == 2


def test_a_start_by_hand_runs_it_now_and_changes_no_time(house: Any) -> None:
    operation = house.services.start("job", house.now, "r")
    house.deliver()
    assert shown(house) == ("RUNNING", "at work; next at 2026-06-01T12:02:00+00:00")
    end(house)
    assert house.said(operation)[-1] == "ok: job done"
    house.later(30.0)
    assert runs(house) == 2


def test_a_stop_ends_the_run_that_goes_on_and_not_the_schedule(house: Any) -> None:
    house.later(30.0)
    operation = house.services.stop("job", house.now, "r")
    house.deliver()
    assert house.said(operation)[-1] == "ok: job stopped"
    assert shown(house) == ("STOPPED", "next at 2026-06-01T12:03:00+00:00")
    with pytest.raises(Already):
        house.services.stop("job", house.now, "r")
    house.later(60.0)
    assert runs(house) == 2


def test_who_disables_it_stops_the_schedule_and_who_enables_it_begins_it_with_the_next_time(house: Any) -> None:
    [job] = house.specs
    house.reload(job._replace(autostart=False))
    assert shown(house) == ("STOPPED", "disabled: no run is due")
    assert (house.services.info("job").enabled, house.services.info("job").next) == (False, "")
    house.later(300.0)
    assert (runs(house), house.services.wake_at()) == (0, None), "and nobody wakes for it"
    house.reload(job)
    assert (runs(house), shown(house)[1]) == (0, "next at 2026-06-01T12:07:00+00:00")
    house.later(60.0)
    assert runs(house) == 1


def test_a_failure_is_tried_again_where_its_policy_says_so_and_the_next_time_begins_anew(House: Any, spec: Any) -> None:
    house = begun(House, minutely(spec, restart_policy="on-failure", limit_count=2, limit_window=30.0)).later(30.0)
    end(house, 1)
    end(house.later(1.0), 1)
    assert shown(house)[0] == "FATAL"
    assert runs(house) == 2
    house.later(60.0)
    assert (runs(house), shown(house)[0]) == (3, "RUNNING")


def test_what_it_requires_is_started_for_it_and_where_that_fails_the_run_fails_alone(House: Any, spec: Any) -> None:
    db = spec(name="db", entry=1, autostart=False, limit_count=1)
    house = begun(House, minutely(spec, requires=("db",)), db).later(30.0)
    assert house.states("db") == ["STARTING"]
    assert shown(house)[1].startswith("waits for db")
    house.later(2.0)
    assert shown(house)[0] == "RUNNING"
    for run in house.privileged.mains():
        house.privileged.exit(run.number, 1)
    house.later(58.0)
    assert shown(house) == (
        "FATAL", "it requires db: failed once in 60 s, the last time: exit status 1; next at 2026-06-01T12:04:00+00:00",
    )  # fmt: skip
    house.services.start("db", house.now, "r")
    house.later(60.0)
    assert shown(house)[0] == "RUNNING"


def test_between_its_runs_nobody_has_to_stop_it_to_stop_what_it_requires(House: Any, spec: Any) -> None:
    house = begun(House, minutely(spec, requires=("db",)), spec(name="db", entry=1)).later(30.0)
    assert house.services.order.dependants("db") == ["job"]
    house.privileged.exit(next(run.number for run in house.privileged.mains() if run.slot == 0), 0)
    house.deliver()
    assert house.services.order.dependants("db") == []


def test_another_time_touches_no_run_and_another_command_waits_for_the_next(house: Any, spec: Any) -> None:
    house.later(30.0)
    house.reload(minutely(spec, line="0 * * * *"))
    assert shown(house) == ("RUNNING", "at work; next at 2026-06-01T13:00:00+00:00")
    house.reload(minutely(spec, digest="2"))
    assert (runs(house), shown(house)[0]) == (1, "RUNNING")
    end(house)
    house.reload(minutely(spec, digest="3"))
    assert (runs(house), shown(house)[0]) == (1, "EXITED")


def test_what_becomes_scheduled_ends_until_its_time_and_what_is_no_longer_starts(House: Any, spec: Any) -> None:
    server = spec(name="job", digest="server")
    house = begun(House, server).later(5.0)
    house.reload(minutely(spec))
    house.later(1.0)
    assert shown(house)[0] == "STOPPED"
    house.reload(server)
    house.later(2.0)
    assert shown(house) == ("RUNNING", "")


def test_one_that_is_added_waits_for_its_time_and_one_that_is_removed_ends(house: Any, spec: Any) -> None:
    house.reload(minutely(spec), minutely(spec, name="new", entry=1, line="@hourly"))
    assert runs(house) == 0
    assert shown(house, "new") == ("STOPPED", "next at 2026-06-01T13:00:00+00:00")
    house.later(30.0)
    house.reload(minutely(spec, name="new", entry=1))
    house.later(1.0)
    assert not house.privileged.runs


def test_while_the_daemon_ends_nothing_is_due(house: Any) -> None:
    house.later(30.0)
    house.privileged.stubborn = True
    house.services.stop_all(house.now, "r")
    house.later(300.0)
    assert runs(house) == 1


def test_while_privileged_is_away_it_is_asked_when_it_is_back(house: Any) -> None:
    house.lose()
    house.later(35.0)
    assert runs(house) == 0
    house.link().deliver()
    assert runs(house) == 1


# -- what outlives the daemon ------------------------------------------------------------------------------------


class Log:
    def __init__(self, house: Any, data: bytes = b"") -> None:
        self.sent: list[ipc.Message] = []
        self.data = data
        self.house = house

    def send(self, message: ipc.Message) -> bool:
        self.sent.append(message)
        self.data = message.body
        return True

    def attach(self) -> None:
        self.house.services.scheduled.attach(self.send, lambda: self.data, "host")


def test_what_was_missed_while_the_daemon_was_down_is_caught_up_with_by_one_run(House: Any, spec: Any) -> None:
    house = House(minutely(spec, "once", "0 3 * * *"))
    house.ahead = NOON - house.now
    log = Log(house)
    log.attach()
    house.begin()
    assert [(one.op, one.scope) for one in log.sent] == [(ipc.KEEP, ipc.RUNS)]
    house.later(3600.0)
    assert len(log.sent) == 1, "nothing has come, so nothing is written"
    for days, expected in ((3, 1), (0, 1)):
        house.ahead += days * 86_400.0
        house.privileged.runs.clear()
        house.lose()
        house.services = house.supervisor()
        log.attach()
        house.begin().later(1.0)
        assert runs(house) == expected
    assert house.services.info("job").text == "2 missed"


def test_a_new_log_is_told_again_and_a_full_disk_is_told_once_and_tried_again(House: Any, spec: Any) -> None:
    said: list[str] = []
    house = House(minutely(spec, "once"))
    house.ahead = NOON - house.now
    house.services.scheduled._say = said.append
    log = Log(house)
    log.attach()
    house.begin()
    house.services.scheduled.linked()
    assert [one.seq for one in log.sent] == [1, 2]
    house.services.scheduled.kept(ipc.Message(ipc.KEPT, seq=2, arg=errno.ENOSPC, extra=ipc.RUNS), house.now)
    house.services.scheduled.kept(ipc.Message(ipc.KEPT, seq=1, arg=errno.EIO, extra=ipc.RUNS), house.now)
    assert said == ["when scheduled services ran cannot be kept: No space left on device"]
    house.later(60.0)
    assert len(log.sent) == 3


def test_of_more_services_than_can_be_kept_nothing_old_is_kept_and_that_is_told_once(House: Any, spec: Any) -> None:
    said: list[str] = []
    house = House(*(minutely(spec, "once", name=f"job{n:04d}", entry=n) for n in range(700)))
    house.ahead = NOON - house.now
    house.services.scheduled._say = said.append
    log = Log(house, b'{"job0001": {"schedule": " * * * * * +0", "handled": 1000.0}}')
    log.attach()
    house.begin().later(120.0)
    assert [bytes(one.body) for one in log.sent] == [scheduled.NOTHING]
    assert len(said) == 1
    assert "not kept" in said[0]


def test_a_file_that_nobody_understands_is_told_and_counts_for_nothing(House: Any, spec: Any) -> None:
    much = b'{"job": {"schedule": "x", "handled": 1.0, "missed": %s}}' % (b"9" * 4300)  # one more cannot be said
    for data in (b"{", b'{"job": 3}', b'{"\xff": {}}', b'{"job": {"schedule": "x", "handled": "now"}}', much):
        said: list[str] = []
        house = House(minutely(spec, "once"))
        house.services.scheduled._say = said.append
        Log(house, data).attach()
        house.begin()
        assert len(said) == 1
        assert runs(house) == 0


def test_nobody_who_has_no_such_service_is_written_to_a_disk(House: Any, spec: Any) -> None:
    house = House(minutely(spec), spec(name="site", entry=1))
    log = Log(house)
    log.attach()
    house.begin().later(120.0)
    house.services.scheduled.linked()
    assert not log.sent
    assert scheduled.NOTHING == b"{}"


# -- kill -9 -----------------------------------------------------------------------------------------------------


class Killed(Exception):
    pass


def careful(House: Any) -> Any:
    """A house whose supervisor acts as its main does: the state file first, then what was decided, one by one.

    It can be killed before each of these. lazy: in a turn the file is written only when it must be.
    """

    class Careful(House):
        def __init__(self, spec: Any, kill_at: int, lazy: bool) -> None:
            self.effects: list[Any] = []
            self.saved, self.asked, self.points, self.kill_at, self.lazy = b"", -1, 0, kill_at, lazy
            super().__init__(spec)

        def supervisor(self) -> Services:
            self.effects = []
            self.asked = -1
            perform, publish, wall = self.effects.append, self.events.append, lambda: f"T{self.now:g}"
            return Services(perform, publish, wall, self, "/run/x/probe", clock=lambda: self.now + self.ahead)

        def point(self) -> None:
            self.points += 1
            if self.points == self.kill_at:
                raise Killed

        def act(self) -> None:
            if self.asked != self.services.asked or not self.lazy:
                self.point()
                self.saved, self.asked = self.services.state(), self.services.asked
            for request in self.effects:
                self.point()
                self.privileged.perform(request)
            self.effects.clear()

        def deliver(self, count: int = 1000) -> Any:
            while self.privileged.said:
                self.point()
                self.services.event(self.privileged.said.popleft(), self.now)
                self.act()
            return self

        def minutes(self, seconds: int) -> None:
            """Each run ends as soon as it has begun."""
            until = self.now + seconds
            while self.now < until:
                try:
                    self.point()
                    self.services.wake(self.now)
                    self.act()
                    self.deliver()
                    for running in (self.privileged.mains, self.privileged.errands):
                        for run in running():
                            self.privileged.exit(run.number, 0)
                        self.deliver()
                    self.point()
                    self.saved = self.services.state()  # main's timer, after a moment
                except Killed:
                    self.lose()
                    self.services = self.supervisor()
                    self.services.restore(self.saved)
                    self.begin()
                    self.act()
                self.now += 0.5

    return Careful


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("parts", [(), (("post-stop", 9),)])
def test_wherever_the_supervisor_is_killed_each_time_has_just_one_run(
    House: Any, spec: Any, lazy: bool, parts: Any
) -> None:
    """Two minutes, with a kill before each thing that is done in them."""
    kill_at, points = 1, 1
    while kill_at <= points:
        house = careful(House)(minutely(spec, parts=parts), kill_at, lazy)
        house.ahead = NOON + 90 - house.now
        house.begin()
        house.minutes(121)
        mains = [run for run in house.privileged.asked if run.slot == 0 and type(run.effect).__name__ == "Spawn"]
        assert len(mains) == 2, kill_at
        assert not house.privileged.runs
        kill_at, points = kill_at + 1, house.points
    assert points > 20
