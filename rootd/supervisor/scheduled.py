"""Scheduled services: between the timetable, which says what is due, and the slots that run it.

Rule 1: a run begins as if somebody had asked for it, but nobody waits for it: what it comes to is shown, and an event.
Rule 2: one run at a time: what comes due while one is not over is left out, and that is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from policy.messages import ServiceInfo
from rootd.supervisor import states
from rootd.supervisor.operations import Kind, Operations
from rootd.supervisor.slots import Slots
from rootd.supervisor.timetable import Timetable, utc

if TYPE_CHECKING:
    from rootd.config.specs import ServiceSpec


class Scheduled:
    """clock: the wall clock, in seconds since 1970."""

    def __init__(self, slots: Slots, operations: Operations, clock: Callable[[], float]) -> None:
        self.timetable = Timetable(self._begin, self._show, self._tell)
        self._slots, self._operations, self._clock = slots, operations, clock
        self._specs: Mapping[str, ServiceSpec] = {}

    def load(self, specs: Mapping[str, ServiceSpec], now: float) -> None:
        """What is configured, with people's choices, from now on. Their slots have been made."""
        self._specs = specs
        self.timetable.load(specs, now, self._clock())
        for name in specs:
            self._show(name)

    def turned(
        self, old: Mapping[str, ServiceSpec], new: Mapping[str, ServiceSpec], changed: Iterable[str]
    ) -> dict[str, Kind]:
        """What runs and is scheduled now ends, and what is scheduled no more starts."""
        found: dict[str, Kind] = {}
        for name in changed:
            if new[name].schedule is not None and old[name].schedule is None:
                found[name] = "stop"
            elif old[name].schedule is not None and new[name].schedule is None and new[name].autostart:
                found[name] = "restart"
        return found

    def wake_at(self) -> float | None:
        return self.timetable.wake_at()

    def wake(self, now: float) -> None:
        """Not before the facts are known, nor while the daemon ends."""
        self.timetable.wake(now, self._clock())

    def info(self, info: ServiceInfo) -> ServiceInfo:
        """With the next time, and what was not run."""
        due, counts = self.timetable.next(info.name), self.timetable.counts(info.name)
        return info if due is None else replace(info, next=utc(due), text="; ".join(filter(None, (info.text, counts))))

    def _begin(self, name: str, now: float) -> str:
        """Its time has come. Returns why it cannot run now, if so."""
        for one in self._slots.configured(name):
            if not one.at_rest():
                return "the one before is not over"
            self._slots.apply(one, states.StartAsked(), now)
        return ""

    def _show(self, name: str) -> None:
        """People see when it runs next."""
        spec = self._specs.get(name)
        for one in self._slots.configured(name):
            plan = self.timetable.plan(name) if spec is not None and spec.schedule is not None else ""
            if plan != one.plan:
                one.plan = plan
                self._slots.show(one)

    def _tell(self, name: str, text: str) -> None:
        for one in self._slots.configured(name):
            self._operations.changed(name, one.label, *one.told[:2], text)
