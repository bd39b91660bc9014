"""What can happen to a slot, and what is to be done about it: the events that go into lifecycle, and its effects.

Rule: they are data. states has what a slot can be, and gives these names on, so that there is one module to ask.

Times are seconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from rootd.supervisor.exits import Exit

if TYPE_CHECKING:
    from rootd.config.specs import ServiceSpec

Hook = Literal["pre-start", "post-start", "stop", "post-stop"]


# -- events ----------------------------------------------------------------------------------------------------


class StartAsked(msgspec.Struct, frozen=True):
    pass


class StopAsked(msgspec.Struct, frozen=True):
    pass


class RestartAsked(msgspec.Struct, frozen=True):
    hard: bool = False


class Cancelled(msgspec.Struct, frozen=True):
    """What was asked for is taken back, as far as nothing that serves ends by it."""


class Held(msgspec.Struct, frozen=True):
    """What it comes after is on its way."""

    on: tuple[str, ...]


class Cleared(msgspec.Struct, frozen=True):
    """Its turn has come."""


class Barred(msgspec.Struct, frozen=True):
    """What it requires will not be ready."""

    reason: str


class Spawned(msgspec.Struct, frozen=True):
    run: int
    pid: int
    started: float


class SpawnFailed(msgspec.Struct, frozen=True):
    failure: Exit


class SpawnLost(msgspec.Struct, frozen=True):
    """privileged was started again and knows nothing of the SPAWN."""


class Adopted(msgspec.Struct, frozen=True):
    """Another process of the run is its main process now."""

    run: int
    pid: int


class BecameReady(msgspec.Struct, frozen=True):
    run: int


class Failing(msgspec.Struct, frozen=True):
    """It is ready no more: it does not answer, or was silent for too long. signo: tells it to end; 0 is as usual."""

    run: int
    reason: str
    signo: int = 0


class HookEnded(msgspec.Struct, frozen=True):
    """A hook of the slot is over. run: the process that it was about, 0 for none; problem: "" when it ended well."""

    hook: Hook
    run: int
    problem: str


class Died(msgspec.Struct, frozen=True):
    """EXITED: told again by each new privileged until its tree is told to die."""

    run: int
    exit: Exit


class TreeEmpty(msgspec.Struct, frozen=True):
    """Nothing of the run is left, whether or not its exit was seen."""

    run: int


class TimeUp(msgspec.Struct, frozen=True):
    """The time of wake_at has come, or any other time. found: what its probe said last against its being ready."""

    found: str = ""


Event = (
    StartAsked | StopAsked | RestartAsked | Cancelled | Held | Cleared | Barred
    | Spawned | SpawnFailed | SpawnLost | Adopted | BecameReady | Failing | HookEnded | Died | TreeEmpty | TimeUp
)  # fmt: skip


# -- effects ---------------------------------------------------------------------------------------------------


class Await(msgspec.Struct, frozen=True):
    """Somebody has to say when its turn comes: Held, Cleared or Barred."""


class Spawn(msgspec.Struct, frozen=True):
    """about: the run that a hook or a probe command is about; 0 for a process, and for what is about none."""

    about: int = 0


class RunHook(msgspec.Struct, frozen=True):
    """HookEnded tells of its end. spec: the configuration that it is of; run: the process that it is about, or 0."""

    hook: Hook
    run: int
    spec: ServiceSpec


class EndHook(msgspec.Struct, frozen=True):
    """Its outcome is not wanted any more; HookEnded is told all the same."""

    hook: Hook
    run: int


class Signal(msgspec.Struct, frozen=True):
    run: int
    signo: int
    tree: bool = False


class Say(msgspec.Struct, frozen=True):
    """A step for whoever waits for an operation on the slot."""

    text: str


class Ended(msgspec.Struct, frozen=True):
    """It ended unasked, could not be spawned, or was given up."""

    text: str


class RollFailed(msgspec.Struct, frozen=True):
    """The new process of a rolling restart will not take over; the old one keeps serving."""

    reason: str


Effect = Await | Spawn | RunHook | EndHook | Signal | Say | Ended | RollFailed
