"""Small files: what may lie there, and that nothing is waited for."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from rootd.supervisor import files


def test_what_was_written_is_read_and_what_is_not_there_is_empty(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    assert files.read(path, 10) == b""
    for data in (b"0123456789", b"", b"x"):
        files.write(path, data)
        assert files.read(path, 10) == data
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(tmp_path) == ["state"]


def test_one_byte_too_many_is_too_many(tmp_path: Path) -> None:
    files.write(str(tmp_path / "state"), b"01234567890")
    with pytest.raises(OSError, match="more than 10 bytes"):
        files.read(str(tmp_path / "state"), 10)


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, os.mkdir, bind, lambda path: path.symlink_to(__file__)],
    ids=["a FIFO that nobody writes", "a directory", "a socket", "a link to a file"],
)
def test_what_is_no_plain_file_is_an_error_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "state")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError):  # noqa: PT011  each has an errno of its own
        files.read(str(tmp_path / "state"), 10)
    assert os.listdir("/proc/self/fd") == before


def test_what_a_memfd_holds_is_read_wherever_it_stands_and_the_descriptor_is_closed() -> None:
    fd = os.memfd_create("x")
    os.write(fd, b"all of it")
    assert files.content(fd) == b"all of it"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_what_there_is_no_room_for_is_written_when_there_is_and_the_last_word_counts(tmp_path: Path) -> None:
    said: list[str] = []
    kept = files.Kept(str(tmp_path / "place"), lambda: 10.0, said.append)
    kept.write("state", b"old")
    kept.write("state", b"new")
    kept.write("other", b"x")
    assert len(said) == 1
    assert "cannot be written: No such file or directory" in said[0]
    assert kept.wake_at() == 10.0 + files.RETRY
    (tmp_path / "place").mkdir()
    kept.wake(10.5)
    assert os.listdir(tmp_path / "place") == []
    kept.wake(11.0)
    assert (kept.read("state", 10), kept.read("other", 10)) == (b"new", b"x")
    assert kept.wake_at() is None
    assert said[1:] == [f"{tmp_path / 'place'} is written again"]
