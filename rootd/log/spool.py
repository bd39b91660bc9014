"""What has left a pipe and is not where it goes yet, and what of it is lost: no death of log's costs any of it.

Each pipe whose output is stamped, sent on or lost has a spool: a file in <run>/log, which is a tmpfs. It begins with a
head of fixed size; the bytes of the pipe follow, from `start` on.

Rule 1: bytes leave the pipe and enter the spool in one system call (splice): they are in one of the two.
Rule 2: the head is written in one call, of less than a page, so that a kill leaves the old one or the new one. Before
        something is written or sent it says what (`taking`), and where its file ends before and after; then that it
        has been. After a kill in between, a file is asked; nobody can ask a receiver: what was on its way is lost.
Rule 3: output that nobody takes goes through the spool too: it is counted when it ceases to be in it.

Where the tmpfs is full, output that is to be lost is lost without the spool: a kill in that moment costs its count.

Sources: splice(2), pwrite(2), signal(7): a write to a file is not interrupted within a page.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import NamedTuple

from rootd.log.source import Source, name_of

PLAIN = 16 * 1024  # bytes that stay in a spool though they are not needed any more
_SAFE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_HEAD = struct.Struct("<11Q")
_TOTAL = struct.Struct("<4Q")
BEGIN = 128  # where the bytes begin


class Taking(NamedTuple):
    """What is on its way. inode: of the file that it is written to, 0 where it is sent; base and end: its sizes, and of
    a notice that is sent end is 1."""

    size: int = 0  # bytes of the service's; 0: nothing is on its way
    inode: int = 0
    base: int = 0
    end: int = 0


NOTHING = Taking()


class Spool:
    """Open only while it is needed. `root` is the directory, the caller's."""

    __slots__ = (
        "_root", "end", "errno", "fd", "lost_bytes", "lost_lines", "name", "start", "taking", "told_bytes",
        "told_lines", "torn",
    )  # fmt: skip

    def __init__(self, root: int, source: Source) -> None:
        self._root, self.name = root, name_of(source)
        self.fd = -1
        self.start = self.end = BEGIN
        self.taking = NOTHING
        self.lost_bytes = self.lost_lines = 0  # of this run
        self.told_bytes = self.told_lines = 0  # of them
        self.errno = 0  # why it was lost; 0: log was killed
        self.torn = False  # the rest of a line whose beginning was lost is still to come

    def load(self) -> bytes:
        """What a log before this one has left: what is still to be written."""
        self.fd = os.open(self.name, _SAFE, dir_fd=self._root)
        raw = os.pread(self.fd, _HEAD.size, 0)
        if len(raw) == _HEAD.size:
            (
                self.start, *taking, self.lost_bytes, self.lost_lines, self.told_bytes, self.told_lines, torn,
                self.errno,
            ) = _HEAD.unpack(raw)  # fmt: skip
            self.taking, self.torn = Taking(*taking), bool(torn)
        self.end = os.fstat(self.fd).st_size
        if not BEGIN <= self.start <= self.end:  # killed while it was emptied
            self.start, self.taking = BEGIN, NOTHING
            self._empty()
        return self.peek(self.end - self.start)

    def ready(self) -> None:
        """Have it open. Raises OSError."""
        if self.fd < 0:
            self.fd = os.open(self.name, _SAFE | os.O_CREAT, 0o600, dir_fd=self._root)
            if os.fstat(self.fd).st_size < BEGIN:
                try:
                    os.pwrite(self.fd, self._head().ljust(BEGIN, b"\0"), 0)
                except OSError:
                    self.close()  # so that nothing is put where no head is
                    raise

    def take(self, pipe: int, count: int) -> int:
        """Bytes of the pipe, into the spool. 0 at its end; raises BlockingIOError, OSError."""
        self.ready()
        moved = os.splice(pipe, self.fd, count, offset_dst=self.end, flags=os.SPLICE_F_NONBLOCK)
        self.end += moved
        return moved

    def peek(self, count: int, after: int = 0) -> bytes:
        """after: so many bytes."""
        self.ready()
        return os.pread(self.fd, count, self.start + after)

    def intend(self, taking: Taking) -> None:
        """This is written or sent now. What was before it is done."""
        self.ready()
        self.start += self.taking.size
        self.taking = taking
        self._write()

    def settle(self) -> None:
        """What was on its way has arrived."""
        self.intend(NOTHING)
        if self.start == self.end > BEGIN + PLAIN:
            self._empty()

    def withdraw(self) -> None:
        """What was on its way has not been taken, no byte of it."""
        self.taking = NOTHING
        self._write()

    def lose(self, size: int, lines: int, torn: bool, *, spooled: bool = True) -> None:
        """size: bytes of the service's. torn: they end within a line."""
        self.lost_bytes, self.lost_lines, self.torn = self.lost_bytes + size, self.lost_lines + lines, torn
        self.taking = NOTHING
        self.start += size if spooled else 0
        with contextlib.suppress(OSError):  # of a spool that could not be made
            self.ready()
            self._write()
            if self.start == self.end > BEGIN + PLAIN:
                self._empty()

    def told(self) -> None:
        """What is lost has been reported."""
        self.told_bytes, self.told_lines = self.lost_bytes, self.lost_lines
        if self.fd >= 0:
            self._write()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def remove(self) -> None:
        self.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=self._root)

    def _empty(self) -> None:
        os.ftruncate(self.fd, BEGIN)
        self.start = self.end = BEGIN
        self._write()

    def _head(self) -> bytes:
        return _HEAD.pack(
            self.start, *self.taking, self.lost_bytes, self.lost_lines, self.told_bytes, self.told_lines, self.torn,
            self.errno,
        )  # fmt: skip

    def _write(self) -> None:
        os.pwrite(self.fd, self._head(), 0)


class Totals:
    """What was lost of each process and stream since the daemon began: a small file of each, in the same directory.

    A loss is added here before the spool says that it was told. `run` and `after` are of the last one: what that run
    had lost then, by which the next log knows whether it is in the total.
    """

    def __init__(self, root: int) -> None:
        self._root = root

    def all(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Process and stream: bytes and lines."""
        found = {}
        for name in os.listdir(self._root):
            kind, _, rest = name.partition(",")
            process, _, stream = rest.rpartition(",")
            if kind == "lost" and stream in ("1", "2"):
                found[process, int(stream)] = self._read(name)[:2]
        return found

    def add(self, source: Source, size: int, lines: int, after: int) -> None:
        name = f"lost,{source.process},{source.stream}"
        before = self._read(name)
        fd = os.open(name, _SAFE | os.O_CREAT, 0o600, dir_fd=self._root)
        try:
            os.pwrite(fd, _TOTAL.pack(before[0] + size, before[1] + lines, source.run, after), 0)
        finally:
            os.close(fd)

    def has(self, source: Source, after: int) -> bool:
        return self._read(f"lost,{source.process},{source.stream}")[2:] == (source.run, after)

    def _read(self, name: str) -> tuple[int, int, int, int]:
        try:
            fd = os.open(name, _SAFE, dir_fd=self._root)
        except FileNotFoundError:
            return 0, 0, 0, 0
        try:
            raw = os.pread(fd, _TOTAL.size, 0)
        finally:
            os.close(fd)
        size, lines, run, after = _TOTAL.unpack(raw) if len(raw) == _TOTAL.size else (0, 0, 0, 0)
        return size, lines, run, after
