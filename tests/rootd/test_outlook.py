"""What will not work on this machine is told with its file, line and key, and is no mistake."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootd import check, outlook
from rootd.config.settings import User
from rootd.config.table import Socket
from rootd.log import forward

WHO = User(4242, 4242, (4242, 77), "/", "")


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="durward-test-", dir="/var/lib"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def program(path: Path, mode: int = 0o755) -> str:
    path.write_text("#!/bin/true\n")
    path.chmod(mode)
    return str(path)


@pytest.mark.root
def test_a_program_is_looked_at_as_its_user_would_find_it(place: Path) -> None:
    (place / "closed").mkdir(mode=0o700)
    (place / "closed").chmod(0o700)
    (place / "link").symlink_to("good")
    group = program(place / "group", 0o750)
    os.chown(group, 0, 77)
    own = program(place / "own", 0o611)
    os.chown(own, 4242, 4242)
    for path, told in [
        (program(place / "good"), ""),
        (str(place / "link"), ""),
        (group, ""),
        (own, "it is not executable by that user"),
        (program(place / "plain", 0o644), "it is not executable by that user"),
        (str(place / "missing"), "No such file or directory"),
        (str(place), "it is not a file"),
        (str(place / "good" / "more"), "Not a directory"),
        (program(place / "closed" / "good"), f"{place}/closed is closed to that user"),
    ]:
        assert outlook.trouble(path, WHO) == told, path
    root = User(0, 0, (0,), "/root", "")
    assert outlook.trouble(str(place / "closed" / "good"), root) == ""
    assert outlook.trouble(str(place / "plain"), root) == "it is not executable by that user"


@pytest.mark.root
def test_a_list_that_nobody_has_looked_into_is_not_guessed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = program(place / "plain", 0o754)
    assert outlook.trouble(plain, WHO) != ""
    monkeypatch.setattr(outlook, "ACL", "user.stands-for-a-list")
    try:
        os.setxattr(plain, "user.stands-for-a-list", b"x")
    except OSError:
        pytest.skip("this file system keeps no extended attributes")
    assert outlook.trouble(plain, WHO) == ""


def test_a_port_that_somebody_has_is_told_with_who_has_it_and_a_free_one_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        address = Socket(f"tcp:127.0.0.1:{port}", "inet", "stream", "127.0.0.1", port, "", "http")
        assert outlook.taken(address).startswith(f"cannot be bound now: tcp:127.0.0.1:{port}: Address already in use; ")
        assert f"(pid {os.getpid()}) has it" in outlook.taken(address)
    assert outlook.taken(address) == ""
    away = address._replace(host="192.0.2.77", key=f"tcp:192.0.2.77:{port}")
    assert "Cannot assign requested address" in outlook.taken(away)
    assert outlook.taken(away._replace(freebind=True)) == ""


def test_the_ports_of_a_daemon_that_runs_are_its_own(tmp_path: Path) -> None:
    assert not outlook.is_running(str(tmp_path))
    with (tmp_path / "lock").open("w") as lock:
        assert not outlook.is_running(str(tmp_path))
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert outlook.is_running(str(tmp_path))


@pytest.mark.root
def test_each_is_a_note_with_its_file_line_and_key_and_no_mistake(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("services.d", "policy.d"):
        (place / folder).mkdir(mode=0o755)
    roles = ("privileged", "supervisor", "auth", "log", "probe", "api")
    rows = "".join(f'{r} = "{n}"\n' for r, n in zip(roles, ("daemon", "bin", "sys", "games", "man", "lp"), strict=True))
    main = (
        f'[auth]\npam_service = "login"\npam_account_service = "su"\n[paths]\nrun = "{place}/run"\n[accounts]\n{rows}'
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        site = (
            f'[socket.http]\nlisten = "127.0.0.1:{port}"\n[service.site]\ncommand = ["{place}/serve"]\n'
            f'user = "www-data"\nsockets = ["http"]\nready = {{ command = ["/bin/sh", "-c", "true"] }}\n'
            f'[service.site.hooks]\npre_start = ["{place}/migrate", "up"]\n'
            '[service.site.log]\ntarget = "syslog"\n'
        )
        for name, text in (("durward.toml", main), ("services.d/site.toml", site)):
            (place / name).write_text(text)
            (place / name).chmod(0o644)
        program(place / "migrate", 0o644)
        assert outlook.RECEIVERS == forward.PATHS
        monkeypatch.setattr(outlook, "RECEIVERS", {"syslog": f"{place}/log"})
        found = check.check(str(place), "/usr/bin/python3", warn=True)
        assert check.check(str(place), "/usr/bin/python3").notes == [], "only where it is asked for"
    assert pwd.getpwnam("www-data")
    assert found.problems == []
    assert found.summary.endswith("no mistake found")
    file, cannot = "services.d/site.toml", "www-data cannot execute"
    assert [note.partition("; ")[0] for note in found.notes] == [
        f"{file}:2: socket.http.listen: cannot be bound now: tcp:127.0.0.1:{port}: Address already in use",
        f"{file}:4: service.site.command[0]: {cannot} {place}/serve now: No such file or directory",
        f"{file}:9: service.site.hooks.pre_start: {cannot} {place}/migrate now: it is not executable by that user",
        f"{file}:11: service.site.log.target: what it writes is lost while there is no {place}/log",
    ]


def test_files_and_processors_that_are_not_here_are_told(place: Path) -> None:
    (place / "here").mkdir()
    (place / "plain").touch()
    assert dict(outlook.not_here({"directory": f"{place}/plain"})) == {
        ("directory",): f"{place}/plain: Not a directory"
    }
    values = {
        "directory": f"{place}/away",
        "files": {"read": ("/usr", f"{place}/gone"), "write": (f"{place}/here", f"{place}/here/gone")},
        "cpu_affinity": (0, 8000),
    }
    assert dict(outlook.not_here(values)) == {
        ("directory",): f"{place}/away: No such file or directory",
        ("files", "read", 1): f"{place}/gone: No such file or directory",
        ("files", "write", 1): f"{place}/here/gone: No such file or directory",
        ("cpu_affinity",): "there is no processor 8000 here",
    }


def test_what_was_not_understood_is_not_looked_for() -> None:
    assert [*outlook.not_here({"files": None, "cpu_affinity": None})] == []
    assert [*outlook.not_here({"files": {"read": None, "write": ()}})] == []
