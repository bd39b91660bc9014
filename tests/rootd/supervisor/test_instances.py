"""What people see of a slot."""

from __future__ import annotations

from typing import Any

from rootd.supervisor import instances, recover
from rootd.supervisor.exits import Exit
from rootd.supervisor.instances import Instance
from rootd.supervisor.states import Died, Fatal, Running, Slot, SpawnFailed, StopAsked, TreeEmpty


def test_a_slot_is_named_as_its_service_unless_there_are_several(spec: Any) -> None:
    assert Instance(spec(), 0, Slot(), "T").label == "site"
    assert Instance(spec(processes=2), 1, Slot(), "T").label == "site:1"
    assert Instance(spec(max_processes=2), 0, Slot(), "T").label == "site:0", "though there is one"
    assert Instance(spec(entry=3), 2, Slot(), "T").number == 3 * 1024 + 2


def test_an_end_is_remembered_once_and_ten_are_kept(spec: Any, History: Any) -> None:
    history = History().running()
    one = Instance(spec(), 0, history.slot, "T")
    one.note_end(Died(1, Exit(3)), history.state, lambda: "T1")
    assert (one.last_exit, list(one.exits)) == ("exit status 3", ["T1 exit status 3"])
    emptying = history(Died(1, Exit(3))).state
    one.note_end(Died(1, Exit(3)), emptying, lambda: "T2")
    one.note_end(TreeEmpty(1), emptying, lambda: "T2")
    one.note_end(StopAsked(), emptying, lambda: "T2")
    assert len(one.exits) == 1
    one.note_end(TreeEmpty(1), History().running().state, lambda: "T3")
    assert one.exits[0] == "T3 ended, nobody saw how"
    for _ in range(20):
        one.note_end(SpawnFailed(Exit(None, failure=11 << 8)), one.slot.state, lambda: "T4")
    assert len(one.exits) == instances.EXITS_LIMIT


def test_the_words_of_a_service_are_shown_while_it_runs_and_no_longer(spec: Any, History: Any) -> None:
    history = History().running()
    one = Instance(spec(), 0, history.slot, "T")
    one.status = {1: "42 requests", 2: "of another run"}
    assert one.shown() == ("RUNNING", 1001, "42 requests")
    one.slot = Slot("up", Fatal("why"))
    assert one.shown() == ("FATAL", 0, "why")


def test_only_a_process_of_another_configuration_is_outdated(spec: Any, History: Any) -> None:
    history = History(shared=True).running()
    one = Instance(history.spec, 0, history.slot, "T")
    assert not one.outdated()
    one.spec = spec(digest="2")
    assert one.outdated()
    assert isinstance(one.slot.state, Running)
    one.slot = Slot()
    assert not one.outdated()


def test_what_is_to_be_written_is_made_once_for_each_state(spec: Any) -> None:
    one = Instance(spec(), 0, Slot("up", Fatal("why")), "T")
    saved = one.save()
    assert one.save() is saved
    assert saved == recover.SavedSlot("up", fatal="why", shown=("T", "", 0))
    one.slot = Slot()
    assert one.save() == recover.SavedSlot("down", shown=("T", "", 0))
    one.remember(recover.SavedSlot("up", exits=("T exit status 1",), shown=("T0", "FATAL", 0)))
    assert (one.since, one.told) == ("T0", ("FATAL", 0, ""))
    assert one.last_exit == "exit status 1"
