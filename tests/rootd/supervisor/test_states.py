"""Every short history there is of one slot: what is promised holds in each state, and each comes to what is wanted."""

# ruff: noqa: I001 (the names of states, many to a line)
from __future__ import annotations

import errno
from typing import Any, get_args

import pytest

from rootd import ipc
from rootd.config.specs import ServiceSpec
from rootd.supervisor import lifecycle, mentions, states
from rootd.supervisor.exits import Exit
from rootd.supervisor.states import (
    Adopted, Backoff, Barred, BecameReady, Cancelled, Cleaning, Cleared, Died, Effect, Emptying, EndHook, Event,
    Exited, Failing, Fatal, Held, HookEnded, Preparing, Process, Replacing, RestartAsked, RunHook, Running, Settling,
    Signal, Slot, Spawn, Spawned, SpawnFailed, Spawning, SpawnLost, StartAsked, Starting, StopAsked, Stopped,
    Stopping, TimeUp, TreeEmpty, Waiting, Working, alive, legs, runs,
)  # fmt: skip

OK, CRASH = Exit(0), Exit(1)
FAILURE = Exit(None, failure=errno.EAGAIN << 8 | ipc.STEPS.index("fork"))
ASKED: list[Event] = [StartAsked(), StopAsked(), RestartAsked(), RestartAsked(hard=True)]
HOOKED = (("pre-start", 6), ("post-start", 7), ("stop", 8), ("post-stop", 9))
REST = Stopped | Exited | Fatal | Backoff


def may_happen(slot: Slot, run: int, now: float) -> list[tuple[Event, float]]:
    """Everything that can come next, and after how long: every order, every loss, news of runs that are over."""
    found: list[Event] = [*ASKED, Cancelled(), Died(0, CRASH), Held(("db",)), Cleared(), Barred("no db")]
    found.append(HookEnded("stop", 99, "x"))
    if any(isinstance(part, Spawning) for part in legs(slot.state)):
        found += [Spawned(run, run, now), SpawnFailed(FAILURE), SpawnLost()]
    for known in runs(slot.state):
        found += [
            Adopted(known, known + 5000),
            BecameReady(known),
            Died(known, OK),
            Died(known, CRASH),
            TreeEmpty(known),
            Failing(known, "bad"),
        ]
    found += [HookEnded(*hook, problem) for hook in hooks(slot.state) for problem in ("", "exit status 1")]
    return [*((event, 0.0) for event in found), (TimeUp(), 2.0), (TimeUp(), 40.0)]


def hooks(state: states.State) -> list[tuple[states.Hook, int]]:
    """The hooks that run."""
    found: list[tuple[states.Hook, int]] = []
    for part in legs(state):
        match part:
            case Preparing():
                found.append(("pre-start", 0))
            case Settling(process):
                found.append(("post-start", process.run))
            case Stopping(process) if process.spec.has("stop"):
                found.append(("stop", process.run))
            case Cleaning(_, run):
                found.append(("post-stop", run))
    return found


def check(before: Slot, event: Event, after: Slot, effects: tuple[Effect, ...]) -> None:
    was = runs(before.state).keys() | ({event.run} if isinstance(event, Spawned) else set())
    assert all(effect.run in was for effect in effects if isinstance(effect, Signal))
    begun = {(effect.hook, effect.run) for effect in effects if isinstance(effect, RunHook)}
    ended = {(event.hook, event.run)} if isinstance(event, HookEnded) else set()
    unwanted = {(effect.hook, effect.run) for effect in effects if isinstance(effect, EndHook)}
    left = {*hooks(before.state), *begun} - {*hooks(after.state), *ended, *unwanted}
    assert {hook for hook, _ in left} <= {"stop"}, "a hook that nobody waits for"
    assert begun <= {*hooks(after.state)}
    spawning = [part for part in legs(after.state) if isinstance(part, Spawning | Preparing)]
    mains = {process.run for process in alive(after.state)}
    asked = [effect for effect in effects if isinstance(effect, Spawn)]
    assert len(asked) <= len(spawning) <= 1
    assert len(mains) + len(spawning) <= (2 if isinstance(after.state, Replacing) else 1)
    if asked and not isinstance(event, SpawnLost):
        beside = [part for part in legs(after.state) if not isinstance(part, Spawning)]
        prepared = any(isinstance(part, Preparing) for part in legs(before.state))
        assert prepared or all(isinstance(part, Running) for part in beside), "spawned beside what does not serve"
        assert after.wanted == "up"
    assert not (isinstance(after.state, REST) and runs(after.state))
    if isinstance(event, Cancelled):
        serving = {part.process.run for part in legs(before.state) if isinstance(part, Running)}
        assert serving == {part.process.run for part in legs(after.state) if isinstance(part, Running)}
        assert not any(isinstance(effect, Signal) and effect.run in serving for effect in effects)
        assert after.wanted == before.wanted or isinstance(before.state, Waiting | Preparing)
    if isinstance(before.state, Waiting):
        assert not asked or isinstance(event, Cleared), "spawned before its turn"
    if after.wanted == "down":
        assert not any(
            isinstance(part, Running | Starting | Working | Settling | Backoff | Waiting) for part in legs(after.state)
        )
    assert not isinstance(event, StopAsked) or after.wanted == "down"
    assert not isinstance(event, StartAsked | RestartAsked) or after.wanted == "up"
    if isinstance(event, Adopted):
        assert (effects, runs(after.state).keys()) == ((), runs(before.state).keys())
        assert all(process.pid == event.pid for run, process in runs(after.state).items() if run == event.run)
    if isinstance(event, Died) and event.run in was:
        assert event.run not in mains
        assert Signal(event.run, 9, tree=True) in effects, "an exit must be acknowledged"


def settle(of: ServiceSpec, slot: Slot, now: float) -> Slot:
    """What comes of it when nothing more is asked: spawns succeed, signals are ignored but for SIGKILL."""
    run = 1000
    for _ in range(60):
        events: list[Event] = []
        for part in legs(slot.state):
            match part:
                case Waiting():
                    events.append(Cleared())
                case Spawning():
                    run += 1
                    events.append(Spawned(run, run, now))
                case Starting(process) if of.ready_kind != "after":
                    events.append(BecameReady(process.run))
                case Working(process):
                    events.append(Died(process.run, OK))
                case Stopping(process, _, kills) if kills:
                    events.append(Died(process.run, Exit(-9)))
                case Emptying(process):
                    events.append(TreeEmpty(process.run))
        events += [HookEnded(*hook, "") for hook in hooks(slot.state)]
        now += 11.0
        before = slot
        for event in [*events, TimeUp()]:
            slot = lifecycle.step(of, slot, event, now)[0]
        if slot == before and not events and states.wake_at(slot.state) is None:
            break  # nothing can come any more
    return slot


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ready_kind": "notify", "shared": True, "limit_count": 2},
        {"ready_kind": "fd"},
        {"shared": True, "restart_policy": "never"},
        {"shared": True, "restart_policy": "on-failure"},
        {"requires": ("db",), "shared": True},
        {"stop_then": ((2, 5.0), (3, 5.0)), "shared": True},
        {"parts": (("pre-start", 8), ("post-stop", 9)), "shared": True, "limit_count": 2},
        {"parts": (("post-start", 8), ("stop", 9)), "shared": True, "limit_count": 2, "ready_kind": "probe"},
        {"parts": HOOKED, "requires": ("db",), "shared": True, "limit_count": 2},
        {"ready_kind": "exit", "ready_timeout": 0.0, "restart_policy": "never", "shared": True},
        {"ready_kind": "exit", "restart_policy": "on-failure", "parts": (("pre-start", 8), ("stop", 9))},
    ],
    ids="plain notify newline never on-failure ordered patient around beside hooked one-shot one-shot-hooked".split(),
)
def test_every_short_history_keeps_its_promises_and_comes_to_what_is_wanted(spec: Any, changes: dict[str, Any]) -> None:
    """All histories of up to eight events, and its turn, each slot once; the time is looked at after 2 s or 40 s."""
    of = spec(**changes)
    found: dict[Slot, float] = {Slot(): 100.0}
    edge = [(Slot(), 100.0, 1)]
    for _ in range(
        8 + bool(of.requires) + (2 if of.requires and of.parts else bool(of.parts))
    ):  # a turn and hooks are further events
        further = []
        for slot, now, run in edge:
            for event, delay in may_happen(slot, run, now):
                after, effects = lifecycle.step(of, slot, event, now + delay)
                check(slot, event, after, effects)
                if after not in found:
                    found[after] = now + delay
                    further.append((after, now + delay, run + isinstance(event, Spawned)))
        edge = further
    assert len(found) > (150 if of.ready_kind == "exit" else 500)  # a one-shot is nothing between its spawn and its end
    for slot, now in found.items():
        rest = settle(of, slot, now)
        expected = Stopped | Exited if slot.wanted == "down" else Running | Exited | Fatal
        assert isinstance(rest.state, expected), (slot, rest)
        stopped = settle(of, lifecycle.step(of, slot, StopAsked(), now)[0], now)
        assert isinstance(stopped.state, Stopped | Exited)
        started = settle(of, lifecycle.step(of, slot, StartAsked(), now)[0], now)
        assert isinstance(started.state, Running | Fatal | Exited)


def test_every_event_is_known_to_the_exhaustive_histories(History: Any) -> None:
    hooked = History(parts=HOOKED)(StartAsked())
    slots = [History()(StartAsked()).slot, History().running().slot, hooked.slot]
    tried = {type(event) for slot in slots for event, _ in may_happen(slot, 9, 100.0)}
    assert tried == set(get_args(Event))


def test_the_public_states_are_supervisors_and_every_state_has_one(spec: Any) -> None:
    assert states.CODES == {
        "STOPPED": 0, "STARTING": 10, "RUNNING": 20, "BACKOFF": 30, "STOPPING": 40, "EXITED": 100, "FATAL": 200,
        "UNKNOWN": 1000,
    }  # fmt: skip
    process = Process(1, 2, 3.0, spec())
    for part, public, reason in [
        (Stopped(), "STOPPED", ""),
        (Backoff(1.0), "STOPPED", ""),
        (Backoff(1.0, "why"), "BACKOFF", "why"),
        (Exited(OK, clean=True), "EXITED", ""),
        (Fatal("why"), "FATAL", "why"),
        (Waiting(), "STARTING", ""),
        (Waiting(("db", "cache")), "STARTING", "waits for db, cache"),
        (Spawning(spec()), "STARTING", ""),
        (Preparing(spec()), "STARTING", "its pre-start hook runs"),
        (Starting(process, 1.0), "STARTING", ""),
        (Working(process, None), "RUNNING", "at work"),
        (Settling(process), "STARTING", "its post-start hook runs"),
        (Running(process, 1.0), "RUNNING", ""),
        (Stopping(process, 1.0, 0, Backoff(1.0, "why")), "STOPPING", "why"),
        (Emptying(process, 1.0, 0, Stopped()), "STOPPING", ""),
        (Emptying(process, 1.0, 0, Backoff(1.0)), "STOPPING", ""),
        (Emptying(process, 1.0, 0, Backoff(1.0, "why")), "BACKOFF", "why"),
        (Emptying(process, 1.0, 0, Fatal("why")), "FATAL", "why"),
        (Cleaning(spec(), 1, Stopped()), "STOPPING", "its post-stop hook runs"),
        (Cleaning(spec(), 1, Backoff(1.0)), "STOPPING", "its post-stop hook runs"),
        (Cleaning(spec(), 1, Fatal("why")), "FATAL", "why; its post-stop hook runs"),
    ]:
        assert (states.public(part), mentions.plain(states.reason(part))) == (public, reason)


def test_of_two_processes_people_see_the_one_that_serves(History: Any) -> None:
    h = History(shared=True).rolling().spawned()
    assert states.shown(h.state) == h.state.old
    h.later(1.0)
    assert states.shown(h.state) == h.state.new
    h(StopAsked())
    assert isinstance(states.shown(h.state), Stopping)


def test_a_state_wakes_at_its_own_time_and_two_at_the_earlier_one(History: Any, spec: Any) -> None:
    process = Process(1, 2, 3.0, spec())
    for state, at in [
        (Stopped(), None),
        (Exited(OK, clean=True), None),
        (Fatal(""), None),
        (Waiting(("db",)), None),
        (Spawning(spec()), None),
        (Running(process, 1.0), None),
        (Preparing(spec()), None),
        (Settling(process), None),
        (Cleaning(spec(), 1, Stopped()), None),
        (Backoff(7.0), 7.0),
        (Starting(process, 7.0), 7.0),
        (Working(process, 7.0), 7.0),
        (Working(process, None), None),
        (Stopping(process, 7.0, 0, Stopped()), 7.0),
        (Emptying(process, 7.0, 0, Stopped()), 7.0),
        (Replacing(Running(process, 1.0), Spawning(spec())), None),
        (Replacing(Stopping(process, 8.0, 0, Stopped()), Stopping(process, 7.0, 0, Stopped())), 7.0),
    ]:
        assert states.wake_at(state) == at
