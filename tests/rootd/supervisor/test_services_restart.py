"""A restart that is asked while one is under way."""

from __future__ import annotations

from typing import Any

import pytest

from rootd.supervisor.services import Refusal


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
