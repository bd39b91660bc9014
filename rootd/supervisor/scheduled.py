"""Scheduled services: between the timetable, which says what is due, and the slots that run it.

Rule 1: a run begins as if somebody had asked for it, but nobody waits for it: what it comes to is shown, and an event.
Rule 2: one run at a time: what comes due while one is not over is left out, and that is told.
Rule 3: of those that catch up on what they have missed (missed = "once"), log keeps on disk what is dealt with. A run
        does not wait for that: where the machine stops at that moment, it is run once more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from policy.messages import ServiceInfo
from rootd import ipc
from rootd.supervisor import states
from rootd.supervisor.auditing import ERRNO_MAX
from rootd.supervisor.files import UNREADABLE
from rootd.supervisor.operations import Kind, Operations
from rootd.supervisor.slots import Slots
from rootd.supervisor.timetable import Job, Timetable, utc

if TYPE_CHECKING:
    from rootd.config.specs import ServiceSpec

NOTHING = b"{}"


class Scheduled:
    """clock: the wall clock, in seconds since 1970. say: to whoever looks after the daemon."""

    def __init__(
        self, slots: Slots, operations: Operations, clock: Callable[[], float], say: Callable[[str], None]
    ) -> None:
        self.timetable = Timetable(self._begin, self._show, self._tell)
        self._slots, self._operations, self._clock, self._say = slots, operations, clock, say
        self._specs: Mapping[str, ServiceSpec] = {}
        self._send: Callable[[ipc.Message], bool] = lambda message: False
        self._kept = NOTHING  # what log was told last, b"" where it has to be told again
        self._seen = 0  # the revision of the timetable that it is of
        self._seq = 0
        self._full = False  # whether it was said that there is more to keep than can be kept

    def attach(self, send: Callable[[ipc.Message], bool], read: Callable[[], bytes], seed: str) -> None:
        """Before the first load. send: to log; read: what it kept, raises OSError; seed: of this machine's delays."""
        self._send, self.timetable.seed = send, seed
        try:
            self._kept = read() or NOTHING
            self.timetable.restore(msgspec.json.decode(self._kept, type=dict[str, Job]))
        except (OSError, *UNREADABLE) as error:
            self._say(f"schedules.json is not used, nothing counts as missed while the daemon was down: {error}")

    def load(self, specs: Mapping[str, ServiceSpec], now: float) -> None:
        """What is configured, with people's choices, from now on. Their slots have been made."""
        self._specs = specs
        self.timetable.load(specs, now, self._clock())
        for name in specs:
            self._show(name)
        self._keep()

    def linked(self) -> None:
        """A new log: it is told again."""
        self._kept = b"" if self._kept != NOTHING else NOTHING
        self._keep()

    def kept(self, message: ipc.Message, now: float) -> None:
        """log's answer."""
        if message.arg and message.seq == self._seq:
            self._kept = b""  # with the next run it is tried again
            why = os.strerror(message.arg) if 0 < message.arg <= ERRNO_MAX else "for no reason that is known"
            self._say(f"when scheduled services ran cannot be kept: {why}")

    def _keep(self) -> None:
        text, self._seen = msgspec.json.encode(self.timetable.lasting()), self.timetable.revision
        if len(text) > ipc.BODY_LIMIT:  # what was kept before would be wrong tomorrow
            text, before, self._full = NOTHING, self._full, True
            if not before:
                self._say(
                    f'when scheduled services ran is not kept: that of all with missed = "once" takes more than'
                    f" {ipc.BODY_LIMIT} bytes; nothing counts as missed while the daemon is down"
                )
        if text == self._kept:
            return
        self._seq = self._seq % 0xFFFF_FFFF + 1
        if self._send(ipc.Message(ipc.KEEP, scope=ipc.RUNS, seq=self._seq, body=text)):
            self._kept = text

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
        if self._seen != self.timetable.revision:
            self._keep()

    def info(self, info: ServiceInfo) -> ServiceInfo:
        """With the next time, and what was not run. While its schedule is in force it is wanted."""
        due, counts = self.timetable.next(info.name), self.timetable.counts(info.name)
        text = "; ".join(filter(None, (info.text, counts)))
        return info if due is None else replace(info, wanted="up", next=utc(due), text=text)

    def _begin(self, name: str, now: float) -> str:
        """Its time has come. Returns why it cannot run now, if so."""
        for one in self._slots.configured(name):
            if not one.at_rest():
                return "the one before is not over"
            one.plan = self.timetable.plan(name)  # that it starts is told once, with the time after this one
            self._slots.apply(one, states.StartAsked(), now)
            self._slots.show(one)
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
