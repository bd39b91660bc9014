"""Which scheduled service is due: its schedule against the wall clock, which may be set to anything at any moment.

Rule 1: pure: both clocks are arguments. The wall clock says what is due, CLOCK_BOOTTIME only when to look again.
Rule 2: for one time of a schedule there is one run at most, and for all that were missed together one at most.
Rule 3: a time that passes without a run is counted and told, never lost in silence.

Times of the wall clock are seconds since 1970, `now` is seconds of CLOCK_BOOTTIME.
Sources: cron(8) of Debian for a clock that is set, systemd.timer(5) Persistent= for what was missed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec.structs import replace

if TYPE_CHECKING:
    from rootd.config.schedules import Schedule
    from rootd.config.specs import ServiceSpec

GRACE = 60.0  # seconds: what comes no later than that has come in time
LOOK = 60.0  # seconds after which the wall clock is looked at again: it may have been set, or the machine have slept
BACK = 3 * 3600.0  # seconds by which a clock may be set back and repeat nothing, as cron has it
COUNTED = 100  # times that are counted one by one: of more it is said that they are more


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One service's: all times up to `handled` are dealt with, `due` is the next (None: there is none)."""

    schedule: str  # by which that is so; of another one nothing has been missed
    handled: float
    due: float | None = None
    skipped: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] = 0
    missed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] = 0


class Look(msgspec.Struct, frozen=True):
    """What has come: run: the time for which to run; missed: how many have come that nobody will run for."""

    job: Job
    run: float | None = None
    missed: int = 0


def look(schedule: Schedule, job: Job, wall: float) -> Look:
    """What is to be done, when the wall clock says that."""
    if wall < job.handled:
        pause = BACK if job.due is None else min(BACK, job.due - job.handled)
        return Look(job if job.handled - wall <= pause else _from(schedule, job, wall))
    if job.due is None or wall < job.due:
        return Look(job)
    passed = [job.due, *_until(schedule, job.due, wall, COUNTED - 1)]
    last = passed[-1]
    if len(passed) == COUNTED:
        last = [last, *_until(schedule, max(last, wall - GRACE), wall, COUNTED)][-1]
    runs = wall - last <= GRACE or schedule.missed == "once"
    return Look(_from(schedule, job, wall), last if runs else None, len(passed) - runs)


def _until(schedule: Schedule, after: float, wall: float, most: int) -> list[float]:
    """The times between the two, so many at most."""
    return list(takewhile(lambda at: at <= wall, islice(schedule.times(after), most)))


def _from(schedule: Schedule, job: Job, wall: float) -> Job:
    return replace(job, handled=wall, due=schedule.after(wall))


def utc(at: float) -> str:
    """RFC 3339, as all times that programs are told."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def counted(missed: int) -> str:
    return f"{missed}{' or more' if missed >= COUNTED - 1 else ''}"


class Timetable:
    """begin: starts a run, or says why not. show: what people see of a service's schedule, or that something happened.

    seed: of what is by chance, and for this machine always the same.
    """

    def __init__(
        self, begin: Callable[[str, float], str], show: Callable[[str], None], tell: Callable[[str, str], None]
    ) -> None:
        self.seed = ""
        self.revision = 0  # grows with every change
        self.begun = 0  # grows with every job that is new, of which the next supervisor has to know
        self._begin, self._show, self._tell = begin, show, tell
        self._schedules: dict[str, tuple[Schedule, float]] = {}  # that are in force, and by how much each is later
        self._jobs: dict[str, Job] = {}
        self._saved: dict[str, Job] = {}
        self._look_at: float | None = None

    # -- what is in force --------------------------------------------------------------------------------------

    def load(self, specs: Mapping[str, ServiceSpec], now: float, wall: float) -> None:
        """What is configured, and by people's choice. One whose line is new has missed nothing."""
        before, saved, self._saved = self._jobs, self._saved, {}
        chosen = {name: spec.schedule for name, spec in specs.items() if spec.schedule is not None and spec.autostart}
        self._schedules = {name: (one, one.delay(f"{self.seed} {name}")) for name, one in chosen.items()}
        self._jobs = {}
        for name, (schedule, late) in self._schedules.items():
            line = f"{schedule.timezone} {schedule.line} +{late:g}"
            job = before.get(name) or saved.get(name)
            if job is None or job.schedule != line or job.handled < 0:  # long before any calendar nothing comes
                job, self.begun = Job(line, wall - late), self.begun + 1
            self._jobs[name] = replace(job, due=schedule.after(job.handled))
        self.revision += before != self._jobs
        self._plan(now, wall)
        for name in before.keys() | self._jobs.keys():
            self._show(name)

    def restore(self, saved: Mapping[str, Job]) -> None:
        """What was dealt with before: of two words on one service the later one counts. Told before the first load."""
        for name, job in saved.items():
            if name not in self._saved or self._saved[name].handled < job.handled:
                self._saved[name] = job

    def save(self) -> dict[str, Job]:
        return self._jobs or self._saved

    def lasting(self) -> dict[str, Job]:
        """What is to outlive the daemon: of those that catch up on what they have missed."""
        return {name: self._jobs[name] for name, (one, _) in self._schedules.items() if one.missed == "once"}

    # -- what comes --------------------------------------------------------------------------------------------

    def wake_at(self) -> float | None:
        """In CLOCK_BOOTTIME; None when nothing is scheduled."""
        return self._look_at

    def wake(self, now: float, wall: float) -> None:
        if self._look_at is None or now < self._look_at:
            return
        for name, (schedule, late) in self._schedules.items():
            job = self._jobs[name]
            found = look(schedule, job, wall - late)
            if found.job is job:
                continue
            self.revision += 1
            self._jobs[name] = replace(found.job, missed=job.missed + found.missed)
            if found.missed:
                self._tell(name, f"{counted(found.missed)} of its times passed without a run")
            why = self._begin(name, now) if found.run is not None else ""
            if why and found.run is not None:
                self._jobs[name] = replace(self._jobs[name], skipped=job.skipped + 1)
                self._tell(name, f"the run of {schedule.spelled(found.run + late)} is left out: {why}")
            self._show(name)
        self._plan(now, wall)

    def _plan(self, now: float, wall: float) -> None:
        """When to look again: at the next time, and at least each minute, as the clock may be set."""
        pauses = [LOOK] if self._jobs else []
        for name, (_, late) in self._schedules.items():
            due = self._jobs[name].due
            pauses += [] if due is None else [max(due + late - wall, 0.0)]
        self._look_at = now + min(pauses) if pauses else None

    # -- what is shown -----------------------------------------------------------------------------------------

    def next(self, name: str) -> float | None:
        """The next time of a service, of the wall clock; None when none comes."""
        job = self._jobs.get(name)
        return None if job is None or job.due is None else job.due + self._schedules[name][1]

    def job(self, name: str) -> Job | None:
        return self._jobs.get(name)

    def plan(self, name: str) -> str:
        """When it runs next, by the clock of its zone."""
        if name not in self._jobs:
            return "disabled: no run is due"
        due = self.next(name)
        return f"next at {self._schedules[name][0].spelled(due)}" if due is not None else "no run is due"

    def counts(self, name: str) -> str:
        """What was not run, in words; "" when all was."""
        job = self._jobs.get(name)
        if job is None:
            return ""
        said = (
            f"{job.skipped} left out, as one was going on" if job.skipped else "",
            f"{counted(job.missed)} missed" if job.missed else "",
        )
        return "; ".join(filter(None, said))
