"""A one-shot: it works, ends, and is done until it is stopped; what requires it waits for that."""

from __future__ import annotations

from typing import Any

from rootd.supervisor.exits import Exit
from rootd.supervisor.states import (
    Backoff,
    Died,
    Emptying,
    Ended,
    Exited,
    Fatal,
    RestartAsked,
    Signal,
    Spawn,
    StartAsked,
    StopAsked,
    Stopped,
    Stopping,
    TreeEmpty,
    Working,
)

ONESHOT = {"ready_kind": "exit", "ready_timeout": 0.0, "restart_policy": "never"}
OK, CRASH = Exit(0), Exit(1)


def test_a_one_shot_is_at_work_until_it_ends_however_long_that_is(History: Any) -> None:
    h = History(**ONESHOT)(StartAsked()).spawned().later(100_000.0)
    assert isinstance(h.state, Working)
    assert h.state.until is None
    h(Died(1, OK), TreeEmpty(1))
    assert h.state == Exited(OK, clean=True)
    assert h.slot.wanted == "up"


def test_one_that_takes_longer_than_its_time_is_ended_and_has_failed(History: Any) -> None:
    h = History(**ONESHOT | {"ready_timeout": 20.0})(StartAsked()).spawned().later(19.9)
    assert isinstance(h.state, Working)
    h.done()
    h.later(0.1)
    assert isinstance(h.state, Stopping)
    assert h.effects[0] == Ended("took more than 20 s")
    assert h.done() == [Signal(1, 15)]
    h(Died(1, OK), TreeEmpty(1))
    assert h.state == Fatal("took more than 20 s")


def test_one_that_fails_is_not_tried_again_unless_its_policy_says_so(History: Any) -> None:
    h = History(**ONESHOT)(StartAsked()).spawned()(Died(1, CRASH), TreeEmpty(1))
    assert h.state == Exited(CRASH, clean=False)
    h = History(**ONESHOT | {"restart_policy": "on-failure"})(StartAsked()).spawned()(Died(1, CRASH))
    assert isinstance(h.state, Emptying)
    assert isinstance(h.state.next, Backoff)
    h.done()
    assert h(TreeEmpty(1)).done() == [Spawn()]
    assert h.spawned()(Died(2, OK), TreeEmpty(2)).state == Exited(OK, clean=True)


def test_what_it_has_done_counts_until_it_is_stopped(History: Any) -> None:
    h = History(**ONESHOT)(StartAsked()).spawned()(Died(1, OK), TreeEmpty(1), StopAsked())
    assert h.state == Stopped()
    h(StartAsked()).spawned()(Died(2, OK), StopAsked(), TreeEmpty(2))
    assert h.state == Stopped()


def test_what_ended_by_itself_and_is_no_one_shot_is_still_seen_to_have_ended_after_a_stop(History: Any) -> None:
    h = History(restart_policy="never").running()(Died(1, OK), TreeEmpty(1), StopAsked())
    assert h.state == Exited(OK, clean=True)


def test_a_start_of_one_that_is_at_work_begins_nothing_and_a_restart_begins_it_anew(History: Any) -> None:
    h = History(shared=True, **ONESHOT)(StartAsked()).spawned()
    h.done()
    assert h(StartAsked()).done() == []
    assert h(RestartAsked()).done() == [Signal(1, 15)]
    h(Died(1, Exit(-15)), TreeEmpty(1))
    assert h.done()[-1] == Spawn()


def test_one_that_has_done_its_work_does_it_again_when_it_is_started(History: Any) -> None:
    h = History(**ONESHOT)(StartAsked()).spawned()(Died(1, OK), TreeEmpty(1))
    h.done()
    assert h(StartAsked()).done() == [Spawn()]
