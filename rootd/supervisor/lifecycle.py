"""The life of one process slot, as a pure state machine.

Rule 1: everything that decides a transition is here, in rolling (two processes at once) and in moves (what they share).
Rule 2: nothing is performed here, and nothing here knows no clock. It returns effects; perform carries them out.
Rule 3: every state answers every event; mypy proves it through assert_never.
Rule 4: after an exit the tree is told to die, and nothing is spawned in its place before it is empty. Two main
        processes of one slot live only in Replacing.
Rule 5: what comes after others is spawned from rest only when it is Cleared; who clears it is order's business.

Times are seconds of CLOCK_BOOTTIME. Sources: DESIGN §4, §14; sd_notify(3).
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, assert_never

from msgspec.structs import replace

from rootd.supervisor import mentions, moves
from rootd.supervisor.exits import Exit, signal_name, unready, words
from rootd.supervisor.moves import HEALTHY, KILL_AGAIN, Impossible, Step, impossible
from rootd.supervisor.rolling import replacing

# isort: off
from rootd.supervisor.states import (
    Adopted, Await, Backoff, Barred, BecameReady, Cancelled, Cleaning, Cleared, Died, Emptying, Ended, EndHook, Event,
    Exited, Failing, Fatal, Held, HookEnded, Living, Preparing, Process, Replacing, Rest, RestartAsked, Running, Say,
    Settling, Signal, Slot, Spawn, Spawned, SpawnFailed, Spawning, SpawnLost, StartAsked, Starting, StopAsked,
    Stopped, Stopping, TimeUp, TreeEmpty, Waiting, Working,
)  # fmt: skip
# isort: on

if TYPE_CHECKING:
    from rootd.config.specs import ServiceSpec

__all__ = ["Impossible", "ready_until", "step", "work_until"]

Alive = Starting | Working | Settling | Running


def step(spec: ServiceSpec, slot: Slot, event: Event, now: float) -> Step:
    """What the slot is after the event, and what has to be done. spec: the configuration of the next spawn."""
    state = slot.state
    match state:
        case Stopped() | Backoff() | Exited() | Fatal():
            return _resting(spec, slot, state, event, now)
        case Waiting():
            return _waiting(spec, slot, state, event)
        case Preparing():
            return _preparing(spec, slot, state, event, now)
        case Spawning():
            return _spawning(spec, slot, state, event, now)
        case Starting() | Working() | Settling() | Running():
            return _alive(spec, slot, state, event, now)
        case Stopping() | Emptying():
            return _ending(spec, slot, state, event, now)
        case Cleaning():
            return _cleaning(spec, slot, state, event, now)
        case Replacing():
            return replacing(spec, slot, state, event, now, step)
        case _:
            assert_never(state)


def _resting(spec: ServiceSpec, slot: Slot, state: Rest, event: Event, now: float) -> Step:
    match event:
        case StartAsked() | RestartAsked():
            return moves.spawn(spec, moves.forgiven(slot))
        case StopAsked():
            return replace(slot, wanted="down", state=_down(spec, state)), ()
        case TimeUp():
            return moves.rest(spec, slot, state, now)
        case (
            Adopted() | BecameReady() | Failing() | HookEnded() | Died() | TreeEmpty()
            | Held() | Cleared() | Barred() | Cancelled()
        ):  # fmt: skip
            return slot, ()
        case Spawned() | SpawnFailed() | SpawnLost():
            impossible(state, event)
        case _:
            assert_never(event)


def _waiting(spec: ServiceSpec, slot: Slot, state: Waiting, event: Event) -> Step:
    match event:
        case StartAsked() | RestartAsked():
            return moves.forgiven(slot), (Await(),)
        case StopAsked() | Cancelled():
            return replace(slot, wanted="down", state=Stopped()), ()
        case Held(on):
            return (
                (slot, ())
                if on == state.on
                else (replace(slot, state=Waiting(on)), (Say(f"waits for {mentions.names(on)}"),))
            )
        case Cleared():
            return moves.cleared(spec, slot)
        case Barred(reason):
            return replace(slot, state=Fatal(reason)), (Ended(reason),)
        case TimeUp() | Adopted() | BecameReady() | Failing() | HookEnded() | Died() | TreeEmpty():
            return slot, ()
        case Spawned() | SpawnFailed() | SpawnLost():
            impossible(state, event)
        case _:
            assert_never(event)


def _preparing(spec: ServiceSpec, slot: Slot, state: Preparing, event: Event, now: float) -> Step:
    match event:
        case StartAsked() | RestartAsked():
            again = None if state.next is None else Backoff(now)
            return replace(moves.forgiven(slot), state=replace(state, next=again)), ()
        case StopAsked() | Cancelled():
            down = replace(slot, wanted="down", state=replace(state, next=Stopped()))
            return down, (EndHook("pre-start", 0),)
        case HookEnded("pre-start", _, problem):
            if state.next is not None:
                return moves.clean(slot, state.spec, 0, state.next)
            if problem:
                reason = f"its pre-start hook: {problem}"
                slot, rest = moves.judged(spec, slot, None, reason, now)
                slot, effects = moves.clean(slot, state.spec, 0, rest)
                return slot, (Ended(reason), *effects)
            if spec.digest != state.spec.digest:  # it was for a configuration that counts no more
                return moves.cleared(spec, slot)
            return replace(slot, state=Spawning(spec)), (Spawn(), Say("starting"))
        case (
            TimeUp() | Adopted() | BecameReady() | Failing() | HookEnded() | Died() | TreeEmpty()
            | Held() | Cleared() | Barred()
        ):  # fmt: skip
            return slot, ()
        case Spawned() | SpawnFailed() | SpawnLost():
            impossible(state, event)
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
                return moves.stop(slot, process, Stopped(), now)
            if state.cancelled:
                return moves.stop(slot, process, Backoff(now), now)
            if state.spec.ready_kind == "exit":
                return replace(slot, state=Working(process, work_until(process))), ()
            return moves.ready_by_time(slot, Starting(process, ready_until(process)), now)
        case SpawnFailed(failure):
            said = words(failure, state.spec)
            slot, rest = moves.judged(spec, slot, failure, said, now)
            slot, effects = moves.clean(slot, state.spec, 0, rest)
            return slot, (Ended(said), *effects)
        case SpawnLost():
            if slot.wanted == "down":
                return replace(slot, state=Stopped()), ()
            return (replace(slot, state=Backoff(now)), ()) if state.cancelled else moves.spawn(spec, slot)
        case (
            TimeUp() | Adopted() | BecameReady() | Failing() | HookEnded() | Died() | TreeEmpty()
            | Held() | Cleared() | Barred() | Cancelled()
        ):  # fmt: skip
            return slot, ()
        case _:
            assert_never(event)


def _alive(spec: ServiceSpec, slot: Slot, state: Alive, event: Event, now: float) -> Step:
    process = state.process
    match event:
        case StartAsked() | Held() | Cleared() | Barred() | Cancelled():
            return slot, ()
        case StopAsked():
            return _stopped(replace(slot, wanted="down"), state, Stopped(), now)
        case RestartAsked(hard):
            slot = moves.forgiven(slot)
            if isinstance(state, Running) and spec.shared and not hard:
                new, effects = moves.begin(spec, "starting the new process")
                return replace(slot, state=Replacing(state, new)), effects
            return _stopped(slot, state, Backoff(now), now)
        case Adopted(run, pid):
            return (slot, ()) if run != process.run else _adopted(slot, state, pid)
        case BecameReady(run):
            return moves.ready(slot, process, now) if run == process.run and isinstance(state, Starting) else (slot, ())
        case HookEnded("post-start", run, problem) if isinstance(state, Settling) and run == process.run:
            if not problem:
                return replace(slot, state=Running(process, now)), (Say("ready"),)
            return _given_up(spec, slot, state, f"its post-start hook: {problem}", now)
        case Failing(run, reason, signo) if isinstance(state, Running) and run == process.run:
            return _given_up(spec, _healed(slot, state, now), state, reason, now, signo)
        case HookEnded() | Failing():
            return slot, ()
        case TimeUp(found):
            if isinstance(state, Working) and state.until is not None and now >= state.until:
                return _given_up(spec, slot, state, f"took more than {process.spec.ready_timeout:g} s", now)
            if not isinstance(state, Starting):
                return slot, ()
            if now < state.until or process.spec.ready_kind == "after":
                return moves.ready_by_time(slot, state, now)
            return _given_up(spec, slot, state, unready(process.spec, found), now)
        case Died(run, exit_):
            if run != process.run:
                return slot, ()
            said = words(exit_, process.spec)
            slot, rest = moves.judged(spec, _healed(slot, state, now), exit_, said, now)
            return moves.empty(slot, process, rest, now, Ended(said), *moves.unhook(state))
        case TreeEmpty(run):
            if run != process.run:
                return slot, ()
            slot, effects = _alive(spec, slot, state, Died(run, Exit(None)), now)
            slot, more = step(spec, slot, event, now)
            return slot, (*effects, *more)
        case Spawned() | SpawnFailed() | SpawnLost():
            impossible(state, event)
        case _:
            assert_never(event)


def _stopped(slot: Slot, state: Alive, rest: Rest, now: float, signo: int = 0) -> Step:
    slot, effects = moves.stop(slot, state.process, rest, now, signo)
    return slot, (*moves.unhook(state), *effects)


def _given_up(spec: ServiceSpec, slot: Slot, state: Alive, reason: str, now: float, signo: int = 0) -> Step:
    """It runs, and is not what it should be: stopped, and judged as if it had ended by itself."""
    slot, rest = moves.judged(spec, slot, None, reason, now)
    slot, effects = _stopped(slot, state, rest, now, signo)
    return slot, (Ended(reason), *effects)


def _healed(slot: Slot, state: Alive, now: float) -> Slot:
    """After a healthy while a crash is the first one again."""
    return replace(slot, attempt=0) if isinstance(state, Running) and now - state.since >= HEALTHY else slot


def _ending(spec: ServiceSpec, slot: Slot, state: Stopping | Emptying, event: Event, now: float) -> Step:
    process = state.process
    match event:
        case StartAsked() | RestartAsked():
            return replace(moves.forgiven(slot), state=replace(state, next=Backoff(now))), ()
        case StopAsked():
            return replace(slot, wanted="down", state=replace(state, next=_down(process.spec, state.next))), ()
        case HookEnded("stop", run, problem) if run == process.run:
            told = isinstance(state, Emptying) or len(state.then) <= len(process.spec.stop_then)
            if not problem or told:
                return slot, ()
            slot, effects = _ending(spec, slot, replace(state, kill_at=now), TimeUp(), now)
            return slot, (Say(f"its stop command: {problem}"), *effects)
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
            return (slot, ()) if run != process.run else moves.empty(slot, process, state.next, now)
        case TreeEmpty(run):
            if run != process.run:
                return slot, ()
            if process.spec.has("post-stop"):
                return moves.clean(slot, process.spec, run, state.next)
            return moves.rest(spec, slot, state.next, now)
        case Adopted(run, pid):
            return (slot, ()) if run != process.run else _adopted(slot, state, pid)
        case BecameReady() | Failing() | HookEnded() | Held() | Cleared() | Barred() | Cancelled():
            return slot, ()
        case Spawned() | SpawnFailed() | SpawnLost():
            impossible(state, event)
        case _:
            assert_never(event)


def _adopted(slot: Slot, state: Living | Emptying, pid: int) -> Step:
    return replace(slot, state=replace(state, process=replace(state.process, pid=pid))), ()


def _cleaning(spec: ServiceSpec, slot: Slot, state: Cleaning, event: Event, now: float) -> Step:
    match event:
        case StartAsked() | RestartAsked():
            return replace(moves.forgiven(slot), state=replace(state, next=Backoff(now))), ()
        case StopAsked():
            return replace(slot, wanted="down", state=replace(state, next=_down(state.spec, state.next))), ()
        case HookEnded("post-stop", run, problem) if run == state.run:
            slot, effects = moves.rest(spec, slot, state.next, now)
            return slot, (*((Say(f"its post-stop hook: {problem}"),) if problem else ()), *effects)
        case (
            TimeUp() | Adopted() | BecameReady() | Failing() | HookEnded() | Died() | TreeEmpty()
            | Held() | Cleared() | Barred() | Cancelled()
        ):  # fmt: skip
            return slot, ()
        case Spawned() | SpawnFailed() | SpawnLost():
            impossible(state, event)
        case _:
            assert_never(event)


def _down(spec: ServiceSpec, rest: Rest) -> Rest:
    """What something that has ended, or is ending, rests in when a stop is asked. A one-shot has done nothing then."""
    return rest if isinstance(rest, Exited) and spec.ready_kind != "exit" else Stopped()


def work_until(process: Process) -> float | None:
    """When a one-shot is given up; None where it may take its time."""
    limit = process.spec.ready_timeout
    return process.started + limit if limit else None


def ready_until(process: Process) -> float:
    """When a process that was just spawned is ready, or has failed to be."""
    spec = process.spec
    return process.started + (spec.ready_after if spec.ready_kind == "after" else spec.ready_timeout)
