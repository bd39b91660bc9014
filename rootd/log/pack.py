"""Rotated files are compressed a slice at a time, in the loop: no process more, no wall less.

Rule 1: a slice is at most SLICE bytes, so no pipe waits longer than that takes (some 3 ms), and the next one is not
        before PAUSE seconds, or BUSY while pipes have something to say: it is never more than a part of one processor.
Rule 2: what is written has a name of its own until it is whole and on disk; then it is renamed, then the plain file is
        removed. Killed anywhere, the plain file is there, or the compressed one, or both and both whole.
Rule 3: while it is compressed a file may be rotated further, or away: its number is looked for at the end.

The header says which file it was (a field of its own, RFC 1952 "extra"): the inode, by which readers know a place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import zlib
from collections.abc import Callable

from rootd.log.files import numbered

SLICE = 64 * 1024
PAUSE, BUSY = 0.01, 0.05  # seconds
SYNC = 1024 * 1024  # bytes written between two calls of fdatasync, so that none of them takes long
LEVEL = 6
MARK = b"DW"  # of the extra field: the inode and the size of the plain file, 8 bytes each, little-endian

_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def header(inode: int, size: int, mtime: int) -> bytes:
    extra = MARK + struct.pack("<HQQ", 16, inode, size)
    return struct.pack("<BBBBIBBH", 0x1F, 0x8B, 8, 4, mtime & 0xFFFFFFFF, 0, 3, len(extra)) + extra


class Job:
    """One file on its way. Owns its three descriptors."""

    def __init__(self, directory: int, name: str, plain: int) -> None:
        self.directory, self.name, self.plain = directory, name, plain
        self.found = os.fstat(plain)
        self.new = os.open(f"{name}.packing", os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, 0o600, dir_fd=directory)
        self.packed = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self.at = self.crc = self.unsynced = 0
        self.write(header(self.found.st_ino, self.found.st_size, int(self.found.st_mtime)))

    def write(self, data: bytes) -> None:
        self.unsynced += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self.new, view) :]
        if self.unsynced >= SYNC:
            os.fdatasync(self.new)
            self.unsynced = 0

    def step(self) -> bool:
        """One slice. True when it is done. Raises OSError."""
        data = os.pread(self.plain, SLICE, self.at)
        if data:
            self.at += len(data)
            self.crc = zlib.crc32(data, self.crc)
            self.write(self.packed.compress(data))
            return False
        self.write(self.packed.flush() + struct.pack("<II", self.crc, self.at & 0xFFFFFFFF))
        os.fchmod(self.new, self.found.st_mode & 0o777)
        os.utime(self.new, ns=(self.found.st_atime_ns, self.found.st_mtime_ns))
        os.fsync(self.new)
        for number, name in numbered(self.directory, self.name).items():
            with contextlib.suppress(FileNotFoundError):
                if os.stat(name, dir_fd=self.directory, follow_symlinks=False).st_ino == self.found.st_ino:
                    final = f"{self.name}.{number}.gz"
                    part = f"{self.name}.packing"
                    os.rename(part, final, src_dir_fd=self.directory, dst_dir_fd=self.directory)
                    os.unlink(name, dir_fd=self.directory)
                    return True
        with contextlib.suppress(FileNotFoundError):  # it was rotated away meanwhile, or all of it cleared
            os.unlink(f"{self.name}.packing", dir_fd=self.directory)
        return True

    def close(self) -> None:
        for fd in (self.directory, self.plain, self.new):
            os.close(fd)


class Packer:
    """What is to be compressed. root: the log directory, the caller's."""

    def __init__(self, root: int, say: Callable[[str], None]) -> None:
        self._root, self._say = root, say
        self._wanted: dict[tuple[str, str], None] = {}
        self._job: Job | None = None
        self.due = 0.0  # when the next slice may be

    @property
    def busy(self) -> bool:
        return self._job is not None or bool(self._wanted)

    def want(self, process: str, name: str) -> None:
        """Compress what has been rotated of this file. Which those are is found when its turn comes."""
        self._wanted[process, name] = None

    def step(self, now: float, *, busy: bool = False) -> None:
        """One slice. busy: pipes have something to say."""
        self.due = now + (BUSY if busy else PAUSE)
        try:
            if self._job is None:
                self._next()
            elif self._job.step():
                self._end()
        except OSError as error:
            process, name = next(iter(self._wanted))
            self._drop(process, name)
            if error.errno != errno.ENOENT:
                self._say(f"what was rotated of {process}/{name} stays as it is: {error.strerror}")

    def close(self) -> None:
        """A file that is half done is begun anew by the next log."""
        if self._job is not None:
            self._end()

    def _end(self) -> None:
        if self._job is not None:
            self._job.close()
            self._job = None

    def _drop(self, process: str, name: str) -> None:
        del self._wanted[process, name]
        if self._job is not None:
            with contextlib.suppress(OSError):
                os.unlink(f"{name}.packing", dir_fd=self._job.directory)
            self._end()

    def _next(self) -> None:
        process, name = next(iter(self._wanted))
        directory = os.open(process, os.O_RDONLY | os.O_DIRECTORY | _SAFE, dir_fd=self._root)
        plain = -1
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{name}.packing", dir_fd=directory)  # of a log that was killed
            todo = {n: entry for n, entry in numbered(directory, name).items() if not entry.endswith(".gz")}
            if not todo:
                os.close(directory)
                del self._wanted[process, name]
                return
            plain = os.open(todo[max(todo)], os.O_RDONLY | _SAFE, dir_fd=directory)
            self._job = Job(directory, name, plain)
        except OSError:
            for fd in (directory, plain):
                if fd >= 0:
                    os.close(fd)
            raise
