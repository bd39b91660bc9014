"""Operations: their steps, their one end, their limits, and what each state means for them."""

from __future__ import annotations

from typing import Any

import pytest

from policy import wire
from policy.messages import Answer, Ended, Problem, Step
from rootd.supervisor import operations
from rootd.supervisor.exits import Exit
from rootd.supervisor.operations import Kind, Operation, Operations, Refusal, verdict
from rootd.supervisor.states import (
    Backoff,
    Emptying,
    Exited,
    Fatal,
    Process,
    Replacing,
    Running,
    Slot,
    Spawning,
    Starting,
    Stopped,
    Stopping,
)


def test_an_operation_has_steps_and_ends_once() -> None:
    said: list[Any] = []
    known = Operations(said.append, lambda: "T")
    operation = known.begin("restart", "site", "r", 10.0)
    known.step(operation, "starting")
    assert not operation.ended
    known.end(operation, True, "site restarted", 10.42)
    known.end(operation, False, "again", 11.0)
    known.step(operation, "late")
    assert (
        said
        == operation.events
        == [
            Step(1, "T", 1, "site", "starting"),
            Step(2, "T", 1, "site", "done in 0.42 s"),
            Ended(3, "T", 1, "site", True, "site restarted", 0.42),
        ]
    )
    assert known.find(1) is operation
    assert known.find(2) is None


def test_an_end_may_carry_problems_and_a_failure_has_no_done() -> None:
    known = Operations(lambda _: None, lambda: "T")
    operation = known.begin("reload", "", "r", 10.0)
    problem = Problem("a.toml", 3, "user", "is missing")
    known.end(operation, False, "nothing changed", 9.0, [problem])
    assert operation.events == [Ended(1, "T", 1, "", False, "nothing changed", 0.0, [problem])]


def test_steps_and_operations_have_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "KEPT_LIMIT", 3)
    monkeypatch.setattr(operations, "LIVE_LIMIT", 2)
    known = Operations(lambda _: None, lambda: "T")
    first = known.begin("stop", "a", "r", 1.0)
    for _ in range(operations.STEPS_LIMIT + 50):
        known.step(first, "on")
    assert len(first.events) == operations.STEPS_LIMIT
    for _ in range(5):
        other = known.begin("stop", "b", "r", 1.0)
        with pytest.raises(Refusal, match="2 operations are under way"):
            known.begin("stop", "c", "r", 1.0)
        known.end(other, True, "", 1.0)
    assert [known.find(number) is not None for number in range(1, 7)] == [True, False, False, True, True, True]


def operation(kind: Kind, rolled_back: str = "") -> Operation:
    found = Operation(1, kind, "site", "r", 100.0)
    found.rolled_back = {0: rolled_back}
    return found


def test_what_each_state_means_for_who_waits(spec: Any) -> None:
    process = Process(1, 1001, 100.0, spec())
    running = Running(process, 100.0)
    again = Backoff(105.0, "exit status 1")
    late = "exit status 1; it is tried again"
    stuck = "process 1001 does not end, even by SIGKILL"
    for state, up, down in [
        (Stopped(), "it was stopped", ""),
        (Exited(Exit(0), clean=True), "", ""),
        (Exited(Exit(4), clean=False), "it ended by itself: exit status 4", ""),
        (Fatal("why"), "why", ""),
        (running, "", None),
        (again, late, late),
        (Emptying(process, 1.0, 0, again), late, late),
        (Emptying(process, 1.0, 0, Backoff(1.0)), None, None),
        (Emptying(process, 1.0, 0, Stopped()), None, None),
        (Spawning(spec()), None, None),
        (Starting(process, 1.0), None, None),
        (Stopping(process, 1.0, 2, Stopped()), None, None),
        (Stopping(process, 1.0, 3, Stopped()), stuck, stuck),
        (Emptying(process, 1.0, 3, Stopped()), stuck, stuck),
        (Replacing(running, Spawning(spec())), None, None),
        (Replacing(Stopping(process, 1.0, 3, Stopped()), running), stuck, stuck),
    ]:
        assert verdict(operation("start"), Slot("up", state), 110.0) == up, state
        assert verdict(operation("restart"), Slot("up", state), 110.0) == up, state
        assert verdict(operation("stop"), Slot("down", state), 110.0) == down, state
    assert verdict(operation("start"), Slot("up", again), 109.0) is None
    ended = Slot("up", Exited(Exit(4), clean=False))
    assert verdict(operation("start"), ended, 110.0, once=True) == "exit status 4", "that is what it was to do"
    assert verdict(operation("restart", "it failed"), Slot("up", running), 110.0) == "it failed"


def test_c8_only_so_many_requests_wait_for_one_operation() -> None:
    """Each of them has its outcome in the audit log, all at once: they must not push other records out of it."""
    operation = Operations(lambda _: None, lambda: "T").begin("stop", "site", "r0", 1.0)
    for number in range(1, operations.JOINED_LIMIT):
        assert operation.join(f"r{number}") == operation.number
    with pytest.raises(Refusal, match=r"32 requests wait for operation 1, .*; watch that one") as refused:
        operation.join("one more")
    assert refused.value.kind == "later"
    assert len(operation.requests) == operations.JOINED_LIMIT


def test_what_is_said_of_very_many_fits_into_a_packet() -> None:
    """A packet that does not would end every watch that it is for, also of whoever waits for this."""
    told: list[Any] = []
    several = Operations(told.append, lambda: "T")
    operation = several.begin("restart", "site", "r", 0.0)
    text = "; ".join(f"site:{index}: ends with \N{SKULL}" for index in range(100_000))
    several.step(operation, text)
    several.changed("site", "site:0", "FATAL", 0, text)
    several.end(operation, False, text, 1.0)
    assert len(told) == 3
    for event in told:
        assert len(wire.ANSWER.encode(Answer(1, event))) < wire.LIMIT // 2
        assert event.text.startswith("site:0: ends with ")
        assert event.text.endswith(f" … ({len(text)} characters in all)")


def test_a_number_is_reserved_before_it_is_given_out_and_never_given_out_again() -> None:
    first, reserved = Operations(lambda _: None, lambda: "T"), list[int]()
    first.reserve = lambda number: reserved.append(number - first.last)
    for _ in range(operations.AHEAD + 2):
        assert first.begin("start", "site", "r", 0.0).number == first.last
    assert reserved == [operations.AHEAD, operations.AHEAD], "not for each"
    second = Operations(lambda _: None, lambda: "T")
    assert [second.restore(data) for data in (b"", b"101", b"7")] == ["", "", ""]
    assert second.begin("start", "site", "r", 0.0).number == 102
    for damaged in (b"{", b"-1", b"1" * 19, b"\xff"):
        assert "the file of numbers is damaged" in second.restore(damaged)
    assert second.last == 102
