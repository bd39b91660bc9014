"""A new configuration, and the end of everything."""

from __future__ import annotations

from typing import Any

import pytest

from policy.messages import Ended
from rootd.supervisor import recover
from rootd.supervisor.instances import CHANGED
from rootd.supervisor.operations import LIVE_LIMIT
from rootd.supervisor.services import Refusal


def test_a_reload_touches_only_what_changed(House: Any, spec: Any) -> None:
    same, more = spec(name="same", entry=1, digest="s"), spec(name="more", entry=3, digest="m")
    house = House(spec(), same, spec(name="less", entry=2, digest="l"), spec(name="idle", entry=3, autostart=False))
    house.begin().later(2.0)
    before = house.pids("same")
    report = house.reload(same._replace(entry=0), spec(entry=1, digest="2"), more._replace(entry=2))
    assert (report.added, report.removed, report.changed) == (("more",), ("less", "idle"), ("site",))
    assert set(report.operations) == {"less", "idle", "site", "more"}
    house.later(3.0)
    assert house.pids("same") == before
    assert house.services.names() == ("same", "site", "more")
    assert house.states("more") == house.states("site") == ["RUNNING"]
    assert {(run.slot, run.generation) for run in house.privileged.mains()} == {(1024, 1), (1024, 2), (2048, 2)}
    with pytest.raises(KeyError):
        house.services.info("less")
    assert sorted(recover.read(house.services.state())[0].slots) == ["more:0", "same:0", "site:0"]
    texts = {event.text for event in house.events if isinstance(event, Ended)}
    assert texts == {"less stopped", "idle stopped", "site restarted", "more started"}


def test_a_changed_service_is_restarted_rolling_and_applies_its_configuration_once(House: Any, spec: Any) -> None:
    house = House(spec(shared=True)).begin().later(2.0)
    report = house.reload(spec(shared=True, digest="2", ready_after=3.0))
    assert house.services.info("site").text == CHANGED
    house.deliver()
    assert house.services.info("site").text == ""
    assert house.services.info("site").state == "RUNNING"
    assert len(house.privileged.mains()) == 2
    house.later(5.0)
    assert house.said(report.operations["site"])[-1] == "ok: site restarted"
    assert house.services.info("site").text == ""
    assert len([request for request in house.privileged.asked if request.slot == 0 and request.generation == 2]) == 1


def rolling(House: Any, spec: Any) -> tuple[Any, int, int]:
    """A service in the middle of a rolling restart, whose configuration is changed now: that restart, and the next."""
    house = House(spec(shared=True, ready_kind="notify")).begin()
    house.deliver()
    house.services.notified(1, {"READY": "1"}, house.now)
    operation = house.services.restart("site", house.now, "r")
    house.deliver()
    report = house.reload(spec(shared=True, ready_kind="notify", digest="2"))
    return house, operation, report.operations["site"]


def test_what_changed_during_its_restart_is_restarted_once_more_when_that_is_over(House: Any, spec: Any) -> None:
    house, first, second = rolling(House, spec)
    assert house.services.info("site").text == CHANGED
    assert house.said(second) == [f"waits for operation {first}"]
    house.services.notified(2, {"READY": "1"}, house.now)
    house.later(20.0)
    assert house.said(first)[-1] == "ok: site restarted"
    house.services.notified(3, {"READY": "1"}, house.now)
    house.later(20.0)
    assert house.said(second)[-1] == "ok: site restarted"
    assert (house.services.info("site").text, house.services.info("site").state) == ("", "RUNNING")
    assert [(run.slot, run.generation) for run in house.privileged.mains()] == [(0, 2)]
    asked = [request for request in house.privileged.asked if request.generation == 2 and request.slot == 0]
    assert len(asked) == 1, "and no more after that"


def test_what_changed_during_its_restart_and_was_stopped_meanwhile_stays_stopped(House: Any, spec: Any) -> None:
    house, *_ = rolling(House, spec)
    house.services.stop("site", house.now, "r")
    house.later(40.0)
    assert house.states() == ["STOPPED"]


def test_a_changed_service_that_is_not_wanted_or_has_done_its_work_is_left_alone(House: Any, spec: Any) -> None:
    once = spec(name="once", entry=1, restart_policy="never")
    house = House(spec(autostart=False), once).begin()
    house.deliver()
    house.privileged.exit(1, 0)
    house.deliver()
    report = house.reload(spec(autostart=False, digest="2"), once._replace(digest="2"))
    assert report.changed == ("site", "once")
    assert report.operations == {}
    assert (house.states(), house.states("once")) == (["STOPPED"], ["EXITED"])


def test_a_fatal_service_whose_configuration_was_mended_is_tried_again(House: Any, spec: Any) -> None:
    house = House(spec(limit_count=1)).begin().later(2.0)
    house.privileged.exit(1, 1)
    assert house.deliver().states() == ["FATAL"]
    house.reload(spec(digest="2"))
    assert house.later(2.0).states() == ["RUNNING"]


def test_more_and_fewer_processes(House: Any, spec: Any) -> None:
    house = House(spec()).begin().later(2.0)
    house.reload(spec(processes=3, digest="2"))
    assert house.later(9.0).states() == ["RUNNING"] * 3
    report = house.reload(spec(processes=1, digest="3"))
    house.later(9.0)
    assert house.said(report.operations["site"])[-1] == "ok: site restarted"
    assert house.states() == ["RUNNING"]
    assert len(house.privileged.runs) == 1


def test_a_restart_leaves_out_the_processes_that_a_reload_takes_away(House: Any, spec: Any) -> None:
    house = House(spec(processes=2)).begin().later(2.0)
    house.privileged.stubborn = True
    restart = house.services.restart("site", house.now, "r")
    house.later(5.0)
    assert house.reload(spec(processes=1, digest="2")).operations == {"site": restart}
    house.later(7.0)
    assert house.said(restart)[-1] == "ok: site restarted"
    assert len(house.privileged.mains()) == 2
    assert house.later(30.0).states() == ["RUNNING"]
    assert len(house.privileged.runs) == 1


def test_a_service_that_comes_back_while_it_is_being_stopped_is_started_again(House: Any, spec: Any) -> None:
    house = House(spec(), spec(name="other", entry=1)).begin().later(2.0)
    house.privileged.stubborn = True
    house.reload(spec(name="other"))
    house.later(1.0)
    house.reload(spec(name="other"), spec(entry=1))
    assert house.states() == ["STOPPING"]
    assert house.later(12.0).states() == ["RUNNING"]


def test_a_reload_that_is_refused_an_operation_changes_the_configuration_all_the_same(
    House: Any, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House().begin().later(2.0)

    def refuse(*_: object) -> None:
        raise Refusal("later", "no")

    monkeypatch.setattr(house.services.operations, "begin", refuse)
    assert house.reload(spec(digest="2")).operations == {}
    assert house.services.info("site").text == CHANGED


@pytest.mark.parametrize("restarting", [False, True])
def test_what_is_no_longer_configured_is_stopped_whatever_the_limit(
    House: Any, spec: Any, monkeypatch: pytest.MonkeyPatch, restarting: bool
) -> None:
    house = House(spec(processes=2, shared=True)).begin().later(2.0)
    asked = [house.services.restart("site", house.now, "r") for _ in range(2 if restarting else 0)]
    house.deliver()
    monkeypatch.setattr(house.services.operations, "_live", LIVE_LIMIT)
    assert house.reload().operations == {}
    house.later(20.0)
    assert house.privileged.runs == {}
    for number in asked:
        assert house.said(number)[-1] == "failed: site was not restarted: it is no longer configured"


# -- the end -------------------------------------------------------------------------------------------------------


def everything(House: Any, spec: Any) -> Any:
    api = spec(name="durward-api", entry=2)
    return House(spec(processes=2), spec(name="other", entry=1, autostart=False), api).begin().later(2.0)


def test_a_shutdown_stops_everything_our_own_api_last_and_then_the_daemon(House: Any, spec: Any) -> None:
    house = everything(House, spec)
    restart = house.services.restart("site", house.now, "r")
    operation = house.services.stop_all(house.now, "r")
    assert house.services.stop_all(house.now, "again") == operation
    assert house.services.operations.find(operation).requests == ["r", "again"]
    assert house.said(restart)[-1] == "failed: site was not restarted: the daemon is being shut down"
    assert not house.privileged.shut_down
    assert [run.slot for run in house.privileged.mains()] == [2048]
    for ask in (house.services.start, house.services.restart):
        with pytest.raises(Refusal, match="durward is shutting down"):
            ask("site", house.now, "r")
    house.later(1.0)
    assert house.said(operation)[-1] == "ok: all services stopped"
    assert house.privileged.shut_down
    assert not house.privileged.runs
    assert house.reload(spec()).operations == {}
    assert house.services.names() == ("site",)
    assert house.services.stop_all(house.now, "late") == operation


def test_a_stop_is_possible_during_a_shutdown(House: Any, spec: Any) -> None:
    house = everything(House, spec)
    house.privileged.stubborn = True
    house.services.stop_all(house.now, "r")
    house.services.stop("site", house.now, "r")
    house.later(30.0)
    assert house.privileged.shut_down


def test_a_shutdown_goes_on_without_what_does_not_end_and_says_so(
    House: Any, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(spec()).begin().later(2.0)
    monkeypatch.setattr(house.privileged, "exit", lambda *_: None)
    operation = house.services.stop_all(house.now, "r")
    house.later(60.0)
    assert house.said(operation)[-1] == "failed: site: process 1001 does not end, even by SIGKILL"
    assert house.privileged.shut_down


def test_a_shutdown_goes_on_when_the_supervisor_was_killed_meanwhile(House: Any, spec: Any) -> None:
    house = everything(House, spec)
    house.privileged.stubborn = True
    house.services.stop_all(house.now, "r")
    house.reborn()
    house.later(30.0)
    assert house.privileged.shut_down
    assert not house.privileged.runs


def test_a_shutdown_before_the_facts_are_known_starts_nothing(House: Any, spec: Any) -> None:
    house = everything(House, spec)
    state = house.services.state()
    house.lose()
    house.services = house.supervisor()
    house.services.restore(state)
    operation = house.services.stop_all(house.now, "r")
    house.begin().later(30.0)
    assert house.said(operation)[-1] == "ok: all services stopped"
    assert house.privileged.last == 3


def test_a_shutdown_ends_also_when_the_supervisor_is_killed_after_the_last_service(House: Any, spec: Any) -> None:
    house = everything(House, spec)
    house.services.stop_all(house.now, "r")
    house.later(1.0)
    last, house.privileged.shut_down = house.privileged.last, False
    house.reborn().later(2.0)
    assert house.privileged.shut_down
    assert house.privileged.last == last, "nothing is started again"


def test_a_daemon_that_is_started_after_a_shutdown_starts_what_starts_by_itself(House: Any, spec: Any) -> None:
    house = everything(House, spec)
    house.services.stop_all(house.now, "r")
    house.later(1.0)
    assert recover.read(house.services.state())[0].ending
    house.life += 1
    house.reborn().later(2.0)
    assert house.states() == ["RUNNING", "RUNNING"]
    assert house.states("other") == ["STOPPED"]


def test_the_end_of_a_daemon_ends_no_later_one_whose_supervisor_is_killed_before_it_has_written_anything(
    House: Any, spec: Any
) -> None:
    """What it has started is there already, and the state file still says that a shutdown is under way."""
    house = everything(House, spec)
    house.services.stop_all(house.now, "r")
    house.later(1.0)
    left = house.services.state()
    house.life += 1
    house.privileged.shut_down = False
    house.reborn().deliver()
    runs = dict(house.privileged.runs)
    assert runs
    house.lose()
    house.services = house.supervisor()
    house.services.restore(left)
    house.begin().later(2.0)
    assert (house.states(), house.states("other")) == (["RUNNING", "RUNNING"], ["STOPPED"])
    assert house.privileged.runs.keys() == runs.keys()
    assert not house.privileged.shut_down


def test_what_waits_for_something_that_is_removed_with_it_is_gone_too(House: Any, spec: Any) -> None:
    db = spec(name="db", ready_kind="notify", digest="d")
    house = House(spec(entry=1), db, spec(name="web", entry=2, requires=("db",), after=("site",))).begin().deliver()
    assert house.states("web") == ["STARTING"]
    house.reload(spec())
    house.later(30.0)
    assert [one.spec.name for one in house.services._slots.instances.values()] == ["site"]
    assert house.states() == ["RUNNING"]


def test_services_that_are_removed_together_end_in_their_order(House: Any, spec: Any) -> None:
    db, app = spec(name="db", entry=1), spec(name="app", entry=2, requires=("db",))
    web = spec(name="web", entry=3, after=("app",))
    house = House(spec(), db, app, web).begin().later(4.0)
    report = house.reload(spec())
    assert list(report.operations) == ["web", "app", "db"]
    told = [request.effect.run for request in house.privileged.asked if getattr(request.effect, "signo", 0) == 15]
    web_run = next(run.number for run in house.privileged.runs.values() if run.slot == 3 * 1024)
    assert told == [web_run], "the others wait"
    seen = []
    while house.privileged.said:
        house.deliver(1)
        running = [run.slot // 1024 for run in house.privileged.runs.values()]
        seen += [running] if running not in seen else []
    assert seen == [[0, 1, 2, 3], [0, 1, 2], [0, 1], [0]]


def test_how_many_processes_there_are_is_changed_without_touching_those_that_stay(House: Any, spec: Any) -> None:
    house = House(spec(max_processes=4)).begin().later(2.0)
    assert house.reload(spec(processes=3, max_processes=4)).operations == {}
    assert house.later(2.0).states() == ["RUNNING"] * 3
    assert house.pids()[0] == 1001
    house.reload(spec(processes=1, max_processes=4))
    assert house.later(2.0).pids() == [1001]
    house.services.stop("site", house.now, "r")
    house.later(2.0)
    house.reload(spec(processes=2, max_processes=4))
    assert house.later(2.0).states() == ["STOPPED"] * 2


def test_what_is_removed_when_its_spawn_was_lost_is_not_spawned_as_what_has_its_number_now(
    House: Any, spec: Any
) -> None:
    front, web = spec(name="front", entry=1, requires=("plain",)), spec(name="web", entry=2)
    house = House(spec(name="plain"), front, web).begin().later(3.0)
    house.privileged.exit(1, 1)
    house.deliver(3)
    assert house.privileged.last == 4
    house.lose()
    del house.privileged.runs[4]  # privileged died before it was let go
    house.reload(web._replace(entry=0))
    house.link()
    spawned = [(run.generation, run.slot // 1024) for run in house.privileged.runs.values()]
    assert spawned == [(1, 2), (1, 1), (1, 0)], "itself, by the configuration that has it, and not a second web"
    house.later(30.0)
    assert [(run.generation, run.slot // 1024) for run in house.privileged.runs.values()] == [(1, 2)]
