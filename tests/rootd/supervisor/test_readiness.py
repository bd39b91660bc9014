"""Which runs have said that they are ready: written down before it is taken, forgotten when the state file says so."""

from __future__ import annotations

from typing import Any

import pytest


def written(house: Any) -> list[bytes]:
    kept: list[bytes] = []
    house.services.readiness.attach(kept.append)
    return kept


def again(house: Any, state: bytes, kept: list[bytes]) -> Any:
    """Another supervisor, with what is in the two files."""
    house.lose()
    house.services = house.supervisor()
    assert house.services.restore(state) == ""
    assert house.services.readiness.restore(kept[-1] if kept else b"") == ""
    return house.begin()


@pytest.mark.parametrize("kind", ["notify", "fd"])
def test_one_that_has_not_said_that_it_is_ready_is_not_ready_under_the_next_supervisor(
    House: Any, spec: Any, kind: str
) -> None:
    house = House(spec(ready_kind=kind, autostart=False)).begin()
    operation = house.services.start("site", house.now, "r")
    house.later(5.0).reborn().deliver()
    assert house.states() == ["STARTING"]
    assert not [one for one in house.services.operation_events(operation) if hasattr(one, "ok")]
    house.services.notified(1, {"READY": "1"}, house.now)
    assert house.states() == ["RUNNING"]
    assert house.said(operation)[-1].startswith("ok: ")
    assert house.privileged.last == 1


def test_its_time_goes_on_under_the_next_supervisor(House: Any, spec: Any) -> None:
    house = House(spec(ready_kind="notify", ready_timeout=20.0, limit_count=1)).begin()
    house.later(15.0).reborn().later(4.9)
    assert house.states() == ["STARTING"]
    assert house.later(0.2).states() == ["FATAL"]


def test_what_has_said_so_and_is_not_in_the_state_file_yet_is_ready(House: Any, spec: Any) -> None:
    house = House(spec(ready_kind="notify")).begin()
    kept = written(house)
    before_its_spawn = house.services.state()
    starting = house.deliver().services.state()
    house.services.readiness.remember(1, True)
    assert kept == [b"[1]"]
    for state in (starting, before_its_spawn):
        assert again(house, state, kept).deliver().states() == ["RUNNING"]
        assert house.privileged.last == 1


def test_what_has_said_so_gets_its_post_start_hook_from_the_next_supervisor(House: Any, spec: Any) -> None:
    house = House(spec(ready_kind="notify", parts=(("post-start", 5),))).begin().deliver()
    kept, state = written(house), house.services.state()
    house.services.readiness.remember(1, True)
    again(house, state, kept).deliver()
    assert [run.slot // 1024 for run in house.privileged.errands()] == [5]
    house.services.readiness.saved()
    assert house.services.readiness.said == {1}, "until it runs, no state file says that it is ready"
    house.privileged.exit(house.privileged.errands()[0].number, 0)
    assert house.deliver().states() == ["RUNNING"]
    house.services.readiness.saved()
    assert house.services.readiness.said == frozenset()


def test_what_was_no_newline_is_taken_back_and_who_is_not_awaited_is_not_written_down(House: Any, spec: Any) -> None:
    house = House(spec(ready_kind="fd"), spec(name="other", entry=1)).begin().deliver()
    kept = written(house)
    readiness = house.services.readiness
    readiness.remember(1, True)
    readiness.remember(1, True)
    readiness.remember(1, False)
    for run in (2, 99):  # ready by time; nobody
        readiness.remember(run, True)
    assert kept == [b"[1]", b"[]"]
    house.services.notified(1, {"READY": "1"}, house.now)
    readiness.remember(1, True)
    assert kept[-1] == b"[1]", "a second READY=1 costs nothing"
    assert len(kept) == 3


def test_a_damaged_file_is_said(House: Any) -> None:
    readiness = House().services.readiness
    assert "damaged" in readiness.restore(b"{")
    assert readiness.said == frozenset()
