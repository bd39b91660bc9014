"""Reading logs through descriptors that somebody else opened: the last lines, and what is written after them.

Standard library only: the api and `durward --root` both read like this. Descriptors are read by pread, so the
file's offset is never moved. A log is one stream of bytes: <name>.log, and before it .1, .2, …, which end at a
line's end; of those some may be compressed, and are read as if they were not. The place in it is a Cursor: the inode
of a file, as it was before it was compressed, and an offset there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from userapi import packed

PIECE = 64 * 1024  # bytes read and sent at once
MOST = 8 * 1024 * 1024  # bytes that the last lines may be
DEPTH = 1000  # rotated files looked at

Opener = Callable[[int], int | None]  # 0 is the file being written, 1 the one before; None when there is none (yet)


class Cursor(NamedTuple):
    inode: int
    offset: int

    def __str__(self) -> str:
        return f"{self.inode}:{self.offset}"


def cursor(text: str) -> Cursor:
    """Raises ValueError."""
    inode, colon, offset = text.partition(":")
    if not (colon and inode.isascii() and inode.isdigit() and offset.isascii() and offset.isdigit()):
        raise ValueError("a place in a log is INODE:OFFSET")
    if len(text) > 40:
        raise ValueError("a place in a log is INODE:OFFSET")
    return Cursor(int(inode), int(offset))


def last_lines(descriptor: int, lines: int, most: int = MOST) -> tuple[int, int]:
    """Where the last `lines` lines of a file begin, and how many there are. A last line without end counts."""
    end = os.fstat(descriptor).st_size
    if lines <= 0 or end == 0:
        return end, 0
    found = 0
    place = end
    first = True
    while place > 0 and end - place < most:
        size = min(PIECE, place)
        data = os.pread(descriptor, size, place - size)
        if not data:
            break
        index = len(data)
        if first and data.endswith(b"\n"):
            index -= 1
        first = False
        while (index := data.rfind(b"\n", 0, index)) >= 0:
            found += 1
            if found == lines:
                return place - size + index + 1, found
        place -= size
    return place, found + 1


def pieces(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """The bytes from start to end."""
    while start < end:
        data = os.pread(descriptor, min(PIECE, end - start), start)
        if not data:
            return
        start += len(data)
        yield data


class Tail:
    """One reader's walk through a log. Closes every descriptor that it was given, at `close` at the latest."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._packed: dict[int, tuple[int, int]] = {}  # descriptors of compressed files: inode and size of the plain
        self._descriptor = -1
        self._offset = 0
        self._seen = 0
        self._older: list[tuple[int, int, int]] = []  # descriptor, start, end; the newest first
        self._end: int | None = None  # of the newest file, when its last lines were looked for and are not told yet
        self.start = Cursor(0, 0)  # of the first byte that follows begin or resume

    def begin(self, lines: int) -> None:
        """Stand before the last lines, which may begin in rotated files when the newest has not enough."""
        total = 0
        for rotated in range(DEPTH):
            descriptor = self._open(rotated)
            if descriptor is None:
                if rotated:
                    break
                continue  # nothing is written to it yet; what was before it was renamed
            inode, size = self._about(descriptor)
            if descriptor in self._packed:
                place, found = packed.last_lines(descriptor, size, lines, MOST - total)
            else:
                place, found = last_lines(descriptor, lines, MOST - total)
            self.start = Cursor(inode, place)
            if rotated == 0:
                self._take(descriptor, place)
                self._end = size
            else:
                self._older.append((descriptor, place, size))
            total += size - place
            lines -= found
            if lines <= 0 or total >= MOST:
                break

    def resume(self, place: Cursor) -> None:
        """Stand at a place; at the newest file's beginning when that place is gone."""
        descriptor = self._at(place)
        if descriptor is None:
            descriptor = self._open(0)
            if descriptor is None:
                return
            self._take(descriptor, 0)
        else:
            self._take(descriptor, place.offset)
            while self._offset > (size := self._about(self._descriptor)[1]):
                over = self._offset - size
                if not self._step():  # it was cleared, or made shorter: all that is in it came later
                    self._offset = 0
                    break
                self._offset = over
        self.start = Cursor(self._about(self._descriptor)[0], self._offset)

    def more(self, check: bool) -> Iterator[bytes]:
        """What was written since, up to now: a log that grows faster than it is read does not keep the caller here.

        With `check`, and when the file was renamed, looks for its successor. `check` always asks the opener.
        Without it, the first time after begin: those last lines and no more.
        """
        while self._older:
            old, place, end = self._older[-1]
            yield from self._pieces(old, place, end)
            self._older.pop()
            self._close(old)
        until, self._end = self._end, None
        if until is not None and not check:
            for data in self._pieces(self._descriptor, self._offset, until):
                self._offset += len(data)
                yield data
            return
        if self._descriptor < 0:
            descriptor = self._open(0) if check else None
            if descriptor is None:
                return
            self._take(descriptor, 0)
        followed = check and not self._newest()
        files = DEPTH  # to be read before the caller is asked again
        while files:
            if self._offset > self._about(self._descriptor)[1]:  # somebody has made it shorter
                self._offset = 0
            for data in self._pieces(self._descriptor, self._offset, self._about(self._descriptor)[1]):
                self._offset += len(data)
                yield data
            status = os.fstat(self._descriptor)
            whole = self._descriptor in self._packed  # nothing is written to it any more
            if self._offset < status.st_size and not whole:
                return
            # a write sets both times, a rename only the second
            renamed = status.st_mtime_ns < status.st_ctime_ns != self._seen
            self._seen = status.st_ctime_ns
            if not (renamed or followed or whole):
                return
            files = min(files - 1, self._step())
            followed = True  # and after the successor there may be another

    def _newest(self) -> bool:
        """Is this the file being written?"""
        descriptor = self._open(0)
        if descriptor is None:
            return False
        try:
            return os.path.sameopenfile(descriptor, self._descriptor)
        finally:
            self._close(descriptor)

    def _open(self, rotated: int) -> int | None:
        descriptor = self._opener(rotated)
        if descriptor is not None and rotated and (about := packed.original(descriptor)):
            self._packed[descriptor] = about
        return descriptor

    def _close(self, descriptor: int) -> None:
        self._packed.pop(descriptor, None)
        os.close(descriptor)

    def _about(self, descriptor: int) -> tuple[int, int]:
        """Inode and size."""
        status = os.fstat(descriptor)
        return self._packed.get(descriptor, (status.st_ino, status.st_size))

    def _pieces(self, descriptor: int, start: int, end: int) -> Iterator[bytes]:
        return (packed.pieces if descriptor in self._packed else pieces)(descriptor, start, end)

    def _step(self) -> int:
        """Go on to the file after this one. How many are newer than this one was: 0 when there is none to go to."""
        inode = self._about(self._descriptor)[0]
        newer: int | None = None
        rotated = 0
        for rotated in range(DEPTH):
            descriptor = self._open(rotated)
            if descriptor is None:
                break
            found = self._about(descriptor)[0] == inode
            if found:
                self._close(descriptor)
                break
            if newer is not None:
                self._close(newer)
            newer = descriptor
        if newer is not None:  # when ours is deleted that is the oldest there is
            self._take(newer, 0)
        return rotated

    def _at(self, place: Cursor) -> int | None:
        """The file of a place. An inode may have been used again since a file was compressed: the newest one that is
        long enough is taken."""
        shorter: int | None = None
        for rotated in range(DEPTH):
            descriptor = self._open(rotated)
            if descriptor is None:
                if rotated:
                    break
                continue
            inode, size = self._about(descriptor)
            if inode == place.inode and (place.offset <= size or shorter is None):
                if place.offset <= size:
                    if shorter is not None:
                        self._close(shorter)
                    return descriptor
                shorter = descriptor
            else:
                self._close(descriptor)
        return shorter

    def _take(self, descriptor: int, offset: int) -> None:
        if self._descriptor >= 0:
            self._close(self._descriptor)
        self._descriptor = descriptor
        self._offset = offset

    def close(self) -> None:
        for descriptor, _, _ in self._older:
            self._close(descriptor)
        self._older.clear()
        if self._descriptor >= 0:
            self._close(self._descriptor)
            self._descriptor = -1
