"""What is to happen at a time, for a loop that must not wake up for nothing.

Rule 1: time is an argument, in seconds of CLOCK_BOOTTIME; nothing here waits.
Rule 2: what was cancelled wakes nobody up.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Timer:
    """Not yet run while `do` is there."""

    __slots__ = ("do",)

    def __init__(self, do: Callable[[], None]) -> None:
        self.do: Callable[[], None] | None = do

    def cancel(self) -> None:
        self.do = None


class Timers:
    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0

    def at(self, when: float, do: Callable[[], None]) -> Timer:
        timer = Timer(do)
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, timer))
        return timer

    def next(self) -> float | None:
        """When run should be called; None when there is nothing to do."""
        while self._heap and self._heap[0][2].do is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run(self, now: float) -> None:
        """What is due, in order of time; what that adds for now waits for the next turn."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        for timer in due:
            do, timer.do = timer.do, None
            if do is not None:
                do()
