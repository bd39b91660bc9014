"""The audit log by way of descriptors that somebody else opened, one a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from userapi.audit import reading
from userapi.audit.files import Span


def line(n: int) -> bytes:
    return f'{{"n":{n},"time":"2026-11-23T12:{n:02}:00.000000Z","kind":"x"}}\n'.encode()


class Opener:
    """Three files of four records; which were opened."""

    def __init__(self, path: Path) -> None:
        self.path, self.opened = path, list[int]()
        for rotated, first in enumerate((8, 4, 0)):
            (path / str(rotated)).write_bytes(b"".join(line(n) for n in range(first, first + 4)))

    def __call__(self, rotated: int) -> int | None:
        try:
            descriptor = os.open(self.path / str(rotated), os.O_RDONLY)
        except FileNotFoundError:
            return None
        self.opened.append(rotated)
        return descriptor


@pytest.fixture
def opener(tmp_path: Path) -> Opener:
    return Opener(tmp_path)


def numbers(opener: Opener, since: str = "", until: str = "") -> list[int]:
    before = sorted(os.listdir("/proc/self/fd"))
    found = [int(one.split(b",")[0].split(b":")[1]) for one in reading.lines(opener, Span(since, until))]
    assert sorted(os.listdir("/proc/self/fd")) == before, "every descriptor is closed"
    return found


def test_all_of_it_comes_oldest_first(opener: Opener) -> None:
    assert numbers(opener) == list(range(12))
    assert opener.opened == [0, 1, 2]


@pytest.mark.parametrize(
    ("since", "until", "first", "last", "opened"),
    [
        ("9", "", 9, 11, [0]),
        ("8", "", 8, 11, [0]),
        ("7", "9", 7, 9, [0, 1]),
        ("", "2", 0, 2, [0, 1, 2]),
        ("2026-11-23T12:05", "2026-11-23T12:06", 5, 6, [0, 1]),
        ("2026-11-23", "", 0, 11, [0, 1, 2]),
    ],
)
def test_only_the_files_of_the_span_are_opened(
    opener: Opener, since: str, until: str, first: int, last: int, opened: list[int]
) -> None:
    assert numbers(opener, since, until) == list(range(first, last + 1))
    assert opener.opened == opened


def test_a_line_that_is_not_ended_yet_is_not_told(opener: Opener) -> None:
    with (opener.path / "0").open("ab") as file:
        file.write(b'{"n":12,"ti')
    assert numbers(opener)[-1] == 11


def test_a_file_that_became_full_meanwhile_is_not_told_twice(opener: Opener) -> None:
    """What was 0 is 1 when that is asked for."""
    first, count = opener.path / "0", [0]

    def moving(rotated: int) -> int | None:
        found = opener(max(rotated - (count[0] > 0), 0))
        count[0] += 1
        return found

    assert first.exists()
    told = [one.split(b",")[0] for one in reading.lines(moving, Span())]
    assert told == [b'{"n":%d' % n for n in range(12)]


def test_more_files_than_may_be_open_are_refused_with_what_to_do(opener: Opener) -> None:
    for rotated in range(70):
        (opener.path / str(rotated)).write_bytes(line(1_000 - rotated))
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(reading.TooMany, match="name a later beginning"):
        list(reading.lines(opener, Span()))
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_who_stops_reading_leaves_no_descriptor(opener: Opener) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    found = reading.lines(opener, Span())
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert sorted(os.listdir("/proc/self/fd")) == before
