"""Compression in slices: nothing lost at a kill, no half file under a final name, and rotation goes on meanwhile."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from kills import kill_at

from rootd.log import pack
from rootd.log.pack import Packer

CALLS = ("open", "pread", "write", "fsync", "fchmod", "utime", "rename", "unlink")

TEXT = b"".join(b"line %d\n" % n for n in range(30_000))


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    return tmp_path


def packer(logs: Path, said: list[str] | None = None) -> Packer:
    made = Packer(os.open(logs, os.O_RDONLY), (said if said is not None else []).append)
    made.want("site", "stdout.log")
    return made


def work(made: Packer) -> None:
    steps = 0
    while made.busy:
        made.step(0.0)
        steps += 1
        assert steps < 10_000


def names(logs: Path) -> list[str]:
    return sorted(path.name for path in (logs / "site").iterdir())


def test_rotated_files_are_compressed_and_the_one_being_written_is_not(logs: Path) -> None:
    for name in ("stdout.log", "stdout.log.1", "stdout.log.2", "stderr.log.1"):
        (logs / "site" / name).write_bytes(TEXT + name.encode())
    old = logs / "site/stdout.log.1"
    old.chmod(0o640)
    os.utime(old, (1000, 2000))
    inode = old.stat().st_ino
    work(packer(logs))
    assert names(logs) == ["stderr.log.1", "stdout.log", "stdout.log.1.gz", "stdout.log.2.gz"]
    made = logs / "site/stdout.log.1.gz"
    assert gzip.decompress(made.read_bytes()) == TEXT + b"stdout.log.1"
    assert (made.stat().st_mode & 0o777, made.stat().st_mtime) == (0o640, 2000)
    assert struct.unpack_from("<QQ", made.read_bytes(), 16) == (inode, len(TEXT) + 12)


def test_a_file_that_is_rotated_while_it_is_compressed_gets_its_new_number(logs: Path) -> None:
    (logs / "site/stdout.log.1").write_bytes(TEXT)
    made = packer(logs)
    for _ in range(3):
        made.step(0.0)
    (logs / "site/stdout.log.1").rename(logs / "site/stdout.log.2")
    work(made)
    assert names(logs) == ["stdout.log.2.gz"]


def test_a_file_that_is_rotated_away_while_it_is_compressed_leaves_nothing(logs: Path) -> None:
    (logs / "site/stdout.log.1").write_bytes(TEXT)
    made = packer(logs)
    for _ in range(3):
        made.step(0.0)
    (logs / "site/stdout.log.1").unlink()
    work(made)
    assert names(logs) == []


def test_what_is_rotated_after_all_was_cleared_in_the_middle_of_it_is_compressed_too(logs: Path) -> None:
    (logs / "site/stdout.log.1").write_bytes(TEXT)
    made = packer(logs)
    for _ in range(3):
        made.step(0.0)
    for path in (logs / "site").iterdir():
        path.unlink()
    (logs / "site/stdout.log.1").write_bytes(TEXT)
    work(made)
    assert names(logs) == ["stdout.log.1.gz"]


def test_what_cannot_be_compressed_stays_as_it_is_and_that_is_said_once(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (logs / "site/stdout.log.1").write_bytes(TEXT)
    said: list[str] = []

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    work(packer(logs, said))
    assert names(logs) == ["stdout.log.1"]
    assert said == ["what was rotated of site/stdout.log stays as it is: No space left on device"]


def test_a_kill_at_any_system_call_leaves_every_byte_and_no_half_file_under_a_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each call; before the next one nothing else is different on disk."""
    monkeypatch.setattr(pack, "SLICE", 100_000)
    for step in range(1_000):
        logs = tmp_path / str(step)
        (logs / "site").mkdir(parents=True)
        (logs / "site/stdout.log.1").write_bytes(TEXT)
        pid = os.fork()
        if pid == 0:
            try:
                kill_at(step, True, CALLS)
                work(packer(logs))
            finally:
                os._exit(0)
        if os.WIFEXITED(os.waitpid(pid, 0)[1]):
            break
        there = names(logs)
        if "stdout.log.1.gz" in there:
            assert gzip.decompress((logs / "site/stdout.log.1.gz").read_bytes()) == TEXT
        else:
            assert (logs / "site/stdout.log.1").read_bytes() == TEXT
        work(packer(logs))
        assert names(logs) == ["stdout.log.1.gz"]
        assert gzip.decompress((logs / "site/stdout.log.1.gz").read_bytes()) == TEXT
    assert step > 10
