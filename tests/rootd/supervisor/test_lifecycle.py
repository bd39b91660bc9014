"""One process slot, told as histories: start, ready, crash, stop, restart."""

# ruff: noqa: I001 (the names of states, many to a line)
from __future__ import annotations

import errno
from typing import Any

import pytest
from msgspec.structs import replace

from rootd import ipc
from rootd.supervisor import lifecycle
from rootd.supervisor.exits import SHORT, Exit
from rootd.supervisor.states import (
    Adopted, Backoff, BecameReady, Died, Emptying, Ended, Event, Exited, Fatal, RestartAsked, Running, Signal, Slot,
    Spawn, Spawned, SpawnFailed, Spawning, SpawnLost, StartAsked, Starting, StopAsked, Stopped, Stopping, TimeUp,
    TreeEmpty, runs,
)  # fmt: skip

TERM, KILL = 15, 9
OK, CRASH = Exit(0), Exit(1)
SHARED = {"shared": True}
NOTIFY = {"ready_kind": "notify", "shared": True}
MISSING = "cannot execute /srv/x: No such file or directory"
UNREADY = "not ready in 30 s: no READY=1 came on its $NOTIFY_SOCKET (see ready.notify and ready.timeout)"


def failure(step: str, number: int) -> Exit:
    return Exit(127, failure=number << 8 | ipc.STEPS.index(step))


# -- starting and being ready ------------------------------------------------------------------------------------


def test_a_start_spawns_and_is_running_after_its_time(History: Any) -> None:
    h = History()(StartAsked())
    assert h.done() == [Spawn()]
    h.spawned()
    assert isinstance(h.state, Starting)
    assert lifecycle.ready_until(h.state.process) == 101.0
    assert isinstance(h.at(100.5).state, Starting)
    assert isinstance(h.at(101.0).state, Running)
    assert h.said() == ["ready"]
    assert h.slot.wanted == "up"


def test_a_service_without_a_waiting_time_runs_at_once(History: Any) -> None:
    assert isinstance(History(ready_after=0.0)(StartAsked()).spawned().state, Running)


def test_a_process_that_was_spawned_long_ago_is_ready_when_we_hear_of_it(History: Any) -> None:
    h = History()(StartAsked(), Spawned(1, 2, 98.0))
    assert isinstance(h.state, Running)


def test_a_notifying_service_is_ready_when_it_says_so_and_not_before(History: Any) -> None:
    h = History(**NOTIFY)(StartAsked()).spawned().later(20.0)
    assert isinstance(h.state, Starting)
    assert isinstance(h(BecameReady(77)).state, Starting)
    assert isinstance(h(BecameReady(1)).state, Running)
    assert isinstance(h(BecameReady(1)).state, Running)


def test_a_service_that_is_not_ready_in_time_is_stopped_and_tried_again(History: Any) -> None:
    h = History(**NOTIFY)(StartAsked()).spawned()
    h.done()
    h.later(30.0)
    assert isinstance(h.state, Stopping)
    assert h.effects[0] == Ended(UNREADY)
    assert h.done() == [Signal(1, TERM)]
    h(Died(1, Exit(-TERM)))
    assert h.done() == [Signal(1, KILL, tree=True)]
    h(TreeEmpty(1))
    assert h.done() == [Spawn()]
    assert h.slot.attempt == 1


def test_a_service_that_is_never_ready_and_never_restarted_is_fatal(History: Any) -> None:
    h = History(**NOTIFY, restart_policy="never")(StartAsked()).spawned().later(30.0)
    h(Died(1, OK), TreeEmpty(1))
    assert h.state == Fatal(UNREADY)


# -- spawns that fail --------------------------------------------------------------------------------------------


def test_a_missing_binary_is_fatal_after_three_tries_and_says_what_is_missing(History: Any) -> None:
    h = History()(StartAsked())
    for _ in range(3):
        assert isinstance(h.state, Spawning)
        h.spawned()(Died(h.run, failure("exec", errno.ENOENT)), TreeEmpty(h.run)).later(1.0)
    assert h.state == Fatal(MISSING)


def test_a_missing_binary_of_a_service_that_is_never_restarted_is_fatal_at_once(History: Any) -> None:
    h = History(restart_policy="never")(StartAsked()).spawned()(Died(1, failure("exec", errno.ENOENT)), TreeEmpty(1))
    assert h.state == Fatal(MISSING)


def test_a_spawn_that_fails_is_tried_again_after_growing_delays_until_the_limit(History: Any) -> None:
    h, delays = History()(StartAsked()), []
    for _ in range(4):
        h(SpawnFailed(failure("fork", errno.EAGAIN)))
        delays.append(h.state.until - h.now)
        h.at(h.state.until)
        assert isinstance(h.state, Spawning)
    assert delays[0] == 0.0
    for delay, whole in zip(delays[1:], (0.1, 0.2, 0.4), strict=True):
        assert whole * 0.8 - 1e-9 <= delay <= whole * 1.2 + 1e-9
    h(SpawnFailed(failure("fork", errno.EAGAIN)))
    words = f"cannot start a process: Resource temporarily unavailable; {SHORT[errno.EAGAIN]}"
    assert h.state == Fatal(f"failed 5 times in 60 s, the last time: {words}")


def test_a_spawn_that_fails_while_a_stop_is_wanted_leaves_it_stopped(History: Any) -> None:
    h = History()(StartAsked(), StopAsked(), SpawnFailed(failure("fork", errno.EAGAIN)))
    assert h.state == Stopped()
    assert h.slot.wanted == "down"


def test_a_spawn_that_was_lost_is_asked_again_unless_a_stop_is_wanted(History: Any) -> None:
    h = History()(StartAsked())
    h.done()
    assert h(SpawnLost()).done() == [Spawn()]
    assert h(StopAsked(), SpawnLost()).state == Stopped()
    assert h.done() == []


# -- ends that nobody asked for ----------------------------------------------------------------------------------


def test_a_crash_has_its_tree_killed_and_a_replacement_at_once(History: Any) -> None:
    h = History().running()
    h.done()
    h(Died(1, Exit(-11, core=True)))
    assert h.effects[0] == Ended("killed by SIGSEGV, core dumped")
    assert h.done() == [Signal(1, KILL, tree=True)]
    assert isinstance(h.state, Emptying)
    assert h(TreeEmpty(1)).done() == [Spawn()]


def test_nothing_is_spawned_while_anything_of_the_last_run_is_left(History: Any) -> None:
    h = History().running()(Died(1, CRASH))
    h.done()
    assert h(StartAsked(), RestartAsked(), TimeUp()).done() == []
    h.later(5.0)
    assert h.done() == [Signal(1, KILL, tree=True)]
    assert h(Died(1, CRASH)).done() == [Signal(1, KILL, tree=True)]  # told again by a new privileged
    assert h(TreeEmpty(1)).done() == [Spawn()]


def test_every_crash_counts_against_the_limit_also_after_it_was_ready(History: Any) -> None:
    h = History().running()
    for _ in range(4):
        h(Died(h.run, CRASH), TreeEmpty(h.run)).later(2.0)
        h.spawned().later(1.0)
        assert isinstance(h.state, Running)
    h(Died(h.run, CRASH), TreeEmpty(h.run))
    assert h.state == Fatal("failed 5 times in 60 s, the last time: exit status 1")


def test_a_one_shot_that_ends_before_it_counts_as_running_has_done_its_work(History: Any) -> None:
    h = History(restart_policy="never")(StartAsked()).spawned()(Died(1, OK), TreeEmpty(1))
    assert h.state == Exited(OK, clean=True)
    assert h.later(1000.0).state == Exited(OK, clean=True)


def test_a_run_that_is_over_without_a_seen_exit_counts_as_a_crash(History: Any) -> None:
    h = History().running()(TreeEmpty(1))
    assert isinstance(h.state, Spawning)
    assert h.slot.attempt == 1
    assert isinstance(History(restart_policy="never").running()(TreeEmpty(1)).state, Exited)


def test_the_process_that_is_the_main_one_now_is_the_one_that_counts(History: Any) -> None:
    for h in (History()(StartAsked()).spawned(), History().running(), History().running()(StopAsked())):
        h.done()
        state = h.state
        assert h(Adopted(99, 4711)).state == state, "of another run"
        h(Adopted(1, 4711))
        assert h.state == replace(state, process=replace(state.process, pid=4711))
        assert h.done() == []
    h = History(shared=True).rolling().spawned()(Adopted(1, 4711), Adopted(2, 4712))
    assert [process.pid for process in runs(h.state).values()] == [4711, 4712]
    h = History().running()(StopAsked(), Died(1, OK), TreeEmpty(1), Adopted(1, 4711))
    assert h.state == Stopped()


def test_what_is_said_of_another_run_changes_nothing(History: Any) -> None:
    for h in (History().running(), History()(StartAsked()).spawned(), History().running()(StopAsked())):
        before = h.slot
        assert h(Died(99, CRASH), TreeEmpty(99), BecameReady(99)).slot == before


# -- stopping ----------------------------------------------------------------------------------------------------


def test_a_service_that_ignores_sigterm_is_killed_when_its_time_is_up_again_and_again(History: Any) -> None:
    h = History().running()
    h.done()
    assert h(StopAsked()).done() == [Signal(1, TERM)]
    assert h.later(9.9).done() == []
    h.later(0.1)
    assert h.said() == ["did not end in time, killed"]
    h.later(lifecycle.KILL_AGAIN)
    assert h.done() == [Signal(1, KILL, tree=True)]
    h(Died(1, Exit(-KILL)), TreeEmpty(1))
    assert h.state == Stopped()


def test_stop_while_starting_stops_and_start_while_stopping_starts(History: Any) -> None:
    h = History()(StartAsked()).spawned()(StopAsked())
    assert isinstance(h.state, Stopping)
    h.done()
    h(StartAsked())
    assert h.done() == []
    assert h.slot.wanted == "up"
    assert h(Died(1, OK), TreeEmpty(1)).done() == [Signal(1, KILL, tree=True), Spawn()]
    h(StopAsked()).spawned()
    assert isinstance(h.state, Stopping)
    assert h.done() == [Signal(2, TERM)]
    h(TreeEmpty(2))
    assert h.state == Stopped()


def test_start_after_stop_while_the_spawn_is_not_answered_keeps_it(History: Any) -> None:
    h = History()(StartAsked(), StopAsked(), StartAsked()).spawned()
    assert isinstance(h.state, Starting)


def test_a_stop_while_waiting_to_start_again_ends_the_waiting(History: Any) -> None:
    h = History()(StartAsked(), SpawnFailed(CRASH))
    assert isinstance(h.state, Backoff)
    assert h(StopAsked()).state == Stopped()
    assert h.later(1000.0).state == Stopped()


def test_a_stop_while_the_tree_is_emptied_leaves_it_stopped_but_what_had_ended_stays_ended(History: Any) -> None:
    assert History().running()(Died(1, CRASH), StopAsked(), TreeEmpty(1)).state == Stopped()
    once = History(restart_policy="never").running()(Died(1, OK), StopAsked(), TreeEmpty(1))
    assert once.state == Exited(OK, clean=True)
    assert once(StopAsked()).state == Exited(OK, clean=True)


def test_a_stop_of_what_is_fatal_clears_it_and_a_start_forgives(History: Any) -> None:
    h = History(Slot("up", Fatal("no"), (1.0, 2.0), 2))
    assert h(StopAsked()).state == Stopped()
    h = History(Slot("up", Fatal("no"), (1.0, 2.0), 2))(StartAsked())
    assert h.slot == Slot("up", Spawning(h.spec))


def test_a_process_is_stopped_by_the_configuration_that_it_was_spawned_with(History: Any) -> None:
    h = History().running()
    h.spec = h.spec._replace(stop_signal=3, stop_timeout=1.0, digest="2")
    h.done()
    assert h(StopAsked()).done() == [Signal(1, TERM)]
    assert h.state.kill_at == h.now + 10.0


# -- restart -----------------------------------------------------------------------------------------------------


def test_a_restart_without_held_sockets_stops_first(History: Any) -> None:
    h = History().running()
    h.done()
    assert h(RestartAsked()).done() == [Signal(1, TERM)]
    assert h(Died(1, OK), TreeEmpty(1)).done() == [Signal(1, KILL, tree=True), Spawn()]


def test_a_hard_restart_stops_first_also_with_held_sockets(History: Any) -> None:
    h = History(**SHARED).running()
    h.done()
    assert h(RestartAsked(hard=True)).done() == [Signal(1, TERM)]


def test_a_restart_of_what_is_starting_stops_it_and_one_of_what_is_down_starts_it(History: Any) -> None:
    h = History(**SHARED)(RestartAsked())
    assert h.done() == [Spawn()]
    assert h.spawned()(RestartAsked()).done() == [Signal(1, TERM)]
    assert isinstance(h(RestartAsked()).state, Stopping)


# -- what our own bookkeeping must never do ----------------------------------------------------------------------


@pytest.mark.parametrize("event", [Spawned(9, 9, 100.0), SpawnFailed(CRASH), SpawnLost()])
def test_an_answer_to_a_spawn_that_nobody_asked_for_is_impossible(History: Any, event: Event) -> None:
    waiting = History(requires=("db",))(StartAsked())
    alive = (History().running(), History().running()(StopAsked()), History(**SHARED).rolling().spawned())
    for h in (History(), waiting, *alive):
        with pytest.raises(lifecycle.Impossible):
            h(event)


def test_further_signals_are_sent_each_in_its_time_before_the_tree_is_killed(History: Any) -> None:
    h = History(stop_timeout=10.0, stop_then=((2, 5.0), (3, 1.0))).running()
    h.done()
    assert h(StopAsked()).done() == [Signal(1, 15)]
    assert h.later(9.9).done() == []
    assert h.later(0.1).said() == ["did not end in time, sent SIGINT"]
    assert h.later(4.9).done() == []
    assert h.later(0.1).done() == [Signal(1, 3)]
    assert h.later(1.0).done() == [Signal(1, 9, tree=True)]
    assert h(Died(1, Exit(-9)), TreeEmpty(1)).state == Stopped()


def test_what_ends_at_a_further_signal_is_not_killed(History: Any) -> None:
    h = History(stop_timeout=1.0, stop_then=((2, 5.0),)).running()(StopAsked()).later(1.0)
    h.done()
    assert h(Died(1, Exit(0))).done() == [Signal(1, 9, tree=True)], "what it left, which is nothing"
    assert h(TreeEmpty(1)).later(100.0).done() == []
