"""A rolling restart, told as histories: two processes of one slot, and every way in which it fails."""

# ruff: noqa: I001 (the names of states, many to a line)
from __future__ import annotations

import errno
from typing import Any

import pytest

from rootd import ipc
from rootd.supervisor.exits import SHORT, Exit
from rootd.supervisor.states import (
    Backoff, BecameReady, Cancelled, Died, Event, Exited, Fatal, Replacing, RestartAsked, RollFailed, Running, Signal,
    Spawn, Spawned, SpawnFailed, Spawning, SpawnLost, StartAsked, Starting, StopAsked, Stopped, Stopping, TreeEmpty,
)  # fmt: skip

TERM, KILL = 15, 9
OK, CRASH = Exit(0), Exit(1)
SHARED = {"shared": True}
NOTIFY = {"ready_kind": "notify", "shared": True}
MISSING = "cannot execute /srv/x: No such file or directory"
UNREADY = "not ready in 30 s: no READY=1 came on its $NOTIFY_SOCKET (see ready.notify and ready.timeout)"


def failure(step: str, number: int) -> Exit:
    return Exit(127, failure=number << 8 | ipc.STEPS.index(step))


def test_a_rolling_restart_has_the_new_one_ready_before_the_old_one_is_stopped(History: Any) -> None:
    h = History(**SHARED).rolling()
    assert h.done() == [Spawn()]
    h.spawned()
    assert isinstance(h.state.old, Running)
    assert isinstance(h.state.new, Starting)
    assert h.done() == []
    h.later(1.0)
    assert h.done() == [Signal(1, TERM)]
    h(Died(1, OK))
    assert h.done() == [Signal(1, KILL, tree=True)]
    h(TreeEmpty(1))
    assert isinstance(h.state, Running)
    assert h.state.process.run == 2
    assert h.said() == ["old process stopped"]


def test_a_rolling_restart_is_proven_by_the_word_of_the_new_one(History: Any) -> None:
    h = History(**NOTIFY).rolling().spawned()
    h.done()
    assert h(BecameReady(1)).done() == []
    assert h(BecameReady(2)).done() == [Signal(1, TERM)]


SHORT_OF_PROCESSES = f"cannot start a process: Resource temporarily unavailable; {SHORT[errno.EAGAIN]}"


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([SpawnFailed(failure("fork", errno.EAGAIN))], SHORT_OF_PROCESSES),
        ([Spawned(2, 3, 100.0), Died(2, failure("exec", errno.ENOENT)), TreeEmpty(2)], MISSING),
        ([Spawned(2, 3, 100.0), Died(2, CRASH), TreeEmpty(2)], "exit status 1"),
        ([Spawned(2, 3, 100.0), Died(2, OK), TreeEmpty(2)], "exit status 0"),
        ([Spawned(2, 3, 100.0), TreeEmpty(2)], "ended, nobody saw how"),
    ],
    ids=["spawn", "exec", "crash", "exit", "gone"],
)  # fmt: skip
@pytest.mark.parametrize("policy", ["always", "on-failure", "never"])
def test_a_new_one_that_fails_leaves_the_old_one_serving(
    History: Any, events: list[Event], reason: str, policy: str
) -> None:
    h = History(**NOTIFY, restart_policy=policy).rolling()
    h(*events)
    assert isinstance(h.state, Running)
    assert h.state.process.run == 1
    assert RollFailed(reason) in h.effects
    assert h.slot.crashes == ()
    assert h.slot.attempt == 0
    assert Signal(1, TERM) not in h.effects


def test_a_new_one_that_is_not_ready_in_time_is_ended_and_the_old_one_goes_on(History: Any) -> None:
    h = History(**NOTIFY).rolling().spawned()
    h.done()
    h.later(30.0)
    assert h.effects[0] == RollFailed(UNREADY)
    assert h.done() == [Signal(2, TERM)]
    h.later(10.0)
    assert h.done() == [Signal(2, KILL, tree=True)]
    h(Died(2, Exit(-KILL)), TreeEmpty(2))
    assert isinstance(h.state, Running)
    assert h.state.process.run == 1


def test_an_old_one_that_crashes_meanwhile_leaves_the_new_one(History: Any) -> None:
    h = History(**SHARED).rolling().spawned()(Died(1, CRASH))
    assert h.slot.attempt == 1
    h(TreeEmpty(1))
    assert isinstance(h.state, Starting)
    assert h.state.process.run == 2
    h = History(**SHARED).rolling()(Died(1, CRASH), TreeEmpty(1))
    assert isinstance(h.state, Spawning)
    h = History(**SHARED).rolling()(TreeEmpty(1))
    assert isinstance(h.state, Spawning)
    assert h.slot.attempt == 1


def test_both_may_fail_and_the_last_one_says_what_follows(History: Any) -> None:
    h = History(**SHARED, limit_count=1).rolling().spawned()(Died(1, CRASH))
    assert isinstance(h.state.old.next, Fatal)
    h(Died(2, CRASH), TreeEmpty(1), TreeEmpty(2))
    assert isinstance(h.state, Fatal)
    h = History(**SHARED, limit_count=1).rolling().spawned()(Died(1, CRASH), Died(2, CRASH), TreeEmpty(2), TreeEmpty(1))
    assert isinstance(h.state, Fatal)
    h = History(**SHARED).rolling().spawned().later(1.0)(Died(2, CRASH), TreeEmpty(2))
    assert isinstance(h.state, Stopping)
    assert h.state.process.run == 1
    assert h(Died(1, OK), TreeEmpty(1)).state == Spawning(h.spec)


def test_what_both_come_to_rest_in_is_the_graver(History: Any) -> None:
    h = (
        History(**SHARED, restart_policy="never")
        .rolling()
        .spawned()
        .later(1.0)(Died(2, OK), TreeEmpty(2), Died(1, OK), TreeEmpty(1))
    )
    assert h.state == Exited(OK, clean=True)


def test_a_stop_during_a_rolling_restart_stops_both(History: Any) -> None:
    h = History(**SHARED).rolling().spawned()
    h.done()
    assert sorted(h(StopAsked()).done(), key=str) == [Signal(1, TERM), Signal(2, TERM)]
    h.later(10.0)
    assert set(h.done()) == {Signal(1, KILL, tree=True), Signal(2, KILL, tree=True)}
    assert h(Died(2, OK), TreeEmpty(2), Died(1, OK), TreeEmpty(1)).state == Stopped()
    h = History(**SHARED).rolling()(StopAsked())
    assert h(SpawnLost(), Died(1, OK), TreeEmpty(1)).state == Stopped()
    h = History(**SHARED).rolling()(StopAsked()).spawned()
    assert h(Died(1, OK), TreeEmpty(1), Died(2, OK), TreeEmpty(2)).state == Stopped()


def test_a_start_after_that_stop_wants_it_up_again(History: Any) -> None:
    h = History(**SHARED).rolling().spawned()(StopAsked(), StartAsked(), Died(2, OK), TreeEmpty(2), Died(1, OK))
    h.done()
    assert h(TreeEmpty(1)).done() == [Spawn()]


def test_a_second_restart_during_a_rolling_one_changes_nothing(History: Any) -> None:
    h = History(**SHARED).rolling().spawned()
    before = h.state
    assert h(RestartAsked(), RestartAsked(hard=True), Died(99, OK), TreeEmpty(99), BecameReady(99)).state == before


def test_a_lost_spawn_of_a_rolling_restart_is_asked_again(History: Any) -> None:
    h = History(**SHARED).rolling()
    h.done()
    assert h(SpawnLost()).done() == [Spawn()]
    assert isinstance(h.state, Replacing)


# -- taken back ----------------------------------------------------------------------------------------------------


def test_a_new_one_that_is_not_ready_is_stopped_when_it_is_cancelled_and_the_old_one_goes_on(History: Any) -> None:
    h = History(**NOTIFY).rolling().spawned()
    h.done()
    h(Cancelled())
    assert h.effects[0] == RollFailed("cancelled")
    assert h.done() == [Signal(2, TERM)]
    assert h(Cancelled(), BecameReady(2)).done() == [], "once, and whatever it says now"
    h(Died(2, OK), TreeEmpty(2))
    assert isinstance(h.state, Running)
    assert (h.state.process.run, h.slot.crashes, h.slot.wanted) == (1, (), "up")


def test_a_new_one_that_is_being_spawned_is_stopped_as_soon_as_it_is_there(History: Any) -> None:
    h = History(**NOTIFY).rolling()
    h.done()
    h(Cancelled())
    assert h.effects == [RollFailed("cancelled")]
    h(Cancelled()).spawned()
    assert h.done() == [Signal(2, TERM)]
    assert isinstance(h.state.old, Running)
    h(Died(2, OK), TreeEmpty(2))
    assert isinstance(h.state, Running)
    assert h.state.process.run == 1


@pytest.mark.parametrize("event", [SpawnLost(), SpawnFailed(failure("fork", errno.EAGAIN))], ids=["lost", "failed"])
def test_a_cancelled_spawn_that_comes_to_nothing_is_not_tried_again(History: Any, event: Event) -> None:
    h = History(**NOTIFY).rolling()(Cancelled())
    h.done()
    h(event)
    assert h.done() == []
    assert isinstance(h.state, Running)
    assert h.slot.crashes == ()


def test_an_old_one_that_dies_beside_a_cancelled_spawn_is_replaced_when_that_is_gone(History: Any) -> None:
    h = History(**NOTIFY).rolling()(Cancelled(), Died(1, CRASH), TreeEmpty(1))
    assert isinstance(h.state, Spawning)
    h.spawned().done()
    assert h(Died(2, OK), TreeEmpty(2)).done() == [Signal(2, KILL, tree=True), Spawn()]
    lost = History(**NOTIFY).rolling()(Cancelled(), Died(1, CRASH), TreeEmpty(1), SpawnLost())
    assert isinstance(lost.state, Backoff)
    lost.done()
    assert lost.later(0.0).done() == [Spawn()]


def test_nothing_is_taken_back_once_the_old_one_is_told_to_end(History: Any) -> None:
    h = History(**NOTIFY).rolling().spawned()(BecameReady(2))
    h.done()
    before = h.slot
    assert h(Cancelled()).slot == before
    assert h.done() == []


def test_what_waits_for_its_turn_comes_to_rest_and_what_runs_or_rests_is_left(History: Any) -> None:
    h = History(requires=("db",))(StartAsked(), Cancelled())
    assert isinstance(h.state, Stopped)
    assert h.slot.wanted == "down"
    for h in (History(), History().running(), History()(StartAsked()), History().running()(RestartAsked())):
        before = h.slot
        h.done()
        assert h(Cancelled()).slot == before
        assert h.done() == []
