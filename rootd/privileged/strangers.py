"""Children of this process that it has not made: they are buried, or they would fill the machine's table of processes.

A service can give its own parent children (CLONE_PARENT), which is us, and nobody else would ever wait for them; so it
is with a main process whose end was told while somebody still traced it (requests.exited).

Rule 1: a child that is known is left to who knows it: its status is told, and its number its own, until then.
Rule 2: seldom: whoever makes them without end has us look at them each PAUSE seconds, and holds up nobody.

Sources: clone(2) CLONE_PARENT, waitid(2), proc(5) task/TID/children (where the kernel has CONFIG_PROC_CHILDREN).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootd.privileged.main import Privileged

PAUSE = 0.1  # seconds from the end of a child to the look for others
AGAIN = 1.0  # the same where there was no descriptor for it


class Strangers:
    """at: when to call tend, by the monotonic clock."""

    def __init__(self, house: Privileged) -> None:
        self._house, self.at = house, float("inf")
        self._reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        house.loop.watch(self._reader, lambda _: self._woken())

    def _woken(self) -> None:
        os.read(self._reader, 4096)
        self.at = min(self.at, time.monotonic() + PAUSE)

    def tend(self, now: float) -> None:
        if now >= self.at:
            self.at = float("inf")
            house = self._house
            known = {house.helper.pid, *([house.staging.pid] if house.staging else [])}
            try:
                bury(known.union(run.pid for run in house.runs.values()))
            except OSError:
                self.at = now + AGAIN


def bury(known: set[int]) -> None:
    """Those that have ended, and are none of these. Raises OSError where there is no descriptor to look by."""
    with contextlib.suppress(FileNotFoundError), open("/proc/thread-self/children") as children:
        for pid in map(int, children.read().split()):
            if pid not in known:
                with contextlib.suppress(ChildProcessError):
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
