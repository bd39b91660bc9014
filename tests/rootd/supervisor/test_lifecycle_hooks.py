"""Hooks, the stop command, and a process that is no longer ready, told as histories of one slot."""

# ruff: noqa: I001 (the names of states, many to a line)
from __future__ import annotations

from typing import Any

import pytest

from rootd.supervisor.exits import Exit
from rootd.supervisor.states import (
    Backoff, BecameReady, Cancelled, Cleaning, Died, Emptying, EndHook, Ended, Failing, Fatal, HookEnded, Preparing,
    Replacing, RestartAsked, RollFailed, RunHook, Running, Say, Settling, Signal, Spawn, Spawning, StartAsked,
    StopAsked, Stopped, Stopping, TreeEmpty,
)  # fmt: skip

TERM, KILL, ABRT = 15, 9, 6
OK, CRASH = Exit(0), Exit(1)
BEFORE = {"parts": (("pre-start", 5),)}
AFTER = {"parts": (("post-start", 5),)}
LAST = {"parts": (("post-stop", 5),)}
STOP = {"parts": (("stop", 5),)}


def hooks(h: Any) -> list[Any]:
    found = [effect for effect in h.effects if isinstance(effect, RunHook | EndHook)]
    return [(type(effect).__name__, effect.hook, effect.run) for effect in found]


# -- before a process ----------------------------------------------------------------------------------------------


def test_nothing_is_spawned_before_the_pre_start_hook_has_ended_well(History: Any) -> None:
    h = History(**BEFORE)(StartAsked())
    assert h.done() == []
    assert isinstance(h.state, Preparing)
    h(HookEnded("pre-start", 0, ""))
    assert h.done() == [Spawn()]


def test_a_pre_start_hook_that_fails_is_judged_like_a_crash_and_nothing_is_spawned(History: Any) -> None:
    h = History(**BEFORE, limit_count=2)(StartAsked(), HookEnded("pre-start", 0, "exit status 3"))
    assert h.done() == []
    assert h.state == Backoff(100.0, "its pre-start hook: exit status 3")
    h.at(100.0)
    assert isinstance(h.state, Preparing)
    h(HookEnded("pre-start", 0, "exit status 3"))
    assert h.state == Fatal("failed 2 times in 60 s, the last time: its pre-start hook: exit status 3")


def test_a_service_that_is_never_restarted_is_fatal_when_its_pre_start_hook_fails(History: Any) -> None:
    h = History(**BEFORE, restart_policy="never")(StartAsked(), HookEnded("pre-start", 0, "it took more than 30 s"))
    assert h.state == Fatal("its pre-start hook: it took more than 30 s")


def test_a_stop_ends_the_pre_start_hook_and_a_start_after_that_begins_anew(History: Any) -> None:
    h = History(**BEFORE)(StartAsked(), StopAsked())
    assert hooks(h) == [("RunHook", "pre-start", 0), ("EndHook", "pre-start", 0)]
    assert h(HookEnded("pre-start", 0, "it was ended")).state == Stopped()
    h = History(**BEFORE)(StartAsked(), StopAsked(), StartAsked(), HookEnded("pre-start", 0, "it was ended"))
    assert isinstance(h.state, Backoff)
    assert h.slot.attempt == 0
    assert isinstance(h.at(h.now).state, Preparing)


def test_a_start_that_is_taken_back_ends_the_pre_start_hook_and_nothing_is_spawned(History: Any) -> None:
    h = History(**BEFORE)(StartAsked(), Cancelled())
    assert hooks(h) == [("RunHook", "pre-start", 0), ("EndHook", "pre-start", 0)]
    assert h(HookEnded("pre-start", 0, "it was ended")).state == Stopped()
    assert (h.slot.wanted, h.done()) == ("down", [])


def test_a_configuration_that_changed_meanwhile_has_its_own_pre_start_hook(History: Any) -> None:
    h = History(**BEFORE)(StartAsked())
    h.spec = h.spec._replace(digest="2")
    h(HookEnded("pre-start", 0, ""))
    assert h.done() == []
    assert h.state == Preparing(h.spec)
    h(HookEnded("pre-start", 0, ""))
    assert h.state == Spawning(h.spec)


def test_a_rolling_restart_whose_pre_start_hook_fails_leaves_the_old_process_serving(History: Any) -> None:
    h = History(**BEFORE, shared=True)(StartAsked(), HookEnded("pre-start", 0, "")).spawned().later(1.0)
    h(RestartAsked())
    assert isinstance(h.state.new, Preparing)
    h.effects.clear()
    h(HookEnded("pre-start", 0, "exit status 1"))
    assert isinstance(h.state, Running)
    assert h.state.process.run == 1
    assert h.effects == [RollFailed("its pre-start hook: exit status 1")]
    assert h.slot.crashes == ()


# -- beside a process ----------------------------------------------------------------------------------------------


def test_it_runs_when_its_post_start_hook_has_ended_well(History: Any) -> None:
    h = History(**AFTER, ready_kind="notify")(StartAsked()).spawned()(BecameReady(1))
    assert isinstance(h.state, Settling)
    assert h.said() == ["starting", "ready, its post-start hook runs"]
    h(HookEnded("post-start", 7, ""))
    assert isinstance(h.state, Settling)
    h(HookEnded("post-start", 1, ""))
    assert isinstance(h.state, Running)
    assert h.said() == ["ready"]


def test_a_process_whose_post_start_hook_fails_is_stopped_and_tried_again(History: Any) -> None:
    h = History(**AFTER)(StartAsked()).spawned().later(1.0)
    h.done()
    h(HookEnded("post-start", 1, "exit status 1"))
    assert isinstance(h.state, Stopping)
    assert h.effects[0] == Ended("its post-start hook: exit status 1")
    assert h.done() == [Signal(1, TERM)]
    h(Died(1, OK), TreeEmpty(1))
    assert isinstance(h.state, Spawning)
    assert h.slot.attempt == 1


@pytest.mark.parametrize("event", [StopAsked(), RestartAsked(), Died(1, CRASH)])
def test_what_ends_a_process_ends_its_post_start_hook(History: Any, event: Any) -> None:
    h = History(**AFTER, shared=True)(StartAsked()).spawned().later(1.0)
    h.effects.clear()
    h(event)
    assert EndHook("post-start", 1) in h.effects
    h(HookEnded("post-start", 1, "it was ended"))
    assert isinstance(h.state, Stopping | Emptying)


def test_a_rolling_restart_has_the_old_process_until_the_post_start_hook_has_ended_well(History: Any) -> None:
    h = History(**AFTER, shared=True)(StartAsked()).spawned().later(1.0)(HookEnded("post-start", 1, ""), RestartAsked())
    h.spawned().later(1.0)
    assert isinstance(h.state, Replacing)
    assert isinstance(h.state.new, Settling)
    h.done()
    h(HookEnded("post-start", 2, ""))
    assert h.done() == [Signal(1, TERM)]


def test_a_rolling_restart_whose_post_start_hook_fails_goes_back(History: Any) -> None:
    h = History(**AFTER, shared=True)(StartAsked()).spawned().later(1.0)(HookEnded("post-start", 1, ""), RestartAsked())
    h.spawned().later(1.0).effects.clear()
    h(HookEnded("post-start", 2, "exit status 1"))
    assert h.effects[0] == RollFailed("its post-start hook: exit status 1")
    h(Died(2, OK), TreeEmpty(2))
    assert isinstance(h.state, Running)
    assert h.state.process.run == 1


# -- the stop command ----------------------------------------------------------------------------------------------


def test_a_stop_command_is_run_in_place_of_the_signal(History: Any) -> None:
    h = History(**STOP).running()
    h.done()
    h(StopAsked())
    assert hooks(h) == [("RunHook", "stop", 1)]
    assert h.done() == []
    h(HookEnded("stop", 1, ""))
    assert h.done() == []
    h(Died(1, OK), TreeEmpty(1))
    assert h.state == Stopped()


def test_the_signal_follows_when_the_stop_command_fails_and_when_its_time_is_up(History: Any) -> None:
    h = History(**STOP).running()
    h(StopAsked()).done()
    h(HookEnded("stop", 1, "exit status 1"))
    assert h.said()[0] == "its stop command: exit status 1"
    h = History(**STOP).running()
    h(StopAsked()).done()
    h.later(10.0)
    assert h.done() == [Signal(1, TERM)]
    h(HookEnded("stop", 1, "it took more than 10 s"))
    assert h.done() == []
    h.later(10.0)
    assert h.done() == [Signal(1, KILL, tree=True)]


def test_the_word_of_a_stop_command_about_what_has_ended_changes_nothing(History: Any) -> None:
    h = History(**STOP).running()
    h(StopAsked(), Died(1, OK)).done()
    assert isinstance(h(HookEnded("stop", 1, "exit status 1")).state, Emptying)
    assert h.done() == []


# -- when nothing is left ------------------------------------------------------------------------------------------


def test_the_post_stop_hook_runs_when_nothing_is_left_and_before_anything_else_is_spawned(History: Any) -> None:
    h = History(**LAST).running()
    h(Died(1, CRASH))
    h.effects.clear()
    h(TreeEmpty(1))
    assert hooks(h) == [("RunHook", "post-stop", 1)]
    assert isinstance(h.state, Cleaning)
    assert h.effects[-1] == Say("its post-stop hook runs")
    h.done()
    h(HookEnded("post-stop", 1, "exit status 1"))
    assert h.effects[0].text == "its post-stop hook: exit status 1"
    assert h.done() == [Spawn()]


def test_what_is_asked_while_the_post_stop_hook_runs_is_done_after_it(History: Any) -> None:
    h = History(**LAST).running()(StopAsked(), Died(1, OK), TreeEmpty(1), StartAsked())
    h.done()
    assert h(HookEnded("post-stop", 1, "")).done() == [Spawn()]
    h = History(**LAST).running()(Died(1, CRASH), TreeEmpty(1), StopAsked(), HookEnded("post-stop", 1, ""))
    assert h.state == Stopped()
    h = History(**LAST, restart_policy="never").running()(Died(1, OK), TreeEmpty(1), StopAsked())
    assert h(HookEnded("post-stop", 1, "")).state.clean


def test_in_a_rolling_restart_the_post_stop_hook_of_the_old_process_spawns_nothing(History: Any) -> None:
    h = History(**LAST, shared=True).rolling().spawned().later(1.0)
    h(Died(1, OK), TreeEmpty(1))
    assert isinstance(h.state.old, Cleaning)
    h.done()
    h(HookEnded("post-stop", 1, "exit status 1"))
    assert h.done() == []
    assert isinstance(h.state, Running)


def test_in_a_rolling_restart_a_stop_command_that_ends_late_is_not_taken_for_the_post_stop_hook(History: Any) -> None:
    history = History(shared=True, parts=(("stop", 5), ("post-stop", 6))).rolling().spawned().later(1.0)
    history(Died(1, OK), TreeEmpty(1), HookEnded("stop", 1, ""))
    assert isinstance(history.state, Replacing)
    assert isinstance(history.state.old, Cleaning)
    assert isinstance(history(HookEnded("post-stop", 1, "")).state, Running)


def test_a_new_process_that_fails_in_a_rolling_restart_has_its_post_stop_hook(History: Any) -> None:
    h = History(**LAST, shared=True).rolling().spawned()(Died(2, CRASH), TreeEmpty(2))
    assert isinstance(h.state, Replacing)
    assert h.state.new == Cleaning(h.spec, 2, Backoff(h.now))
    h(HookEnded("post-stop", 2, ""))
    assert isinstance(h.state, Running)


# -- alive ---------------------------------------------------------------------------------------------------------


def test_a_process_that_is_no_longer_ready_is_stopped_and_replaced(History: Any) -> None:
    h = History().running()
    h.effects.clear()
    h(Failing(1, "3 probes in a row failed, the last one: HTTP status 503"))
    assert h.effects[0] == Ended("3 probes in a row failed, the last one: HTTP status 503")
    assert h.done() == [Signal(1, TERM)]
    h(Died(1, OK), TreeEmpty(1))
    assert h.done() == [Signal(1, KILL, tree=True), Spawn()]
    assert h.slot.crashes == (101.0,)


def test_a_silent_process_is_told_by_abort_even_where_it_has_a_stop_command(History: Any) -> None:
    h = History(**STOP).running()
    h.done()
    h(Failing(1, "silent for 30 s (watchdog)", ABRT))
    assert h.done() == [Signal(1, ABRT)]
    h.later(10.0)
    assert h.done() == [Signal(1, KILL, tree=True)]


def test_a_process_that_fails_its_probes_too_often_is_given_up(History: Any) -> None:
    h = History(limit_count=1).running()(Failing(1, "bad"), Died(1, OK), TreeEmpty(1))
    assert h.state == Fatal("failed once in 60 s, the last time: bad")
    h = History(restart_policy="never").running()(Failing(1, "bad"), Died(1, OK), TreeEmpty(1))
    assert h.state == Fatal("bad")


def test_after_a_healthy_while_a_failing_process_is_the_first_again(History: Any) -> None:
    h = History().running()(Died(1, CRASH), TreeEmpty(1)).spawned().later(1.0)
    assert h.slot.attempt == 1
    h.later(20.0)(Failing(2, "bad"))
    assert h.slot.attempt == 1


@pytest.mark.parametrize("events", [[StopAsked()], []])
def test_only_what_runs_can_be_failing(History: Any, events: list[Any]) -> None:
    h = History(ready_kind="notify")(StartAsked()).spawned()(*events)
    before = h.slot
    assert h(Failing(1, "bad"), Failing(9, "bad")).slot == before


def test_an_old_process_that_fails_while_it_is_replaced_makes_room_for_the_new_one(History: Any) -> None:
    h = History(shared=True).rolling().spawned()(Failing(1, "bad"))
    assert isinstance(h.state.old, Stopping)
    h(Died(1, OK), TreeEmpty(1)).later(1.0)
    assert isinstance(h.state, Running)
    assert h.state.process.run == 2
