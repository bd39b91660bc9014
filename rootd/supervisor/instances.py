"""One process slot with everything that people see of it beside its state: since when, how it ended, what it says.

Rule: nothing is decided here, and lifecycle knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from policy.messages import ProcessInfo, ServiceInfo
from rootd.supervisor import recover, states
from rootd.supervisor.exits import Exit, words

if TYPE_CHECKING:
    from rootd.config.specs import ServiceSpec
    from rootd.supervisor.operations import Operation

EXITS_LIMIT = 10  # ends that are remembered of each
SLOTS = 1024  # slot = entry * SLOTS + instance
CHANGED = "configuration changed on disk"

Key = tuple[str, int]  # service, instance


class Instance:
    """Owned by services, which alone changes it. There are thousands: what is mostly empty is shared."""

    __slots__ = (
        "_saved", "adopt_pause", "adopted_at", "adopted_run", "due", "end", "exits", "index", "last_exit", "operation",
        "plan", "refused", "removed", "since", "slot", "spec", "status", "told",
    )  # fmt: skip

    def __init__(self, spec: ServiceSpec, index: int, slot: states.Slot, since: str) -> None:
        self.spec = spec
        self.index = index
        self.slot = slot
        self.since = since  # when the shown state began
        self.exits: tuple[str, ...] = ()  # newest first, each with its time
        self.last_exit = ""
        self.end: Exit | None = None  # the same as a value, as far as this supervisor has seen it
        self.status: dict[int, str] = {}  # the service's own words, by the run
        self.refused = 0  # the run whose MAINPID was refused last
        self.adopted_run = 0  # that changed its main process last
        self.adopted_at = self.adopt_pause = 0.0  # when another process became the main one, and until the next may
        self.removed = False  # no longer configured: forgotten once nothing of it runs
        self.operation: Operation | None = None
        self.due: float | None = None
        self.told: tuple[str, int, str] = ("", 0, "")  # what was published last
        self.plan = ""  # when it runs next, where it is scheduled
        self._saved: tuple[states.Slot, recover.SavedSlot] | None = None

    @property
    def key(self) -> Key:
        return self.spec.name, self.index

    @property
    def label(self) -> str:
        return self.spec.name if self.spec.max_processes == 1 else f"{self.spec.name}:{self.index}"

    def says(self, text: str) -> str:
        """With its name before it, where its service may have several processes."""
        return text if self.spec.max_processes == 1 else f"{self.label}: {text}"

    @property
    def number(self) -> int:
        """The slot of the next spawn, in the current generation."""
        return self.spec.entry * SLOTS + self.index

    def at_rest(self) -> bool:
        """Nothing of it runs or is awaited."""
        return isinstance(self.slot.state, states.Stopped | states.Exited | states.Fatal | states.Backoff)

    def outdated(self) -> bool:
        """Whether it runs with another configuration than its next process will."""
        running = states.runs(self.slot.state).values()
        return bool(running) and all(process.spec.digest != self.spec.digest for process in running)

    def shown(self) -> tuple[str, int, str]:
        """State, pid and text, as people see them."""
        part = states.shown(self.slot.state)
        state, why = states.public(part), states.reason(part)
        if isinstance(part, states.Living):
            return state, part.process.pid, self._with_plan(why or self.status.get(part.process.run, ""))
        is_done = isinstance(part, states.Exited) and part.clean and self.spec.ready_kind == "exit"
        return state, 0, self._with_plan(why or ("done" if is_done else ""))

    def _with_plan(self, text: str) -> str:
        return "; ".join(filter(None, (text, self.plan)))

    def info(self) -> ProcessInfo:
        state, pid, text = self.told
        return ProcessInfo(self.label, state, pid, self.since, self.last_exit, text)

    def note_end(self, event: states.Event, before: states.State, wall: Callable[[], str]) -> None:
        """Remember how it ended, once."""
        match event:
            case states.Died(run, end) if process := _living(before, run):
                said = words(end, process.spec)
            case states.TreeEmpty(run) if process := _living(before, run):
                end = Exit(None)
                said = words(end, process.spec)
            case states.SpawnFailed(end):
                said = words(end, self.spec)
            case _:
                return
        self.end = end
        self.last_exit = said
        self.exits = (f"{wall()} {said}", *self.exits[: EXITS_LIMIT - 1])

    def save(self) -> recover.SavedSlot:
        if self._saved is None or self._saved[0] is not self.slot:
            self._saved = self.slot, recover.save(self.slot, self.exits, (self.since, *self.told[:2]))
        return self._saved[1]

    def remember(self, saved: recover.SavedSlot) -> None:
        """The ends that the last supervisor knew of, and since when the slot was what it was."""
        self.since, state, pid = saved.shown
        self.told = state, pid, ""
        self.exits = saved.exits[:EXITS_LIMIT]
        self.last_exit = self.exits[0].partition(" ")[2] if self.exits else ""


def service_info(spec: ServiceSpec, instances: list[Instance]) -> ServiceInfo:
    """A service as its processes are: the worst of their states."""
    processes = [instance.info() for instance in instances]
    shown = {process.state for process in processes}
    scaled = "" if len(instances) == spec.processes else f"{counted(len(instances))}, configured {spec.processes}"
    outdated = CHANGED if any(instance.outdated() for instance in instances) else ""
    return ServiceInfo(
        name=spec.name,
        state=next(state for state in states.CODES if state in shown),
        wanted="up" if any(instance.slot.wanted == "up" for instance in instances) else "down",
        processes=processes,
        groups=list(spec.groups),
        text="; ".join(filter(None, (scaled, outdated))),
        enabled=spec.autostart,
    )


def counted(number: int) -> str:
    return f"{number} process" if number == 1 else f"{number} processes"


def _living(state: states.State, run: int) -> states.Process | None:
    return next((process for process in states.alive(state) if process.run == run), None)
