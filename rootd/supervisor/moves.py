"""What the states share: how a process is begun, stopped and judged, and where a slot comes to rest.

Rule: pure, like lifecycle and rolling, of which it is a part: whoever asks for one of these decides that it happens.

Times are seconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

import signal
import zlib
from typing import TYPE_CHECKING, NoReturn

from msgspec.structs import replace

from rootd.supervisor.exits import Exit, lasting

# isort: off
from rootd.supervisor.states import (
    Await, Backoff, Cleaning, Effect, Emptying, EndHook, Event, Exited, Fatal, Preparing, Process, Rest, RunHook,
    Running, Say, Settling, Signal, Slot, Spawn, Spawning, Starting, State, Stopped, Stopping, Waiting,
)  # fmt: skip
# isort: on

if TYPE_CHECKING:
    from rootd.config.specs import ServiceSpec

KILL_AGAIN = 5.0  # seconds from one SIGKILL of a tree to the next, while something of it is left
HEALTHY = 10.0  # seconds of running after which a crash counts as the first again
LASTING_TRIES = 3  # failures in a row that trying again cannot mend, before FATAL
JITTER = 0.2  # a delay is up to this part longer or shorter, so that many do not come back at one moment


class Impossible(Exception):
    """Our own bookkeeping is wrong: never caught, the process ends and the next one recovers."""


Step = tuple[Slot, tuple[Effect, ...]]


def begin(spec: ServiceSpec, text: str = "starting") -> tuple[Preparing | Spawning, tuple[Effect, ...]]:
    """A new process: its pre-start hook where it has one, else its spawn."""
    if spec.has("pre-start"):
        return Preparing(spec), (RunHook("pre-start", 0, spec), Say("its pre-start hook runs"))
    return Spawning(spec), (Spawn(), Say(text))


def spawn(spec: ServiceSpec, slot: Slot) -> Step:
    """From rest: in its turn."""
    if spec.requires or spec.after:
        return replace(slot, state=Waiting()), (Await(),)
    return cleared(spec, slot)


def cleared(spec: ServiceSpec, slot: Slot) -> Step:
    begun, effects = begin(spec)
    return replace(slot, state=begun), effects


def rest(spec: ServiceSpec, slot: Slot, at: Rest, now: float) -> Step:
    if isinstance(at, Backoff) and at.until <= now:
        return spawn(spec, slot)
    return replace(slot, state=at), ()


def clean(slot: Slot, spec: ServiceSpec, run: int, at: Rest) -> Step:
    """Nothing of it is left: its post-stop hook where it has one. spec: its own configuration."""
    if spec.has("post-stop"):
        hook = RunHook("post-stop", run, spec)
        return replace(slot, state=Cleaning(spec, run, at)), (hook, Say("its post-stop hook runs"))
    return replace(slot, state=at), ()


def stop(slot: Slot, process: Process, at: Rest, now: float, signo: int = 0) -> Step:
    """Tell it to end: by its stop command, else by its stop signal; signo: by that one first."""
    spec, then = process.spec, process.spec.stop_then
    tell: Effect = Signal(process.run, signo or spec.stop_signal)
    if spec.has("stop") and not signo:
        tell, then = RunHook("stop", process.run, spec), ((spec.stop_signal, spec.stop_timeout), *then)
    return replace(slot, state=Stopping(process, now + spec.stop_timeout, 0, at, then)), (tell, Say("stopping"))


def empty(slot: Slot, process: Process, at: Rest, now: float, *said: Effect) -> Step:
    """After each exit: privileged reaps the process when its tree is told to die, and says when nothing is left."""
    emptying = Emptying(process, now + KILL_AGAIN, 0, at)
    return replace(slot, state=emptying), (*said, Signal(process.run, signal.SIGKILL, tree=True))


def ready(slot: Slot, process: Process, now: float) -> Step:
    """It has said, or shown, that it is ready: its post-start hook where it has one, else it runs."""
    if process.spec.has("post-start"):
        hook = RunHook("post-start", process.run, process.spec)
        return replace(slot, state=Settling(process)), (hook, Say("ready, its post-start hook runs"))
    return replace(slot, state=Running(process, now)), (Say("ready"),)


def ready_by_time(slot: Slot, state: Starting, now: float) -> Step:
    if now < state.until or state.process.spec.ready_kind != "after":
        return replace(slot, state=state), ()
    return ready(slot, state.process, now)


def unhook(state: State) -> tuple[Effect, ...]:
    """The hook that runs beside a process that is not to be started any more."""
    return (EndHook("post-start", state.process.run),) if isinstance(state, Settling) else ()


def forgiven(slot: Slot) -> Slot:
    """Somebody asked for it: what crashed before does not count."""
    return replace(slot, wanted="up", crashes=(), attempt=0)


def judged(spec: ServiceSpec, slot: Slot, end: Exit | None, reason: str, now: float) -> tuple[Slot, Rest]:
    """What follows an end that nobody asked for. end is None when it was given up while it ran, or before it did."""
    if slot.wanted == "down":
        return slot, Stopped()
    clean = end is not None and not end.failure and end.code in spec.expected
    ran = end is not None and not end.failure
    if ran and end is not None and (spec.restart_policy == "never" or (spec.restart_policy == "on-failure" and clean)):
        return slot, Exited(end, clean)
    if spec.restart_policy == "never":
        return slot, Fatal(reason)
    counted = (*(time for time in slot.crashes if now - time < spec.limit_window), now)[-max(spec.limit_count, 1) :]
    slot = replace(slot, crashes=counted, attempt=slot.attempt + 1)
    if end is not None and lasting(end) and slot.attempt >= LASTING_TRIES:
        return slot, Fatal(reason)
    if 0 < spec.limit_count <= len(counted):
        often = f"{len(counted)} times" if len(counted) > 1 else "once"
        return slot, Fatal(f"failed {often} in {spec.limit_window:g} s, the last time: {reason}")
    return slot, Backoff(now + delay(spec, slot.attempt, now), reason)


def delay(spec: ServiceSpec, attempt: int, now: float) -> float:
    """None for the first crash, so that a replacement comes at once; then doubling, with a jitter of its own."""
    if attempt <= 1:
        return 0.0
    part = zlib.crc32(f"{spec.name} {attempt} {now!r}".encode()) / 0xFFFFFFFF
    whole = spec.backoff_first * 2.0 ** min(attempt - 2, 32)
    return min(whole * (1 - JITTER + 2 * JITTER * part), spec.backoff_cap)


def impossible(state: State, event: Event) -> NoReturn:
    raise Impossible(f"{event!r} in {state!r}")
