"""Opening logs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rootd.supervisor.logs import open_audit, open_log


@pytest.fixture
def top(tmp_path: Path) -> Path:
    folder = tmp_path / "site.0"
    folder.mkdir()
    (folder / "stdout.log").write_bytes(b"now\n")
    (folder / "stdout.log.1").write_bytes(b"before\n")
    return tmp_path


def read(top: Path, *what: object) -> bytes:
    fd = open_log(str(top), *what)  # type: ignore[arg-type]
    try:
        assert not os.get_inheritable(fd)
        return os.read(fd, 100)
    finally:
        os.close(fd)


def test_the_log_of_a_process_is_found_by_the_name_that_people_see(top: Path) -> None:
    assert read(top, "site:0", "stdout", 0) == b"now\n"
    assert read(top, "site:0", "stdout", 1) == b"before\n"


def test_a_rotated_log_that_was_compressed_is_found_by_its_number(top: Path) -> None:
    (top / "site.0" / "stdout.log.2.gz").write_bytes(b"compressed")
    assert read(top, "site:0", "stdout", 2) == b"compressed"


@pytest.mark.parametrize("what", [("site:0", "stderr", 0), ("site:0", "stdout", 2), ("site:1", "stdout", 0)])
def test_what_is_not_there_is_an_error_and_leaves_no_descriptor(top: Path, what: tuple[str, str, int]) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        open_log(str(top), *what)
    assert os.listdir("/proc/self/fd") == before


def test_e1_no_link_is_followed_and_no_fifo_or_directory_is_opened(top: Path) -> None:
    (top / "linked").symlink_to(top / "site.0")
    (top / "site.0" / "stderr.log").symlink_to("/etc/passwd")
    os.mkfifo(top / "site.0" / "stdout.log.2")
    (top / "site.0" / "stdout.log.3").mkdir()
    before = os.listdir("/proc/self/fd")
    for what in (("linked", "stdout", 0), ("site:0", "stderr", 0), ("site:0", "stdout", 2), ("site:0", "stdout", 3)):
        with pytest.raises(OSError, match=r"."):
            open_log(str(top), *what)
    assert os.listdir("/proc/self/fd") == before


def test_e6_two_grants_share_no_offset(top: Path) -> None:
    first, second = (open_log(str(top), "site:0", "stdout", 0) for _ in range(2))
    try:
        assert os.read(first, 2) == b"no"
        assert os.read(second, 9) == b"now\n"
    finally:
        os.close(first)
        os.close(second)


def test_e6_a_grant_cannot_be_written(top: Path) -> None:
    fd = open_log(str(top), "site:0", "stdout", 0)
    try:
        for attempt in (lambda: os.write(fd, b"x"), lambda: os.ftruncate(fd, 0)):
            with pytest.raises(OSError, match=r"."):
                attempt()
    finally:
        os.close(fd)
    assert (top / "site.0" / "stdout.log").read_bytes() == b"now\n"


@pytest.mark.root
def test_e6_whoever_is_handed_it_cannot_open_it_for_writing_or_change_its_mode(top: Path) -> None:
    """The reader is another account than the writer: log's, with mode 0640."""
    path = top / "site.0" / "stdout.log"
    path.chmod(0o640)
    fd = open_log(str(top), "site:0", "stdout", 0)
    pid = os.fork()
    if pid == 0:
        failed = 0
        try:
            os.setresgid(61999, 61999, 61999)
            os.setgroups([])
            os.setresuid(61999, 61999, 61999)
            for attempt in (lambda: os.open(f"/proc/self/fd/{fd}", os.O_RDWR), lambda: os.fchmod(fd, 0o666)):
                try:
                    attempt()
                except OSError:
                    failed += 1
        finally:
            os._exit(failed)
    os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2


def test_e1_of_the_audit_log_only_its_own_plain_files_are_opened(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    folder.mkdir()
    (folder / "audit-0000000000000001.jsonl").write_bytes(b"full\n")
    (folder / "audit-0000000000000002.jsonl").symlink_to("/etc/passwd")
    (folder / "audit-secret.jsonl").write_bytes(b"no\n")
    (folder / "audit.jsonl").mkdir()
    before = os.listdir("/proc/self/fd")
    for rotated in (0, 1, 3):
        with pytest.raises(OSError, match=r"."):
            open_audit(str(tmp_path), rotated)
    assert os.listdir("/proc/self/fd") == before
    name, fd = open_audit(str(tmp_path), 2)
    assert (name, os.read(fd, 9)) == ("audit-0000000000000001.jsonl", b"full\n")
    os.close(fd)
