"""A rolling restart, as a pure state machine: the old process serves until the new one is ready, and is stopped then.

Rule 1: each of the two is a slot of its own to lifecycle, but that nothing is spawned in its place when it has ended.
Rule 2: while the old one serves, an end of the new one costs nothing but the operation.

Times are seconds of CLOCK_BOOTTIME. Source: DESIGN §4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, assert_never, cast

from msgspec.structs import replace

from rootd.supervisor import moves
from rootd.supervisor.exits import Exit
from rootd.supervisor.moves import Step

# isort: off
from rootd.supervisor.states import (
    Adopted, Backoff, Barred, BecameReady, Cancelled, Cleaning, Cleared, Died, Effect, Emptying, Ended, EndHook,
    Event, Exited, Failing, Fatal, Held, HookEnded, Leg, Preparing, Replacing, Rest, RestartAsked, RollFailed,
    Running, Say, Settling, Slot, Spawn, Spawned, SpawnFailed, Spawning, SpawnLost, StartAsked, Starting, StopAsked,
    Stopped, Stopping, TimeUp, TreeEmpty,
)  # fmt: skip
# isort: on

if TYPE_CHECKING:
    from rootd.config.specs import ServiceSpec

Alone = Callable[["ServiceSpec", Slot, Event, float], Step]  # lifecycle.step


def replacing(spec: ServiceSpec, slot: Slot, state: Replacing, event: Event, now: float, step: Alone) -> Step:
    old, new = state.old, state.new
    match event:
        case StartAsked() | RestartAsked():
            return _both(spec, slot, state, StartAsked(), now, step)
        case StopAsked() | TimeUp():
            return _both(spec, slot, state, event, now, step)
        case Cancelled():
            return _taken_back(slot, state, now)
        case SpawnLost() if slot.wanted == "up" and isinstance(new, Spawning) and not new.cancelled:
            return replace(slot, state=Replacing(old, Spawning(spec))), (Spawn(),)
        case Spawned() | SpawnFailed() | SpawnLost():
            slot, left, effects = _new_leg(spec, slot, state, event, now, step)
            return _joined(slot, old, left, effects, now)
        case Adopted(run) | BecameReady(run) | Failing(run) | HookEnded(_, run) | Died(run) | TreeEmpty(run):
            if _is_about(new, run):
                slot, left, effects = _new_leg(spec, slot, state, event, now, step)
                return _joined(slot, old, left, effects, now)
            if _is_about(old, run):
                slot, left, effects = _leg(spec, slot, old, event, now, step)
                return _joined(slot, left, new, effects, now)
            return slot, ()
        case Held() | Cleared() | Barred():
            return slot, ()
        case _:
            assert_never(event)


def _taken_back(slot: Slot, state: Replacing, now: float) -> Step:
    """While the old process serves, the new one is stopped as if it had failed; one that is not spawned yet, then."""
    if not isinstance(state.old, Running):
        return slot, ()
    failed = RollFailed("cancelled")
    match state.new:
        case Preparing(next=None):
            new = replace(state.new, next=Backoff(now))
            return replace(slot, state=replace(state, new=new)), (failed, EndHook("pre-start", 0))
        case Spawning(cancelled=False):
            return replace(slot, state=replace(state, new=replace(state.new, cancelled=True))), (failed,)
        case Starting(process) | Settling(process):
            stopped, effects = moves.stop(slot, process, Backoff(now), now)
            return replace(slot, state=replace(state, new=stopped.state)), (failed, *moves.unhook(state.new), *effects)
        case _:
            return slot, ()


def _is_about(leg: Leg, run: int) -> bool:
    """Whether what is told of this run is told of this one of the two; 0 is what has no process yet."""
    match leg:
        case Cleaning(run=mine):
            return mine == run
        case Preparing() | Spawning():
            return run == 0
        case _:
            return leg.process.run == run


def _both(spec: ServiceSpec, slot: Slot, state: Replacing, event: Event, now: float, step: Alone) -> Step:
    slot, new, effects = _new_leg(spec, slot, state, event, now, step)
    slot, old, more = _leg(spec, slot, state.old, event, now, step)
    return _joined(slot, old, new, (*effects, *more), now)


def _leg(
    spec: ServiceSpec, slot: Slot, leg: Leg, event: Event, now: float, step: Alone
) -> tuple[Slot, Leg | Rest, tuple[Effect, ...]]:
    """One of the two, as if it were alone, but that nothing is spawned in its place. At rest means gone."""
    if isinstance(leg, Cleaning) and isinstance(event, HookEnded):  # of its stop command, when that ends later still
        return slot, leg.next if event.hook == "post-stop" else leg, ()
    if not isinstance(event, TreeEmpty):
        slot, effects = step(spec, replace(slot, state=leg), event, now)
        return slot, cast("Leg | Rest", slot.state), effects
    effects = ()
    if isinstance(leg, Starting | Settling | Running):
        slot, effects = step(spec, replace(slot, state=leg), Died(event.run, Exit(None)), now)
        leg = cast(Emptying, slot.state)
    gone = cast(Emptying, leg)
    slot, more = moves.clean(slot, gone.process.spec, event.run, gone.next)
    return slot, cast("Leg | Rest", slot.state), (*effects, *more)


def _new_leg(
    spec: ServiceSpec, slot: Slot, state: Replacing, event: Event, now: float, step: Alone
) -> tuple[Slot, Leg | Rest, tuple[Effect, ...]]:
    """The new process. While the old one serves, its end counts for nothing but the failure of the operation."""
    after, new, effects = _leg(spec, slot, state.new, event, now, step)
    if not (isinstance(state.old, Running) and any(isinstance(effect, Ended) for effect in effects)):
        return after, new, effects
    if isinstance(new, Stopping | Emptying | Cleaning):
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
        stopped, more = moves.stop(slot, old.process, Backoff(now), now)
        return replace(slot, state=Replacing(cast(Stopping, stopped.state), new)), (*effects, *more)
    return replace(slot, state=Replacing(old, new)), effects


def _remaining(leg: Leg, gone: Rest) -> Leg:
    """What ends last comes to rest in the graver of what the two were to rest in."""
    if isinstance(leg, Stopping | Emptying | Cleaning) and _gravity(gone) > _gravity(leg.next):
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
