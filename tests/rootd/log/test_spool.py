"""What is on its way when log is killed: at any call of its own, it is written once, or counted as lost."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from kills import kill_at

from rootd.config.logs import FORMATS, TARGETS, How, pack
from rootd.log import forward
from rootd.log.source import Source, name_of, source_of_spool
from rootd.log.spool import BEGIN, PLAIN, Spool, Taking, Totals

STEPS = ("splice", "pwrite", "pread", "open", "close", "rename", "unlink", "ftruncate", "fstat", "mkdir")
STAMP = len("2026-01-02T03:04:05.000006Z ")


def source(form: str = "stamped", target: str = "file", run: int = 1, size: int = 600) -> Source:
    return Source("site", 1, run, 7, size, pack(How(100, 0, 0, 0, 1, TARGETS.index(target), FORMATS.index(form))))


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "spools").mkdir()
    fd = os.open(tmp_path / "spools", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def in_child(work: Callable[[], None]) -> int:
    """How it ended."""
    if (pid := os.fork()) == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


def filled(text: bytes) -> int:
    reader, writer = os.pipe()
    os.write(writer, text)
    os.close(writer)
    return reader


def move(houses: Any, path: Path, reader: int, its: Source) -> Any:
    house = houses(path)
    house.mover.add(its, reader)
    for now in range(1, 100):
        house.settle(float(now))
        if house.drained:
            break
        house.mover.tend(float(now))
    return house


def test_killed_at_any_call_a_file_has_every_stamped_line_once(houses: Any, tmp_path: Path) -> None:
    """After each call; before the next one nothing else is different on disk."""
    text = b"".join(b"line %03d %s\n" % (n, b"x" * (n % 30)) for n in range(40)) + b"end"
    for step in range(10_000):
        path = tmp_path / str(step)
        path.mkdir()
        reader = filled(text)

        def work(step: int = step, path: Path = path, reader: int = reader) -> None:
            kill_at(step, True, STEPS)
            move(houses, path, reader, source())

        if not os.WIFSIGNALED(in_child(work)):
            break
        again = move(houses, path, reader, source())
        assert again.drained, step
        assert b"\n".join(line[STAMP:] for line in again.text().split(b"\n")) == text + b"\n", step
        assert os.listdir(again.run) == []
        again.close()
    assert step > 60


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_call_a_receiver_has_every_line_once_or_it_is_counted(
    houses: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    lines = [b"line %d" % n for n in range(6)]  # a receiver holds ten
    monkeypatch.setattr(forward, "PATHS", {"syslog": str(tmp_path / "log")})
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(tmp_path / "log"))
    receiver.setblocking(False)
    counted = 0
    for step in range(10_000):
        path = tmp_path / str(step)
        path.mkdir()
        reader, its = filled(b"".join(line + b"\n" for line in lines)), source("plain", "syslog")

        def work(step: int = step, path: Path = path, reader: int = reader, its: Source = its) -> None:
            kill_at(step, after, STEPS)
            move(houses, path, reader, its)

        killed = os.WIFSIGNALED(in_child(work))
        again = move(houses, path, reader, its) if killed else houses(path)
        got = []
        while True:
            try:
                got.append(receiver.recv(1000).rpartition(b" - ")[2])
            except BlockingIOError:
                break
        told = [line for line in got if line.startswith(b"[durward: lost here")]
        got = [line for line in got if line not in told]
        [(size, count)] = again.mover.totals.all().values() or [(0, 0)]
        assert got == sorted(set(got), key=lines.index), step
        missing = [line for line in lines if line not in got]
        assert count <= 1, "one record is on its way at a time"
        assert len(missing) <= count, step
        assert size == sum(len(line) + 1 for line in missing) or not missing
        assert len(told) == count
        counted += count
        again.close()
        if not killed:
            break
    assert counted > 3
    receiver.close()


@pytest.mark.parametrize(("target", "after"), [("syslog", False), ("inherit", True)])
def test_killed_at_any_call_a_receiver_is_told_of_a_loss_once_at_most_and_it_is_counted(
    houses: Any, root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, after: bool
) -> None:
    """By a log whose predecessor has lost something, and was killed."""
    monkeypatch.setattr(forward, "PATHS", {"syslog": str(tmp_path / "log")})
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(tmp_path / "log"))
    own, ours = os.pipe2(os.O_NONBLOCK)
    monkeypatch.setattr(forward.Sender.__init__, "__defaults__", ({1: ours, 2: ours},))
    receiver.setblocking(False)
    times = []
    for step in range(10_000):
        path = tmp_path / str(step)
        path.mkdir()
        reader, its = filled(b""), source("plain", target)
        before = houses(path)
        spool = Spool(before.spools, its)
        spool.lose(9, 1, False, spooled=False)
        spool.close()
        before.close()

        def work(step: int = step, path: Path = path, reader: int = reader, its: Source = its) -> None:
            kill_at(step, after, (*STEPS, "write"))
            move(houses, path, reader, its)

        killed = os.WIFSIGNALED(in_child(work))
        again = move(houses, path, reader, its) if killed else houses(path)
        assert list(again.mover.totals.all().values()) == [(9, 1)], step
        got = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                got += receiver.recv(1000) if target == "syslog" else os.read(own, 1000)
        times.append(got.count(b"[durward: lost here"))
        assert times[-1] <= 1, step
        again.close()
        if not killed:
            break
    assert times[-1] == 1
    assert len(times) > 10
    receiver.close()
    os.close(own)
    os.close(ours)


@pytest.mark.root
@pytest.mark.parametrize("form", ["plain", "stamped"])
def test_killed_at_any_call_what_a_full_disk_has_cost_is_counted_to_the_byte(
    houses: Any, tmp_path: Path, form: str
) -> None:
    text = b"".join(b"line %03d\n" % n for n in range(30)) + b"end"
    path = tmp_path / "log"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "durward-test", path], check=True)
    (path / "ballast").write_bytes(bytes(4096))
    for step in range(10_000):
        reader = filled(text)

        def work(step: int = step, reader: int = reader) -> None:
            kill_at(step, True, STEPS)
            move(houses, path, reader, source(form))

        killed = os.WIFSIGNALED(in_child(work))
        again = move(houses, path, reader, source(form))
        assert again.drained, step
        assert again.mover.totals.all() == {("site", 1): (len(text), 30)}, step
        again.close()
        for folder in (path / "site", again.run):
            shutil.rmtree(folder)
        if not killed:
            break
    subprocess.run(["umount", "--lazy", path], check=True)
    assert step > 30


def test_what_is_in_a_spool_goes_on_where_it_was_and_the_spool_is_emptied(root: int) -> None:
    spool = Spool(root, source())
    reader = filled(b"x" * 50_000 + b"rest")
    assert spool.take(reader, 50_000) == 50_000
    spool.intend(Taking(20_000, 5, 0, 20_000))
    again = Spool(root, source())
    assert again.load() == b"x" * 50_000
    assert again.taking == Taking(20_000, 5, 0, 20_000)
    again.settle()
    assert again.peek(100_000) == b"x" * 30_000
    again.intend(Taking(30_000))
    again.settle()
    assert (again.start, again.end, os.fstat(again.fd).st_size) == (BEGIN, BEGIN, BEGIN), f"it had more than {PLAIN}"
    assert again.take(reader, 100) == 4
    assert again.peek(100) == b"rest"
    for one in (spool, again):
        one.remove()
    assert os.listdir(root) == []


def test_what_was_withdrawn_is_still_there_and_what_is_lost_is_counted(root: int) -> None:
    spool = Spool(root, source())
    spool.take(filled(b"one\ntwo\nthr"), 100)
    spool.intend(Taking(4, 1, 2, 3))
    spool.withdraw()
    spool.lose(8, 2, True)
    spool.told()
    spool.lose(3, 0, True)
    again = Spool(root, source())
    assert again.load() == b""
    assert (again.lost_bytes, again.lost_lines, again.told_bytes, again.told_lines, again.torn) == (11, 2, 8, 2, True)
    spool.close()
    again.close()


def test_a_spool_that_was_cut_off_anywhere_is_an_empty_one(root: int) -> None:
    for size in (0, 1, BEGIN - 1, BEGIN):
        fd = os.open(name_of(source()), os.O_RDWR | os.O_CREAT | os.O_TRUNC, dir_fd=root)
        os.ftruncate(fd, size)
        os.close(fd)
        spool = Spool(root, source())
        assert spool.load() == b""
        assert spool.take(filled(b"x"), 1) == 1
        assert spool.peek(10) == b"x"
        spool.close()


def test_a_loss_is_in_the_total_once_whenever_log_is_killed(root: int) -> None:
    totals = Totals(root)
    assert totals.all() == {}
    totals.add(source(), 10, 1, 10)
    assert totals.has(source(), 10)
    assert not totals.has(source(), 11)
    assert not totals.has(source(run=2), 10)
    totals.add(source(run=2), 5, 2, 5)
    assert Totals(root).all() == {("site", 1): (15, 3)}


def test_a_spool_whose_pipe_is_gone_with_the_keeper_is_written_by_the_next_log(houses: Any, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    first = houses(tmp_path / "log")
    reader, writer = os.pipe()
    first.mover.add(source(), reader)
    os.write(writer, b"one\nhal")
    first.settle()
    first.close()  # as a kill: nothing of the last line was written
    os.close(writer)
    (tmp_path / "log-run" / "pipe,what").write_bytes(b"")
    again = houses(tmp_path / "log")
    again.mover.strays(5.0)
    assert [line[STAMP:] for line in again.text().splitlines()] == [b"one", b"hal"]
    assert os.listdir(tmp_path / "log-run") == ["pipe,what"]
    assert any("a spool is left alone: 'pipe,what'" in said for said in again.said)
    again.close()


def test_a_spool_that_cannot_be_read_is_said_to_be_lost_and_nothing_of_it_comes_back(
    houses: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").mkdir()
    first = houses(tmp_path / "log")
    reader, writer = os.pipe()
    first.mover.add(source(), os.dup(reader))
    os.write(writer, b"one\n" + b"h" * 100)
    first.settle()
    first.close()  # as a kill
    with monkeypatch.context() as trouble:
        trouble.setattr(Spool, "load", Mock(side_effect=OSError(errno.EIO, os.strerror(errno.EIO))))
        second = houses(tmp_path / "log")
        second.mover.add(source(), os.dup(reader))
    assert any("nobody can count it" in said for said in second.said)
    os.write(writer, b"two\nx")
    second.settle()
    second.close()
    third = houses(tmp_path / "log")
    os.close(writer)
    third.mover.add(source(), reader)
    third.settle()
    assert [line[STAMP:] for line in third.text().splitlines()] == [b"one", b"two", b"x"]
    assert os.listdir(tmp_path / "log-run") == []
    third.close()


@pytest.mark.parametrize("name", ["pipe,site,1,1,7,600", "pipe,../x,1,1,7,600,0", "lost,site,1,1,7,600,0", "pipe"])
def test_a_name_that_is_no_spools_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not the name"):
        source_of_spool(name)
    assert source_of_spool(name_of(source())) == source()


@pytest.mark.root
def test_a_spool_that_could_not_be_begun_has_its_head_before_it_has_anything_else(tmp_path: Path) -> None:
    """A full tmpfs; then there is room, and log is killed before it has said what is on its way."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "durward-test", tmp_path], check=True)
    try:
        root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        (tmp_path / "filler").write_bytes(bytes(4096))
        spool = Spool(root, source())
        with pytest.raises(OSError, match="No space"):
            spool.ready()
        os.unlink(tmp_path / "filler")
        assert spool.take(filled(b"one\ntwo\n"), 100) == 8
        again = Spool(root, source())
        assert again.load() == b"one\ntwo\n"
        for fd in (spool.fd, again.fd, root):
            os.close(fd)
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)
