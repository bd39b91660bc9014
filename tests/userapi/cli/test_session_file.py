"""The file of sessions."""

from __future__ import annotations

import os

import pytest

from userapi.cli import session_file
from userapi.cli.failure import Failure

ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("DURWARD_SESSION", str(tmp_path / "a" / "session"))
    return tmp_path / "a" / "session"


def test_a_token_is_kept_for_its_address_alone(file):
    session_file.save("unix:/a", ONE)
    session_file.save("https://b:443", TWO)
    assert session_file.load("unix:/a") == ONE
    assert session_file.load("https://b:443") == TWO
    assert session_file.load("https://evil:443") == ""
    session_file.save("unix:/a", "")
    assert session_file.load("unix:/a") == ""
    assert session_file.load("https://b:443") == TWO


def test_only_its_owner_can_read_it(file):
    session_file.save("unix:/a", ONE)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in file.parent.iterdir()] == ["session"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606, 0o660])
def test_a_file_that_others_can_read_is_refused_and_never_replaced(file, mode):
    session_file.save("unix:/a", ONE)
    file.chmod(mode)
    for use in (lambda: session_file.load("unix:/a"), lambda: session_file.save("unix:/a", TWO)):
        with pytest.raises(
            Failure, match=r"not yours alone .* chmod 600 it if it is yours, or name another"
        ) as failure:
            use()
        assert (failure.value.exit, failure.value.hints()) == (77, [])
    assert file.read_text() == f"unix:/a {ONE}\n"


def test_the_file_of_passwords_is_no_session_file(monkeypatch):
    monkeypatch.setenv("DURWARD_SESSION", "/etc/passwd")
    with pytest.raises(Failure, match=r"not yours alone .* DURWARD_SESSION"):
        session_file.save("unix:/a", ONE)


def test_a_link_is_not_followed(file, tmp_path):
    session_file.save("unix:/a", ONE)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Failure, match="cannot be opened"):
        session_file.load("unix:/a")


def test_a_fifo_does_not_hang(file):
    file.parent.mkdir()
    os.mkfifo(file, 0o600)
    with pytest.raises(Failure):
        session_file.load("unix:/a")


def test_what_is_no_token_is_none(file):
    file.parent.mkdir()
    file.touch(0o600)
    file.write_text(f"unix:/a {ONE}x\nunix:/b {'g' * 64}\nunix:/c\n\nunix:/d {ONE}\n")
    assert [session_file.load(f"unix:/{name}") for name in "abcd"] == ["", "", "", ONE]


def test_the_usual_places(monkeypatch):
    monkeypatch.delenv("DURWARD_SESSION")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x")
    assert session_file.path() == "/x/durward/session"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/alice")
    assert session_file.path() == "/home/alice/.config/durward/session"


def test_a_place_that_cannot_be_written_is_said(monkeypatch):
    monkeypatch.setenv("DURWARD_SESSION", "/proc/none/session")
    with pytest.raises(Failure, match="cannot be kept"):
        session_file.save("unix:/a", ONE)
