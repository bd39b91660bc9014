"""A full disk costs the beginning of a line; log is killed or ended before the rest of it comes."""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disks import STAMP, TEXT, Disk
from kills import kill_at

from rootd.config.logs import FORMATS, How, pack
from rootd.log import lines
from rootd.log.source import Source

pytestmark = pytest.mark.root

STEPS = ("splice", "pwrite", "pread", "open", "close", "rename", "unlink", "ftruncate", "fstat")
CUTS = (20, 25, 34, 45, 70, 71, 90, len(TEXT))  # where a piece ends, most of them within a line
Make = Callable[..., Disk]


def history(disk: Disk) -> list[Callable[[], None]]:
    """Pieces, a turn after each; the disk is full before the sixth of them."""
    steps: list[Callable[[], None]] = []
    for number, (begin, end) in enumerate(zip((0, *CUTS), CUTS, strict=False)):
        if number in (0, 5):
            steps.append(disk.free if number else disk.fill)
        steps.append(lambda begin=begin, end=end: disk.say(TEXT[begin:end]))  # type: ignore[misc]
        steps.append(lambda now=1.0 + number * 0.7: disk.turn(now))  # type: ignore[misc]
    return steps


def test_killed_at_any_call_while_lines_are_torn_every_byte_is_in_the_file_or_counted(disks: Make) -> None:
    with mmap.mmap(-1, 1) as begun:  # how many steps of the history, as the one who is killed has it
        for step in range(10_000):
            disk = disks("stamped", 500)
            steps = history(disk)
            begun[0] = 0
            if (child := os.fork()) == 0:
                try:
                    kill_at(step, True, STEPS)
                    disk.start()
                    for one in steps:
                        begun[0] += 1
                        one()
                    os._exit(0)
                finally:
                    os._exit(1)
            killed = (status := os.waitpid(child, 0)[1]) == signal.SIGKILL
            assert killed or status == 0, step
            disk.start()
            for one in steps[begun[0] :]:
                one()
            disk.end_of_pipe(20.0)
            disk.check(step)
            disk.close()
            if not killed:
                break
    assert step > 60


def torn(disk: Disk) -> None:
    """The disk is full, and of the third line only the beginning is lost yet."""
    disk.start()
    disk.fill()
    disk.say(b"one\ntwo\nthr")
    disk.turn(1.0)
    disk.turn(3.0)


@pytest.mark.parametrize("form", ["plain", "stamped", "json"])
def test_the_rest_of_a_line_that_was_torn_before_log_ended_is_lost_with_it(disks: Make, form: str) -> None:
    disk = disks(form)
    torn(disk)
    disk.ended(3.1)
    assert disk.lost == (11, 2)
    disk.free()
    disk.say(b"e")
    disk.turn(4.0)
    disk.say(b"e\nfour\n")
    disk.turn(5.0)
    assert (disk.lost, disk.noticed, disk.kept) == ((14, 3), [(3, 1)], [b"four"])
    disk.end_of_pipe(6.0)
    disk.close()


@pytest.mark.parametrize("form", ["plain", "stamped"])
def test_a_pipe_that_ends_where_its_line_was_torn_costs_nothing_more(disks: Make, form: str) -> None:
    disk = disks(form)
    torn(disk)
    disk.ended(3.1)
    disk.free()
    disk.end_of_pipe(4.0)
    assert (disk.lost, disk.lines) == ((11, 2), [])
    disk.close()


def test_a_plain_line_that_the_disk_took_but_for_its_newline_is_counted_as_that_byte(disks: Make) -> None:
    """The newline behind it in the file is the notice's own: the notice tells of one line more than is missing."""
    disk = disks("plain")
    disk.start()
    disk.say(b"x" * 4_096)
    disk.turn(0.0)
    disk.fill()
    disk.say(b"\ntwo\n")
    for now in (1.0, 3.0):
        disk.turn(now)
    disk.free()
    disk.say(b"three\n")
    disk.turn(5.0)
    assert (disk.lost, disk.noticed, disk.kept) == ((5, 2), [(5, 2)], [b"x" * 4_096, b"three"])
    disk.close()


def test_half_a_line_that_a_full_disk_does_not_take_when_log_ends_is_counted_as_a_line_when_its_end_comes(
    disks: Make,
) -> None:
    disk = disks("stamped")
    disk.start()
    disk.fill()
    disk.say(b"one\nhal")
    disk.turn(1.0)
    disk.ended(1.1)
    assert disk.lost == (7, 1)
    disk.free()
    disk.say(b"f\ntwo\n")
    disk.turn(3.0)
    assert (disk.lost, disk.kept) == ((9, 2), [b"two"])
    disk.close()


def test_of_a_service_that_is_to_wait_nothing_is_lost_when_log_ends_on_a_full_disk(disks: Make) -> None:
    disk = disks("stamped", drop=False)
    disk.start()
    disk.fill()
    disk.say(b"one\nhal")
    for now in (1.0, 3.0):
        disk.turn(now)
    disk.say(b"f\ntwo\n")
    disk.ended(3.1)
    assert disk.lost == (0, 0)
    disk.free()
    disk.turn(5.0)
    assert disk.kept == [b"one", b"half", b"two"]
    disk.close()


def test_what_a_log_before_it_could_not_say_begins_a_new_file_and_the_old_one_is_kept(disks: Make) -> None:
    disk = disks("stamped", size=4_170)
    disk.start()
    disk.say(b"x" * (4_096 - STAMP - 1) + b"\n")
    disk.turn(0.0)
    assert (disk.path / "site/stdout.log").stat().st_size == 4_096, "so that a byte more needs room"
    disk.fill()
    disk.say(b"\n")
    disk.turn(1.0)
    disk.turn(3.0)
    disk.killed()
    disk.free()
    disk.turn(4.0)
    assert (len(disk.house.files()), len(disk.kept), disk.lost) == (2, 1, (1, 1))
    disk.close()


def test_what_a_log_before_it_had_taken_is_written_by_one_that_ends_at_once_and_no_file_is_removed(disks: Make) -> None:
    disk = disks("stamped", size=150, drop=False)
    disk.start()
    disk.fill()
    written = [b"%d" % n for n in range(12)]
    disk.say(b"\n".join(written) + b"\n")
    disk.turn(1.0)
    disk.killed()
    disk.free()
    disk.ended(2.0)
    assert disk.kept == written
    assert len(disk.house.files()) > 1
    disk.close()


@pytest.mark.parametrize("form", ["plain", "json"])
def test_of_a_notice_that_was_written_in_part_when_log_was_killed_nothing_stays(disks: Make, form: str) -> None:
    """A write may end at any page: of one that has no room, or is killed."""
    disk = disks(form)
    torn(disk)
    disk.free()
    disk.say(b"ee\nfour\n")
    disk.house.close()
    if (child := os.fork()) == 0:
        write = os.pwrite

        def half(fd: int, data: bytes, at: int) -> int:
            if b"lost here" in bytes(data):
                write(fd, data[: len(data) // 2], at)
                os.kill(os.getpid(), signal.SIGKILL)
            return write(fd, data, at)

        os.pwrite = half  # type: ignore[assignment]
        try:
            disk.start()
            disk.turn(5.0)
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert (disk.path / "site/stdout.log").stat().st_size > 0
    disk.start()
    disk.turn(6.0)
    assert (disk.lost, disk.noticed, disk.kept) == ((14, 3), [(14, 3)], [b"four"])
    disk.close()


def test_what_was_written_before_its_directory_went_is_not_what_is_counted_as_lost(house: Any) -> None:
    """Of three records the first is written to a file that somebody has just removed; there is no way to another."""
    reader, writer = os.pipe()
    log = house.path / "site/stdout.log"

    def removed() -> int:
        if log.exists() and not house.said:
            log.unlink()
            log.parent.rmdir()
            log.parent.write_bytes(b"")
        return 0

    keep = pack(How(1000, drop=True, age=3_600, form=FORMATS.index("stamped")))
    house.mover.add(Source("site", 1, 1, 7, 1 << 30, keep), reader)
    os.write(writer, b"x" * 40_000)
    house.settle(0.0)
    os.write(writer, b"x" * 20_000 + b"\ntwo\n")
    house.mover._wall = removed
    for now, text in ((1.0, b"three\n"), (3.0, b"four\n"), (3.1, b"five\n")):
        house.mover.tend(now)
        house.settle(now)
        os.write(writer, text)
    log.parent.unlink()
    os.close(writer)
    for now in (5.0, 6.0):
        house.mover.tend(now)
        house.settle(now)
    rest = 60_000 - lines.LINE + 1
    assert house.mover.totals.all() == {("site", 1): (rest + len("two\nthree\nfour\n"), 4)}


class Six(Disk):
    """Several runs of one process: they write to one file."""

    def start(self) -> None:
        self.house = self.houses(self.path)
        self.ends = [os.pipe() for _ in range(6)]
        for run, (reader, _) in enumerate(self.ends, 1):
            self.house.mover.add(self.source._replace(run=run), reader)

    def abandoned(self) -> None:
        """log is killed with the keeper, and all of the pipes are gone."""
        for _, writer in self.ends:
            os.close(writer)
        self.house.close()
        self.house = self.houses(self.path)


@pytest.fixture
def six(disks: Make, tmp_path: Path, houses: Any) -> Six:
    return Six(tmp_path / "log", houses, "stamped", 1 << 30, drop=True)


def test_of_spools_without_pipes_all_are_asked_what_was_on_its_way_before_one_is_written(six: Six) -> None:
    """Else what the first writes stands where the rest of the other's record would, which is then taken for written."""
    six.start()
    six.fill()
    for run in (6, 5, 4, 3, 2, 1):
        os.write(six.ends[run - 1][1], b"run %d\n" % run)
        six.turn(1.0)
    six.free()
    if (child := os.fork()) == 0:
        write = os.pwrite

        def half(fd: int, data: bytes, at: int) -> int:
            if b"Z run" in bytes(data):
                write(fd, data[: len(data) // 2], at)
                os.kill(os.getpid(), signal.SIGKILL)
            return write(fd, data, at)

        os.pwrite = half  # type: ignore[assignment]
        try:
            six.house.mover.tend(2.0)
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    six.abandoned()
    six.house.mover.strays(3.0)
    assert sorted(six.lines) == [b"run %d" % run for run in range(1, 7)]
    assert (six.lost, os.listdir(six.house.run)) == ((0, 0), [])
    six.house.close()


def test_what_a_spool_without_a_pipe_holds_is_lost_and_counted_where_the_disk_is_full(six: Six) -> None:
    six.start()
    six.fill()
    for _, writer in six.ends:
        os.write(writer, b"one\nhal")
    six.turn(1.0)
    six.abandoned()
    six.house.mover.strays(2.0)
    assert six.lost == (6 * len("one\n"), 6), "the rest was in the pipes yet"
    assert os.listdir(six.house.run) == ["lost,site,1"]
    six.house.close()
