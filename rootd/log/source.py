"""Whose pipe it is, from its name in the keeper's store; and where a file ends. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from rootd.config import logs

STREAMS = {"stdout": 1, "stderr": 2}
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_OTHER = _FIRST | frozenset("_.-")


class Source(NamedTuple):
    """Whose pipe it is: one stream of one run, and the file that it goes to."""

    process: str
    stream: int
    run: int
    slot: int
    size: int  # bytes at which the file is rotated
    keep: int  # rotated files that are kept, and how (rootd/config/logs.py)


def is_process(name: str) -> bool:
    return 0 < len(name) <= 80 and name[0] in _FIRST and _OTHER.issuperset(name)


def check(source: Source) -> Source:
    """The source itself, or ValueError with what is wrong with it."""
    name = source.process
    if not is_process(name):
        raise ValueError(f"{name!r} is not the name of a process")
    if source.stream not in STREAMS.values():
        raise ValueError(f"{source.stream} is not a stream")
    if source.size < 1 or source.keep < 0 or source.run < 0 or source.slot < 0:
        raise ValueError(f"a number of {source!r} is out of range")
    logs.unpack(source.keep)
    return source


def source_of(held_name: str) -> Source:
    """From the name in the keeper's store, pipe/<process>/<stream>/<run>/<size>/<keep>/<slot>. Raises ValueError."""
    parts = held_name.split("/")
    if len(parts) != 7 or parts[0] != "pipe" or not all(p.isdecimal() and p.isascii() for p in parts[3:]):
        raise ValueError(f"{held_name!r} is not the name of a pipe")
    run, size, keep, slot = (int(part) for part in parts[3:])
    return check(Source(parts[1], STREAMS.get(parts[2], 0), run, slot, size, keep))


def name_of(source: Source) -> str:
    """Of its spool: like the name in the store, for one directory."""
    return ",".join(map(str, ("pipe", *source)))


def source_of_spool(name: str) -> Source:
    """Raises ValueError."""
    parts = name.split(",")
    if len(parts) != 7 or parts[0] != "pipe" or not all(p.isdecimal() and p.isascii() for p in parts[2:]):
        raise ValueError(f"{name!r} is not the name of a spool")
    stream, run, slot, size, keep = map(int, parts[2:])
    return check(Source(parts[1], stream, run, slot, size, keep))


def sources_of_spools(names: Iterable[str], say: Callable[[str], None]) -> Iterator[Source]:
    """The same of each, in the order of their names; what is none is said."""
    for name in sorted(names):
        try:
            yield source_of_spool(name)
        except ValueError as error:
            say(f"a spool is left alone: {error}")


def cut(window: bytes, room: int, reach: int, at_line_end: bool) -> tuple[int, bool]:
    """How much of window goes into the file, and whether the file then ends there.

    room: bytes until the file has its size, reach: until it may not grow further (room < reach);
    at_line_end: whether the file is not empty and ends with a newline.
    """
    if len(window) <= room:
        return len(window), False
    room = max(room, 0)
    if end := window.rfind(b"\n", 0, room) + 1:
        return end, True
    if at_line_end or reach <= 0:
        return 0, True
    if end := window.find(b"\n", room, reach) + 1:
        return end, True
    return min(len(window), reach), len(window) >= reach
