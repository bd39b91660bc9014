"""From facts and what was written to what is, slot by slot."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rootd.config.schedules import Schedule
from rootd.supervisor import recover
from rootd.supervisor.exits import Exit
from rootd.supervisor.recover import SavedRun, SavedSlot
from rootd.supervisor.states import (
    Adopted,
    Backoff,
    BecameReady,
    Emptying,
    Exited,
    Fatal,
    Process,
    Replacing,
    Running,
    Slot,
    Spawned,
    Spawning,
    SpawnLost,
    Starting,
    StopAsked,
    Stopped,
    Stopping,
    TreeEmpty,
)

NOW = 100.0
SHOWN = ("T", "RUNNING", 7)


def test_what_is_written_is_read_again(spec: Any) -> None:
    process = Process(7, 1007, 90.0, spec())
    for state, expected in [
        (Stopped(), SavedSlot("up")),
        (Fatal("why"), SavedSlot("up", fatal="why")),
        (Exited(Exit(3), clean=False), SavedSlot("up", exited=Exit(3))),
        (Spawning(spec()), SavedSlot("up")),
        (Starting(process, 1.0), SavedSlot("up", (SavedRun(7, "1"),))),
        (Running(process, 1.0), SavedSlot("up", (SavedRun(7, "1", ready=True),))),
        (Stopping(process, 1.0, 0, Stopped()), SavedSlot("up", (SavedRun(7, "1", stopping=True),))),
        (Emptying(process, 1.0, 0, Fatal("why")), SavedSlot("up", fatal="why")),
        (Replacing(Running(process, 1.0), Spawning(spec())), SavedSlot("up", (SavedRun(7, "1", ready=True),))),
    ]:
        assert recover.save(Slot("up", state), (), SHOWN) == msgspec.structs.replace(expected, shown=SHOWN)
        saved = recover.Saved(slots={"site:0": expected})
        assert recover.read(recover.write(saved)) == (saved, "")
    full = recover.save(Slot("up", Stopped(), (1.0, 2.0), 2), ["T end"], SHOWN)
    assert full == SavedSlot("up", crashes=(1.0, 2.0), attempt=2, exits=("T end",), shown=SHOWN)


@pytest.mark.parametrize("damaged", [b"{", b'{"slots":{"\xff":{}}}', b'{"version":1,"more":' + b"[" * 40_000])
def test_a_file_that_is_damaged_is_said_and_not_used(damaged: bytes) -> None:
    saved, problem = recover.read(damaged)
    assert saved == recover.Saved()
    assert problem.startswith("the state file is damaged and not used, only what runs counts: ")


def test_a_slot_without_a_process_is_what_was_written_or_what_is_configured(spec: Any) -> None:
    for changes, saved, slot in [
        ({}, None, Slot("up", Backoff(NOW))),
        ({"autostart": False}, None, Slot("down", Stopped())),
        ({}, SavedSlot("down"), Slot("down", Stopped())),
        ({"autostart": False}, SavedSlot("up"), Slot("up", Backoff(NOW))),
        ({}, SavedSlot("up", fatal="why"), Slot("up", Fatal("why"))),
        ({}, SavedSlot("down", fatal="why"), Slot("down", Stopped())),
        ({}, SavedSlot("up", exited=Exit(0), clean=True), Slot("up", Exited(Exit(0), clean=True))),
        ({}, SavedSlot("up", crashes=(99.0, 101.0), attempt=2), Slot("up", Backoff(NOW), (99.0,), 2)),
    ]:
        assert recover.rebuild(spec(**changes), saved, [], NOW) == recover.Rebuilt(slot)


def test_a_process_that_runs_is_taken_over(spec: Any) -> None:
    old, young = Process(7, 1007, 90.0, spec()), Process(7, 1007, 99.5, spec())
    notify, newline, probed = (Process(7, 1007, 99.5, spec(ready_kind=kind)) for kind in ("notify", "fd", "probe"))
    overdue, forgotten = (Process(7, 1007, began, spec(ready_kind="notify")) for began in (69.5, 59.5))
    slow = Process(7, 1007, 90.0, spec(parts=(("stop", 5),)))
    told, again = (SavedRun(7, "1", stopping=True),), ((15, 10.0),)
    for process, changes, saved, state, wanted, events in [
        (old, {}, None, Running(old, 90.0), "up", ()),
        (old, {"autostart": False}, None, Running(old, 90.0), "up", ()),
        (young, {}, None, Starting(young, 100.5), "up", ()),
        (notify, {}, None, Running(notify, 99.5), "up", ()),
        (newline, {}, None, Running(newline, 99.5), "up", ()),
        (old, {}, SavedSlot("up", (SavedRun(7, "1"),)), Running(old, 90.0), "up", ()),
        (old, {}, SavedSlot("up", fatal="why"), Running(old, 90.0), "up", ()),
        (notify, {}, SavedSlot("up", (SavedRun(7, "1"),)), Starting(notify, 129.5), "up", ()),
        (newline, {}, SavedSlot("up", (SavedRun(7, "1"),)), Starting(newline, 129.5), "up", ()),
        (notify, {}, SavedSlot("up"), Starting(notify, 129.5), "up", ()),
        (notify, {}, SavedSlot("up", (SavedRun(7, "1", ready=True),)), Running(notify, 99.5), "up", ()),
        (probed, {}, SavedSlot("up", (SavedRun(7, "1"),)), Starting(probed, 129.5), "up", ()),
        (probed, {}, SavedSlot("up"), Starting(probed, 129.5), "up", ()),
        (overdue, {}, SavedSlot("up", (SavedRun(7, "1"),)), Starting(overdue, 101.0), "up", ()),
        (forgotten, {}, SavedSlot("up", (SavedRun(7, "1"),)), Starting(forgotten, 101.0), "up", (BecameReady(7),)),
        (old, {}, SavedSlot("down"), Running(old, 90.0), "down", (StopAsked(),)),
        (old, {}, SavedSlot("up", told), Stopping(old, NOW, 0, Backoff(NOW), again), "up", ()),
        (old, {}, SavedSlot("up", told, fatal="why"), Stopping(old, NOW, 0, Fatal("why"), again), "up", ()),
        (slow, {}, SavedSlot("up", told), Stopping(slow, NOW + 10.0, 0, Backoff(NOW), again), "up", ()),
    ]:
        found = recover.rebuild(spec(**changes), saved, [process], NOW)
        assert found == recover.Rebuilt(Slot(wanted, state), events)


def test_two_processes_are_a_rolling_restart(spec: Any) -> None:
    older, old, new = (Process(run, 1000 + run, 90.0 + run, spec()) for run in (1, 2, 3))
    both = Replacing(Running(old, 92.0), Starting(new, 94.0))
    failed = Replacing(Running(old, 92.0), Stopping(new, 110.0, 0, Backoff(NOW)))
    for saved, state, events in [
        (None, both, ()),
        (SavedSlot("up", (SavedRun(2, "1", ready=True), SavedRun(3, "1"))), both, ()),
        (SavedSlot("up", (SavedRun(3, "1", ready=True),)), both, (BecameReady(3),)),
        (SavedSlot("up", (SavedRun(2, "1", stopping=True),)), both, (BecameReady(3),)),
        (SavedSlot("up", (SavedRun(3, "1", stopping=True),)), failed, ()),
        (SavedSlot("down"), both, (StopAsked(),)),
    ]:
        found = recover.rebuild(spec(), saved, [older, old, new], NOW)
        assert (found.slot.state, found.events, found.strays) == (state, events, (1,))


def test_what_has_said_that_it_is_ready_is_so_whatever_was_written(spec: Any) -> None:
    one, two = (Process(run, 1000 + run, 99.5, spec(ready_kind="notify", shared=True)) for run in (7, 8))
    for saved in (SavedSlot("up"), SavedSlot("up", (SavedRun(7, "1"),))):
        found = recover.rebuild(spec(), saved, [one], NOW, said=(7,))
        assert found == recover.Rebuilt(Slot("up", Starting(one, 129.5)), (BecameReady(7),))
    both = SavedSlot("up", (SavedRun(7, "1", ready=True), SavedRun(8, "1")))
    for said, events in (((), ()), ((8,), (BecameReady(8),))):
        found = recover.rebuild(spec(), both, [one, two], NOW, said=said)
        assert found == recover.Rebuilt(Slot("up", Replacing(Running(one, 99.5), Starting(two, 129.5))), events)


def test_after_privileged_was_started_again_every_run_is_accounted_for(spec: Any) -> None:
    first, second = (Process(run, 1000 + run, 90.0, spec()) for run in (1, 2))
    spawned, another = Spawned(2, 1002, 90.0), Process(1, 4711, 90.0, spec())
    for slot, found, state, events, strays in [
        (Slot("up", Running(first, 1.0)), [first], None, (), ()),
        (Slot("up", Running(first, 1.0)), [another], None, (Adopted(1, 4711),), ()),
        (Slot("up", Running(first, 1.0)), [], None, (TreeEmpty(1),), ()),
        (Slot("up", Running(first, 1.0)), [first, second], None, (), (2,)),
        (Slot("up", Spawning(spec())), [second], None, (spawned,), ()),
        (Slot("up", Spawning(spec())), [first, second], None, (spawned,), (1,)),
        (Slot("up", Spawning(spec())), [], None, (SpawnLost(),), ()),
        (Slot("up", Replacing(Running(first, 1.0), Spawning(spec()))), [first, second], None, (spawned,), ()),
        (Slot("up", Replacing(Running(first, 1.0), Spawning(spec()))), [], None, (SpawnLost(), TreeEmpty(1)), ()),
        (Slot("up", Backoff(200.0, "x")), [second], Running(second, 90.0), (), ()),
        (Slot("down", Stopped()), [first, second], Running(second, 90.0), (StopAsked(),), (1,)),
        (Slot("down", Stopped()), [], None, (), ()),
    ]:
        rebuilt = recover.reconcile(slot, found, NOW)
        assert rebuilt.slot.state == (slot.state if state is None else state)
        assert (rebuilt.events, rebuilt.strays) == (events, strays)


def test_a_scheduled_run_that_nobody_saw_the_end_of_is_not_run_again_and_one_that_never_began_is(spec: Any) -> None:
    job = spec(ready_kind="exit", restart_policy="never", schedule=Schedule("@daily", "", "", "skip", 0.0))
    assert recover.rebuild(job, None, [], NOW).slot == Slot("down")
    began = recover.SavedSlot("up", (recover.SavedRun(7, "1"),))
    assert recover.rebuild(job, began, [], NOW).slot == Slot("up", Exited(Exit(None), clean=False))
    assert recover.rebuild(job, recover.SavedSlot("up"), [], NOW).slot == Slot("up", Backoff(NOW))


def test_a_one_shot_that_nobody_saw_the_end_of_is_not_run_again_while_the_daemon_lives(spec: Any) -> None:
    job = spec(ready_kind="exit", restart_policy="on-failure")
    saved = recover.Saved(slots={f"{name}:0": SavedSlot("up", (SavedRun(7, "1"),)) for name in ("site", "daily")})
    found = recover.rebuild(job, saved.slots["site:0"], [], NOW).slot
    assert found == Slot("up", Exited(Exit(None), clean=False))
    later = recover.of_another_daemon(saved, ["daily"])
    assert recover.rebuild(job, later.slots["site:0"], [], NOW).slot == Slot("up", Backoff(NOW))
    assert later.slots["site:0"].left == (7,), "its post-stop hook is due"
    assert later.slots["daily:0"] == saved.slots["daily:0"]
