"""The file of choices: whole or not at all, whatever happens on the way."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootd.log.choices import FILE, FILES, NEW, keep


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system of two pages."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "durward-test", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_what_is_kept_is_there_and_what_was_there_is_not(tmp_path: Path, directory: int) -> None:
    for body in (b"one", b"", b"three" * 9_000):
        assert keep(directory, body) == (0, True)
        assert (tmp_path / FILE).read_bytes() == body
    assert os.listdir(tmp_path) == [FILE]


def test_the_directorys_group_may_read_it_and_nobody_else(tmp_path: Path, directory: int) -> None:
    before = os.umask(0o027)
    try:
        keep(directory, b"x")
    finally:
        os.umask(before)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("elsewhere"), lambda path: path.touch()])
def test_what_a_killed_log_or_somebody_else_has_left_is_neither_followed_nor_waited_for(
    tmp_path: Path, directory: int, make: Callable[[Path], None]
) -> None:
    for name in (NEW, FILE):
        make(tmp_path / name)
    assert keep(directory, b"x") == (0, True)
    assert (tmp_path / FILE).read_bytes() == b"x"
    assert not (tmp_path / FILE).is_symlink()
    assert os.listdir(tmp_path) == [FILE]


@pytest.mark.root
def test_a_full_disk_is_its_errno_and_the_old_file_stays_alone(full: Path) -> None:
    directory = os.open(full, os.O_RDONLY | os.O_DIRECTORY)
    assert keep(directory, b"old") == (0, True)
    assert keep(directory, b"x" * 5_000) == (errno.ENOSPC, False)
    assert (full / FILE).read_bytes() == b"old"
    assert os.listdir(full) == [FILE], "and what was begun takes no room"
    assert keep(directory, b"new") == (0, True)
    os.close(directory)


@pytest.mark.parametrize("call", ["open", "write", "rename"])
def test_trouble_before_the_rename_leaves_what_was(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    keep(directory, b"old")

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        assert keep(directory, b"new") == (errno.EIO, False)
    assert (tmp_path / FILE).read_bytes() == b"old"
    assert os.listdir(tmp_path) == [FILE]


def test_what_is_there_and_may_not_last_is_said_to_be_both(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(fd: int) -> None:
        if fd == directory:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", sync)
    assert keep(directory, b"new") == (errno.EIO, True)
    assert (tmp_path / FILE).read_bytes() == b"new"


def test_killed_anywhere_in_between_there_is_the_old_file_or_the_new_one(tmp_path: Path, directory: int) -> None:
    """A child that ends before each of its system calls in turn."""
    calls = ("unlink", "open", "write", "fsync", "close", "rename", "fsync")
    seen = set()
    for last in range(len(calls) + 1):
        keep(directory, b"old")
        pid = os.fork()
        if pid == 0:
            left = [last]

            def ending(real: Callable[..., object], left: list[int] = left) -> Callable[..., object]:
                def call(*arguments: object, **words: object) -> object:
                    if left[0] == 0:
                        os._exit(9)
                    left[0] -= 1
                    return real(*arguments, **words)

                return call

            for name in set(calls):
                setattr(os, name, ending(getattr(os, name)))
            keep(directory, b"new")
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        there = (tmp_path / FILE).read_bytes()
        seen.add((status, there))
        assert keep(directory, there) == (0, True), "the next one is not in the way of anything"
    assert seen == {(9, b"old"), (9, b"new"), (0, b"new")}


def test_what_is_kept_of_one_kind_leaves_the_other_as_it_is(tmp_path: Path, directory: int) -> None:
    for name, body in zip(FILES, (b"choices", b"schedules"), strict=True):
        assert keep(directory, body, name) == (0, True)
    assert [(tmp_path / name).read_bytes() for name in FILES] == [b"choices", b"schedules"]
    assert sorted(os.listdir(tmp_path)) == sorted(FILES)
