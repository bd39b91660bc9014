"""What nobody accounts for: nothing is spawned beside it, and nobody waits for it without end."""

from __future__ import annotations

from typing import Any

import pytest


def test_nothing_is_spawned_where_a_stray_is_left(House: Any, spec: Any) -> None:
    house = House(spec(shared=True)).begin().later(2.0)
    house.stray(50, 0)
    house.lose().link()
    house.privileged.exit(1, 1)
    house.deliver(3)
    house.services.restart("site", house.now, "r", hard=True)
    house.later(3.0)
    assert len(house.privileged.mains()) == 1
    assert house.states() == ["RUNNING"]


def test_a_spawn_waits_for_the_stray_to_be_gone(House: Any, spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(spec()).begin().later(2.0)
    house.stray(50, 0)
    monkeypatch.setattr(house.privileged, "exit", lambda *_: None)
    house.lose().link().deliver()
    monkeypatch.undo()
    house.privileged.exit(1, 1)
    house.later(3.0)
    assert house.states() == ["STARTING"]
    assert house.privileged.last == 50
    house.privileged.exit(50, -9)
    assert house.later(3.0).pids() == [1051]


def test_what_no_sigkill_ends_is_told_in_time_and_the_start_has_failed(House: Any, spec: Any) -> None:
    house = House(spec()).begin().later(2.0)
    house.stray(50, 0)
    house.privileged.lingering = {50}
    house.lose().link().later(1.0)
    house.services.stop("site", house.now, "r")
    house.later(1.0)
    operation = house.services.start("site", house.now, "r")
    house.later(14.0)
    assert (house.states(), house.privileged.last) == (["STARTING"], 50)
    house.later(2.0)
    why = "cannot be started beside what is left of an earlier run, which does not end, even by SIGKILL"
    assert house.said(operation)[-1] == f"failed: site was not started: {why}; it is tried again"
    house.later(60.0)
    assert (house.states(), house.services.info("site").processes[0].text) == (["FATAL"], why)
    assert (house.privileged.last, list(house.privileged.runs)) == (50, [50])
    house.privileged.lingering.clear()
    house.services.start("site", house.now, "r")
    assert house.later(10.0).states() == ["RUNNING"], "it can be started again, when it has ended after all"


def test_a_rolling_restart_beside_what_does_not_end_fails_and_the_old_process_serves(House: Any, spec: Any) -> None:
    house = House(spec(shared=True)).begin().later(2.0)
    house.stray(50, 0)
    house.privileged.lingering = {50}
    house.lose().link().later(1.0)
    operation = house.services.restart("site", house.now, "r")
    house.later(16.0)
    assert "does not end, even by SIGKILL; the old one keeps serving" in house.said(operation)[-1]
    assert (house.states(), house.pids()) == (["RUNNING"], [1001])
