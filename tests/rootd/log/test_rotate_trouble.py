"""The mover under kills, full disks, planted links and services that never stop. security.md E1, E7."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kills import kill_at

from rootd.log import pipes, rotate
from rootd.log.files import LogFile
from rootd.log.source import Source

DEADLINE = 60  # seconds that any wait of these tests may take


def numbered(count: int, first: int = 0) -> bytes:
    return b"".join(b"line %08d %s\n" % (n, b"x" * (n % 90)) for n in range(first, first + count))


def void(_: object) -> None:
    return None


def in_child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def move_until_the_end(
    houses: Any, path: Path, reader: int, size: int, keep: int, after_each_turn: Callable[[], None]
) -> None:
    house = houses(path)
    house.mover.add(Source("site", 1, 1, 7, size, keep), os.dup(reader))
    while not house.drained:
        assert house.ready(DEADLINE)
        house.mover.turn(0.0)
        after_each_turn()


@pytest.mark.parametrize(("size", "fewest"), [(1 << 30, 1), (300_000, 50), (4_096, 300)])
def test_kill_9_in_the_middle_of_anything_loses_no_byte_and_doubles_none(
    houses: Any, house: Any, monkeypatch: pytest.MonkeyPatch, size: int, fewest: int
) -> None:
    """A mover is killed again and again while a writer writes as fast as it can; the next one goes on."""
    monkeypatch.setattr(rotate, "TURN", 65_536)  # more turns to be killed in
    rng = random.Random(size)
    text = numbered(450_000 if size > 10_000 else 24_000)  # enough for more than ten kills on any machine
    reader, writer = os.pipe()

    def write() -> None:
        os.close(reader)
        view = memoryview(text)
        while view:
            view = view[os.write(writer, view[: rng.randint(1, 50_000)]) :]

    children = [in_child(write)]
    os.close(writer)
    kills = 0
    while True:
        told, tell = os.pipe()

        def move(tell: int = tell) -> None:
            move_until_the_end(houses, house.path, reader, size, 100_000, lambda: void(os.write(tell, b".")))

        mover = in_child(move)
        os.close(tell)
        turns = rng.randint(1, 15)
        while turns > 0 and (seen := os.read(told, turns)):
            turns -= len(seen)
        if turns == 0:
            os.kill(mover, signal.SIGKILL)  # it is somewhere in its next turn
            kills += 1
        os.close(told)
        _, status = os.waitpid(mover, 0)
        if status == 0:
            break
    os.close(reader)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert kills > 10
    assert house.text() == text
    assert len(house.files()) >= fewest
    assert all(file.read_bytes().endswith(b"\n") for file in house.files())


STEPS = ("splice", "rename", "open", "unlink", "close", "mkdir", "pread", "read", "fstat")


@pytest.mark.parametrize("keep", [0, 2, 100])
def test_a_kill_at_any_system_call_of_a_move_and_a_rotation_is_made_good_by_the_next_start(
    houses: Any, tmp_path: Path, keep: int
) -> None:
    """After each call; before the next one nothing else is different on disk."""
    text = numbered(40)
    for step in range(10_000):
        path = tmp_path / str(step)
        path.mkdir()
        reader, writer = os.pipe()
        os.write(writer, text)
        os.close(writer)

        def move(step: int = step, path: Path = path, reader: int = reader) -> None:
            kill_at(step, True, STEPS)
            move_until_the_end(houses, path, reader, 600, keep, lambda: None)

        _, status = os.waitpid(in_child(move), 0)
        if not os.WIFSIGNALED(status):
            break
        again = houses(path)  # takes the pipe over
        again.mover.add(Source("site", 1, 1, 7, 600, keep), reader)
        again.settle()
        assert again.drained
        if keep == 100:
            assert again.text() == text
        else:
            assert text.endswith(again.text())
            assert len(again.files()) <= keep + 1
        for file in again.files()[:-1]:
            assert file.read_bytes().endswith(b"\n")
        again.close()
    assert step > 30


# --- trouble and fairness


@pytest.mark.root
@pytest.mark.parametrize("size", [1 << 30, 10_000])
def test_a_full_disk_holds_its_pipes_up_loses_nothing_and_the_others_go_on(house: Any, tiny: Path, size: int) -> None:
    ballast = tiny / "ballast"
    ballast.write_bytes(bytes(40_960))
    full, good = house.pipe("full", run=1, size=size, keep=100), house.pipe("good", run=2)
    text = numbered(700)
    view = memoryview(text)
    while view:
        view = view[os.write(full, view[:4_096]) :]
        os.write(good, b"fine\n")
        house.settle(100.0)
    assert house.mover.wake_at == 100.0 + rotate.RETRY
    assert house.text("good/stdout.log").count(b"fine\n") == len(range(0, len(text), 4_096))
    assert len(house.text("full/stdout.log")) < len(text)
    house.mover.retry(100.0 + rotate.RETRY / 2)
    assert house.mover.wake_at == 100.0 + rotate.RETRY, "not before it is due"
    house.mover.retry(102.0)
    assert house.mover.wake_at is None
    house.settle(102.0)
    assert house.mover.wake_at == 102.0 + rotate.RETRY, "still full"
    assert len([text for text in house.said if "No space left" in text]) == 1, "said once"
    ballast.unlink()
    house.mover.retry(104.0)
    house.settle(104.0)
    assert house.mover.wake_at is None, "no trouble, no timer"
    assert house.text("full/stdout.log") == text
    assert house.said[-1] == "all log files are being written again; nothing was lost"
    os.close(full)
    house.settle(105.0)
    assert len(house.drained) == 1


@pytest.mark.root
def test_a_full_disk_holds_a_services_write_up_and_nothing_more(house: Any, tiny: Path) -> None:
    (tiny / "ballast").write_bytes(bytes(65_536 - 4_096))
    full = house.pipe("full")
    with contextlib.suppress(BlockingIOError):
        while os.write(full, b"x" * 4_096):
            house.settle(0.0)
    (tiny / "ballast").unlink()
    house.mover.retry(10.0)
    house.settle(10.0)
    assert os.write(full, b"x" * 4_096) == 4_096


def test_a_service_that_never_stops_talking_does_not_starve_the_others(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many pipes always ready, each has its turn within as many turns as batches fit."""
    for module in (rotate, pipes):
        monkeypatch.setattr(module, "TURN", 65_536)  # which a pipe has from the beginning: a gigabyte would be moved
    busy = [house.pipe(process=f"busy{n}", run=n + 10) for n in range(3 * rotate.BATCH)]
    quiet = house.pipe(process="quiet", run=1)
    for turn in range(20):
        for writer in busy:
            with contextlib.suppress(BlockingIOError):
                while os.write(writer, b"x" * 65_536):
                    pass
        expected = b"%d\n" % turn
        os.write(quiet, expected)
        for _ in range(4):
            house.mover.turn(0.0)
        assert house.text("quiet/stdout.log").endswith(expected)


def test_one_turn_moves_at_most_so_many_bytes_of_a_pipe(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotate, "TURN", 8_192)
    writer = house.pipe()
    os.write(writer, b"x" * 40_000)
    house.mover.turn(0.0)
    assert len(house.text()) == 8_192


def test_a_busy_pipe_grows_where_the_kernel_allows_it_and_goes_on_where_not(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = house.pipe()
    small = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    os.write(writer, b"x" * 100)
    house.settle()
    assert fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ) == small
    os.write(writer, b"x" * small)
    house.settle()
    assert fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ) >= small

    real = fcntl.fcntl

    def refused(fd: int, command: int, *args: Any) -> Any:
        if command == fcntl.F_SETPIPE_SZ:
            raise OSError(errno.EPERM, "Operation not permitted")
        return real(fd, command, *args)

    monkeypatch.setattr(fcntl, "fcntl", refused)
    other = house.pipe(process="other", run=2)
    os.write(other, b"x" * small)
    house.settle()
    assert len(house.text("other/stdout.log")) == small


def test_the_last_look_takes_what_lies_in_the_pipes_and_does_not_wait(house: Any) -> None:
    writers = [house.pipe(process=f"p{n}", run=n, size=1_000, keep=100) for n in range(40)]
    for writer in writers:
        os.write(writer, b"goodbye\n" * 100)
    house.mover.last(0.0)
    for n in range(40):
        assert house.text(f"p{n}/stdout.log") == b"goodbye\n" * 100


# --- E rows


@pytest.mark.parametrize("what", ["directory", "file", "dangling file", "hard link", "fifo", "rotated"])
def test_E1_nothing_is_written_through_a_link_and_the_pipe_waits(house: Any, tmp_path: Path, what: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    precious = victim / "stdout.log"
    precious.write_bytes(b"precious")
    site = house.path / "site"
    if what == "directory":
        site.symlink_to(victim)
    else:
        site.mkdir()
        log = site / "stdout.log"
        if what == "file":
            log.symlink_to(precious)
        elif what == "dangling file":
            log.symlink_to(victim / "made")
        elif what == "hard link":
            log.hardlink_to(precious)
        elif what == "fifo":
            os.mkfifo(log)
        else:
            (site / "stdout.log.1").symlink_to(precious)
    writer = house.pipe(size=10, keep=3)
    for _ in range(4):
        os.write(writer, b"123456789\n")
        house.settle()
    assert precious.read_bytes() == b"precious"
    assert sorted(victim.iterdir()) == [precious]
    if what == "rotated":
        assert (site / "stdout.log").read_bytes() == b"123456789\n"
        return
    assert house.said
    assert house.mover.wake_at is not None
    (site if what == "directory" else log).unlink()
    house.mover.retry(10.0)
    house.settle(10.0)
    assert house.text() == b"123456789\n" * 4


def test_E7_what_a_service_may_do_to_its_end_of_the_pipe_changes_nothing_that_is_written(house: Any) -> None:
    writer = house.pipe()
    os.write(writer, b"evidence\n")
    house.settle()
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        os.ftruncate(writer, 0)
    with pytest.raises(OSError, match=os.strerror(errno.ESPIPE)):
        os.lseek(writer, 0, os.SEEK_SET)
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    fcntl.flock(writer, fcntl.LOCK_EX)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4_096)
    os.write(writer, b"more\n")
    house.settle()
    assert house.text() == b"evidence\nmore\n"
    link = os.readlink(f"/proc/self/fd/{writer}")
    assert link.startswith("pipe:"), "there is no way from it to the file"


def test_a_reader_that_locks_a_log_file_does_not_stop_it(house: Any) -> None:
    writer = house.pipe(size=20, keep=2)
    os.write(writer, b"123456789\n")
    house.settle()
    with (house.path / "site/stdout.log").open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        for _ in range(3):
            os.write(writer, b"123456789\n")
            house.settle()
    assert house.text() == b"123456789\n" * 4


def test_a_log_file_is_never_open_while_nobody_uses_it(house: Any) -> None:
    writer = house.pipe()
    os.write(writer, b"x\n")
    house.settle()
    os.close(writer)
    house.settle()
    open_files = [os.readlink(f"/proc/self/fd/{fd}") for fd in map(int, os.listdir("/proc/self/fd")) if exists(fd)]
    assert not any(str(house.path / "site") in name for name in open_files)


def exists(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_missing_directory_is_made_with_the_group_of_its_setgid_parent(house: Any) -> None:
    house.path.chmod(0o2750)
    file = LogFile(os.open(house.path, os.O_RDONLY), "site", 1)
    file.ready()
    assert (house.path / "site").stat().st_mode & 0o7777 == 0o2750
    file.close()
