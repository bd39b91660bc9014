"""The audit log by way of the supervisor, who opens its files one by one: the records of a span, oldest first.

Rule 1: `opener` gives a descriptor of a file, opened for this reader alone: 0 is the one that is being written, 1 the
        full one before it; None when there is none. Each time is a decision of the policy's, and is recorded.
Rule 2: a line that is not ended yet is not told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import IO

from userapi.audit import files
from userapi.audit.verify import number_of

Opener = Callable[[int], int | None]
DEPTH = 64  # files that are open at once


class TooMany(Exception):
    """The span begins further back than DEPTH files."""

    def __str__(self) -> str:
        return f"it is in more than {DEPTH} files: name a later beginning, or read the files themselves"


def lines(opener: Opener, span: files.Span) -> Iterator[bytes]:
    """Each with its newline. Nothing is opened before the first is asked for. Raises TooMany, and what opener does."""
    opened = _open(opener, span)
    try:
        begun = not span.since
        while opened:
            with opened.pop() as file:
                for line in files.until(span, file):
                    begun = begun or not span.skips(line)
                    if begun and line.endswith(b"\n"):
                        yield line
    finally:
        for file in opened:
            file.close()


def _open(opener: Opener, span: files.Span) -> list[IO[bytes]]:
    """The newest first, back to the one in which the span begins."""
    opened: list[IO[bytes]] = []
    try:
        for rotated in range(DEPTH + 1):
            descriptor = opener(rotated)
            if descriptor is None:
                break
            file: IO[bytes] = os.fdopen(descriptor, "rb")
            if opened and os.path.sameopenfile(file.fileno(), opened[-1].fileno()):  # the next was begun meanwhile
                file.close()
                continue
            opened.append(file)
            if len(opened) > DEPTH:
                raise TooMany
            first = file.readline(1 << 20)
            file.seek(0)
            if span.since and first and (span.skips(first) or str(number_of(first)) == span.since):
                break
    except BaseException:
        for file in opened:
            file.close()
        raise
    return opened
