"""Logs that are cleared, and files that somebody has renamed."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from rootd.config.logs import How, pack
from rootd.log import files


def test_what_is_cleared_is_gone_with_all_that_was_rotated_and_the_service_writes_on(house: Any) -> None:
    out, err = house.pipe(size=100), house.pipe(stream=2)
    os.write(out, b"".join(b"line %04d\n" % n for n in range(50)))
    os.write(err, b"an error\n")
    house.settle()
    assert len(house.files()) > 3
    (house.path / "site/stdout.log.9.gz").write_bytes(b"packed")
    (house.path / "site/stdout.log.packing").write_bytes(b"half packed")
    (house.path / "site/notes").write_bytes(b"somebody's own")
    before = (house.path / "site/stdout.log").stat().st_ino
    with (house.path / "site/stdout.log").open("rb"):
        assert house.mover.shelf.clear("site", reopen=False) == 0
        assert (house.path / "site/stdout.log").stat().st_ino != before, "who reads the old one notices"
    assert sorted(os.listdir(house.path / "site")) == ["notes", "stderr.log", "stdout.log"]
    assert house.text() == house.text("site/stderr.log") == b""
    os.write(out, b"after\n")
    os.write(err, b"after\n")
    house.settle()
    assert house.text() == house.text("site/stderr.log") == b"after\n"


def test_what_is_cleared_does_not_grow_old(house: Any) -> None:
    writer = house.pipe(keep=pack(How(5, age=60)))
    os.write(writer, b"line\n")
    house.settle(10.0)
    assert house.mover.next() is not None
    assert house.mover.shelf.clear("site", reopen=False) == 0
    house.mover.tend(100.0)
    assert house.mover.next() is None
    assert len(house.files()) == 1


def test_logs_of_a_service_that_does_not_run_are_cleared_too(house: Any) -> None:
    (house.path / "old").mkdir()
    (house.path / "old/stdout.log").write_bytes(b"x\n")
    (house.path / "old/stdout.log.1").write_bytes(b"x\n")
    assert house.mover.shelf.clear("old", reopen=False) == 0
    assert house.text("old/stdout.log") == b""
    assert not (house.path / "old/stderr.log").exists()
    assert house.mover.shelf.clear("never-was", reopen=False) == 0
    assert not (house.path / "never-was").exists()
    assert house.mover.shelf.files == {}


@pytest.mark.parametrize("rotated", [False, True])
def test_e7_nothing_is_cleared_through_a_link(house: Any, tmp_path: Any, rotated: bool) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/stdout.log").write_bytes(b"x\n")
    if rotated:
        (house.path / "site").mkdir()
        (house.path / "site/stdout.log.1").symlink_to(tmp_path / "precious/stdout.log")
    else:
        (house.path / "site").symlink_to(tmp_path / "precious")
    assert house.mover.shelf.clear("site", reopen=False) in (0, errno.ENOTDIR, errno.ELOOP)
    assert (tmp_path / "precious/stdout.log").read_bytes() == b"x\n"


def test_a_file_that_was_renamed_is_not_written_to_any_more_once_it_was_reopened(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As logrotate does it: rename, reopen, and from then on the old file is its own."""
    monkeypatch.setattr(files, "LOOK", 1e9)
    writer = house.pipe()
    os.write(writer, b"before\n")
    house.settle()
    (house.path / "site/stdout.log").rename(house.path / "site/stdout.log-20260102")
    os.write(writer, b"between\n")
    house.settle()
    assert house.mover.shelf.clear("site", reopen=True) == 0
    os.write(writer, b"after\n")
    house.settle()
    assert (house.path / "site/stdout.log-20260102").read_bytes() == b"before\nbetween\n"
    assert house.text() == b"after\n"
    assert house.mover.shelf.clear("site", reopen=True) == 0
    os.write(writer, b"more\n")
    house.settle()
    assert house.text() == b"after\nmore\n", "a file that still has its name keeps it"
