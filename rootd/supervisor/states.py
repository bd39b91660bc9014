"""The nouns of lifecycle: what a slot can be. events has what can happen to it, and what is to be done about it.

Rule 1: a state carries what is true in it, and nothing else; what is wanted is beside it, in Slot.
Rule 2: nothing here decides: the questions at the end only read a state.

Times are seconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, assert_never

import msgspec

# isort: off
from rootd.supervisor import mentions
from rootd.supervisor.events import (
    Adopted as Adopted, Await as Await, Barred as Barred, BecameReady as BecameReady, Cancelled as Cancelled,
    Cleared as Cleared, Died as Died, Effect as Effect, Ended as Ended, EndHook as EndHook, Event as Event,
    Failing as Failing, Held as Held, Hook as Hook, HookEnded as HookEnded, RestartAsked as RestartAsked,
    RollFailed as RollFailed, RunHook as RunHook, Say as Say, Signal as Signal, Spawn as Spawn, Spawned as Spawned,
    SpawnFailed as SpawnFailed, SpawnLost as SpawnLost, StartAsked as StartAsked, StopAsked as StopAsked,
    TimeUp as TimeUp, TreeEmpty as TreeEmpty,
)  # fmt: skip

# isort: on
from rootd.supervisor.exits import Exit

if TYPE_CHECKING:
    from rootd.config.specs import ServiceSpec

Wanted = Literal["up", "down"]
PublicState = Literal["STOPPED", "STARTING", "RUNNING", "BACKOFF", "STOPPING", "EXITED", "FATAL", "UNKNOWN"]

# Supervisor's names and numbers, in the order in which a service of several processes shows the worst of them.
CODES: dict[PublicState, int] = {
    "FATAL": 200,
    "BACKOFF": 30,
    "UNKNOWN": 1000,
    "STOPPING": 40,
    "STARTING": 10,
    "RUNNING": 20,
    "EXITED": 100,
    "STOPPED": 0,
}


class Process(msgspec.Struct, frozen=True):
    """A main process and the configuration that it was spawned with."""

    run: int
    pid: int
    started: float
    spec: ServiceSpec


# -- states ----------------------------------------------------------------------------------------------------


class Stopped(msgspec.Struct, frozen=True):
    pass


class Backoff(msgspec.Struct, frozen=True):
    """Nothing runs; it is spawned again at `until`. reason is empty when nothing went wrong."""

    until: float
    reason: str = ""


class Exited(msgspec.Struct, frozen=True):
    """It ended by itself, and its policy lets it be. clean: by a status that was expected."""

    exit: Exit
    clean: bool


class Fatal(msgspec.Struct, frozen=True):
    reason: str


class Waiting(msgspec.Struct, frozen=True):
    """Nothing runs. It is to be spawned when what it comes after is ready."""

    on: tuple[str, ...] = ()


class Preparing(msgspec.Struct, frozen=True):
    """Its pre-start hook runs; when that has ended well, it is spawned.

    next: what it comes to rest in, when the hook has been told to end.
    """

    spec: ServiceSpec
    next: Rest | None = None


class Spawning(msgspec.Struct, frozen=True):
    """SPAWN was asked and is not answered. cancelled: nobody wants that process any more, it is stopped at once."""

    spec: ServiceSpec
    cancelled: bool = False


class Starting(msgspec.Struct, frozen=True):
    """It runs and is not ready. At `until` it is (ready_kind "after"), or has failed to be (any other)."""

    process: Process
    until: float


class Working(msgspec.Struct, frozen=True):
    """A one-shot at its work: what comes after it waits until it has ended well. At `until`, if any, it is given up."""

    process: Process
    until: float | None


class Settling(msgspec.Struct, frozen=True):
    """It is ready, and its post-start hook runs: it counts as started when that has ended well."""

    process: Process


class Running(msgspec.Struct, frozen=True):
    process: Process
    since: float


class Stopping(msgspec.Struct, frozen=True):
    """It was told to end. At kill_at the next signal of `then` is sent, or its tree is killed, again and again.

    next: what it comes to rest in. Where a stop command has told it, its stop signal is the first of `then`.
    """

    process: Process
    kill_at: float
    kills: int
    next: Rest
    then: tuple[tuple[int, float], ...] = ()


class Emptying(msgspec.Struct, frozen=True):
    """The main process has ended, its tree was told to die, EMPTY is awaited. next: what it comes to rest in."""

    process: Process
    kill_at: float
    kills: int
    next: Rest


class Cleaning(msgspec.Struct, frozen=True):
    """Nothing of it is left, and its post-stop hook runs. next: what it comes to rest in."""

    spec: ServiceSpec
    run: int  # that has ended; 0 when there was none
    next: Rest


class Replacing(msgspec.Struct, frozen=True):
    """A rolling restart: the old process serves until the new one is ready, and is stopped then."""

    old: Leg
    new: Leg


Rest = Stopped | Backoff | Exited | Fatal
Leg = Preparing | Spawning | Starting | Working | Settling | Running | Stopping | Emptying | Cleaning
State = Rest | Waiting | Leg | Replacing
Living = Starting | Working | Settling | Running | Stopping  # with a main process that has not been seen to end
Holding = Living | Emptying  # with a run that is not over


class Slot(msgspec.Struct, frozen=True):
    """One slot: what is wanted of it, what it is, and the crashes that count against it."""

    wanted: Wanted = "down"
    state: State = Stopped()
    crashes: tuple[float, ...] = ()  # times within the window of the limit
    attempt: int = 0  # crashes in a row, without a healthy while between them


# -- what others ask of a state --------------------------------------------------------------------------------


def wake_at(state: State) -> float | None:
    """When the state wants to hear TimeUp; None for never."""
    match state:
        case Backoff(until) | Starting(_, until) | Working(_, until):
            return until
        case Stopping(_, kill_at) | Emptying(_, kill_at):
            return kill_at
        case Replacing(old, new):
            return min((at for at in (wake_at(old), wake_at(new)) if at is not None), default=None)
        case (
            Stopped() | Exited() | Fatal() | Waiting() | Preparing() | Spawning() | Settling() | Running() | Cleaning()
        ):  # fmt: skip
            return None
        case _:
            assert_never(state)


def legs(state: State) -> tuple[Leg | Rest | Waiting, ...]:
    """The state in its parts, the old one first."""
    return (state.old, state.new) if isinstance(state, Replacing) else (state,)


def runs(state: State) -> dict[int, Process]:
    """Every run that is not over, by its number."""
    parts = legs(state)
    return {p.process.run: p.process for p in parts if isinstance(p, Holding)}


def alive(state: State) -> list[Process]:
    """The main processes that have not been seen to end."""
    return [part.process for part in legs(state) if isinstance(part, Living)]


def shown(state: State) -> Leg | Rest | Waiting:
    """The part that people see: of two processes the one that serves, else the new one."""
    parts = legs(state)
    return next((part for part in parts if isinstance(part, Running)), parts[-1])


def public(part: Leg | Rest | Waiting) -> PublicState:
    """Supervisor's word for it."""
    match part:
        case Stopped() | Backoff(reason=""):
            return "STOPPED"
        case Backoff():
            return "BACKOFF"
        case Exited():
            return "EXITED"
        case Fatal():
            return "FATAL"
        case Waiting() | Preparing() | Spawning() | Starting() | Settling():
            return "STARTING"
        case Running() | Working():
            return "RUNNING"
        case Stopping() | Emptying(next=Stopped() | Backoff(reason="")) | Cleaning(next=Stopped() | Backoff(reason="")):
            return "STOPPING"
        case Emptying(next=rest) | Cleaning(next=rest):
            return public(rest)
        case _:
            assert_never(part)


def reason(part: Leg | Rest | Waiting) -> str:
    """Why, for what is not as it should be."""
    match part:
        case Waiting(on):
            return f"waits for {mentions.names(on)}" if on else ""
        case Backoff(_, why) | Fatal(why):
            return why
        case Stopping() | Emptying():
            return reason(part.next)
        case Cleaning():
            return "; ".join(filter(None, (reason(part.next), "its post-stop hook runs")))
        case Working():
            return "at work"
        case Preparing() | Settling():
            return f"its {'pre' if isinstance(part, Preparing) else 'post'}-start hook runs"
        case _:
            return ""
