"""Small files that are read and written whole: the supervisor's own on tmpfs, and what log keeps for it.

Rule 1: no link is followed and nothing is waited for, whatever lies there.
Rule 2: where there is no room (anything may fill /run) nobody stops for that: what was to be written is kept in mind.

Sources: open(2) O_NOFOLLOW, O_NONBLOCK (a FIFO is opened at once); rename(2).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

UNREADABLE = (ValueError, RecursionError)  # of msgspec, for what lies there: no JSON, no UTF-8, no end of [
RETRY = 1.0  # seconds until what could not be written is tried again
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def read(path: str, limit: int) -> bytes:
    """b"" when there is no file. Raises OSError, also for what is no plain file or has more than `limit` bytes."""
    try:
        fd = os.open(path, os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file")
        data = b""
        while piece := os.read(fd, limit + 1 - len(data)):
            data += piece
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"it has more than {limit} bytes")
        return data
    finally:
        os.close(fd)


def content(fd: int) -> bytes:
    """All that a memfd holds; it is closed."""
    with open(fd, "rb") as file:
        return os.pread(fd, os.fstat(file.fileno()).st_size, 0)


def write(path: str, data: bytes) -> None:
    """Whole or not at all, for our account alone. Not made durable: it is for a file on tmpfs. Raises OSError."""
    new = f"{path}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
    os.rename(new, path)


class Kept:
    """What the next supervisor is to know: files in a directory of ours. clock: seconds of CLOCK_BOOTTIME."""

    def __init__(self, place: str, clock: Callable[[], float], say: Callable[[str], None]) -> None:
        self._place, self._clock, self._say = place, clock, say
        self._late: dict[str, bytes] = {}  # by name: what could not be written
        self._try_at = 0.0

    def read(self, name: str, limit: int) -> bytes:
        return read(f"{self._place}/{name}", limit)

    def write(self, name: str, text: bytes) -> None:
        try:
            write(f"{self._place}/{name}", text)
        except OSError as error:
            if not self._late:
                lost = "what is asked for now is forgotten if the supervisor is killed"
                self._say(f"{self._place} cannot be written: {error.strerror}; {lost}; tried again each second")
            self._late[name], self._try_at = text, self._clock() + RETRY
        else:
            if self._late.pop(name, None) is not None and not self._late:
                self._say(f"{self._place} is written again")

    def wake_at(self) -> float | None:
        return self._try_at if self._late else None

    def wake(self, now: float) -> None:
        for name, text in list(self._late.items()) if now >= self._try_at else ():
            self.write(name, text)
