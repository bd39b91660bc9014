"""Every decision to the audit log, before anything that changes something happens.

Rule 1: what waits for a record is told once: when it is on disk (""), or why it is not; then nothing is done.
Rule 2: every record is kept until log has it; a log that was started again is told it again, and one whose disk has
        refused is asked again each second, so that what is full empties when the disk does, whoever may ask. When a
        quarter of KEPT are waiting, only root is let in; at half, nobody: the rest is for the ends of what had begun.
Rule 3: nothing here waits, and nothing here decides what may be done without a record.
Rule 4: what changes nothing is recorded one by one only so often a minute for each user, and counted beyond.
"""

from __future__ import annotations

import errno
import json
import os
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from rootd import ipc
from rootd.supervisor import mentions

KEPT = 4_096  # records that wait for log
PATIENCE = 5.0  # seconds in which log's disk must answer
AGAIN = 1.0  # seconds until a disk that has refused is asked again
ERRNO_MAX = 4095  # MAX_ERRNO of linux/err.h; what log says beyond is a fault of its own
CUT = 256  # characters of a text that came from outside
SINGLY = 60  # decisions of one user that change nothing, and are recorded one by one in one minute of his
MINUTE = 60.0  # seconds
USERS = 1_000  # whose decisions are counted at once

Then = Callable[[str], None]
Note = Callable[[str], None]


class Waiting:
    __slots__ = ("body", "then", "until")

    def __init__(self, body: bytes, then: Then | None, until: float) -> None:
        self.body = body
        self.then = then
        self.until = until


class Audit:
    """`send` gives one packet to log; False when log is away. `clock` is CLOCK_BOOTTIME in seconds."""

    def __init__(self, send: Callable[[ipc.Message], bool], clock: Callable[[], float], note: Note) -> None:
        self._send, self._clock, self._note = send, clock, note
        self._seq = 0
        self._waiting: dict[int, Waiting] = {}
        self._unwritten: deque[Waiting] = deque()  # refused by the disk
        self._again: float | None = None  # when the disk is asked again, with the oldest of those
        self._tried: Waiting | None = None  # that one, which stays the oldest
        self._trouble = 0

    @property
    def is_full(self) -> bool:
        return len(self._waiting) + len(self._unwritten) >= KEPT // 2

    @property
    def is_crowded(self) -> bool:
        """From here on only root is let in, and auth's logins are left out: others must not make it full for root."""
        return len(self._waiting) + len(self._unwritten) >= KEPT // 4

    @property
    def is_settled(self) -> bool:
        """Whether all that was ever recorded is on disk."""
        return not self._waiting and not self._unwritten

    @property
    def trouble(self) -> str:
        """Why nothing is written at the moment, as far as that is known; "": nothing is wrong."""
        if self._trouble:
            return os.strerror(self._trouble)
        return "log does not keep up" if self.is_crowded else ""

    def record(self, body: dict[str, Any], then: Then | None = None) -> None:
        """Write it. `then` is called in any case, now or later: "" means that it is on disk."""
        if len(self._waiting) + len(self._unwritten) >= KEPT:
            self._note("the audit log cannot keep up: a record is lost")
            return then("too many records are waiting") if then else None
        cut = {key: mentions.plain(value)[:CUT] if isinstance(value, str) else value for key, value in body.items()}
        waiting = Waiting(json.dumps(cut, separators=(",", ":")).encode(), then, self._clock() + PATIENCE)
        if not self._ask(waiting):
            self._give_up([waiting], "log is being started again")
        return None

    def _ask(self, waiting: Waiting) -> bool:
        self._seq = self._seq % 0xFFFF_FFFF + 1
        self._waiting[self._seq] = waiting
        return self._send(ipc.Message(ipc.RECORD, seq=self._seq, body=waiting.body))

    def recorded(self, message: ipc.Message) -> None:
        """log's answer. One that we did not ask for, or have given up, means nothing."""
        waiting = self._waiting.pop(message.seq, None)
        number = message.arg if 0 <= message.arg <= ERRNO_MAX else errno.EIO
        if number != self._trouble:
            self._trouble = number
            self._note(f"the audit log: {os.strerror(number) if number else 'it can be written again'}")
        if number == 0:
            unwritten, self._unwritten = self._unwritten, deque()
            for one in unwritten:
                self._ask(one)
        elif self._again is None:
            self._again = self._clock() + AGAIN
        if waiting is not None:
            if number:
                keep = self._unwritten.appendleft if waiting is self._tried else self._unwritten.append
                keep(waiting)
            self._give_up([waiting], os.strerror(number) if number else "")

    def linked(self) -> None:
        """A new log: it is told what the one before did not acknowledge."""
        waiting, self._waiting, self._unwritten = [*self._unwritten, *self._waiting.values()], {}, deque()
        for one in waiting:
            self._ask(one)

    def lost(self) -> None:
        """log is gone: whoever waits for it is told now."""
        self._give_up(self._waiting.values(), "log is being started again")

    def wake_at(self) -> float | None:
        due = [one.until for one in self._waiting.values() if one.then is not None]
        return min([*due, *([] if self._again is None else [self._again])], default=None)

    def wake(self, now: float) -> None:
        """A disk that has refused is asked again: when one record is written, all are. Those who have waited too long
        are told; their records may still be written."""
        if self._again is not None and self._again <= now:
            self._again = None
            if self._unwritten:
                self._tried = self._unwritten.popleft()
                self._ask(self._tried)
        self._give_up([one for one in self._waiting.values() if one.until <= now], "log's disk does not answer")

    @staticmethod
    def _give_up(waiting: Iterable[Waiting], why: str) -> None:
        for one in list(waiting):
            then, one.then = one.then, None
            if then is not None:
                then(why)


class Minute:
    __slots__ = ("asked", "began", "since")

    def __init__(self, began: float, since: str) -> None:
        self.began = began
        self.since = since
        self.asked = 0


class Rate:
    """Which decisions that change nothing get a record of their own. Nobody makes the log grow faster by asking more.

    A user's minute begins with a request of his. Those beyond SINGLY are counted, and the count is recorded when his
    next minute begins, or when somebody else needs his place in the table; there is no timer.
    """

    def __init__(self, record: Callable[[dict[str, Any]], None], spell: Callable[[float], str]) -> None:
        """spell: CLOCK_BOOTTIME to RFC 3339."""
        self._record, self._spell = record, spell
        self._minutes: dict[tuple[str, int], Minute] = {}  # the one that began first is first

    def lets(self, user: str, uid: int, now: float) -> bool:
        """Whether this one is recorded by itself. If not, it has been counted. now: CLOCK_BOOTTIME in seconds."""
        minute = self._minutes.get((user, uid))
        if minute is None or now - minute.began >= MINUTE:
            if minute is not None:
                self._end(user, uid)
            elif len(self._minutes) >= USERS:
                self._end(*next(iter(self._minutes)))
            minute = self._minutes[user, uid] = Minute(now, self._spell(now))
        minute.asked += 1
        return minute.asked <= SINGLY

    def _end(self, user: str, uid: int) -> None:
        minute = self._minutes.pop((user, uid))
        count = minute.asked - SINGLY
        if count > 0:
            self._record({"kind": "decisions", "user": user, "uid": uid, "count": count, "since": minute.since})
