"""The files of an audit log, in order: audit-FIRST.jsonl, which are full, then audit.jsonl; of those gzip is read too.

Rule 1: the order is that of the first record in each, whatever the files are called: they may have been copied.
"""

from __future__ import annotations

import datetime
import gzip
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO, NamedTuple

from userapi.audit.verify import number_of

PLACE = "/var/log/durward/audit"
CURRENT = "audit.jsonl"
OFFSET = re.compile(r"T[0-9:.]{5,15}[+-][0-9]{2}:[0-9]{2}\Z", re.ASCII)  # RFC 3339, 4.2
PIECE = 1 << 20  # bytes between two calls of `went`


class Span(NamedTuple):
    """From which record to which: a number, or the beginning of a time. "": no bound."""

    since: str = ""
    until: str = ""

    def check(self) -> None:
        """Raises ValueError when no record can be in it."""
        since, until = self.since, self.until
        if since.isdigit() and until.isdigit():
            over = int(since) > int(until)
        else:  # two times, or one of each, which cannot be compared
            over = "-" in since and "-" in until and since[: len(until)] > until
        if over:
            raise ValueError(f"'to' ({until}) is before 'from' ({since})")

    def skips(self, line: bytes) -> bool:
        """Whether it is before the span. A line that is no record is, before the first one that is in it."""
        return bool(self.since) and not _reaches(line, self.since)

    def is_over(self, line: bytes) -> bool:
        if not self.until:
            return False
        if self.until.isdigit():
            n = number_of(line)
            return n is not None and n > int(self.until)
        return time_of(line)[: len(self.until)] > self.until


def bound(text: str) -> str:
    """A number, the beginning of an RFC 3339 time in UTC (2026-11-27, 2026-11-27T14:05), or a time with an offset, to
    the minute or further. Raises ValueError."""
    plain = _in_utc(text) if OFFSET.search(text) else text.removesuffix("Z")
    if not (plain.isascii() and plain.isdigit()):
        shape = "".join("0" if letter.isdigit() else letter for letter in plain)
        if len(plain) < 7 or shape != "0000-00-00T00:00:00.000000"[: len(plain)]:
            example = "2026-11-27T14:05, or 2026-11-27T15:05+01:00"
            raise ValueError(f"'{text}' is no number of a record and no time in UTC such as {example}")
    return plain


def _in_utc(text: str) -> str:
    """As exact as it is told; "" for no such time."""
    try:
        moment = datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return ""
    return moment.isoformat(timespec="microseconds")[: len(text) - len("+00:00")]


def time_of(line: bytes) -> str:
    """ "" for what has none."""
    begin = line.find(b'"time":"', 0, 40)
    return line[begin + 8 : begin + 34].decode("latin-1") if begin >= 0 else ""


def _reaches(line: bytes, since: str) -> bool:
    n = number_of(line)
    return n is not None and (n >= int(since) if since.isdigit() else time_of(line) >= since)


def paths(named: Iterable[str]) -> list[str]:
    """The files that are meant, a directory standing for those in it; the oldest first. Raises OSError, ValueError."""
    found: list[tuple[int, str]] = []
    for name in named:
        inside = _inside(name) if os.path.isdir(name) else [name]
        if not inside:
            raise ValueError(f"there is no audit log in {name}")
        for path in inside:
            with open_plain(path) as file:
                line = file.readline(1 << 20)
            n = number_of(line)
            found.append((1 << 60 if n is None else n, path))
    return [path for _, path in sorted(found)]


def _inside(folder: str) -> list[str]:
    return [
        os.path.join(folder, name)
        for name in sorted(os.listdir(folder))
        if name.startswith("audit") and name.endswith((".jsonl", ".jsonl.gz"))
    ]


def open_plain(path: str) -> IO[bytes]:
    """Read as it was before it was compressed. Raises OSError."""
    if path.endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]  # it is read like one
    return open(path, "rb")


def lines(file: Iterable[bytes], went: Callable[[int], None]) -> Iterator[bytes]:
    """went: told now and then how many bytes have been read."""
    size = told = 0
    for line in file:
        size += len(line)
        if size - told >= PIECE:
            told = size
            went(size)
        yield line
    went(size)


def skip(span: Span, source: Iterator[bytes]) -> tuple[list[bytes], int]:
    """The first line that is in the span, if there is one, and how many came before it."""
    for count, line in enumerate(source):
        if not span.skips(line):
            return [line], count
    return [], 0


def until(span: Span, source: Iterable[bytes]) -> Iterator[bytes]:
    """Up to the first line that is behind the span."""
    for line in source:
        if span.is_over(line):
            return
        yield line
