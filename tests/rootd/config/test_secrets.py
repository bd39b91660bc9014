"""Secrets: read like root's other files, and then apart from everything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rootd.config import secrets

pytestmark = pytest.mark.root


def secret(folder: Path, content: bytes, mode: int = 0o600) -> str:
    path = folder / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def test_any_bytes_are_read_and_their_mark_says_nothing_of_them(root_directory: Path) -> None:
    content = b"\xff\0hunter2\n"
    file, found = secrets.read_secret(secret(root_directory, content))
    assert (found, file.error) == (content, "")
    assert b"hunter" not in repr(file).encode()
    assert secrets.read_secret(file.path)[0] == file


def test_another_content_or_file_has_another_mark(root_directory: Path) -> None:
    path = secret(root_directory, b"one")
    before, _ = secrets.read_secret(path)
    os.utime(path, ns=(1, 1))
    Path(path).write_bytes(b"two")
    middle, _ = secrets.read_secret(path)
    os.rename(secret(root_directory, b"two"), f"{path}.new")
    after, _ = secrets.read_secret(f"{path}.new")
    assert len({before.text, middle.text, after.text}) == 3


@pytest.mark.parametrize(
    ("mode", "text"), [(0o604, "can be read by everybody (mode 0604): chmod o-rwx"), (0o620, "can be written by its")]
)
def test_a_secret_that_is_none_is_refused(root_directory: Path, mode: int, text: str) -> None:
    file, content = secrets.read_secret(secret(root_directory, b"x", mode))
    assert text in file.error
    assert (file.text, content) == ("", b"")


def test_one_that_is_not_there_or_a_link_or_too_large_is_refused(root_directory: Path) -> None:
    assert secrets.read_secret(f"{root_directory}/none")[0].missing
    path = secret(root_directory, bytes((1 << 20) + 1))
    assert "is larger than" in secrets.read_secret(path)[0].error
    os.symlink(path, f"{root_directory}/link")
    assert "symbolic link" in secrets.read_secret(f"{root_directory}/link")[0].error


def test_what_is_packed_is_found_again(tmp_path: Path) -> None:
    contents = {"/etc/a": b"one\n\0", "/etc/empty": b"", "/etc/ü": bytes(100_000) + b"end", **{
        f"/etc/{number}": b"%d" % number for number in range(9_000)
    }}  # fmt: skip
    path = tmp_path / "packed"
    path.write_bytes(secrets.pack(contents))
    with path.open("rb") as file:
        found = secrets.places(file.fileno())
        assert {name: os.pread(file.fileno(), size, at) for name, (at, size) in found.items()} == contents


def test_what_was_not_packed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "packed"
    path.write_bytes(b"{}")
    with path.open("rb") as file, pytest.raises(ValueError, match="no line"):
        secrets.places(file.fileno())


def test_the_mount_says_whether_a_path_is_on_a_disk() -> None:
    assert secrets.is_in_memory("/dev/shm/not/there/yet")
    assert not secrets.is_in_memory("/proc/self")
    assert not secrets.is_in_memory("/nonexistent/run")
