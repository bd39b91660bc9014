"""Services that write without end, lines without end, what is no text, nothing at all, and a thousand at once."""

from __future__ import annotations

import json
import os
import random
import resource
from collections.abc import Iterator
from typing import Any

import pytest

from rootd.config.logs import FORMATS, How, pack

STAMP = len("2026-01-02T03:04:05.000006Z ")
BLOCK = b"".join(b"line %06d %s\n" % (n, b"x" * (n % 90)) for n in range(4_000))


def form(name: str) -> int:
    return pack(How(1000, form=FORMATS.index(name)))


def written(house: Any, writer: int, data: bytes) -> None:
    """All of it, with a turn whenever the pipe is full."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(writer, view) :]
        except BlockingIOError:
            house.mover.turn(0.0)
    house.settle()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8_192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("kind", ["plain", "stamped", "json"])
def test_of_a_service_that_writes_as_fast_as_it_can_every_byte_is_kept_and_the_others_are_served(
    house: Any, kind: str
) -> None:
    blocks = 200 if kind == "plain" else 40
    flood, quiet = house.pipe("flood", size=8 << 20, keep=form(kind)), house.pipe("quiet", run=2)
    os.set_blocking(flood, True)
    if (child := os.fork()) == 0:
        try:
            for _ in range(blocks):
                view = memoryview(BLOCK)
                while view:
                    view = view[os.write(flood, view) :]
        finally:
            os._exit(0)
    os.close(flood)
    said = 0
    while not house.drained:
        assert house.ready(60)
        os.write(quiet, b"%d\n" % said)
        said += 1
        house.mover.turn(0.0)
        house.mover.turn(0.0)
        assert house.text("quiet/stdout.log").endswith(b"\n%d\n" % (said - 1) if said > 1 else b"0\n")
    assert os.waitpid(child, 0)[1] == 0
    found = house.text("flood/stdout.log").splitlines(keepends=True)
    if kind == "stamped":
        found = [line[STAMP:] for line in found]
    elif kind == "json":
        assert json.loads(found[7])["line"] == BLOCK.splitlines()[7].decode()
        assert len(found) == blocks * BLOCK.count(b"\n")
        return
    assert b"".join(found) == BLOCK * blocks


@pytest.mark.parametrize("kind", ["plain", "stamped", "json"])
def test_what_is_no_text_is_kept_like_any_other(house: Any, kind: str) -> None:
    data = random.Random(7).randbytes(2 << 20)
    written(house, house.pipe(keep=form(kind), size=1 << 20), data)
    house.mover.last(0.0)
    kept = house.text()
    if kind == "plain":
        assert kept == data
    elif kind == "stamped":
        assert b"".join(line[STAMP:] for line in kept.split(b"\n")) == data.replace(b"\n", b"")
    else:
        lines = [json.loads(line)["line"] for line in kept.splitlines()]
        assert "".join(lines) == "".join(line.decode(errors="backslashreplace") for line in data.split(b"\n"))


def test_a_line_of_ten_megabytes_is_moved_through_a_spool_that_stays_small(house: Any) -> None:
    writer = house.pipe(keep=form("stamped"))
    for _ in range(160):
        written(house, writer, b"y" * (64 << 10))
        assert all(file.stat().st_size < 256 << 10 for file in house.run.iterdir())
    written(house, writer, b"\n")
    assert house.text().count(b"y") == 10 << 20


@pytest.mark.parametrize("kind", ["plain", "stamped", "json"])
def test_a_service_that_says_nothing_or_half_a_line_wakes_nobody_up(house: Any, kind: str) -> None:
    writer = house.pipe(keep=form(kind))
    house.settle()
    assert (house.ready(0), house.mover.next()) == (False, None)
    os.write(writer, b"password: ")
    house.settle()
    assert (house.ready(0), house.mover.next()) == (False, None)


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("kind", ["plain", "stamped"])
def test_a_thousand_services_that_all_write(house: Any, kind: str) -> None:
    """More than there are files open at once."""
    writers = [house.pipe(f"s{n}", run=n, keep=form(kind)) for n in range(1_000)]
    for turn in range(4):
        for n, writer in enumerate(writers):
            os.write(writer, b"%d of %d\nand ha" % (turn, n) if turn % 2 == 0 else b"lf\n%d of %d\n" % (turn, n))
        house.settle()
    assert len(house.mover.shelf.open) <= 512
    skip = STAMP if kind == "stamped" else 0
    for n in range(1_000):
        found = [line[skip:] for line in house.text(f"s{n}/stdout.log").splitlines()]
        said = [b"%d of %d" % (turn, n) for turn in range(4)]
        assert found == [said[0], b"and half", said[1], said[2], b"and half", said[3]]
    for writer in writers:
        os.close(writer)
