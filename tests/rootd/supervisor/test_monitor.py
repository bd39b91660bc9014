"""Probes and the watchdog: what is asked of whom and when, and what becomes of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from rootd.config.specs import Probe
from rootd.supervisor import monitor
from rootd.supervisor.exits import SHORT

HTTP = Probe("http", "tcp:127.0.0.1:8080", "/healthz")
TCP = Probe("tcp", "unix:/run/db/db.sock")
COMMAND = Probe("command")
READY = {"ready_kind": "probe", "ready_probe": HTTP}
LIVE = {"live_probe": TCP, "live_interval": 10.0, "live_timeout": 2.0, "live_failures": 2, "ready_after": 0.0}


def text(house: Any) -> str:
    found: str = house.services.info("site").processes[0].text
    return found


def answer(house: Any, problem: str = "") -> Any:
    """The one that is asked and not answered."""
    [(number, *_)] = house.probes
    house.probes.clear()
    house.services.probed(number, problem, house.now)
    return house.deliver()


# -- until it is ready ---------------------------------------------------------------------------------------------


def test_a_service_is_ready_when_its_probe_succeeds(House: Any, spec: Any) -> None:
    house = House(spec(**READY)).begin().later(0.0)
    assert [asked[1:] for asked in house.probes] == [("tcp:127.0.0.1:8080", "/healthz", monitor.ATTEMPT)]
    assert answer(house, "connection refused").states() == ["STARTING"]
    assert text(house) == "not ready: connection refused"
    assert house.later(0.4).probes == []
    assert answer(house.later(0.1)).states() == ["RUNNING"]
    assert text(house) == ""
    assert house.later(100.0).probes == []


def test_what_the_last_probe_said_is_the_reason_why_it_is_not_ready_in_time(House: Any, spec: Any) -> None:
    house = House(spec(**READY, ready_timeout=2.0, restart_policy="never", autostart=False)).begin()
    operation = house.services.start("site", house.now, "r")
    answer(house.later(0.0), "connection refused")
    answer(house.later(0.5), "HTTP status 503")
    house.later(20.0)
    why = "not ready in 2 s, its last probe: HTTP status 503"
    assert (house.states(), text(house)) == (["FATAL"], why)
    assert house.said(operation)[-1] == f"failed: site was not started: {why}"


def test_the_new_process_of_a_rolling_restart_is_told_of_with_its_own_last_probe(House: Any, spec: Any) -> None:
    house = House(spec(**READY | {"ready_probe": HTTP, "shared": True, "ready_timeout": 2.0})).begin()
    answer(house.later(0.0))
    operation = house.services.restart("site", house.now, "r")
    answer(house.later(0.0), "HTTP status 500")
    house.later(2.0)
    assert "the new process: not ready in 2 s, its last probe: HTTP status 500" in " ".join(house.said(operation))


def test_a_command_says_whether_it_is_ready(House: Any, spec: Any) -> None:
    house = House(spec(ready_kind="probe", ready_probe=COMMAND, parts=(("ready", 5),))).begin().later(0.0)
    [first] = house.privileged.errands()
    [asked] = [request.effect.about for request in house.privileged.asked if request.slot == first.slot]
    assert asked == house.privileged.mains()[0].number
    house.privileged.exit(first.number, 1)
    house.later(0.5)
    assert text(house) == "not ready: exit status 1"
    [second] = house.privileged.errands()
    house.privileged.exit(second.number, 0)
    assert house.deliver().states() == ["RUNNING"]


def test_a_command_that_hangs_is_killed_and_asked_again(House: Any, spec: Any) -> None:
    house = House(spec(ready_kind="probe", ready_probe=COMMAND, parts=(("ready", 5),))).begin().later(0.0)
    [first] = house.privileged.errands()
    house.later(monitor.ATTEMPT + 0.6)
    [second] = house.privileged.errands()
    assert second is not first
    assert text(house) == "not ready: it took more than 5 s"


def test_a_service_that_is_never_ready_is_stopped_and_its_probe_is_asked_no_more(House: Any, spec: Any) -> None:
    house = House(spec(**READY, ready_timeout=3.0, limit_count=1)).begin().later(0.0)
    answer(house, "connection refused").later(3.0)
    assert house.states() == ["FATAL"]
    house.probes.clear()
    assert house.later(100.0).probes == []


def test_an_answer_about_a_process_that_has_ended_is_about_nobody(House: Any, spec: Any) -> None:
    house = House(spec(**READY)).begin().later(0.0)
    [(number, *_)] = house.probes
    house.privileged.exit(1, 1)
    house.deliver()
    house.services.probed(number, "", house.now)
    house.services.probed(number + 1_000, "", house.now)
    assert house.states() == ["STARTING"]


# -- while it runs -------------------------------------------------------------------------------------------------


def test_a_process_that_fails_so_many_probes_in_a_row_is_replaced(House: Any, spec: Any) -> None:
    house = House(spec(**LIVE)).begin().later(0.0)
    assert house.later(9.0).probes == []
    answer(house.later(1.0), "no answer in 2 s")
    for problem in ("", "no answer in 2 s"):
        answer(house.later(10.0), problem)
        assert house.pids() == [1001]
    assert text(house) == ""
    answer(house.later(10.0), "connection refused")
    assert house.later(1.0).pids() == [1002]
    assert "2 probes in a row failed, the last one: connection refused" in house.events[-4].text
    assert answer(house.later(10.0), "no answer in 2 s").pids() == [1002]


def test_a_command_that_could_not_be_run_says_nothing_against_the_process(House: Any, spec: Any) -> None:
    live = LIVE | {"live_probe": COMMAND, "live_failures": 1, "live_timeout": 60.0}
    house = House(spec(parts=(("live", 5),), **live)).begin().later(1.0)
    house.privileged.failing = (24, "pipe")
    assert house.later(35.0).states() == ["RUNNING"]
    assert text(house) == f"cannot be probed: cannot make its output pipes: Too many open files; {SHORT[24]}"
    house.privileged.failing = None
    [check] = house.later(10.0).privileged.errands()
    house.lose().privileged.runs.pop(check.number)  # it ended, and nobody saw how
    assert house.link().deliver().states() == ["RUNNING"]
    [check] = house.later(10.0).privileged.errands()
    house.privileged.exit(check.number, 0)
    assert text(house.deliver()) == ""
    [check], [before] = house.later(10.0).privileged.errands(), house.pids()
    house.privileged.exit(check.number, 1)
    assert house.deliver().pids() != [before]


def test_where_people_are_only_told_nothing_is_done(House: Any, spec: Any) -> None:
    house = House(spec(**LIVE, live_restart=False)).begin().later(0.0)
    for _ in range(2):
        answer(house.later(10.0), "connection refused")
    assert text(house) == "2 probes in a row failed, the last one: connection refused"
    assert house.pids() == [1001]
    answer(house.later(10.0))
    assert text(house) == ""


def test_what_the_probe_process_did_not_answer_counts_for_nothing(House: Any, spec: Any) -> None:
    house = House(spec(**LIVE | {"live_failures": 1})).begin().later(10.0)
    [(first, *_)] = house.probes
    house.probes.clear()
    house.probing = False
    house.services.probe_away(house.now)
    house.later(30.0)
    assert house.pids() == [1001]
    house.probing = True
    house.later(10.0)
    [(second, *_)] = house.probes
    assert second != first
    house.services.probed(first, "connection refused", house.now)
    assert answer(house).pids() == [1001]


def test_a_probe_process_that_does_not_answer_is_started_again_and_asked_anew(House: Any, spec: Any) -> None:
    house = House(spec(**LIVE)).begin().later(10.0)
    assert house.later(2.0 + monitor.GRACE - 0.1).probing
    assert not house.later(0.1).probing
    house.probing = True
    assert len(house.later(10.0).probes) == 2
    assert house.pids() == [1001]


def test_a_process_that_says_it_is_stopping_is_not_probed(House: Any, spec: Any) -> None:
    house = House(spec(**LIVE, watchdog=5.0)).begin().later(1.0)
    house.services.notified(1, {"STOPPING": "1"}, house.now)
    assert text(house) == "stopping"
    assert house.later(100.0).probes == []
    assert house.pids() == [1001]


# -- the watchdog --------------------------------------------------------------------------------------------------


def test_a_process_that_stays_silent_is_told_by_abort_and_replaced(House: Any, spec: Any) -> None:
    house = House(spec(watchdog=30.0, ready_after=0.0)).begin().later(0.0)
    for _ in range(5):
        house.services.notified(1, {"WATCHDOG": "1"}, house.later(29.0).now)
    assert house.pids() == [1001]
    house.privileged.asked.clear()
    house.later(30.0)
    signals = [request.effect.signo for request in house.privileged.asked if hasattr(request.effect, "signo")]
    assert signals[0] == 6
    house.privileged.exit(1, -6)
    assert house.later(1.0).pids() == [1002]
    assert house.services.description("site").exits == ["T275 killed by SIGABRT"]
    steps = [event.text for event in house.events]
    assert "silent for 30 s (watchdog)" in " ".join(steps)


def test_a_process_that_says_that_it_is_not_well_is_believed(House: Any, spec: Any) -> None:
    house = House(spec(watchdog=30.0, ready_after=0.0)).begin().later(0.0)
    house.services.notified(1, {"WATCHDOG": "trigger"}, house.now)
    assert house.deliver().states() == ["STOPPING"]
    assert text(house) == "it said WATCHDOG=trigger"


def test_the_watchdog_waits_until_the_process_runs_and_only_where_it_is_wanted(House: Any, spec: Any) -> None:
    house = House(spec(watchdog=5.0, ready_kind="notify")).begin().later(20.0)
    house.services.notified(1, {"WATCHDOG": "1"}, house.now)
    assert house.states() == ["STARTING"]
    house = House().begin().later(2.0)
    for word in ("1", "trigger"):
        house.services.notified(1, {"WATCHDOG": word}, house.now)
    assert house.later(100.0).pids() == [1001]


@pytest.mark.parametrize("kinds", [LIVE, {"watchdog": 5.0, "ready_after": 0.0}])
def test_a_new_supervisor_begins_to_look_anew(House: Any, spec: Any, kinds: dict[str, Any]) -> None:
    house = House(spec(**kinds)).begin().later(4.0).reborn()
    assert house.later(4.0).pids() == [1001]


# -- words ---------------------------------------------------------------------------------------------------------


def test_a_process_with_a_socket_of_its_own_is_probed_there(House: Any, spec: Any) -> None:
    own = Probe("http", "", "/healthz")
    house = House(spec(ready_kind="probe", ready_probe=own, live_probe=own, live_interval=5.0, shared=True)).begin()
    assert [asked[1:3] for asked in house.later(0.0).probes] == [("unix:/run/x/probe/1", "/healthz")]
    answer(house)
    house.services.restart("site", house.now, "r")
    assert [asked[1:3] for asked in house.later(0.0).probes] == [("unix:/run/x/probe/2", "/healthz")]
    assert answer(house).pids() == [1002]
