"""Which services start when the daemon starts, as people have chosen it against the configuration's `autostart`.

Rule 1: a choice counts when log has it on disk, and not before: whoever asked is told then, or why it is not so.
Rule 2: one KEEP is under way at a time, with all that had been asked for when it was sent; the next one has the rest.
        What was refused is in no file: a KEEP that was given up is followed by one that puts back what counts.
Rule 3: nothing here waits: time is an argument, log answers with KEPT, and a new log is told again.
Rule 4: a file that cannot be understood counts for nothing, and stays as it is until somebody chooses again.

The file is JSON: {"version": 1, "choices": {"site": [false, "alice"]}}. Times are seconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from policy.messages import RefusalKind, Service, User
from policy.names import RESERVED
from rootd import ipc
from rootd.supervisor.auditing import ERRNO_MAX
from rootd.supervisor.files import UNREADABLE
from rootd.supervisor.operations import Already, Refusal

if TYPE_CHECKING:
    from rootd.config.specs import ServiceSpec

VERSION = 1
LIMIT = ipc.BODY_LIMIT  # bytes of all choices
ASKED_LIMIT = 256  # choices that wait for log's disk: as many as the api has connections
PATIENCE = 4.0  # seconds in which log's disk must answer; the record before had 5, and the api waits for 10
AGAIN = 5.0  # seconds until what counts is put back again

Then = Callable[[RefusalKind | None, str], None]  # None: it is on disk; else why it is not


class Choice(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    enabled: bool
    by: User  # whose choice it is


Held = dict[str, Choice]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    choices: dict[Service, Choice]


class _Version(msgspec.Struct, frozen=True):
    version: int


class Asked(NamedTuple):
    name: str
    choice: Choice
    until: float
    then: Then


class Keeping(NamedTuple):
    """A KEEP that log has not answered. asked: what it is for; with none, it puts back what counts."""

    seq: int
    body: bytes
    held: Held
    asked: tuple[Asked, ...]


def read(data: bytes) -> tuple[Held, str]:
    """What was kept, and a sentence on what is wrong with it ("" when nothing is)."""
    if not data:
        return {}, ""
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version != VERSION:
            return {}, f"it is of version {version}"
        found = msgspec.json.decode(data, type=_File).choices
    except UNREADABLE as error:
        return {}, f"it is damaged: {error}"
    ours = sorted(name for name in found if name.startswith(RESERVED))
    return ({}, f"it is damaged: {ours[0]} is nobody's choice") if ours else (found, "")


def write(held: Held) -> bytes:
    return msgspec.json.encode(_File(VERSION, held))


class Choices:
    """send: one packet to log, False when it is away. changed: other choices count from now on. mark: what the next
    supervisor's `restore` is to be given, on tmpfs."""

    def __init__(
        self, send: Callable[[ipc.Message], bool], changed: Callable[[float], object], mark: Callable[[bytes], None],
        note: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._send, self._changed, self._mark, self._note = send, changed, mark, note
        self._held: Held = {}
        self._there = b""  # what is on disk, as far as we know
        self._waiting: list[Asked] = []
        self._keeping: Keeping | None = None
        self._unsure = False  # whether what is on disk may be something else
        self._marked = False
        self._again: float | None = None
        self._trouble = ""  # why it could not be put back, the last time
        self._seq = 0

    # -- what was chosen ---------------------------------------------------------------------------------------

    def load(self, data: bytes | None, problem: str = "") -> None:
        """The file's bytes at our start; None, with what is wrong, when they could not be read."""
        if data is not None:
            self._held, problem = read(data)
        if problem:
            self._note(f"choices.json is not used, autostart alone counts until somebody chooses again: {problem}")
        self._there = write({}) if data is None else data

    def restore(self, data: bytes) -> str:
        """What the last supervisor gave to mark: whether it had asked for something that log may still be writing."""
        self._unsure = self._marked = bool(data)
        return ""

    def by(self, name: str) -> str:
        """Whose choice counts for the service; "" when the configuration's does."""
        return self._held[name].by if name in self._held else ""

    def over(self, specs: Iterable[ServiceSpec]) -> list[ServiceSpec]:
        """The configuration with the choices that were made against it. A digest stays what it is."""
        return [
            spec._replace(autostart=self._held[spec.name].enabled) if spec.name in self._held else spec
            for spec in specs
        ]

    # -- what is chosen ----------------------------------------------------------------------------------------

    def choose(self, name: str, enabled: bool, by: str, now: float, then: Then) -> None:
        """`then` is called later, once. Raises Already and Refusal."""
        word = "enabled" if enabled else "disabled"
        if name.startswith(RESERVED):
            raise Refusal("conflict", f"{name} is a part of durward and starts with it")
        asked = [*(self._keeping.asked if self._keeping else ()), *self._waiting]
        if name not in [one.name for one in asked] and name in self._held and self._held[name].enabled == enabled:
            raise Already(f"{name} is already {word}")
        if len(asked) >= ASKED_LIMIT:
            raise Refusal("later", f"{name} was not {word}: {len(asked)} choices wait for the disk, which is the limit")
        choice = Choice(enabled, by)
        if len(write(_with(self._held, [*asked, Asked(name, choice, 0.0, then)]))) > LIMIT:
            raise Refusal(
                "conflict", f"{name} was not {word}: {len(self._held)} choices are kept, of services that are no longer"
                f" configured too, and all must fit into {LIMIT} bytes; root may take some out of choices.json while"
                " durward is stopped",
            )  # fmt: skip
        self._waiting.append(Asked(name, choice, now + PATIENCE, then))
        self._next()

    def kept(self, message: ipc.Message, now: float) -> None:
        """log's answer. One that we did not ask for, or have given up, means nothing."""
        keeping = self._keeping
        if keeping is None or message.seq != keeping.seq:
            return
        self._keeping = None
        number = message.arg if 0 <= message.arg <= ERRNO_MAX else errno.EIO
        if number == 0:
            self._held, self._there, self._unsure, self._again = keeping.held, keeping.body, False, None
            self._trouble = ""
            if keeping.asked:
                self._changed(now)
            self._tell(keeping.asked, None, "")
        else:
            self._failed(keeping, os.strerror(number), message.scope != 0, now)
        self._next()

    def _failed(self, keeping: Keeping, why: str, replaced: bool, now: float) -> None:
        self._unsure = self._unsure or replaced
        if not keeping.asked and why != self._trouble:
            self._trouble = why
            self._note(f"choices.json may hold what was refused, and cannot be put back yet: {why}")
        if self._unsure:
            self._again = now + AGAIN
        self._tell(keeping.asked, "failed", f"it cannot be kept: {why}")

    def linked(self) -> None:
        """A new log: it is told what the one before has not answered, and may have written."""
        if self._keeping is None:
            self._again = None
            return self._next()
        self._unsure = True
        return self._ask(self._keeping)

    def wake_at(self) -> float | None:
        due = [one.until for one in (*(self._keeping.asked if self._keeping else ()), *self._waiting)]
        return min([*due, *([] if self._again is None else [self._again])], default=None)

    def wake(self, now: float) -> None:
        """Who has waited too long is refused, and so is all that is in the same KEEP: it is taken back whole."""
        keeping = self._keeping
        late = [one for one in self._waiting if one.until <= now]
        self._waiting = [one for one in self._waiting if one.until > now]
        if keeping is not None and any(one.until <= now for one in keeping.asked):
            self._keeping, self._unsure = None, True
            late = [*keeping.asked, *late]
        if self._again is not None and self._again <= now:
            self._again = None
        self._tell(late, "later", "log, or its disk, does not answer")
        self._next()

    def _next(self) -> None:
        """Ask log for what waits; or to put back what counts; or remember that nothing is left to ask."""
        if self._keeping is None and self._waiting:
            held = _with(self._held, self._waiting)
            self._seq = self._seq % 0xFFFF_FFFF + 1
            self._keeping, self._waiting = Keeping(self._seq, write(held), held, tuple(self._waiting)), []
            self._ask(self._keeping)
        elif self._keeping is None and self._unsure and self._again is None:
            self._seq = self._seq % 0xFFFF_FFFF + 1
            self._keeping = Keeping(self._seq, self._there, self._held, ())
            self._ask(self._keeping)
        elif self._keeping is None and self._marked and not self._unsure:
            self._marked = False
            self._mark(b"")

    def _ask(self, keeping: Keeping) -> None:
        """What is asked for is marked first: killed in between, the next supervisor knows that it may be written."""
        if not self._marked:
            self._marked = True
            self._mark(b"1")
        self._send(ipc.Message(ipc.KEEP, seq=keeping.seq, body=keeping.body))

    @staticmethod
    def _tell(asked: Iterable[Asked], kind: RefusalKind | None, why: str) -> None:
        for one in asked:
            one.then(kind, why)


def _with(held: Held, asked: Iterable[Asked]) -> Held:
    return held | {one.name: one.choice for one in asked}
