"""How many processes a service has: said by somebody, remembered, bounded by root's file."""

from __future__ import annotations

from typing import Any

import pytest

from rootd.config.schedules import Schedule
from rootd.supervisor.services import Already, Refusal


@pytest.fixture
def wide(House: Any, spec: Any) -> Any:
    """A house whose site has two processes, and may have five."""
    return House(spec(processes=2, max_processes=5, shared=True)).begin().later(2.0)


def scaled(house: Any, processes: int, name: str = "site") -> int:
    number: int = house.services.scale(name, processes, house.now, "r")
    return number


def test_further_processes_are_started_and_ready_counts(wide: Any) -> None:
    operation = scaled(wide, 4)
    wide.later(0.5)
    assert wide.said(operation) == ["site:2: starting", "site:3: starting"]
    assert not wide.services.operations.find(operation).ended
    wide.later(1.0)
    assert wide.said(operation)[-2:] == ["done in 1.00 s", "ok: site: 4 processes"]
    assert wide.states() == ["RUNNING"] * 4
    assert wide.pids()[:2] == [1001, 1002], "those that were there are left alone"
    assert wide.services.info("site").text == "4 processes, configured 2"


def test_surplus_ones_are_stopped_the_highest_first_by_the_services_own_signal(wide: Any) -> None:
    scaled(wide, 5)
    wide.later(2.0)
    operation = scaled(wide, 1)
    said = [request.effect for request in wide.privileged.asked[-4:]]
    assert [effect.signo for effect in said] == [15] * 4
    assert [effect.run for effect in said] == [5, 4, 3, 2]
    wide.later(1.0)
    assert wide.said(operation)[-1] == "ok: site: 1 process"
    assert wide.pids() == [1001]
    assert wide.services.info("site").processes[0].name == "site:0", "it has its number whatever the others do"
    assert wide.services.info("site").text == "1 process, configured 2"


def test_what_it_has_already_is_already_so(wide: Any) -> None:
    with pytest.raises(Already, match="site has 2 processes already"):
        scaled(wide, 2)
    assert wide.services.info("site").text == ""


def test_more_than_root_allows_is_refused_with_the_key(wide: Any) -> None:
    with pytest.raises(Refusal, match="site may have 5 processes at most: more takes a greater") as refused:
        scaled(wide, 6)
    assert refused.value.kind == "invalid"
    with pytest.raises(Refusal, match="there is no service 'nothing'"):
        scaled(wide, 2, "nothing")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            {"schedule": Schedule("* * * * *", "", "", "skip", 0.0), "ready_kind": "exit"},
            "site is scheduled: it has one",
        ),
        (
            {"settings": (("pid_file", "/run/x.pid"),), "ready_kind": "notify"},
            "the one process that its pid file names",
        ),
    ],
)
def test_what_can_have_one_process_alone_is_told_why(House: Any, spec: Any, changed: dict[str, Any], why: str) -> None:
    house = House(spec(**changed)).begin()
    with pytest.raises(Refusal, match=why) as refused:
        house.services.scale("site", 2, house.now, "r")
    assert refused.value.kind == "invalid"


def test_it_is_refused_while_another_operation_goes_on_and_joined_by_the_same(wide: Any) -> None:
    restart = wide.services.restart("site", wide.now, "r")
    with pytest.raises(Refusal, match=f"a restart of site is under way: operation {restart}") as refused:
        scaled(wide, 3)
    assert refused.value.kind == "conflict"
    with pytest.raises(Refusal, match="a restart of site is under way"):
        scaled(wide, 2)
    wide.later(5.0)
    first = scaled(wide, 3)
    assert scaled(wide, 3) == first
    with pytest.raises(Refusal, match=f"a scale of site is under way: operation {first}"):
        scaled(wide, 4)


def test_a_stop_ends_it_and_waits_for_those_that_were_too_many(wide: Any) -> None:
    scaled(wide, 4)
    wide.later(2.0)
    wide.privileged.stubborn = True
    down = scaled(wide, 1)
    stop = wide.services.stop("site", wide.now, "r")
    assert wide.said(down)[-1] == "failed: site was not scaled: stop was asked for meanwhile"
    wide.privileged.exit(1, 0)
    wide.later(1.0)
    assert not wide.services.operations.find(stop).ended, "three of it are still ending"
    wide.later(20.0)
    assert wide.said(stop)[-1] == "ok: site stopped"
    assert not wide.privileged.runs


def test_what_is_stopped_gets_another_number_and_no_process(wide: Any) -> None:
    wide.services.stop("site", wide.now, "r")
    wide.later(1.0)
    for number, words in ((4, "4 processes"), (1, "1 process"), (3, "3 processes")):
        revision = wide.services.revision
        with pytest.raises(Already, match=f"site is not running: it will have {words} when it is started"):
            scaled(wide, number)
        assert wide.services.revision != revision, "it is written down"
    assert wide.later(5.0).states() == ["STOPPED"] * 3
    wide.services.start("site", wide.now, "r")
    assert wide.later(2.0).states() == ["RUNNING"] * 3


def test_a_one_shot_that_has_ended_is_not_begun_again(House: Any, spec: Any) -> None:
    house = House(spec(max_processes=3, restart_policy="never")).begin().later(2.0)
    house.privileged.exit(1, 0)
    house.deliver()
    with pytest.raises(Already, match="is not running"):
        scaled(house, 2)
    assert house.later(2.0).states() == ["EXITED", "STOPPED"]


def test_a_process_that_does_not_come_up_fails_it_and_the_number_stays(wide: Any) -> None:
    wide.privileged.failing = 11, "fork"
    operation = scaled(wide, 3)
    wide.later(10.0)
    assert wide.said(operation)[-1].startswith("failed: site was not scaled: site:2: failed 5 times in 60 s")
    assert wide.states() == ["RUNNING", "RUNNING", "FATAL"]
    assert wide.services.info("site").text == "3 processes, configured 2"


def test_all_of_them_are_restarted_stopped_and_started(wide: Any) -> None:
    scaled(wide, 3)
    wide.later(2.0)
    wide.services.restart("site", wide.now, "r")
    assert wide.later(10.0).pids() == [1004, 1005, 1006]
    wide.services.stop("site", wide.now, "r")
    assert wide.later(1.0).states() == ["STOPPED"] * 3
    wide.services.start("site", wide.now, "r")
    assert wide.later(2.0).states() == ["RUNNING"] * 3


@pytest.mark.parametrize("number", [1, 4])
def test_it_outlives_the_supervisor(wide: Any, number: int) -> None:
    scaled(wide, number)
    wide.later(2.0)
    pids = wide.pids()
    wide.reborn()
    assert wide.later(2.0).pids() == pids
    assert wide.services.info("site").text != ""
    assert wide.reborn().later(2.0).pids() == pids, "and the next one too"


def test_a_supervisor_that_was_killed_while_it_scaled_goes_on(wide: Any) -> None:
    scaled(wide, 4)  # asked for, and nothing done yet
    state = wide.services.state()
    wide.privileged.runs = {number: run for number, run in wide.privileged.runs.items() if number <= 2}
    assert wide.reborn(state).later(2.0).states() == ["RUNNING"] * 4
    wide.privileged.stubborn = True
    scaled(wide, 1)
    wide.deliver()
    wide.reborn()
    assert wide.states() == ["RUNNING"]
    wide.later(30.0)
    assert [run.slot for run in wide.privileged.runs.values()] == [0]


def test_without_its_state_file_the_processes_that_there_are_tell_how_many(wide: Any) -> None:
    scaled(wide, 4)
    wide.later(2.0)
    assert wide.reborn(b"").later(2.0).pids() == [1001, 1002, 1003, 1004]


def test_another_daemon_begins_with_what_is_configured(wide: Any) -> None:
    scaled(wide, 4)
    wide.later(2.0)
    wide.privileged.runs.clear()
    assert wide.reborn().later(2.0).states() == ["RUNNING"] * 2


def test_a_reload_keeps_it_unless_it_says_another_number(wide: Any, spec: Any) -> None:
    scaled(wide, 4)
    wide.later(2.0)
    wide.reload(spec(processes=2, max_processes=5, shared=True, digest="2"))
    wide.later(20.0)
    assert len(set(wide.pids())) == 4
    assert min(wide.pids()) > 1004, "it was restarted, all of it"
    wide.reload(spec(processes=3, max_processes=5, shared=True, digest="3"))
    assert wide.later(20.0).states() == ["RUNNING"] * 3
    assert wide.services.info("site").text == ""


def test_a_reload_that_allows_fewer_takes_those_that_are_too_many_for_good(wide: Any, spec: Any) -> None:
    scaled(wide, 5)
    wide.later(2.0)
    wide.reload(spec(processes=2, max_processes=3, shared=True, digest="2"))
    assert wide.later(20.0).states() == ["RUNNING"] * 3
    wide.reload(spec(processes=2, max_processes=5, shared=True, digest="3"))
    assert wide.later(20.0).states() == ["RUNNING"] * 3


def test_a_service_that_was_taken_away_and_comes_back_has_what_is_configured(wide: Any, spec: Any) -> None:
    scaled(wide, 4)
    wide.later(2.0)
    wide.reload(spec(name="other", digest="o"))
    wide.later(5.0)
    wide.reload(spec(processes=2, max_processes=5, shared=True))
    assert wide.later(5.0).states() == ["RUNNING"] * 2
    assert wide.services._scaling.save() == {}


@pytest.mark.parametrize("crashes", [False, True])
def test_a_stop_that_waited_while_its_service_was_taken_away_ends(House: Any, spec: Any, crashes: bool) -> None:
    db = spec(name="db", restart_policy="never")
    house = House(db, spec(name="site", entry=1, requires=("db",), digest="s")).begin().later(3.0)
    house.privileged.stubborn = True
    stop = house.services.stop("db", house.now, "r", house.services.order.dependants("db"))
    assert house.said(stop) == ["waits until the service that requires it has stopped"]
    house.reload(spec(name="site", entry=0, digest="s"))
    if crashes:
        house.privileged.exit(1, 3)
        house.deliver()
        assert ("db", 0) not in house.services._slots.instances
    house.later(40.0)
    assert house.said(stop)[-1] == "ok: db stopped"
    assert not house.privileged.runs
