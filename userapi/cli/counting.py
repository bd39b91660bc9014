"""How far something long has come, on a terminal: one line of stderr that is written over, and is gone at its end.

Rule: what is over soon says nothing, and where stderr is no terminal nothing is said at all.
"""

from __future__ import annotations

import sys
import time
from typing import Self

FIRST, EACH = 1.0, 0.2  # seconds: until it is said, and between one number and the next


class Counting:
    """what: of which things, "services". Called with how many of how many there are done."""

    def __init__(self, what: str) -> None:
        self._what, self._shown = what, False
        self._next = time.monotonic() + FIRST if sys.stderr.isatty() else float("inf")

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, of: int) -> None:
        if (now := time.monotonic()) >= self._next:
            self._next, self._shown = now + EACH, True
            sys.stderr.write(f"\r\x1b[K{done} of {of} {self._what}")
            sys.stderr.flush()

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
