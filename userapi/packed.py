"""A rotated log that was compressed, read as the file that it was. Standard library only.

Rule: what is read here was made by log, or by a service that imitates it: a stream that is broken ends there, and no
      more than a piece is in memory, however much it unpacks to.

Source: rootd/log/pack.py, which writes the header; RFC 1952.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator

HEADER = 32  # bytes: RFC 1952's, and our field
PIECE = 64 * 1024


def original(descriptor: int) -> tuple[int, int] | None:
    """The inode and size of the file that was compressed; None when this is none of ours."""
    head = os.pread(descriptor, HEADER, 0)
    if len(head) < HEADER or head[:4] != b"\x1f\x8b\x08\x04" or head[10:16] != b"\x14\0DW\x10\0":
        return None
    inode, size = struct.unpack_from("<QQ", head, 16)
    return inode, size


def pieces(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """The bytes from start to end of what was compressed, as far as it can be read."""
    unpacking, at, place = zlib.decompressobj(31), 0, 0
    data = b""
    while place < end and not unpacking.eof:
        if not data:
            data = os.pread(descriptor, PIECE, at)
            at += len(data)
            if not data:
                return
        try:
            text = unpacking.decompress(data, PIECE)
        except zlib.error:
            return
        data = unpacking.unconsumed_tail
        wanted = text[max(start - place, 0) : max(end - place, 0)]
        place += len(text)
        if wanted:
            yield wanted


def last_lines(descriptor: int, size: int, lines: int, most: int) -> tuple[int, int]:
    """As tail.last_lines. The whole of it is unpacked for that."""
    if lines <= 0 or size == 0:
        return size, 0
    begins: deque[int] = deque([0], maxlen=lines)  # of the last lines
    place, count = 0, 1
    for piece in pieces(descriptor, 0, size):
        index = -1
        while (index := piece.find(b"\n", index + 1)) >= 0:
            if place + index + 1 < size:
                begins.append(place + index + 1)
                count += 1
        place += len(piece)
    while len(begins) > 1 and size - begins[0] > most:
        begins.popleft()
    return begins[0], min(count, len(begins))
