"""Starting is recovering: from the facts of privileged, and what the last supervisor wrote, to what is.

Rule 1: a fact is believed, what was written only explains it: a process that runs is taken over, never doubled.
Rule 2: what was written and is damaged, or of a daemon that was being shut down and is gone, counts for nothing.
Rule 3: pure: the events that it returns go through lifecycle like any others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, cast

import msgspec
from msgspec.structs import replace

from rootd.supervisor.exits import Exit
from rootd.supervisor.files import UNREADABLE
from rootd.supervisor.inflight import SavedOperation
from rootd.supervisor.lifecycle import ready_until, work_until
from rootd.supervisor.readiness import SAY
from rootd.supervisor.timetable import Job

# isort: off
from rootd.supervisor.states import (
    Adopted, Backoff, BecameReady, Cleaning, Emptying, Event, Exited, Fatal, Leg, Living, Preparing, Process,
    Replacing, Rest, Running, Settling, Slot, Spawned, Spawning, SpawnLost, Starting, StopAsked,
    Stopped, Stopping, TreeEmpty, Waiting, Wanted, Working, legs, runs,
)  # fmt: skip
# isort: on

if TYPE_CHECKING:
    from rootd.config.specs import ServiceSpec

VERSION = 1
MOMENT = 1.0  # seconds that one whose time to become ready has passed meanwhile has to be heard, or probed once more
LATE = 10.0  # seconds after which one that was not ready in its time would have been ended, had somebody been there


class SavedRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    run: int
    digest: str  # of the configuration that it was spawned with
    ready: bool = False
    stopping: bool = False


class SavedSlot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What facts cannot tell of one slot."""

    wanted: Wanted
    runs: tuple[SavedRun, ...] = ()
    left: tuple[int, ...] = ()  # runs that have ended and are to be followed by a post-stop hook
    crashes: tuple[float, ...] = ()
    attempt: int = 0
    fatal: str = ""
    exited: Exit | None = None
    clean: bool = False
    exits: tuple[str, ...] = ()
    shown: tuple[str, str, int] = ("", "", 0)  # since when people have seen which state and pid


class Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The state file. slots are named service:instance."""

    version: int = VERSION
    life: int = 0  # of the daemon: another number is another daemon's file
    ending: bool = False  # a shutdown is under way
    status: int = 0  # that the daemon ends with then
    operation: int = 0
    event: int = 0
    slots: dict[str, SavedSlot] = {}
    scaled: dict[str, tuple[int, int]] = {}  # service -> how many processes it is to have, and had configured then
    jobs: dict[str, Job] = {}  # what of the schedules is dealt with
    operations: tuple[SavedOperation, ...] = ()  # what is under way


class _Version(msgspec.Struct, frozen=True):
    """Of a file that may say more than we know."""

    version: int = VERSION


class Rebuilt(msgspec.Struct, frozen=True):
    slot: Slot
    events: tuple[Event, ...] = ()
    strays: tuple[int, ...] = ()  # runs that there is no place for: their trees are to be killed


def read(data: bytes) -> tuple[Saved, str]:
    """What was written, and a sentence on what is wrong with it ("" when nothing is)."""
    if not data:
        return Saved(), ""
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version != VERSION:
            return Saved(), f"the state file is of version {version} and not used, only what runs counts"
        saved = msgspec.json.decode(data, type=Saved)
    except UNREADABLE as error:
        return Saved(), f"the state file is damaged and not used, only what runs counts: {error}"
    return saved, ""


def write(saved: Saved) -> bytes:
    return msgspec.json.encode(saved)


def of_another_daemon(saved: Saved, scheduled: Collection[str]) -> Saved:
    """What counts of the file of a daemon that is gone, with all that it ran: a one-shot that it had begun begins anew,
    but for a run of what is scheduled.
    """
    slots = {
        label: one if label.rpartition(":")[0] in scheduled
        else replace(one, runs=(), left=(*one.left, *(run.run for run in one.runs)))
        for label, one in saved.slots.items()
    }  # fmt: skip
    return replace(saved, slots=slots)


def save(slot: Slot, exits: Iterable[str], shown: tuple[str, str, int]) -> SavedSlot:
    """What facts will not tell."""
    end = _rest_of(slot)
    return SavedSlot(
        slot.wanted,
        tuple(_save_run(part) for part in legs(slot.state) if isinstance(part, Living)),
        tuple(run for run in map(_to_follow, legs(slot.state)) if run is not None),
        slot.crashes,
        slot.attempt,
        end.reason if isinstance(end, Fatal) else "",
        end.exit if isinstance(end, Exited) else None,
        isinstance(end, Exited) and end.clean,
        tuple(exits),
        shown,
    )


def _save_run(part: Living) -> SavedRun:
    process = part.process
    return SavedRun(process.run, process.spec.digest, isinstance(part, Running), isinstance(part, Stopping))


def _to_follow(part: Leg | Rest | Waiting) -> int | None:
    """The run that has ended and is not followed by its post-stop hook yet, or by all of it."""
    match part:
        case Emptying(process) if process.spec.has("post-stop"):
            return process.run
        case Cleaning(_, run):
            return run
        case _:
            return None


def _rest_of(slot: Slot) -> Rest | None:
    match slot.state:
        case Stopping(next=rest) | Emptying(next=rest) | Cleaning(next=rest):
            return rest
        case Stopped() | Backoff() | Exited() | Fatal() as rest:
            return rest
        case _:
            return None


def rebuild(
    spec: ServiceSpec, saved: SavedSlot | None, found: list[Process], now: float,
    left: Collection[int] = (), alone: bool = True, said: Collection[int] = (),
) -> Rebuilt:  # fmt: skip
    """A slot at the start of the supervisor. found: its runs that are not over, the oldest first.

    left: those runs of which the end is known, and only their trees are not empty. alone: no hook of it runs. A hook
    that should follow a run that is over may have been run: better twice than never. said: runs that have said that
    they are ready.
    """
    over = [process for process in found if process.run in left]
    rebuilt = _rebuild(spec, saved, [process for process in found if process.run not in left], now, said)
    slot, strays = rebuilt.slot, tuple(process.run for process in over)
    if over and isinstance(slot.state, Rest):
        return Rebuilt(replace(slot, state=Emptying(over[-1], now, 0, slot.state)), (), strays[:-1])
    ended = () if saved is None else (*(run.run for run in saved.runs), *saved.left)
    if ended and alone and isinstance(slot.state, Rest) and spec.has("post-stop"):
        gone = Emptying(Process(ended[-1], 0, 0.0, spec), now, 0, slot.state)
        return Rebuilt(replace(slot, state=gone), (TreeEmpty(ended[-1]),))
    return replace(rebuilt, strays=(*rebuilt.strays, *strays))


def _rebuild(
    spec: ServiceSpec, saved: SavedSlot | None, processes: list[Process], now: float, said: Collection[int]
) -> Rebuilt:
    wanted: Wanted = "up" if (spec.autostart and spec.schedule is None) or processes else "down"
    slot = Slot(wanted)
    if saved is not None:
        slot = Slot(saved.wanted, crashes=tuple(at for at in saved.crashes if at <= now), attempt=saved.attempt)
    known = {}
    if saved is not None:  # what was spawned since it was written is not ready either, as far as it has not said so
        known = {process.run: SavedRun(process.run, process.spec.digest) for process in processes}
        known |= {run.run: run for run in saved.runs}
    once = spec.ready_kind == "exit" and slot.wanted == "up"
    if not processes and once and saved and saved.runs and not saved.exited:
        return Rebuilt(replace(slot, state=Exited(Exit(None), clean=False)))  # it ran: it is not run again for that
    if not processes:
        return Rebuilt(replace(slot, state=_at_rest(slot, saved, now)))
    if len(processes) == 1:
        was = known.get(processes[0].run)
        slot = replace(slot, state=_taken_over(processes[0], was, now))
        if slot.wanted == "down":
            return Rebuilt(slot, (StopAsked(),))
        if was is not None and was.stopping:
            return Rebuilt(replace(slot, state=_told_again(processes[0], _at_rest(slot, saved, now), now)))
        says_no_more = isinstance(slot.state, Starting) and _has_said(processes[0], said, now)
        return Rebuilt(slot, (BecameReady(processes[0].run),) if says_no_more else ())
    old, new = processes[-2:]
    return _two(slot, old, new, known, tuple(process.run for process in processes[:-2]), now, said)


def _told_again(process: Process, at: Rest, now: float) -> Stopping:
    """It was told to end, but may not have heard: the signal is sent again at once. A stop command has its time."""
    spec = process.spec
    then = ((spec.stop_signal, spec.stop_timeout), *spec.stop_then)
    return Stopping(process, now + spec.stop_timeout if spec.has("stop") else now, 0, at, then)


def _two(
    slot: Slot, old: Process, new: Process, known: dict[int, SavedRun], strays: tuple[int, ...], now: float,
    said: Collection[int],
) -> Rebuilt:  # fmt: skip
    """A rolling restart was under way."""
    was_old, was_new = known.get(old.run), known.get(new.run)
    leg: Leg = _starting(new, now)
    events: tuple[Event, ...] = ()
    if slot.wanted == "down":
        events = (StopAsked(),)
    elif was_new is not None and was_new.stopping:
        leg = Stopping(new, now + new.spec.stop_timeout, 0, Backoff(now), new.spec.stop_then)
    elif (
        (was_new is not None and was_new.ready)
        or (was_old is not None and was_old.stopping)
        or _has_said(new, said, now)
    ):
        events = (BecameReady(new.run),)
    return Rebuilt(replace(slot, state=Replacing(Running(old, old.started), leg)), events, strays)


def with_errand(slot: Slot, part: str, spec: ServiceSpec) -> tuple[Slot, int | None]:
    """A rebuilt slot for which a hook or a command was found to run, and which run that is about.

    None: nobody waits for it any more, it is to be killed. spec: the configuration that it is of.
    """
    state = slot.state
    old, new = (state.old, state.new) if isinstance(state, Replacing) else (state, None)
    last = new or old
    match part:
        case "pre-start" if isinstance(state, Rest):
            next_ = None if slot.wanted == "up" else state
            return replace(slot, state=Preparing(spec, next_)), 0
        case "pre-start" if isinstance(state, Running) and slot.wanted == "up":
            return replace(slot, state=Replacing(state, Preparing(spec))), 0
        case "post-start" if isinstance(last, Starting | Running):
            settling = Settling(last.process)
            changed = Replacing(cast(Leg, old), settling) if new is not None else settling
            return replace(slot, state=changed), last.process.run
        case "stop" if isinstance(old, Living):
            return slot, old.process.run
        case "post-stop" if isinstance(state, Rest):
            return replace(slot, state=Cleaning(spec, 0, state)), 0
        case "post-stop" if isinstance(state, Starting | Running):
            return replace(slot, state=Replacing(Cleaning(spec, 0, Backoff(0.0)), state)), 0
        case _:
            return slot, None


def _at_rest(slot: Slot, saved: SavedSlot | None, now: float) -> Rest:
    if saved is not None and saved.exited is not None:
        return Exited(saved.exited, saved.clean)
    if slot.wanted == "down":
        return Stopped()
    return Fatal(saved.fatal) if saved is not None and saved.fatal else Backoff(now)


def _taken_over(process: Process, was: SavedRun | None, now: float) -> Running | Starting | Working:
    """was: None when facts count alone, and one that runs is ready. What was not ready yet is heard or probed for the
    rest of its time, and what has a post-start hook gets it (again).
    """
    until, spec = ready_until(process), process.spec
    if spec.ready_kind == "exit":
        return Working(process, work_until(process))
    if spec.ready_kind == "after" and now < until:
        return Starting(process, until)
    if was is not None and not was.ready and (spec.ready_kind != "after" or spec.has("post-start")):
        return _starting(process, now)
    return Running(process, process.started)


def _starting(process: Process, now: float) -> Starting:
    until = ready_until(process)
    return Starting(process, until if process.spec.ready_kind == "after" else max(until, now + MOMENT))


def _has_said(process: Process, said: Collection[int], now: float) -> bool:
    """Whether it has said that it is ready; also when that could not be written down, for days perhaps."""
    return process.spec.ready_kind in SAY and (process.run in said or now >= ready_until(process) + LATE)


def reconcile(slot: Slot, processes: list[Process], now: float) -> Rebuilt:
    """A slot that is known, when privileged was started again. processes: those that run, the oldest first.

    A SPAWN that was asked is either among them or lost; a run that is not among them is over.
    """
    mine = runs(slot.state)
    strangers = [process for process in processes if process.run not in mine]
    found = {process.run for process in processes}
    events: list[Event] = []
    if any(isinstance(part, Spawning) for part in legs(slot.state)):
        if strangers:
            process = strangers.pop()
            events.append(Spawned(process.run, process.pid, process.started))
        else:
            events.append(SpawnLost())
    elif strangers and not mine:
        process = strangers.pop()
        slot = replace(slot, state=_taken_over(process, None, now))
        if slot.wanted == "down":
            events.append(StopAsked())
    events += [Adopted(p.run, p.pid) for p in processes if p.run in mine and mine[p.run].pid != p.pid]
    events += [TreeEmpty(run) for run in mine if run not in found]
    return Rebuilt(slot, tuple(events), tuple(process.run for process in strangers))
