"""One file and its predecessors: numbers, modes, ages, and others who rename it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rootd.config.logs import How, pack
from rootd.log import files
from rootd.log.files import LogFile

AGED = pack(How(5, age=60))


def names(house: Any) -> list[str]:
    return sorted(path.name for path in (house.path / "site").iterdir())


def test_a_file_is_rotated_when_its_age_is_reached_and_nothing_wakes_up_without_one(house: Any) -> None:
    assert house.mover.next() is None
    writer = house.pipe(keep=AGED)
    house.settle(100.0)
    assert house.mover.next() is None, "nothing is in it"
    os.write(writer, b"one\n")
    house.settle(100.0)
    assert house.mover.next() == 160.0
    os.write(writer, b"two\n")
    house.settle(150.0)
    house.mover.tend(159.9)
    assert names(house) == ["stdout.log"]
    house.mover.tend(160.0)
    assert names(house) == ["stdout.log", "stdout.log.1"]
    assert house.mover.next() is None, "the new file is empty"
    house.mover.tend(1_000.0)
    assert names(house) == ["stdout.log", "stdout.log.1"]
    os.write(writer, b"three\n")
    house.settle(2_000.0)
    assert house.mover.next() == 2_060.0
    assert house.text() == b"one\ntwo\nthree\n"


def test_a_file_whose_age_is_reached_in_the_middle_of_a_line_ends_with_that_line(house: Any) -> None:
    writer = house.pipe(keep=AGED)
    os.write(writer, b"half")
    house.settle(0.0)
    house.mover.tend(61.0)
    assert names(house) == ["stdout.log"]
    assert house.mover.next() is None, "the next bytes wake it up"
    os.write(writer, b" and half\nnext\n")
    house.settle(70.0)
    assert [file.read_bytes() for file in house.files()] == [b"half and half\n", b"next\n"]


def test_the_age_of_a_file_is_known_to_the_next_log(house: Any, houses: Any) -> None:
    writer = house.pipe(keep=AGED)
    os.write(writer, b"one\n")
    house.settle(0.0)
    made = files.born(house.mover.shelf.files["site", 1].fd, -1.0)
    file = LogFile(os.open(house.path, os.O_RDONLY), "site", 1, How(5, age=60))
    size = file.ready(0.0)
    file.age(size, 500.0, made + 20)
    assert file.due is not None
    assert 539.0 <= file.due <= 541.0


def test_the_configured_mode_is_that_of_the_files_and_others_may_enter_where_they_may_read(house: Any) -> None:
    writer = house.pipe(keep=pack(How(5, mode=0o644)), size=10)
    os.write(writer, b"one\ntwo\nthree\nfour\n")
    house.settle()
    assert {file.stat().st_mode & 0o777 for file in house.files()} == {0o644}
    assert (house.path / "site").stat().st_mode & 0o005 == 0o005
    other = house.pipe(process="other", run=2, keep=pack(How(5, mode=0o600)))
    os.write(other, b"x\n")
    house.settle()
    assert (house.path / "other/stdout.log").stat().st_mode & 0o777 == 0o600


def test_a_file_that_somebody_renamed_is_left_to_him_within_a_second(house: Any) -> None:
    writer = house.pipe()
    os.write(writer, b"one\n")
    house.settle(10.0)
    mine = house.path / "site/stdout.log"
    mine.rename(house.path / "site/taken")
    os.write(writer, b"two\n")
    house.settle(10.0 + files.LOOK)
    assert (house.path / "site/taken").read_bytes() == b"one\n"
    assert mine.read_bytes() == b"two\n"


def test_rotation_goes_on_over_compressed_files(house: Any) -> None:
    writer = house.pipe(size=8, keep=pack(How(3, compress=1)))
    for n in range(6):
        os.write(writer, b"line %d\n" % n)
        house.settle()
        now = n * 100.0
        while house.mover.next() is not None:
            now += 1.0
            house.mover.tend(now)
    assert names(house) == ["stdout.log", "stdout.log.1.gz", "stdout.log.2.gz", "stdout.log.3.gz"]


def test_of_a_file_that_is_there_twice_the_plain_one_goes(tmp_path: Path) -> None:
    for name in ("stdout.log", "stdout.log.1", "stdout.log.1.gz", "stdout.log.2", "stdout.log.x", "stdout.log.03"):
        (tmp_path / name).touch()
    found = files.numbered(os.open(tmp_path, os.O_RDONLY), "stdout.log")
    assert found == {1: "stdout.log.1.gz", 2: "stdout.log.2"}
    assert not (tmp_path / "stdout.log.1").exists()


def test_what_cannot_be_written_whole_is_not_there(tiny: Path) -> None:
    fd = os.open(tiny / "file", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"before\n")
    with pytest.raises(OSError, match="No space left"):
        files.write_whole(fd, bytes(1 << 20), 7)
    assert (tiny / "file").read_bytes() == b"before\n"
    os.close(fd)
