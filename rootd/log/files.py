"""One file that pipes end in, and its rotated predecessors: .1, .2 …, or .1.gz, .2.gz ….

Rule 1: every name is opened beneath the log directory, component by component, never through a link.
Rule 2: killed between any two calls, the next rotation goes on: a number left free is used first, and of a file that
        is there plain and compressed the compressed one is whole (pack.py), so the plain one is removed.
Rule 3: how old a file is is asked of the file system once, when a log process first sees it; from then on its age is
        counted by the monotonic clock.

Somebody else may rename or remove the file (logrotate without `create`): that is seen at the next write a second
later, and a new one is begun.

Source: statx(2) (stx_btime), open(2), rename(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct

from rootd.config.logs import How
from rootd.log import readers

LOOK = 1.0  # seconds between two looks whether the file still has its name
_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NAMES = {1: "stdout.log", 2: "stderr.log"}
_STATX_BTIME, _AT_EMPTY_PATH, _BTIME_AT = 0x800, 0x1000, 80
_statx = ctypes.CDLL(None, use_errno=True).statx
_statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)


class LogFile:
    """Open only while it is busy. `how` is that of the pipe that was last moved to it."""

    __slots__ = ("_allowance", "_looked", "_root", "due", "fd", "how", "limit", "name", "overdue", "process", "users")

    def __init__(self, root: int, process: str, stream: int, how: How | None = None) -> None:
        self._root = root
        self._allowance = 0  # bytes that the file may grow further because it could not be rotated
        self._looked = 0.0
        self.process = process
        self.name = _NAMES[stream]
        self.how = how or How(0)
        self.limit = 1 << 62  # bytes
        self.users = 0
        self.fd = -1
        self.due: float | None = None  # when its age is reached, by the monotonic clock; None: nothing in it, or never
        self.overdue = False  # it is, and ends where the next line does

    @property
    def shown(self) -> str:
        return f"{self.process}/{self.name}"

    def ready(self, now: float | None = None) -> int:
        """Have the file open; its size. Raises OSError."""
        if self.fd >= 0:
            found = os.fstat(self.fd)
            if found.st_nlink == 1 and (now is None or now - self._looked < LOOK or self._is(found, now)):
                return found.st_size
            self.close()  # somebody removed or renamed it
            self.due, self.overdue = None, False
        directory = self._directory()
        try:
            self.fd = self._open(directory)
        finally:
            os.close(directory)
        return os.fstat(self.fd).st_size

    def took(self, inode: int, base: int, end: int) -> bool | None:
        """Whether what was to be written from base to end is there; then all of it, else nothing of it from now on.
        None where that cannot be told: it is another file, or was made shorter."""
        try:
            size = self.ready()
            if os.fstat(self.fd).st_ino != inode or size < base:
                return None
            if size < end:
                os.ftruncate(self.fd, base)
        except OSError:
            return None
        return size >= end

    def age(self, size: int, now: float, wall: float) -> None:
        """Know when it will be too old. size: before what is written now."""
        if self.how.age and self.due is None:
            lived = max(wall - born(self.fd, wall), 0.0) if size else 0.0
            self.due = now + max(self.how.age - lived, 0.0)

    def room(self, size: int, limit: int) -> int:
        return 0 if self.overdue else limit + self._allowance - size

    def ends_line(self, size: int) -> bool:
        return size > 0 and os.pread(self.fd, 1, size - 1) == b"\n"

    def rotate(self, keep: int) -> None:
        """Begin a new file. Raises OSError; then what was not renamed yet is renamed by the next rotation."""
        directory = self._directory()
        try:
            there = numbered(directory, self.name)
            for number in [number for number in there if number > keep]:
                os.unlink(there.pop(number), dir_fd=directory)
            if keep == 0:
                os.unlink(self.name, dir_fd=directory)
            else:
                free = next((number for number in range(1, keep) if number not in there), keep)
                if free in there:
                    os.unlink(there.pop(free), dir_fd=directory)  # the oldest; its successor may have another name
                for number in range(free - 1, 0, -1):
                    suffix = ".gz" if there[number].endswith(".gz") else ""
                    newer = f"{self.name}.{number + 1}{suffix}"
                    os.rename(there[number], newer, src_dir_fd=directory, dst_dir_fd=directory)
                os.rename(self.name, f"{self.name}.1", src_dir_fd=directory, dst_dir_fd=directory)
            self._allowance, self.due, self.overdue = 0, None, False
            self.close()
            self.fd = self._open(directory)
        finally:
            os.close(directory)

    def clear(self) -> None:
        """Remove it and what was rotated of it; where there was one, a new one is begun, so that readers find it."""
        try:
            directory = os.open(self.process, os.O_RDONLY | os.O_DIRECTORY | _SAFE, dir_fd=self._root)
        except FileNotFoundError:
            return
        try:
            for name in numbered(directory, self.name).values():
                os.unlink(name, dir_fd=directory)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.name}.packing", dir_fd=directory)
            self._allowance, self.due, self.overdue = 0, None, False
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.name, dir_fd=directory)
                self.close()
                self.fd = self._open(directory)
        finally:
            os.close(directory)

    def reopen(self) -> None:
        """Somebody may have renamed it: from now on nothing is written but to what has its name."""
        if self.fd >= 0:
            self._looked = -LOOK
            self.ready(0.0)

    def allow(self, more: int) -> None:
        """Let the file grow further: it could not be rotated, and bytes matter more than sizes."""
        self._allowance += more
        self.due, self.overdue = None, False

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _is(self, found: os.stat_result, now: float) -> bool:
        """Whether the name still leads to this file."""
        self._looked = now
        with contextlib.suppress(OSError):
            named = os.stat(f"{self.process}/{self.name}", dir_fd=self._root, follow_symlinks=False)
            return (named.st_ino, named.st_dev) == (found.st_ino, found.st_dev)
        return False

    def _directory(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | _SAFE
        try:
            return os.open(self.process, flags, dir_fd=self._root)
        except FileNotFoundError:
            os.mkdir(self.process, 0o750, dir_fd=self._root)  # the group comes from the setgid log directory
            return os.open(self.process, flags, dir_fd=self._root)

    def _open(self, directory: int) -> int:
        fd = os.open(self.name, os.O_RDWR | os.O_CREAT | _SAFE, 0o640, dir_fd=directory)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            os.close(fd)
            raise OSError(errno.EPERM, f"{self.shown} is not a plain file of log's own")
        with contextlib.suppress(OSError):  # a mode that cannot be set keeps no byte from its file
            wanted = 0o600 | (self.how.mode or 0o640)
            if self.how.mode and found.st_mode & 0o777 != wanted:
                os.fchmod(fd, wanted)
            if self.how.readers:
                readers.share(self._root, directory, fd, self.how.readers)
            for place in (directory, self._root) if wanted & 0o004 else ():
                if (mode := os.fstat(place).st_mode & 0o7777) & 0o005 != 0o005:
                    os.fchmod(place, mode | 0o005)
        return fd


def numbered(directory: int, name: str) -> dict[int, str]:
    """The rotated files by their numbers; of one that is there twice, the plain one is removed (Rule 2)."""
    found: dict[int, str] = {}
    for entry in sorted(os.listdir(directory), key=len):
        tail = entry.removeprefix(f"{name}.").removesuffix(".gz")
        if entry.startswith(f"{name}.") and tail.isascii() and tail.isdecimal() and tail[0] != "0":
            if int(tail) in found:
                os.unlink(found[int(tail)], dir_fd=directory)
            found[int(tail)] = entry
    return found


def born(fd: int, unknown: float) -> float:
    """When a file was made, in seconds of the wall clock; `unknown` where the file system does not say."""
    block = ctypes.create_string_buffer(256)
    if _statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, block):
        return unknown
    mask, seconds = struct.unpack_from("=I", block)[0], struct.unpack_from("=q", block, _BTIME_AT)[0]
    return float(seconds) if mask & _STATX_BTIME else unknown


def write_whole(fd: int, data: bytes, at: int) -> None:
    """All of it at this offset, or nothing. Raises OSError."""
    view, place = memoryview(data), at
    try:
        while view:
            wrote = os.pwrite(fd, view, place)
            view, place = view[wrote:], place + wrote
    except OSError:
        os.ftruncate(fd, at)
        raise
