"""What the states share, told as histories: how an end is judged, and how long is waited after it."""

# ruff: noqa: I001 (the names of states, many to a line)
from __future__ import annotations

import errno
from typing import Any


from rootd import ipc
from rootd.supervisor.exits import Exit
from rootd.supervisor.moves import HEALTHY
from rootd.supervisor.states import (
    Died, Exited, Running, SpawnFailed, Spawning, StartAsked, TreeEmpty,
)  # fmt: skip

OK, CRASH = Exit(0), Exit(1)


def failure(step: str, number: int) -> Exit:
    return Exit(127, failure=number << 8 | ipc.STEPS.index(step))


def test_a_delay_never_exceeds_its_cap(History: Any) -> None:
    h = History(limit_count=0)(StartAsked())
    for _ in range(50):
        h(SpawnFailed(failure("fork", errno.EAGAIN)))
        assert h.state.until - h.now <= 2.0
        h.at(h.state.until)
    assert len(h.slot.crashes) <= 1


def test_crashes_outside_the_window_are_forgotten(History: Any) -> None:
    h = History().running()
    for _ in range(20):
        h.later(20.0)(Died(h.run, CRASH), TreeEmpty(h.run)).later(0.0)
        h.spawned().later(1.0)
    assert isinstance(h.state, Running)
    assert h.slot.attempt == 1


def test_crashes_in_quick_succession_wait_longer_each_time_and_a_healthy_while_forgives(History: Any) -> None:
    h = History(limit_count=0).running()
    for _ in range(3):
        h(Died(h.run, CRASH), TreeEmpty(h.run)).later(3.0)
        h.spawned().later(1.0)
    assert h.slot.attempt == 3
    h.later(HEALTHY)(Died(h.run, CRASH))
    assert h.slot.attempt == 1


def test_the_policies_decide_what_follows_an_exit(History: Any) -> None:
    for policy, code, expected in (
        ("always", 0, Spawning), ("always", 1, Spawning), ("on-failure", 0, Exited), ("on-failure", 1, Spawning),
        ("never", 0, Exited), ("never", 1, Exited), ("on-failure", -9, Spawning), ("on-failure", None, Spawning),
    ):  # fmt: skip
        h = History(restart_policy=policy).running()(Died(1, Exit(code)), TreeEmpty(1))
        assert isinstance(h.state, expected), (policy, code)
        if isinstance(h.state, Exited):
            assert h.state.clean == (code == 0)


def test_an_expected_exit_code_is_no_failure(History: Any) -> None:
    h = History(restart_policy="on-failure", expected=(0, 3)).running()(Died(1, Exit(3)), TreeEmpty(1))
    assert h.state == Exited(Exit(3), clean=True)
