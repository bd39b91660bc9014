"""What runs a program that forks itself: real processes, outside of any run's cgroup unless the system tests say so."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootd import pidfile

DAEMON = """
import os, signal, sys
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"{os.getpid()}\\n")
os.rename(sys.argv[1] + ".new", sys.argv[1])
while True:
    signal.pause()
"""


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20.0)
        yield sock


def begin(tmp_path: Path, *command: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-I", "-m", "rootd.pidfile", str(tmp_path / "pid"), *command]
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    return subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_where_there_is_no_cgroup_it_stays_and_is_what_the_daemon_is(tmp_path: Path, notify: socket.socket) -> None:
    with begin(tmp_path, sys.executable, "-I", "-c", DAEMON, str(tmp_path / "pid")) as process:
        while (said := notify.recv(500)) != b"READY=1":
            assert said.startswith(b"STATUS=waits for its pid file: ")
        daemon = int((tmp_path / "pid").read_text())
        assert os.path.exists(f"/proc/{daemon}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 3, "it ends as the daemon has ended"
        assert not os.path.exists(f"/proc/{daemon}")


def test_a_pid_file_that_names_anothers_process_is_waited_over(tmp_path: Path, notify: socket.socket) -> None:
    (tmp_path / "pid").write_text(f"{os.getpid()}\n")
    with begin(tmp_path, "/bin/true") as process:
        said = notify.recv(500).decode()
        assert said.endswith(f"{tmp_path}/pid names {os.getpid()}, which is no process of this service")
        process.kill()


def test_the_log_says_what_was_waited_for(tmp_path: Path, notify: socket.socket) -> None:
    with begin(tmp_path, "/bin/true") as process:
        assert process.stderr is not None
        try:
            assert notify.recv(500).startswith(b"STATUS=waits")  # it waits until that is read, and then says it here
            assert process.stderr.readline() == f"waits for its pid file: {tmp_path}/pid: No such file or directory\n"
        finally:
            process.kill()


def test_a_program_that_fails_or_cannot_be_executed_fails_it(tmp_path: Path, notify: socket.socket) -> None:
    for command, status, words in [
        (("/bin/false",), 1, "/bin/false: ended with 1 before it was in the background"),
        (("/nowhere",), 127, "cannot execute /nowhere: No such file or directory"),
    ]:
        with begin(tmp_path, *command) as process:
            assert process.stderr is not None
            assert words in process.stderr.read()
            assert process.wait(20) == status


def test_what_python_sets_and_ignores_is_not_the_daemons(tmp_path: Path, notify: socket.socket) -> None:
    """Its environment is that which was given, LC_CTYPE too, and SIGPIPE ends it as it ends any other service."""
    report = f"{{ /usr/bin/env; grep SigIgn /proc/self/status; }} > {tmp_path}/said; exit 1"
    for more in ({}, {"LC_CTYPE": "C", "LISTEN_PID": "1"}):
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")} | more
        argv = [sys.executable, "-I", "-m", "rootd.pidfile", str(tmp_path / "pid"), "/bin/sh", "-c", report]
        assert subprocess.run(argv, env=environment, stderr=subprocess.DEVNULL, check=False).returncode == 1
        *lines, ignored = (tmp_path / "said").read_text().splitlines()
        found = dict(line.split("=", 1) for line in lines)
        assert found.pop("LISTEN_PID", "none") != "1"
        assert {name: found.get(name) for name in ("NOTIFY_SOCKET", "LC_CTYPE")} == {"LC_CTYPE": None} | {
            name: environment[name] for name in ("NOTIFY_SOCKET", "LC_CTYPE") if name in environment
        }
        assert int(ignored.split()[1], 16) == 0


@pytest.mark.parametrize("content", [b"", b"-1", b"0", b"1 2", b"12345678901", b"x" * 1000, "٣".encode()])
def test_what_is_no_number_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pid").write_bytes(content)
    pid, why = pidfile.look(str(tmp_path / "pid"), in_cgroup=False)
    assert (pid, why) == (0, f"{tmp_path}/pid has no number in it")


def test_a_fifo_in_its_place_blocks_nobody_and_what_is_not_there_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    assert pidfile.look(str(tmp_path / "pid"), in_cgroup=False)[0] == 0
    assert "No such file" in pidfile.look(str(tmp_path / "none"), in_cgroup=False)[1]


def test_of_a_cgroup_only_processes_that_live_in_the_same_one_count(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        (tmp_path / "pid").write_text(f" {child.pid} \n")
        assert pidfile.look(str(tmp_path / "pid"), in_cgroup=True) == (child.pid, "")
        child.kill()
    assert pidfile.cgroup_of(child.pid) == ""
    (tmp_path / "pid").write_text(str(os.getpid()))
    assert pidfile.look(str(tmp_path / "pid"), in_cgroup=True)[0] == 0, "itself is none"


def test_the_cgroup_of_a_run_is_told_by_its_name() -> None:
    assert pidfile.is_run("/durward/services/run-12345")
    assert not any(map(pidfile.is_run, ("", "/", "/user.slice", "/run-12/x", "/run-")))
