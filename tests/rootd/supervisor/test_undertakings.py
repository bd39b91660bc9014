"""How operations begin, go on and end, above a simulated privileged."""

from __future__ import annotations

from typing import Any

import pytest

from rootd.supervisor.services import Refusal

UNREADY = "not ready in 30 s: no READY=1 came on its $NOTIFY_SOCKET (see ready.notify and ready.timeout)"


def test_a_rolling_restart_replaces_one_after_the_other(House: Any, spec: Any) -> None:
    house = House(spec(processes=2, shared=True)).begin().later(2.0)
    operation = house.services.restart("site", house.now, "r")
    house.deliver()
    assert sorted(run.slot for run in house.privileged.mains()) == [0, 0, 1]
    house.later(1.0)
    assert sorted(run.slot for run in house.privileged.mains()) == [0, 1, 1]
    house.later(1.0)
    assert house.said(operation) == [
        "site:0: starting the new process", "site:0: ready", "site:0: stopping", "site:0: old process stopped",
        "site:1: starting the new process", "site:1: ready", "site:1: stopping", "site:1: old process stopped",
        "done in 2.00 s", "ok: site restarted",
    ]  # fmt: skip
    assert house.pids() == [1003, 1004]


def test_a_restart_replaces_as_many_at_a_time_as_may_be_unavailable(House: Any, spec: Any) -> None:
    house = House(spec(processes=3, shared=True, max_unavailable=2)).begin().later(2.0)
    house.services.restart("site", house.now, "r")
    house.deliver()
    assert sorted(run.slot for run in house.privileged.mains()) == [0, 0, 1, 1, 2]
    house.later(1.0)
    assert sorted(run.slot for run in house.privileged.mains()) == [0, 1, 2, 2]
    house.later(1.0)
    assert house.pids() == [1004, 1005, 1006]
    hard = House(spec(processes=3, max_unavailable=2)).begin().later(2.0)
    hard.services.restart("site", hard.now, "r")
    assert hard.states() == ["STOPPING", "STOPPING", "RUNNING"]


def test_of_two_that_are_replaced_at_once_each_fails_for_itself_and_no_further_one_begins(
    House: Any, spec: Any
) -> None:
    house = House(spec(processes=4, shared=True, ready_kind="notify", max_unavailable=2)).begin()
    house.deliver()
    for run in house.privileged.mains():
        house.services.notified(run.number, {"READY": "1"}, house.now)
    operation = house.services.restart("site", house.now, "r")
    house.deliver()
    house.services.notified(6, {"READY": "1"}, house.now)
    house.later(50.0)
    why = f"the new process: {UNREADY}; the old one keeps serving"
    assert house.said(operation)[-1] == f"failed: site was not restarted: site:0: {why}; site:2: {why}"
    assert house.pids() == [1001, 1006, 1003, 1004]


def test_a_rolling_restart_that_fails_leaves_the_old_ones_serving_and_touches_no_further_one(
    House: Any, spec: Any
) -> None:
    house = House(spec(processes=2, shared=True, ready_kind="notify")).begin()
    house.deliver()
    for run in house.privileged.mains():
        house.services.notified(run.number, {"READY": "1", "STATUS": "hello"}, house.now)
    assert house.services.info("site").processes[0].text == "hello"
    operation = house.services.restart("site", house.now, "r")
    house.later(50.0)
    reason = f"site:0: the new process: {UNREADY}; the old one keeps serving"
    assert house.said(operation)[-1] == f"failed: site was not restarted: {reason}"
    assert house.pids() == [1001, 1002]
    assert house.states() == ["RUNNING", "RUNNING"]


def test_a_hard_restart_stops_first(House: Any, spec: Any) -> None:
    house = House(spec(shared=True)).begin().later(2.0)
    operation = house.services.restart("site", house.now, "r", hard=True)
    house.later(2.0)
    assert house.said(operation) == ["stopping", "starting", "ready", "done in 1.00 s", "ok: site restarted"]


def test_a_second_operation_joins_ends_or_is_refused(House: Any, spec: Any) -> None:
    house = House(spec(shared=True)).begin().later(2.0)
    services = house.services
    rolling = services.restart("site", house.now, "r1")
    assert services.start("site", house.now, "r2") == rolling
    assert services.operations.find(rolling).requests == ["r1", "r2"]
    with pytest.raises(Refusal, match=f"a rolling restart of site is under way: operation {rolling}") as refused:
        services.restart("site", house.now, "r4", hard=True)
    assert refused.value.kind == "conflict"
    stop = services.stop("site", house.now, "r5")
    assert stop != rolling
    assert house.said(rolling)[-1] == "failed: site was not restarted: stop was asked for meanwhile"
    assert services.stop("site", house.now, "r6") == stop
    start = services.start("site", house.now, "r7")
    assert house.said(stop)[-1] == "failed: site was not stopped: start was asked for meanwhile"
    assert services.start("site", house.now, "r8") == start
    house.later(2.0)
    assert house.said(start)[-1] == "ok: site started"
    assert house.states() == ["RUNNING"]
    hard = services.restart("site", house.now, "r", hard=True)
    assert services.restart("site", house.now, "r", hard=True) == hard, "the old process has not ended yet"


def test_a_stop_that_even_sigkill_does_not_end_fails_and_goes_on(House: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House().begin().later(2.0)
    monkeypatch.setattr(house.privileged, "exit", lambda *_: None)
    operation = house.services.stop("site", house.now, "r")
    house.later(30.0)
    said = house.said(operation)
    assert said[-1] == "failed: site was not stopped: process 1001 does not end, even by SIGKILL"
    assert "did not end in time, killed" in said
    assert house.states() == ["STOPPING"]
    monkeypatch.undo()
    house.privileged.exit(1, -9)
    assert house.later(1.0).states() == ["STOPPED"]


def test_a_restart_of_what_does_not_end_fails_at_once(House: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House().begin().later(2.0)
    monkeypatch.setattr(house.privileged, "exit", lambda *_: None)
    house.services.stop("site", house.now, "r")
    house.later(30.0)
    operation = house.services.restart("site", house.now, "r")
    assert house.said(operation)[-1] == "failed: site was not restarted: process 1001 does not end, even by SIGKILL"


# -- a restart that is asked while one is under way ---------------------------------------------------------------


def test_a_restart_that_is_asked_after_a_process_was_replaced_replaces_it_again(House: Any, spec: Any) -> None:
    """deploy, restart, deploy, restart: the second one must not end well with what the first one started."""
    house = House(spec(processes=2, shared=True)).begin().later(2.0)
    services = house.services
    first = services.restart("site", house.now, "r1")
    house.later(1.0)
    assert house.pids() == [1003, 1002]
    second = services.restart("site", house.now, "r2")
    assert services.restart("site", house.now, "r3") == second, "further ones join the one that waits"
    assert services.operations.find(second).requests == ["r2", "r3"]
    assert house.said(second) == [f"waits for operation {first}"]
    house.later(1.0)
    assert house.said(first)[-1] == "ok: site restarted"
    house.later(2.0)
    assert house.said(second)[-1] == "ok: site restarted"
    assert house.pids() == [1005, 1006]
    third = services.restart("site", house.now, "r4")
    assert third not in (first, second)
    house.later(2.0)
    assert house.pids() == [1007, 1008], "and no more after that"


def test_a_restart_joins_one_that_has_started_no_process_yet(House: Any, spec: Any) -> None:
    house = House(spec()).begin().later(2.0)
    house.privileged.stubborn = True
    first = house.services.restart("site", house.now, "r1")
    house.later(5.0)
    assert house.services.restart("site", house.now, "r2") == first
    house.later(20.0)
    assert house.said(first)[-1] == "ok: site restarted"
    assert house.pids() == [1002]


def test_a_restart_that_waits_is_tried_even_if_the_one_before_it_failed(House: Any, spec: Any) -> None:
    house = House(spec(shared=True, ready_kind="notify")).begin().deliver()
    house.services.notified(1, {"READY": "1"}, house.now)
    first = house.services.restart("site", house.now, "r1")
    house.deliver()
    second = house.services.restart("site", house.now, "r2")
    house.later(35.0)
    assert house.said(first)[-1].startswith("failed: site was not restarted: the new process: not ready in 30 s")
    house.services.notified(3, {"READY": "1"}, house.now)
    house.later(1.0)
    assert house.said(second)[-1] == "ok: site restarted"
    assert house.pids() == [1003]


@pytest.mark.parametrize("end", ["stop", "shutdown", "removed"])
def test_a_restart_that_waits_ends_with_the_one_before_it_when_that_is_ended(House: Any, spec: Any, end: str) -> None:
    house = House(spec(shared=True)).begin().later(2.0)
    services = house.services
    first, second = (services.restart("site", house.now, "r") for _ in range(2))
    if end == "stop":
        services.stop("site", house.now, "r")
    elif end == "shutdown":
        services.stop_all(house.now, "r")
    else:
        house.reload()
    why = "the daemon is being shut down" if end == "shutdown" else "stop was asked for meanwhile"
    for number in (first, second):
        assert house.said(number)[-1] == f"failed: site was not restarted: {why}"
    house.later(20.0)
    assert house.privileged.runs == {}


def test_a_hard_restart_is_refused_while_a_rolling_one_waits_and_waits_for_a_hard_one(House: Any, spec: Any) -> None:
    house = House(spec(shared=True)).begin().later(2.0)
    services = house.services
    hard = services.restart("site", house.now, "r1", hard=True)
    house.later(0.5)
    again = services.restart("site", house.now, "r2", hard=True)
    assert again != hard
    assert services.restart("site", house.now, "r3") == again
    house.later(3.0)
    assert [step for step in house.said(again) if step == "stopping"]
    services.restart("site", house.now, "r4", hard=True)
    house.later(0.5)
    rolling = services.restart("site", house.now, "r5")
    with pytest.raises(Refusal, match=f"a rolling restart of site is under way: operation {rolling}"):
        services.restart("site", house.now, "r6", hard=True)
