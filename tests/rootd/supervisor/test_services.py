"""Services above a simulated privileged: what people ask for, and how it goes."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from policy.messages import Changed
from rootd import ipc
from rootd.supervisor.exits import SHORT
from rootd.supervisor.operations import LIVE_LIMIT
from rootd.supervisor.services import Already, Refusal

MISSING = "cannot execute /srv/x: No such file or directory"
UNREADY = "not ready in 30 s: no READY=1 came on its $NOTIFY_SOCKET (see ready.notify and ready.timeout)"


def test_the_first_start_starts_what_starts_by_itself(House: Any, spec: Any) -> None:
    house = House(spec(), spec(name="other", entry=1, autostart=False, digest="2")).begin().later(2.0)
    assert house.states() == ["RUNNING"]
    assert house.states("other") == ["STOPPED"]
    assert house.services.names() == ("site", "other")
    info = house.services.info("site")
    assert (info.state, info.wanted, info.text) == ("RUNNING", "up", "")
    assert info.processes[0].pid == 1001
    assert house.services.info("other").wanted == "down"


def test_nothing_is_asked_before_the_facts_are_known(House: Any) -> None:
    house = House()
    assert house.services.load(house.specs, 1, 100.0) == ((), (), (), {})
    assert house.privileged.asked == []
    assert house.services.wake_at() is None


def test_a_start_tells_its_steps_and_ends_when_it_is_ready(House: Any, spec: Any) -> None:
    house = House(spec(autostart=False)).begin()
    operation = house.services.start("site", house.now, "r1")
    house.later(0.5)
    assert house.said(operation) == ["starting"]
    house.later(1.0)
    assert house.said(operation) == ["starting", "ready", "done in 1.00 s", "ok: site started"]
    assert house.services.operations.find(operation).requests == ["r1"]
    with pytest.raises(Already, match="site is already running"):
        house.services.start("site", house.now, "r2")


def test_a_start_of_what_cannot_be_executed_fails_with_the_reason_that_a_person_needs(House: Any, spec: Any) -> None:
    house = House(spec(autostart=False)).begin()
    operation = house.services.start("site", house.now, "r")
    for _ in range(3):
        house.later(0.3)
        for run in house.privileged.mains():
            house.privileged.exit(run.number, 127, errno.ENOENT << 8 | ipc.STEPS.index("exec"))
    house.later(1.0)
    assert house.said(operation)[-1] == f"failed: site was not started: {MISSING}"
    assert house.services.info("site").processes[0].text == MISSING
    assert house.states() == ["FATAL"]


def test_a_start_that_keeps_failing_slowly_is_called_failed_and_tried_on(House: Any, spec: Any) -> None:
    house = House(spec(autostart=False, ready_kind="notify", limit_window=1.0)).begin()
    operation = house.services.start("site", house.now, "r")
    house.later(31.0)
    assert house.said(operation)[-1] == f"failed: site was not started: {UNREADY}; it is tried again"
    assert house.states() == ["STARTING"]


def test_a_service_whose_spawn_fails_becomes_fatal_and_says_so(House: Any) -> None:
    house = House()
    house.privileged.failing = errno.EAGAIN, "fork"
    house.begin().later(10.0)
    assert house.states() == ["FATAL"]
    words = f"cannot start a process: Resource temporarily unavailable; {SHORT[errno.EAGAIN]}"
    assert house.services.info("site").processes[0].text == f"failed 5 times in 60 s, the last time: {words}"
    assert house.services.info("site").processes[0].exit == words
    assert len(house.services.description("site").exits) == 5


def test_a_one_shot_that_ends_well_was_started_well(House: Any, spec: Any) -> None:
    house = House(spec(autostart=False, restart_policy="never")).begin()
    good = house.services.start("site", house.now, "r")
    house.deliver()
    house.privileged.exit(1, 0)
    house.deliver()
    assert house.said(good)[-1] == "ok: site started"
    assert house.states() == ["EXITED"]
    bad = house.services.start("site", house.now, "r")
    house.deliver()
    house.privileged.exit(2, 3)
    house.deliver()
    assert house.said(bad)[-1] == "failed: site was not started: it ended by itself: exit status 3"
    with pytest.raises(Already):
        house.services.stop("site", house.now, "r")


def test_a_stop_ends_when_nothing_is_left_and_a_stop_of_what_is_stopped_is_already_done(House: Any) -> None:
    house = House().begin().later(2.0)
    operation = house.services.stop("site", house.now, "r")
    assert house.deliver().said(operation) == ["stopping", "done in 0.00 s", "ok: site stopped"]
    assert house.states() == ["STOPPED"]
    assert house.services.info("site").wanted == "down"
    with pytest.raises(Already, match="site is not running"):
        house.services.stop("site", house.now, "r")
    assert house.later(100.0).states() == ["STOPPED"]


def test_a_crash_is_replaced_at_once_and_remembered(House: Any) -> None:
    house = House().begin().later(20.0)
    house.privileged.exit(1, -11)
    assert house.deliver().states() == ["STARTING"]
    assert house.later(2.0).pids() == [1002]
    assert house.services.info("site").processes[0].exit == "killed by SIGSEGV"
    assert house.services.description("site").exits == ["T120 killed by SIGSEGV"]


def test_an_operation_on_what_does_not_exist_is_unknown(House: Any) -> None:
    services = House().begin().services
    for ask in (services.start, services.stop, services.restart):
        with pytest.raises(Refusal, match="there is no service 'nothing'") as refused:
            ask("nothing", 100.0, "r")
        assert refused.value.kind == "unknown"
    for look in (services.info, services.description, services.groups_of):
        with pytest.raises(KeyError):
            look("nothing")
    assert services.operation_events(77) == []


# -- signals -------------------------------------------------------------------------------------------------------


def test_operations_have_their_limit(House: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House().begin().later(2.0)
    monkeypatch.setattr(house.services.operations, "_live", LIVE_LIMIT)
    with pytest.raises(Refusal, match="which is the limit"):
        house.services.stop("site", house.now, "r")
    assert house.states() == ["RUNNING"]


def test_a_shutdown_is_never_refused(House: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House().begin().later(2.0)
    monkeypatch.setattr(house.services.operations, "_live", LIVE_LIMIT)
    number = house.services.stop_all(house.now, "r")
    house.later(1.0)
    assert house.said(number)[-1] == "ok: all services stopped"


# -- what is seen --------------------------------------------------------------------------------------------------


def test_the_worst_process_is_the_state_of_its_service(House: Any, spec: Any) -> None:
    house = House(spec(processes=2, restart_policy="never")).begin().later(2.0)
    house.privileged.exit(1, 0)
    house.deliver()
    assert house.states() == ["EXITED", "RUNNING"]
    assert house.services.info("site").state == "RUNNING"
    assert [process.name for process in house.services.info("site").processes] == ["site:0", "site:1"]


def test_every_change_is_an_event_with_its_number(House: Any) -> None:
    house = House().begin().later(2.0)
    house.privileged.exit(1, 1)
    house.later(3.0)
    changes = [event for event in house.events if isinstance(event, Changed)]
    assert [change.state for change in changes] == [
        "STARTING", "STARTING", "RUNNING", "BACKOFF", "STARTING", "STARTING", "RUNNING",
    ]  # fmt: skip
    assert [event.number for event in house.events] == list(range(1, len(house.events) + 1))
    assert changes[3].text == "exit status 1"


def test_a_description_has_no_secret_and_says_how_it_ended(House: Any, spec: Any) -> None:
    house = House(spec(sockets=("http",), groups=("web",))).begin()
    found = house.services.description("site")
    assert found.settings == {"command": '["/srv/x", "-v"]', "directory": "/srv"}
    assert found.sockets == ["http"]
    assert found.exits == []
    assert house.services.groups_of("site") == ("web",)


def test_a_description_says_what_log_has_lost_of_each_process(House: Any, spec: Any) -> None:
    house = House(spec()).begin()
    [process] = house.services.info("site").processes
    house.services.lost("site", 2, 10, 1)
    house.services.lost("site", 2, 200, 20)
    house.services.lost("other", 1, 5, 1)
    assert house.services.description("site").lost == [f"{process.name} stderr: 200 bytes, 20 lines"]
    for number in range(10_000):
        house.services.lost(f"x{number}", 1, 5, 1)
    assert len(house.services.losses) <= 4_096


def test_what_a_run_says_that_is_not_known_is_not_heard(House: Any) -> None:
    house = House().begin().later(2.0)
    house.services.notified(99, {"READY": "1"}, house.now)
    house.services.notified(1, {"STOPPING": "1"}, house.now)
    house.services.event(ipc.Message(ipc.EMPTY, run=99), house.now)
    house.services.event(ipc.Message(ipc.DONE, seq=99), house.now)
    house.services.event(ipc.Message(ipc.CHANNEL, run=1), house.now)
    house.services.notified(1, {"STATUS": "busy"}, house.now)
    assert house.services.info("site").processes[0].text == "busy"
    assert house.states() == ["RUNNING"]
