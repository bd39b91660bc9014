"""Pipes to files: nothing lost, nothing doubled, whatever is killed and whatever is full. security.md E1, E7."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootd.log import rotate
from rootd.log.rotate import LogFile, Mover, Source

DEADLINE = 60  # seconds that any wait of these tests may take


class House:
    """A log directory with a Mover over it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []
        self.drained: list[Source] = []
        self.mover = self.start()

    def start(self) -> Mover:
        self.root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        return Mover(self.root, self.drained.append, self.said.append)

    def pipe(self, process: str = "site", stream: int = 1, run: int = 1, size: int = 1 << 30, keep: int = 10) -> int:
        """The write end of a pipe that the mover reads; it does not block."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self.mover.add(Source(process, stream, run, 7, size, keep), reader)
        os.set_blocking(writer, False)
        return writer

    def settle(self, now: float = 0.0) -> None:
        """Turn until nothing is ready."""
        while ready(self.mover, 0):
            self.mover.turn(now)

    def close(self) -> None:
        self.mover.close()
        os.close(self.root)

    def text(self, name: str = "site/stdout.log") -> bytes:
        """A log with its rotated predecessors, oldest first."""
        return b"".join(file.read_bytes() for file in self.files(name))

    def files(self, name: str = "site/stdout.log") -> list[Path]:
        current = self.path / name
        if not current.parent.is_dir():
            return []
        older = [file for file in current.parent.iterdir() if file.name.startswith(f"{current.name}.")]
        older.sort(key=lambda file: -int(file.suffix[1:]))
        return older + ([current] if current.exists() else [])


def ready(mover: Mover, seconds: float) -> bool:
    poll = select.poll()
    poll.register(mover, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    (tmp_path / "log").mkdir()
    house = House(tmp_path / "log")
    yield house
    house.close()


def numbered(count: int, first: int = 0) -> bytes:
    return b"".join(b"line %08d %s\n" % (n, b"x" * (n % 90)) for n in range(first, first + count))


def test_what_a_service_writes_is_in_its_file_and_the_end_of_its_pipe_is_told(house: House) -> None:
    out, err = house.pipe(), house.pipe(stream=2)
    os.write(out, b"hello\n")
    os.write(err, b"trouble\n")
    house.settle()
    os.write(out, b"no newline at the end")
    os.close(out)
    house.settle()
    assert house.text() == b"hello\nno newline at the end"
    assert house.text("site/stderr.log") == b"trouble\n"
    assert [(s.process, s.stream, s.run, s.slot) for s in house.drained] == [("site", 1, 1, 7)]
    assert (house.path / "site").stat().st_mode & 0o027 == 0
    assert (house.path / "site/stdout.log").stat().st_mode & 0o777 & ~0o640 == 0


def test_a_log_goes_on_where_it_ended_before(house: House) -> None:
    for run, text in enumerate((b"first\n", b"second\n", b"third\n")):
        writer = house.pipe(run=run)
        os.write(writer, text)
        os.close(writer)
        house.settle()
    assert house.text() == b"first\nsecond\nthird\n"


def test_the_same_stream_of_a_run_is_taken_once_however_often_it_comes(house: House) -> None:
    reader, writer = os.pipe()
    source = Source("site", 1, 5, 7, 1000, 3)
    copies = [os.dup(reader) for _ in range(3)]
    for fd in (reader, *copies):
        house.mover.add(source, fd)
    assert not any(exists(fd) for fd in copies)
    os.write(writer, b"once\n")
    house.settle()
    assert house.text() == b"once\n"


def test_two_runs_of_one_process_append_to_one_file(house: House) -> None:
    old, new = house.pipe(run=1), house.pipe(run=2)
    os.write(old, b"old\n")
    house.settle()
    os.write(new, b"new\n")
    house.settle()
    os.close(old)
    house.settle()
    os.write(new, b"newer\n")
    house.settle()
    assert house.text() == b"old\nnew\nnewer\n"


def test_a_descriptor_that_is_no_pipe_is_closed(house: House) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    house.mover.add(Source("site", 1, 5, 7, 1000, 3), fd)
    assert not exists(fd)


# --- names


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/x", "A", "-x", ".x", "a b", "a\0", "a\n", "é", "a" * 81]
)
def test_E1_a_process_name_that_could_leave_the_directory_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a process"):
        rotate.check(Source(name, 1, 1, 1, 1, 1))


@pytest.mark.parametrize(
    "source",
    [
        Source("site", 0, 1, 1, 1, 1), Source("site", 3, 1, 1, 1, 1), Source("site", 1, 1, 1, 0, 1),
        Source("site", 1, 1, 1, -5, 1), Source("site", 1, 1, 1, 1, -1), Source("site", 1, 1, 1, 1, 1_001),
    ],
)  # fmt: skip
def test_a_source_out_of_range_is_refused(source: Source) -> None:
    with pytest.raises(ValueError, match=r"stream|range"):
        rotate.check(source)


def test_a_name_of_the_store_says_whose_pipe_it_is() -> None:
    assert rotate.source_of("pipe/site.0/stderr/12/5000/10/1027") == Source("site.0", 2, 12, 1027, 5000, 10)


@pytest.mark.parametrize(
    "name",
    [
        "", "pipe", "pipe/site/stdout/1/2/3", "pipe/site/stdout/1/2/3/4/5", "pipe/../stdout/1/2/3/4",
        "pipe/site/other/1/2/3/4", "pipe/site/stdout/x/2/3/4", "pipe/site/stdout/-1/2/3/4", "notify/site/stdout/1/2/3/4",
        "pipe/site/stdout/١/2/3/4",
    ],
)  # fmt: skip
def test_any_other_name_of_the_store_is_refused(name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        rotate.source_of(name)


# --- where a file ends


@given(st.lists(st.binary(max_size=120), max_size=8), st.integers(1, 60), st.integers(1, 40), st.data())
def test_a_file_ends_at_a_newline_whenever_one_is_within_reach(
    pieces: list[bytes], limit: int, slack: int, data: st.DataObject
) -> None:
    """cut, played over any text that comes in any pieces: every byte once, every file in its bounds."""
    text = b"\n".join(pieces)
    files, at, steps = [b""], 0, 0
    while at < len(text):
        steps += 1
        assert steps < 10_000
        size = len(files[-1])
        room, reach = limit - size, limit - size + slack
        window = text[at : at + min(data.draw(st.integers(1, 50)), max(reach, 1))]
        take, full = rotate.cut(window, room, reach, files[-1].endswith(b"\n"))
        assert 0 <= take <= len(window)
        files[-1] += window[:take]
        at += take
        if full:
            assert files[-1], "an empty file is never rotated"
            files.append(b"")
    assert b"".join(files) == text
    for file in files[:-1]:
        assert len(file) <= limit + slack
        assert file.endswith(b"\n") or len(file) == limit + slack
        if len(file) > limit:
            assert b"\n" not in file[limit - 1 : -1], "it could have ended earlier"


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(0, 400).map(lambda n: b"y" * n + b"\n"), max_size=40),
    st.integers(1, 300),
    st.randoms(use_true_random=False),
)
def test_rotation_cuts_at_line_ends_whatever_pieces_come(lines: list[bytes], size: int, rng: random.Random) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as path:
        house = House(Path(path))
        writer = house.pipe(size=size, keep=1_000)
        text = b"".join(lines)
        at = 0
        while at < len(text):
            step = rng.randint(1, 700)
            os.write(writer, text[at : at + step])
            at += step
            house.settle()
        assert house.text() == text
        for file in house.files()[:-1]:
            content = file.read_bytes()
            assert len(content) <= 2 * size
            assert content.endswith(b"\n") or len(content) == 2 * size
        os.close(writer)
        house.settle()
        house.close()


def test_under_load_every_rotated_file_ends_a_line_and_none_is_too_large(house: House) -> None:
    writer = house.pipe(size=100_000, keep=1_000)
    text = numbered(60_000)
    view = memoryview(text)
    while view:
        try:
            view = view[os.write(writer, view[:30_000]) :]
        except BlockingIOError:
            house.mover.turn(0.0)
    house.settle()
    files = house.files()
    assert len(files) > len(text) // 100_000
    assert house.text() == text
    for file in files[:-1]:
        content = file.read_bytes()
        assert content.endswith(b"\n")
        assert 100_000 - 200 < len(content) <= 100_000


def test_keep_is_how_many_older_files_there_are(house: House) -> None:
    for keep in (3, 2, 0, 1):
        writer = house.pipe(size=20, keep=keep, run=keep)
        for n in range(8):
            os.write(writer, b"%d 23456789 12345\n" % n)
            house.settle()
        assert len(house.files()) == keep + 1
        assert house.text().endswith(b"7 23456789 12345\n")
        os.close(writer)
        house.settle()


def test_a_number_that_a_kill_left_free_is_used_before_the_oldest_is_given_up(house: House) -> None:
    writer = house.pipe(size=5, keep=3)
    for n in range(4):
        os.write(writer, b"%d...\n" % n)
        house.settle()
    directory = house.path / "site"
    (directory / "stdout.log.1").rename(directory / "kept")
    os.write(writer, b"4...\n")
    house.settle()
    assert [file.read_bytes() for file in house.files()] == [b"0...\n", b"1...\n", b"3...\n", b"4...\n"]


def test_a_file_that_cannot_be_rotated_grows_on_and_that_is_said(house: House) -> None:
    writer = house.pipe(size=10, keep=1)
    os.write(writer, b"123456789\n")
    house.settle()
    blocker = house.path / "site" / "stdout.log.1"
    (blocker / "inside").mkdir(parents=True)
    for _ in range(3):
        os.write(writer, b"123456789\n")
        house.settle()
    assert (house.path / "site/stdout.log").read_bytes() == b"123456789\n" * 4
    assert any("cannot be rotated" in text for text in house.said)
    (blocker / "inside").rmdir()
    blocker.rmdir()
    os.write(writer, b"123456789\n")
    house.settle()
    assert [file.read_bytes() for file in house.files()] == [b"123456789\n" * 4, b"123456789\n"]


def test_a_file_that_somebody_removed_is_made_again(house: House) -> None:
    writer = house.pipe()
    os.write(writer, b"one\n")
    house.settle()
    (house.path / "site/stdout.log").unlink()
    os.write(writer, b"two\n")
    house.settle()
    assert house.text() == b"two\n"


def test_no_more_files_are_open_than_the_limit(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotate, "FILES_LIMIT", 4)
    writers = [house.pipe(process=f"p{n}", run=n) for n in range(20)]
    before = len(os.listdir("/proc/self/fd"))
    for turn in range(3):
        for writer in writers:
            os.write(writer, b"turn %d\n" % turn)
        house.settle()
    assert len(os.listdir("/proc/self/fd")) <= before + 4
    for n in range(20):
        assert house.text(f"p{n}/stdout.log") == b"turn 0\nturn 1\nturn 2\n"


# --- killed


def in_child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def move_until_the_end(path: Path, reader: int, size: int, keep: int, after_each_turn: Callable[[], None]) -> None:
    house = House(path)
    house.mover.add(Source("site", 1, 1, 7, size, keep), os.dup(reader))
    while not house.drained:
        assert ready(house.mover, DEADLINE)
        house.mover.turn(0.0)
        after_each_turn()


@pytest.mark.parametrize(("size", "fewest"), [(1 << 30, 1), (300_000, 50), (4_096, 500)])
def test_kill_9_in_the_middle_of_anything_loses_no_byte_and_doubles_none(
    house: House, monkeypatch: pytest.MonkeyPatch, size: int, fewest: int
) -> None:
    """A mover is killed again and again while a writer writes as fast as it can; the next one goes on."""
    monkeypatch.setattr(rotate, "TURN", 65_536)  # more turns to be killed in
    rng = random.Random(size)  # noqa: S311
    text = numbered(300_000 if size > 10_000 else 40_000)
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
            move_until_the_end(house.path, reader, size, 100_000, lambda: os.write(tell, b".") and None)

        mover = in_child(move)
        os.close(tell)
        turns = rng.randint(1, 30)
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


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("keep", [0, 2, 100])
def test_a_kill_at_any_system_call_of_a_move_and_a_rotation_is_made_good_by_the_next_start(
    tmp_path: Path, keep: int, after: bool
) -> None:
    text = numbered(40)
    for step in range(10_000):
        path = tmp_path / str(step)
        path.mkdir()
        reader, writer = os.pipe()
        os.write(writer, text)
        os.close(writer)

        def move(step: int = step, path: Path = path, reader: int = reader) -> None:
            killer(step, after)
            move_until_the_end(path, reader, 600, keep, lambda: None)

        _, status = os.waitpid(in_child(move), 0)
        if not os.WIFSIGNALED(status):
            break
        again = House(path)
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
    assert step > 30


def killer(step: int, after: bool) -> None:
    count = iter(range(1_000_000))

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            now = next(count) == step
            if now and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*args, **kwargs)
            finally:
                if now:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in STEPS:
        setattr(os, name, wrapped(getattr(os, name)))


# --- trouble and fairness


@pytest.fixture
def tiny(house: House) -> Iterator[Path]:
    """<log>/full is a file system of its own, 64 KiB."""
    place = house.path / "full"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "durward-test", place], check=True)
    try:
        yield place
    finally:
        for file in house.mover._files.values():
            file.close()
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.root
@pytest.mark.parametrize("size", [1 << 30, 10_000])
def test_a_full_disk_holds_its_pipes_up_loses_nothing_and_the_others_go_on(house: House, tiny: Path, size: int) -> None:
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
def test_a_full_disk_holds_a_services_write_up_and_nothing_more(house: House, tiny: Path) -> None:
    (tiny / "ballast").write_bytes(bytes(65_536 - 4_096))
    full = house.pipe("full")
    with pytest.raises(BlockingIOError):
        while True:
            os.write(full, b"x" * 4_096)
            house.settle(0.0)
    (tiny / "ballast").unlink()
    house.mover.retry(10.0)
    house.settle(10.0)
    assert os.write(full, b"x" * 4_096) == 4_096


def test_a_service_that_never_stops_talking_does_not_starve_the_others(house: House) -> None:
    """With many pipes always ready, each has its turn within as many turns as batches fit."""
    busy = [house.pipe(process=f"busy{n}", run=n + 10) for n in range(3 * rotate.BATCH)]
    quiet = house.pipe(process="quiet", run=1)
    for turn in range(20):
        for writer in busy:
            with pytest.raises(BlockingIOError):
                while True:
                    os.write(writer, b"x" * 4_096)
        expected = b"%d\n" % turn
        os.write(quiet, expected)
        for _ in range(4):
            house.mover.turn(0.0)
        assert house.text("quiet/stdout.log").endswith(expected)


def test_one_turn_moves_at_most_so_many_bytes_of_a_pipe(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotate, "TURN", 8_192)
    writer = house.pipe()
    os.write(writer, b"x" * 40_000)
    house.mover.turn(0.0)
    assert len(house.text()) == 8_192


def test_a_busy_pipe_grows_where_the_kernel_allows_it_and_goes_on_where_not(
    house: House, monkeypatch: pytest.MonkeyPatch
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


def test_the_last_look_takes_what_lies_in_the_pipes_and_does_not_wait(house: House) -> None:
    writers = [house.pipe(process=f"p{n}", run=n, size=1_000, keep=100) for n in range(40)]
    for writer in writers:
        os.write(writer, b"goodbye\n" * 100)
    house.mover.last(0.0)
    for n in range(40):
        assert house.text(f"p{n}/stdout.log") == b"goodbye\n" * 100


# --- E rows


@pytest.mark.parametrize("what", ["directory", "file", "dangling file", "hard link", "fifo", "rotated"])
def test_E1_nothing_is_written_through_a_link_and_the_pipe_waits(house: House, tmp_path: Path, what: str) -> None:
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


def test_E7_what_a_service_may_do_to_its_end_of_the_pipe_changes_nothing_that_is_written(house: House) -> None:
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


def test_a_reader_that_locks_a_log_file_does_not_stop_it(house: House) -> None:
    writer = house.pipe(size=20, keep=2)
    os.write(writer, b"123456789\n")
    house.settle()
    with (house.path / "site/stdout.log").open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        for _ in range(3):
            os.write(writer, b"123456789\n")
            house.settle()
    assert house.text() == b"123456789\n" * 4


def test_a_log_file_is_never_open_while_nobody_uses_it(house: House) -> None:
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


def test_a_missing_directory_is_made_with_the_group_of_its_setgid_parent(house: House) -> None:
    house.path.chmod(0o2750)
    file = LogFile(os.open(house.path, os.O_RDONLY), "site", 1)
    file.ready()
    assert (house.path / "site").stat().st_mode & 0o7777 == 0o2750
    file.close()
