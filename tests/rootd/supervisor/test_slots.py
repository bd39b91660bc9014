"""Recovery: supervisor and privileged are killed at any moment, and nothing is lost, doubled or forgotten."""

from __future__ import annotations

from typing import Any

from rootd import ipc
from rootd.config.specs import Probe
from rootd.supervisor.states import Signal


def asked(house: Any) -> list[str]:
    return [type(request.effect).__name__ for request in house.privileged.asked]


def test_a_new_supervisor_takes_over_what_runs_and_spawns_nothing(House: Any, spec: Any) -> None:
    house = House(spec(processes=2), spec(name="other", entry=1, ready_kind="notify")).begin().later(20.0)
    house.services.notified(3, {"READY": "1"}, house.now)
    house.privileged.asked.clear()
    house.events.clear()
    house.reborn()
    assert house.privileged.asked == []
    assert house.events == []
    assert [process.since for process in house.services.info("site").processes] == ["T101", "T101"]
    assert house.states() == ["RUNNING", "RUNNING"]
    assert house.states("other") == ["RUNNING"]
    assert house.pids() == [1001, 1002]
    assert house.later(100.0).privileged.last == 3


def test_what_was_stopped_fatal_or_done_stays_so_under_a_new_supervisor(House: Any, spec: Any) -> None:
    house = House(
        spec(), spec(name="bad", entry=1, limit_count=1), spec(name="once", entry=2, restart_policy="never"),
        spec(name="hand", entry=3, autostart=False),
    ).begin().later(2.0)  # fmt: skip
    house.services.stop("site", house.now, "r")
    house.services.start("hand", house.now, "r")
    house.privileged.exit(2, 1)
    house.privileged.exit(3, 0)
    house.later(2.0).reborn().later(5.0)
    shown = [house.services.info(name).state for name in ("site", "bad", "once", "hand")]
    assert shown == ["STOPPED", "FATAL", "EXITED", "RUNNING"]
    assert house.services.info("bad").processes[0].text == "failed once in 60 s, the last time: exit status 1"
    assert house.services.info("bad").processes[0].exit == "exit status 1"
    assert house.services.description("bad").exits == ["T102 exit status 1"]


def test_a_stop_and_a_hard_restart_go_on_under_a_new_supervisor(House: Any, spec: Any) -> None:
    house = House(spec(), spec(name="other", entry=1)).begin().later(2.0)
    house.privileged.stubborn = True
    house.services.stop("site", house.now, "r")
    house.services.restart("other", house.now, "r")
    house.deliver().reborn().later(12.0)
    assert (house.states(), house.states("other")) == (["STOPPED"], ["RUNNING"])
    assert house.pids("other") == [1003]


def test_a_rolling_restart_goes_on_under_a_new_supervisor(House: Any, spec: Any) -> None:
    house = House(spec(shared=True)).begin().later(2.0)
    house.services.restart("site", house.now, "r")
    house.deliver().reborn()
    assert len(house.privileged.mains()) == 2
    assert house.later(2.0).pids() == [1002]
    assert house.privileged.last == 2


def test_a_damaged_state_file_is_said_and_facts_count_alone(House: Any) -> None:
    house = House().begin().later(2.0)
    other = house.supervisor()
    assert "damaged" in other.restore(b"{]")
    assert "version 99" in other.restore(b'{"version": 99}')
    assert other.restore(b"") == ""
    assert other.state() != b""
    house.reborn(b"nonsense").later(2.0)
    assert house.pids() == [1001]
    assert house.privileged.last == 1


def test_before_the_facts_the_state_is_what_was_restored(House: Any) -> None:
    house = House().begin().later(2.0)
    house.services.stop("site", house.now, "r")
    state = house.deliver().services.state()
    other = house.supervisor()
    other.restore(state)
    assert other.state() == state


def test_numbers_go_on_where_the_last_supervisor_ended(House: Any) -> None:
    house = House().begin().later(2.0)
    last = house.services.stop("site", house.now, "r")
    events = house.deliver().services.operations.events
    house.reborn()
    assert house.services.start("site", house.now, "r") == last + 1
    assert house.services.operations.events > events


def test_every_change_of_the_state_changes_the_revision(House: Any) -> None:
    house = House().begin()
    seen = {house.services.revision}
    house.later(2.0)
    assert house.services.revision not in seen
    seen.add(house.services.revision)
    house.services.stop("site", house.now, "r")
    assert house.services.revision not in seen


# -- privileged is started again -----------------------------------------------------------------------------------


def test_a_spawn_that_was_lost_with_privileged_is_asked_again(House: Any) -> None:
    house = House().begin()
    house.privileged.runs.clear()
    house.lose().link()
    assert asked(house) == ["Spawn", "Spawn"]
    assert house.later(2.0).pids() == [1002]


def test_a_spawn_whose_answer_was_lost_is_known_by_its_fact(House: Any) -> None:
    house = House().begin()
    house.lose().link()
    assert asked(house) == ["Spawn"]
    assert house.later(2.0).pids() == [1001]


def test_an_exit_that_nobody_told_is_seen_by_the_missing_fact(House: Any) -> None:
    house = House().begin().later(20.0)
    house.privileged.runs.clear()
    house.lose().link().later(2.0)
    assert house.pids() == [1002]
    assert house.services.info("site").processes[0].exit == "ended, nobody saw how"


def test_an_exit_that_was_told_and_not_acknowledged_is_told_again(House: Any) -> None:
    house = House().begin().later(20.0)
    house.privileged.exit(1, 3)
    house.lose().link().later(2.0)
    assert house.pids() == [1002]
    assert house.services.info("site").processes[0].exit == "exit status 3"
    house.privileged.exit(2, 4)
    house.deliver(1)
    house.lose()
    house.privileged.runs.clear()
    house.link().later(2.0)
    assert house.pids() == [1003]
    assert len(house.services.description("site").exits) == 2


def test_what_is_asked_while_privileged_is_away_is_done_when_it_is_back_and_once(House: Any, spec: Any) -> None:
    house = House(spec(), spec(name="other", entry=1, autostart=False)).begin().later(2.0)
    house.lose()
    house.privileged.asked.clear()
    stop = house.services.stop("site", house.now, "r")
    start = house.services.start("other", house.now, "r")
    assert house.later(1.0).privileged.asked == []
    house.link().later(2.0)
    assert sorted(asked(house)) == ["Signal", "Signal", "Spawn"]
    assert house.said(stop)[-1] == "ok: site stopped"
    assert house.said(start)[-1] == "ok: other started"


def test_signals_that_were_not_answered_are_sent_again_or_called_failed(House: Any, spec: Any) -> None:
    house = House(spec(), spec(name="other", entry=1)).begin().later(2.0)
    first = house.services.signal("site", "HUP", house.now, "r")
    second = house.services.signal("other", "HUP", house.now, "r")
    house.lose()
    del house.privileged.runs[2]
    house.link().deliver()
    assert house.said(first)[-1] == "ok: HUP sent to site"
    assert house.said(second)[-1] == "failed: HUP was not sent: other: No such process"


def test_a_shutdown_is_asked_again_of_the_next_privileged(House: Any) -> None:
    house = House().begin().later(2.0)
    house.services.stop("site", house.now, "r")
    house.deliver().lose()
    house.services.stop_all(house.now, "r")
    assert not house.privileged.shut_down
    assert house.link().privileged.shut_down


# -- what there is no place for ------------------------------------------------------------------------------------


def test_a_run_of_a_service_that_is_gone_is_stopped_as_its_own_configuration_says(House: Any, spec: Any) -> None:
    house = House(spec(), spec(name="old", entry=1, stop_signal=15)).begin().later(2.0)
    old = house.specs
    state = house.services.state()
    house.lose()
    house.specs, house.generation = (spec(),), 2
    house.services = house.supervisor()
    house.services.restore(state)
    house.services.known(1, old)
    house.privileged.asked.clear()
    house.begin().later(2.0)
    assert [(r.effect.run, r.effect.signo, r.effect.tree) for r in house.privileged.asked] == [
        (2, 15, False),
        (2, 9, True),
    ]
    assert house.pids() == [1001]
    assert house.services.info("site").text == ""
    assert len(house.privileged.runs) == 1


def test_a_run_of_a_forgotten_configuration_is_known_by_what_was_written(House: Any, spec: Any) -> None:
    house = House(spec()).begin().later(2.0)
    house.specs, house.generation = (spec(digest="2"),), 7
    house.reborn()
    assert house.pids() == [1001]
    assert house.services.info("site").text == "configuration changed on disk"


def test_a_run_that_was_not_written_either_is_killed(House: Any, spec: Any) -> None:
    house = House(spec()).begin().later(2.0)
    house.stray(50, 0, generation=9)
    house.reborn().later(1.0)
    assert house.pids() == [1001]
    assert list(house.privileged.runs) == [1]


def test_a_run_that_nobody_knows_is_killed(House: Any, spec: Any) -> None:
    house = House(spec()).begin().later(2.0)
    house.specs, house.generation = (spec(),), 7
    house.reborn(b"").later(2.0)
    assert house.pids() == [1002]
    assert len(house.privileged.runs) == 1


def test_a_third_run_of_one_slot_is_killed_and_the_newest_two_are_a_rolling_restart(House: Any, spec: Any) -> None:
    house = House(spec(shared=True))
    for number in (1, 2, 3):
        house.stray(number, 0)
    house.begin().later(2.0)
    assert house.pids() == [1003]
    assert len(house.privileged.runs) == 1


def test_a_new_supervisor_spawns_nothing_beside_a_tree_that_is_not_empty(House: Any, spec: Any) -> None:
    house = House(spec()).begin().later(2.0)
    house.privileged.lingering = {1}
    house.privileged.exit(1, 1)
    house.later(1.0)
    house.reborn().later(20.0)
    assert (house.privileged.last, house.pids()) == (1, [0])
    assert len(house.services._slots.of("site")[0].slot.crashes) == 1, "its end is not counted twice"
    house.privileged.lingering.clear()
    assert house.later(6.0).pids() == [1002]


def test_what_is_left_of_the_old_process_of_a_rolling_restart_is_known_too(House: Any, spec: Any) -> None:
    house = House(spec(shared=True)).begin().later(2.0)
    house.privileged.lingering = {1}
    house.services.restart("site", house.now, "r")
    house.later(2.0)
    house.reborn().later(1.0)
    assert (house.states(), house.pids()) == (["RUNNING"], [1002])
    house.services.restart("site", house.now, "r", hard=True)
    house.privileged.lingering.clear()
    assert house.later(20.0).pids() == [1003]
    assert list(house.privileged.runs) == [3]


def test_a_run_that_appears_in_a_slot_at_rest_is_taken_over(House: Any, spec: Any) -> None:
    house = House(spec(autostart=False), spec(name="other", entry=1)).begin().later(2.0)
    house.privileged.exit(1, 0)
    house.services.stop("other", house.now, "r")
    house.deliver()
    house.services.start("site", house.now, "r")
    house.services.stop("site", house.now, "r")
    house.later(1.0)
    house.stray(60, 1024)
    house.lose().link().later(1.0)
    assert house.states("other") == ["STOPPED"]
    assert not house.privileged.runs


def test_runs_outside_every_slot_are_killed(House: Any, spec: Any) -> None:
    house = House(spec()).begin().later(2.0)
    house.stray(50, 5)
    house.stray(51, 999 * 1024)
    house.lose().link().later(1.0)
    assert sorted(house.privileged.runs) == [1]
    house.services.event(ipc.Message(ipc.SPAWNED, seq=4711, run=70, arg=1, extra=1), house.now)
    house.services.event(ipc.Message(ipc.EXITED, run=71), house.now)
    assert [(r.effect.run, r.effect.tree) for r in house.privileged.asked[-2:]] == [(70, True), (71, True)]


def test_a_tree_that_privileged_knows_nothing_of_is_empty(House: Any) -> None:
    house = House().begin().later(20.0)
    house.privileged.exit(1, 1)
    del house.privileged.runs[1]
    assert house.later(2.0).pids() == [1002]


def test_a_service_that_is_gone_is_forgotten_when_its_last_run_is_lost_with_privileged(House: Any, spec: Any) -> None:
    house = House(spec(), spec(name="old", entry=1)).begin().later(2.0)
    house.privileged.stubborn = True
    house.reload(spec())
    house.lose()
    del house.privileged.runs[2]
    house.link().later(1.0)
    assert house.services.names() == ("site",)
    assert len(house.services._slots.instances) == 1


def test_what_has_failed_for_good_and_is_being_ended_stays_so_under_a_new_supervisor(House: Any, spec: Any) -> None:
    probe = Probe("tcp", "tcp:127.0.0.1:80")
    house = House(spec(ready_kind="probe", ready_probe=probe, ready_timeout=5.0, limit_count=1))
    house.begin().privileged.stubborn = True
    assert house.later(6.0).states() == ["STOPPING"]
    why = house.services.info("site").processes[0].text
    house.reborn().deliver()
    signals = [request.effect for request in house.privileged.asked if isinstance(request.effect, Signal)]
    assert signals == [Signal(1, 15), Signal(1, 15)]
    assert house.later(30.0).states() == ["FATAL"]
    assert house.services.info("site").processes[0].text == why
    assert house.privileged.last == 1
