"""Logs that are emptied, or whose files are begun anew: log does it, and answers when it is done.

Rule 1: whoever asked is told once: when it is done for every process that was meant, or why it is not.
Rule 2: nothing here waits: time is an argument, log answers with CLEARED, and a log that was started again is asked
        again. Times are seconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from policy.messages import RefusalKind
from rootd import ipc
from rootd.supervisor.auditing import ERRNO_MAX
from rootd.supervisor.operations import Refusal

LIMIT = 4_096  # processes whose logs wait for log
PATIENCE = 4.0  # seconds in which log's disk must answer; the record before had 5, and the api waits for 10

Then = Callable[[RefusalKind | None, str], None]  # None: it is done; else why it is not


class Asked:
    """What one person asked for. left: what log has not answered, by number."""

    __slots__ = ("left", "number", "then", "until")

    def __init__(self, left: dict[int, ipc.Message], until: float, then: Then) -> None:
        self.left, self.until, self.then = left, until, then
        self.number = 0  # of the first error


class Clearing:
    """send: one packet to log, False when it is away."""

    def __init__(self, send: Callable[[ipc.Message], bool]) -> None:
        self._send = send
        self._asked: list[Asked] = []
        self._seq = 0

    def ask(self, processes: Iterable[str], reopen: bool, now: float, then: Then) -> None:
        """processes: as their logs are called. `then` is called later, once. Raises Refusal."""
        names = list(processes)
        if sum(len(one.left) for one in self._asked) + len(names) > LIMIT:
            raise Refusal("later", f"the logs of {LIMIT} processes wait for log, which is the limit: try again")
        left = {}
        for name in names:
            self._seq = self._seq % 0xFFFF_FFFF + 1
            scope = ipc.REOPEN if reopen else 0
            left[self._seq] = ipc.Message(ipc.CLEAR, seq=self._seq, scope=scope, name=name)
        self._asked.append(Asked(left, now + PATIENCE, then))
        for message in left.values():
            self._send(message)

    def cleared(self, message: ipc.Message) -> None:
        """log's answer. One that we did not ask for, or have given up, means nothing."""
        for one in self._asked:
            if one.left.pop(message.seq, None) is None:
                continue
            one.number = one.number or min(max(message.arg, 0), ERRNO_MAX)
            if not one.left:
                self._asked.remove(one)
                one.then("failed" if one.number else None, os.strerror(one.number) if one.number else "")
            return

    def linked(self) -> None:
        """A new log: it is asked for what the one before has not answered, and may have done."""
        for one in self._asked:
            for message in one.left.values():
                self._send(message)

    def wake_at(self) -> float | None:
        return min((one.until for one in self._asked), default=None)

    def wake(self, now: float) -> None:
        for one in [one for one in self._asked if one.until <= now]:
            self._asked.remove(one)
            one.then("later", "log, or its disk, does not answer")
