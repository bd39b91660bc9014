"""The life of one process slot, as a pure state machine.

Rule 1: everything that decides a transition is in this file.
Rule 2: this file performs nothing and knows no clock. It returns effects; perform carries them out.
Rule 3: every state answers every event; mypy proves it through assert_never.
Rule 4: after an exit the tree is told to die, and nothing is spawned in its place before it is empty. Two main
        processes of one slot live only in Replacing.
Rule 5: what comes after others is spawned from rest only when it is Cleared; who clears it is order's business.

Times are seconds of CLOCK_BOOTTIME. Sources: DESIGN §4, §14; sd_notify(3).
"""

from __future__ import annotations

import signal
import zlib
from typing import TYPE_CHECKING, NoReturn, assert_never, cast

from msgspec.structs import replace

from rootd.supervisor.exits import Exit, lasting, signal_name, words

# isort: off
from rootd.supervisor.states import (
    Await, Backoff, Barred, BecameReady, Cancelled, Cleared, Died, Effect, Emptying, Ended, Event, Exited, Fatal, Held,
    Leg, Process, Replacing, Rest, RestartAsked, RollFailed, Running, Say, Signal, Slot, Spawn, Spawned, SpawnFailed,
    Spawning, SpawnLost, StartAsked, Starting, State, StopAsked, Stopped, Stopping, TimeUp, TreeEmpty, Waiting, runs,
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


def step(spec: ServiceSpec, slot: Slot, event: Event, now: float) -> Step:
    """What the slot is after the event, and what has to be done. spec: the configuration of the next spawn."""
    state = slot.state
    match state:
        case Stopped() | Backoff() | Exited() | Fatal():
            return _resting(spec, slot, state, event, now)
        case Waiting():
            return _waiting(spec, slot, state, event)
        case Spawning():
            return _spawning(spec, slot, state, event, now)
        case Starting() | Running():
            return _alive(spec, slot, state, event, now)
        case Stopping() | Emptying():
            return _ending(spec, slot, state, event, now)
        case Replacing():
            return _replacing(spec, slot, state, event, now)
        case _:
            assert_never(state)


def _resting(spec: ServiceSpec, slot: Slot, state: Rest, event: Event, now: float) -> Step:
    match event:
        case StartAsked() | RestartAsked():
            return _spawn(spec, _forgiven(slot))
        case StopAsked():
            return replace(slot, wanted="down", state=state if isinstance(state, Exited) else Stopped()), ()
        case TimeUp():
            return _rest(spec, slot, state, now)
        case BecameReady() | Died() | TreeEmpty() | Held() | Cleared() | Barred() | Cancelled():
            return slot, ()
        case Spawned() | SpawnFailed() | SpawnLost():
            _impossible(state, event)
        case _:
            assert_never(event)


def _waiting(spec: ServiceSpec, slot: Slot, state: Waiting, event: Event) -> Step:
    match event:
        case StartAsked() | RestartAsked():
            return _forgiven(slot), (Await(),)
        case StopAsked() | Cancelled():
            return replace(slot, wanted="down", state=Stopped()), ()
        case Held(on):
            return (
                (slot, ())
                if on == state.on
                else (replace(slot, state=Waiting(on)), (Say(f"waits for {', '.join(on)}"),))
            )
        case Cleared():
            return replace(slot, state=Spawning(spec)), (Spawn(), Say("starting"))
        case Barred(reason):
            return replace(slot, state=Fatal(reason)), (Ended(reason),)
        case TimeUp() | BecameReady() | Died() | TreeEmpty():
            return slot, ()
        case Spawned() | SpawnFailed() | SpawnLost():
            _impossible(state, event)
        case _:
            assert_never(event)


def _spawning(spec: ServiceSpec, slot: Slot, state: Spawning, event: Event, now: float) -> Step:
    match event:
        case StartAsked() | RestartAsked():
            return replace(slot, wanted="up"), ()
        case StopAsked():
            return replace(slot, wanted="down"), ()
        case Spawned(run, pid, started):
            process = Process(run, pid, started, state.spec)
            if slot.wanted == "down":
                return _stop(slot, process, Stopped(), now)
            if state.cancelled:
                return _stop(slot, process, Backoff(now), now)
            return _ready_by_time(replace(slot, state=Starting(process, ready_until(process))), now)
        case SpawnFailed(failure):
            said = words(failure, state.spec)
            slot, rest = _judged(spec, slot, failure, said, now)
            return replace(slot, state=rest), (Ended(said),)
        case SpawnLost():
            if slot.wanted == "down":
                return replace(slot, state=Stopped()), ()
            return (replace(slot, state=Backoff(now)), ()) if state.cancelled else _spawn(spec, slot)
        case BecameReady() | Died() | TreeEmpty() | TimeUp() | Held() | Cleared() | Barred() | Cancelled():
            return slot, ()
        case _:
            assert_never(event)


def _alive(spec: ServiceSpec, slot: Slot, state: Starting | Running, event: Event, now: float) -> Step:
    process = state.process
    match event:
        case StartAsked() | Held() | Cleared() | Barred() | Cancelled():
            return slot, ()
        case StopAsked():
            return _stop(replace(slot, wanted="down"), process, Stopped(), now)
        case RestartAsked(hard):
            slot = _forgiven(slot)
            if isinstance(state, Running) and spec.shared and not hard:
                return replace(slot, state=Replacing(state, Spawning(spec))), (Spawn(), Say("starting the new process"))
            return _stop(slot, process, Backoff(now), now)
        case BecameReady(run):
            if run != process.run or isinstance(state, Running):
                return slot, ()
            return replace(slot, state=Running(process, now)), (Say("ready"),)
        case TimeUp():
            return (slot, ()) if isinstance(state, Running) else _not_yet(spec, slot, state, now)
        case Died(run, exit_):
            if run != process.run:
                return slot, ()
            if isinstance(state, Running) and now - state.since >= HEALTHY:
                slot = replace(slot, attempt=0)
            said = words(exit_, process.spec)
            slot, rest = _judged(spec, slot, exit_, said, now)
            return _empty(slot, process, rest, now, Ended(said))
        case TreeEmpty(run):
            if run != process.run:
                return slot, ()
            slot, effects = _alive(spec, slot, state, Died(run, Exit(None)), now)
            slot, more = step(spec, slot, event, now)
            return slot, (*effects, *more)
        case Spawned() | SpawnFailed() | SpawnLost():
            _impossible(state, event)
        case _:
            assert_never(event)


def _not_yet(spec: ServiceSpec, slot: Slot, state: Starting, now: float) -> Step:
    """A look at the time while it is not ready."""
    process = state.process
    if now < state.until or process.spec.ready_kind == "after":
        return _ready_by_time(slot, now)
    reason = f"not ready in {process.spec.ready_timeout:g} s"
    slot, rest = _judged(spec, slot, None, reason, now)
    slot, effects = _stop(slot, process, rest, now)
    return slot, (Ended(reason), *effects)


def _ending(spec: ServiceSpec, slot: Slot, state: Stopping | Emptying, event: Event, now: float) -> Step:
    process = state.process
    match event:
        case StartAsked() | RestartAsked():
            return replace(_forgiven(slot), state=replace(state, next=Backoff(now))), ()
        case StopAsked():
            rest = state.next if isinstance(state.next, Exited) else Stopped()
            return replace(slot, wanted="down", state=replace(state, next=rest)), ()
        case TimeUp():
            if now < state.kill_at:
                return slot, ()
            if isinstance(state, Stopping) and state.then:
                (signo, seconds), *then = state.then
                further = replace(state, kill_at=now + seconds, then=tuple(then))
                said = Say(f"did not end in time, sent {signal_name(signo)}")
                return replace(slot, state=further), (Signal(process.run, signo), said)
            again = replace(state, kill_at=now + KILL_AGAIN, kills=state.kills + 1)
            killed = (Say("did not end in time, killed"),) if again.kills == 1 and isinstance(state, Stopping) else ()
            return replace(slot, state=again), (Signal(process.run, signal.SIGKILL, tree=True), *killed)
        case Died(run):
            return (slot, ()) if run != process.run else _empty(slot, process, state.next, now)
        case TreeEmpty(run):
            return (slot, ()) if run != process.run else _rest(spec, slot, state.next, now)
        case BecameReady() | Held() | Cleared() | Barred() | Cancelled():
            return slot, ()
        case Spawned() | SpawnFailed() | SpawnLost():
            _impossible(state, event)
        case _:
            assert_never(event)


def _replacing(spec: ServiceSpec, slot: Slot, state: Replacing, event: Event, now: float) -> Step:
    old, new = state.old, state.new
    match event:
        case StartAsked() | RestartAsked():
            return _both(spec, slot, state, StartAsked(), now)
        case StopAsked() | TimeUp():
            return _both(spec, slot, state, event, now)
        case Cancelled():
            return _taken_back(slot, state, now)
        case SpawnLost() if slot.wanted == "up" and isinstance(new, Spawning) and not new.cancelled:
            return replace(slot, state=Replacing(old, Spawning(spec))), (Spawn(),)
        case Spawned() | SpawnFailed() | SpawnLost():
            slot, left, effects = _new_leg(spec, slot, state, event, now)
            return _joined(slot, old, left, effects, now)
        case BecameReady(run) | Died(run) | TreeEmpty(run):
            if run in runs(new):
                slot, left, effects = _new_leg(spec, slot, state, event, now)
                return _joined(slot, old, left, effects, now)
            if run in runs(old):
                slot, left, effects = _leg(spec, slot, old, event, now)
                return _joined(slot, left, new, effects, now)
            return slot, ()
        case Held() | Cleared() | Barred():
            return slot, ()
        case _:
            assert_never(event)


def _taken_back(slot: Slot, state: Replacing, now: float) -> Step:
    """While the old process serves, the new one is stopped as if it had failed; one that is being spawned, then."""
    if not isinstance(state.old, Running):
        return slot, ()
    match state.new:
        case Spawning(cancelled=False):
            new = replace(state.new, cancelled=True)
            return replace(slot, state=replace(state, new=new)), (RollFailed("cancelled"),)
        case Starting(process):
            stopped, effects = _stop(slot, process, Backoff(now), now)
            return replace(slot, state=replace(state, new=stopped.state)), (RollFailed("cancelled"), *effects)
        case _:
            return slot, ()


def _both(spec: ServiceSpec, slot: Slot, state: Replacing, event: Event, now: float) -> Step:
    slot, new, effects = _new_leg(spec, slot, state, event, now)
    slot, old, more = _leg(spec, slot, state.old, event, now)
    return _joined(slot, old, new, (*effects, *more), now)


def _leg(
    spec: ServiceSpec, slot: Slot, leg: Leg, event: Event, now: float
) -> tuple[Slot, Leg | Rest, tuple[Effect, ...]]:
    """One of the two, as if it were alone, but that nothing is spawned in its place. At rest means gone."""
    if not isinstance(event, TreeEmpty):
        slot, effects = step(spec, replace(slot, state=leg), event, now)
        return slot, cast("Leg | Rest", slot.state), effects
    effects = ()
    if isinstance(leg, Starting | Running):
        slot, effects = step(spec, replace(slot, state=leg), Died(event.run, Exit(None)), now)
        leg = cast(Emptying, slot.state)
    return slot, cast(Emptying, leg).next, effects


def _new_leg(
    spec: ServiceSpec, slot: Slot, state: Replacing, event: Event, now: float
) -> tuple[Slot, Leg | Rest, tuple[Effect, ...]]:
    """The new process. While the old one serves, its end counts for nothing but the failure of the operation."""
    after, new, effects = _leg(spec, slot, state.new, event, now)
    if not (isinstance(state.old, Running) and any(isinstance(effect, Ended) for effect in effects)):
        return after, new, effects
    if isinstance(new, Stopping | Emptying):
        new = replace(new, next=Backoff(now))
    return slot, new, tuple(RollFailed(e.text) if isinstance(e, Ended) else e for e in effects)


def _joined(slot: Slot, old: Leg | Rest, new: Leg | Rest, effects: tuple[Effect, ...], now: float) -> Step:
    """The two together again: one that came to rest leaves the other, one that became ready has the old one stopped."""
    if isinstance(new, Rest):
        return replace(slot, state=_remaining(cast(Leg, old), new)), effects
    if isinstance(old, Rest):
        said = (Say("old process stopped"),) if isinstance(new, Running) else ()
        return replace(slot, state=_remaining(new, old)), (*effects, *said)
    if isinstance(new, Running) and isinstance(old, Running):
        stopped, more = _stop(slot, old.process, Backoff(now), now)
        return replace(slot, state=Replacing(cast(Stopping, stopped.state), new)), (*effects, *more)
    return replace(slot, state=Replacing(old, new)), effects


def _remaining(leg: Leg, gone: Rest) -> Leg:
    """What ends last comes to rest in the graver of what the two were to rest in."""
    if isinstance(leg, Stopping | Emptying) and _gravity(gone) > _gravity(leg.next):
        return replace(leg, next=gone)
    return leg


def _gravity(rest: Rest) -> tuple[int, float]:
    match rest:
        case Backoff(until):
            return 0, until
        case Exited():
            return 1, 0.0
        case Fatal():
            return 2, 0.0
        case Stopped():
            return 3, 0.0
        case _:
            assert_never(rest)


# -- what the states share -------------------------------------------------------------------------------------


def _spawn(spec: ServiceSpec, slot: Slot) -> Step:
    if spec.requires or spec.after:
        return replace(slot, state=Waiting()), (Await(),)
    return replace(slot, state=Spawning(spec)), (Spawn(), Say("starting"))


def _rest(spec: ServiceSpec, slot: Slot, rest: Rest, now: float) -> Step:
    if isinstance(rest, Backoff) and rest.until <= now:
        return _spawn(spec, slot)
    return replace(slot, state=rest), ()


def _stop(slot: Slot, process: Process, rest: Rest, now: float) -> Step:
    stopping = Stopping(process, now + process.spec.stop_timeout, 0, rest, process.spec.stop_then)
    return replace(slot, state=stopping), (Signal(process.run, process.spec.stop_signal), Say("stopping"))


def _empty(slot: Slot, process: Process, rest: Rest, now: float, *said: Effect) -> Step:
    """After each exit: privileged reaps the process when its tree is told to die, and says when nothing is left."""
    emptying = Emptying(process, now + KILL_AGAIN, 0, rest)
    return replace(slot, state=emptying), (*said, Signal(process.run, signal.SIGKILL, tree=True))


def _ready_by_time(slot: Slot, now: float) -> Step:
    state = cast(Starting, slot.state)
    if now < state.until or state.process.spec.ready_kind == "notify":
        return slot, ()
    return replace(slot, state=Running(state.process, now)), (Say("ready"),)


def _forgiven(slot: Slot) -> Slot:
    """Somebody asked for it: what crashed before does not count."""
    return replace(slot, wanted="up", crashes=(), attempt=0)


def _judged(spec: ServiceSpec, slot: Slot, end: Exit | None, reason: str, now: float) -> tuple[Slot, Rest]:
    """What follows an end that nobody asked for. end is None when it was given up because it was not ready."""
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
        return slot, Fatal(f"failed {often} in {spec.limit_window:g} s, at last: {reason}")
    return slot, Backoff(now + _delay(spec, slot.attempt, now), reason)


def _delay(spec: ServiceSpec, attempt: int, now: float) -> float:
    """None for the first crash, so that a replacement comes at once; then doubling, with a jitter of its own."""
    if attempt <= 1:
        return 0.0
    part = zlib.crc32(f"{spec.name} {attempt} {now!r}".encode()) / 0xFFFFFFFF
    whole = spec.backoff_first * 2.0 ** min(attempt - 2, 32)
    return min(whole * (1 - JITTER + 2 * JITTER * part), spec.backoff_cap)


def _impossible(state: State, event: Event) -> NoReturn:
    raise Impossible(f"{event!r} in {state!r}")


def ready_until(process: Process) -> float:
    """When a process that was just spawned is ready, or has failed to be."""
    spec = process.spec
    return process.started + (spec.ready_after if spec.ready_kind == "after" else spec.ready_timeout)
