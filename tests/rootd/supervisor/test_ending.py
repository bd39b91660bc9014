"""A shutdown above a simulated privileged: everything in its order, and never refused."""

from __future__ import annotations

from typing import Any

import pytest

from rootd.supervisor import ending, operations


@pytest.fixture
def house(House: Any, spec: Any) -> Any:
    made = House(
        spec(name="db"), spec(name="web", entry=1, requires=("db",), digest="w"),
        spec(name="tail", entry=2, after=("web",), digest="t"), spec(name="free", entry=3, digest="f"),
        spec(name="durward-api", entry=4, digest="a"),
    )  # fmt: skip
    made.begin().later(10.0)
    made.privileged.stubborn = True
    return made


def end(house: Any, name: str) -> None:
    house.privileged.exit(house.pids(name)[0] - 1000, 0)
    house.deliver()


def states_of(house: Any) -> dict[str, str]:
    return {name: house.states(name)[0] for name in ("db", "web", "tail", "free", "durward-api")}


def test_what_comes_after_others_ends_before_them_and_our_own_api_last(house: Any) -> None:
    operation = house.services.stop_all(house.now, "r")
    house.deliver()
    running = {"db": "RUNNING", "web": "RUNNING", "durward-api": "RUNNING"}
    assert states_of(house) == running | {"tail": "STOPPING", "free": "STOPPING"}
    end(house, "tail")
    assert states_of(house) == running | {"tail": "STOPPED", "free": "STOPPING", "web": "STOPPING"}
    end(house, "web")
    assert states_of(house)["db"] == "STOPPING"
    end(house, "db")
    assert states_of(house)["durward-api"] == "RUNNING"
    end(house, "free")
    assert states_of(house)["durward-api"] == "STOPPING"
    assert not house.privileged.shut_down
    end(house, "durward-api")
    assert house.privileged.shut_down
    assert house.said(operation) == ["done in 0.00 s", "ok: all services stopped"]


def test_what_does_not_end_holds_up_the_others_until_it_is_given_up(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    [tail] = house.pids("tail")
    exit_ = house.privileged.exit
    monkeypatch.setattr(house.privileged, "exit", lambda run, *end: run == tail - 1000 or exit_(run, *end))
    operation = house.services.stop_all(house.now, "r")
    house.later(60.0)
    assert states_of(house)["db"] == "STOPPED"
    assert house.said(operation)[-1] == f"failed: tail: process {tail} does not end, even by SIGKILL"
    assert house.privileged.shut_down


def test_asked_again_it_is_joined(house: Any) -> None:
    first = house.services.stop_all(house.now, "r")
    assert house.services.stop_all(house.now, "r2") == first
    assert house.services.operations.find(first).requests == ["r", "r2"]


def test_a_supervisor_that_is_killed_meanwhile_ends_the_rest(house: Any) -> None:
    house.services.stop_all(house.now, "r")
    house.deliver()
    house.privileged.stubborn = False
    house.reborn().later(30.0)
    assert house.privileged.shut_down
    assert not house.privileged.runs


@pytest.mark.parametrize("change", ["removed", "free"])
def test_a_reload_meanwhile_that_says_otherwise_who_waits_for_whom_holds_up_nothing(
    House: Any, spec: Any, change: str
) -> None:
    db, web = spec(name="db"), spec(name="web", entry=1, requires=("db",), digest="w")
    house = House(db, web).begin().later(10.0)
    house.privileged.stubborn = True
    operation = house.services.stop_all(house.now, "r")
    house.deliver().reload(*([db] if change == "removed" else [db, web._replace(requires=())]))
    house.privileged.stubborn = False
    house.later(30.0)
    assert house.said(operation)[-1] == "ok: all services stopped"
    assert house.privileged.shut_down
    assert not house.privileged.runs


@pytest.mark.parametrize(("end", "status"), [(0, 0), (7, 7), (-9, 137)])
def test_when_a_service_of_exit_on_has_ended_all_ends_with_its_status(
    House: Any, spec: Any, end: int, status: int
) -> None:
    last = spec(name="site", entry=1, exit_on=True, restart_policy="never", digest="s")
    house = House(spec(name="db"), last).begin().later(10.0)
    assert house.services.ends_all() == ("site",)
    house.privileged.exit(house.pids("site")[0] - 1000, end)
    house.later(30.0)
    assert house.privileged.shut_down
    assert house.privileged.status == status
    assert not house.privileged.runs


def test_a_service_of_exit_on_that_is_started_again_ends_nothing_and_one_that_is_given_up_does(
    House: Any, spec: Any
) -> None:
    house = House(spec(name="site", exit_on=True, restart_policy="always", limit_count=2)).begin().later(10.0)
    house.privileged.exit(house.pids("site")[0] - 1000, 0)
    house.later(1.0)
    assert not house.privileged.shut_down
    for _ in range(4):
        for pid in filter(None, house.pids("site")):
            house.privileged.exit(pid - 1000, 3)
        house.later(1.0)
    assert house.privileged.shut_down
    assert house.privileged.status == 3


def test_all_processes_of_it_must_have_ended_and_what_is_stopped_by_people_ends_nothing(House: Any, spec: Any) -> None:
    house = House(spec(name="site", exit_on=True, restart_policy="never", processes=2, max_processes=2)).begin()
    house.later(10.0)
    house.privileged.exit(house.pids("site")[0] - 1000, 3)
    house.later(1.0)
    assert not house.privileged.shut_down
    house.services.stop("site", house.now, "r")
    house.deliver().later(30.0)
    assert not house.privileged.shut_down


def test_what_happens_to_one_of_many_makes_nobody_look_at_all_of_them(
    House: Any, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [spec(name=f"s{entry}", entry=entry, digest=str(entry)) for entry in range(200)]
    house = House(*many).begin().later(10.0)
    looked = []
    monkeypatch.setattr(ending, "verdict", lambda *one: looked.append(one) or operations.verdict(*one))
    house.services.stop_all(house.now, "r")
    house.later(30.0)
    assert house.privileged.shut_down
    assert not house.privileged.runs
    assert len(looked) < 20 * len(many)
