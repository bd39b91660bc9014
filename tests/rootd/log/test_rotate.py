"""Pipes to files: nothing lost, nothing doubled, whatever is killed and whatever is full. security.md E1, E7."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from rootd.log import shelf
from rootd.log.source import Source

DEADLINE = 60  # seconds that any wait of these tests may take


def numbered(count: int, first: int = 0) -> bytes:
    return b"".join(b"line %08d %s\n" % (n, b"x" * (n % 90)) for n in range(first, first + count))


def test_what_a_service_writes_is_in_its_file_and_the_end_of_its_pipe_is_told(house: Any) -> None:
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


def test_a_log_goes_on_where_it_ended_before(house: Any) -> None:
    for run, text in enumerate((b"first\n", b"second\n", b"third\n")):
        writer = house.pipe(run=run)
        os.write(writer, text)
        os.close(writer)
        house.settle()
    assert house.text() == b"first\nsecond\nthird\n"


def test_the_same_stream_of_a_run_is_taken_once_however_often_it_comes(house: Any) -> None:
    reader, writer = os.pipe()
    source = Source("site", 1, 5, 7, 1000, 3)
    copies = [os.dup(reader) for _ in range(3)]
    for fd in (reader, *copies):
        house.mover.add(source, fd)
    assert not any(exists(fd) for fd in copies)
    os.write(writer, b"once\n")
    house.settle()
    assert house.text() == b"once\n"


def test_two_runs_of_one_process_append_to_one_file(house: Any) -> None:
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


def test_a_descriptor_that_is_no_pipe_is_closed(house: Any) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    house.mover.add(Source("site", 1, 5, 7, 1000, 3), fd)
    assert not exists(fd)


# --- where a file ends


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.integers(0, 400).map(lambda n: b"y" * n + b"\n"), max_size=40),
    size=st.integers(20, 300),
    rng=st.randoms(use_true_random=False),
)
def test_rotation_cuts_at_line_ends_whatever_pieces_come(
    houses: Any, lines: list[bytes], size: int, rng: random.Random
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as path:
        house = houses(Path(path))
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


def test_under_load_every_rotated_file_ends_a_line_and_none_is_too_large(house: Any) -> None:
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


def test_keep_is_how_many_older_files_there_are(house: Any) -> None:
    for keep in (3, 2, 0, 1):
        writer = house.pipe(size=20, keep=keep, run=keep)
        for n in range(8):
            os.write(writer, b"%d 23456789 12345\n" % n)
            house.settle()
        assert len(house.files()) == keep + 1
        assert house.text().endswith(b"7 23456789 12345\n")
        os.close(writer)
        house.settle()


def test_a_number_that_a_kill_left_free_is_used_before_the_oldest_is_given_up(house: Any) -> None:
    writer = house.pipe(size=5, keep=3)
    for n in range(4):
        os.write(writer, b"%d...\n" % n)
        house.settle()
    directory = house.path / "site"
    (directory / "stdout.log.1").rename(directory / "kept")
    os.write(writer, b"4...\n")
    house.settle()
    assert [file.read_bytes() for file in house.files()] == [b"0...\n", b"1...\n", b"3...\n", b"4...\n"]


def test_a_file_that_cannot_be_rotated_grows_on_and_that_is_said(house: Any) -> None:
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


def test_a_file_that_somebody_removed_is_made_again(house: Any) -> None:
    writer = house.pipe()
    os.write(writer, b"one\n")
    house.settle()
    (house.path / "site/stdout.log").unlink()
    os.write(writer, b"two\n")
    house.settle()
    assert house.text() == b"two\n"


def test_no_more_files_are_open_than_the_limit(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "FILES_LIMIT", 4)
    writers = [house.pipe(process=f"p{n}", run=n) for n in range(20)]
    before = len(os.listdir("/proc/self/fd"))
    for turn in range(3):
        for writer in writers:
            os.write(writer, b"turn %d\n" % turn)
        house.settle()
    assert len(os.listdir("/proc/self/fd")) <= before + 4
    for n in range(20):
        assert house.text(f"p{n}/stdout.log") == b"turn 0\nturn 1\nturn 2\n"


def exists(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
