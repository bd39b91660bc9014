"""What gunicorn is told, seen from outside."""

from __future__ import annotations

import array
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import userapi
from rootd.ipc import SO_PASSRIGHTS

ROOT = Path(userapi.__path__[0]).parent  # what is installed; a checkout is left as it is

TOKEN = "ab" * 32
STATUS = (
    f"GET /api/v1/services HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
)


def test_h7_there_is_no_control_socket(gunicorn):
    server = gunicorn().ready()
    server.raw(STATUS.encode())
    listening = {
        line.split()[7]
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]
        if len(line.split()) > 7 and "gunicorn" in line.split()[7]
    }
    assert listening == set()
    assert not (Path(server.unix).parent / ".gunicorn").exists()


def test_c6_a_unix_socket_takes_no_descriptor_that_could_keep_a_thread_for_hours(gunicorn):
    server = gunicorn().ready()
    with socket.socket(socket.AF_UNIX) as sock, open("/dev/null") as null:
        sock.connect(str(server.unix))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null.fileno()]))]
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 1)
        except OSError:  # before Linux 6.16 none can be refused (SECURITY.md), and its sender is answered all the same
            sock.sendmsg([STATUS.encode()], rights)
            assert sock.recv(4096).startswith(b"HTTP/1.1 ")
            return
        with pytest.raises(PermissionError):
            sock.sendmsg([STATUS.encode()], rights)


def run(environ: dict[str, str], prepare: str, pass_fds: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
    code = f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); {prepare}\n"
    code += "from userapi.serve import main; main()"
    return subprocess.run(
        [sys.executable, "-I", "-c", code],
        env={"PATH": "/usr/bin", **environ},
        pass_fds=pass_fds,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_without_sockets_handed_over_it_does_not_start():
    ended = run({}, "pass")
    assert ended.returncode == 1
    assert "listens on the sockets of LISTEN_FDS" in ended.stderr


def test_the_collector_of_garbage_rests_while_all_is_loaded_and_no_longer():
    watch = "import gc; end = os._exit; os._exit = lambda code: print(gc.isenabled(), flush=True) or end(code)"
    assert run({}, watch).stdout == "True\n"
    seen = (
        "import userapi.app as app, gc; made = app.create_app; app.create_app = lambda: print(gc.isenabled()) or made()"
    )
    assert run({}, seen).stdout == "False\n"


def test_a_worker_that_is_told_to_end_before_it_listens_to_that_ends_all_the_same():
    early = "import signal; from types import SimpleNamespace; from userapi import gunicorn_conf as conf; "
    early += "signal.signal(signal.SIGTERM, lambda *_: None); conf.post_fork(None, SimpleNamespace()); "
    assert run({}, early + "os.kill(os.getpid(), signal.SIGTERM)").returncode == -signal.SIGTERM


def test_gunicorn_s_own_command_line_does_the_same():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = 'gunicorn'\n"
    code += "from gunicorn.app.wsgiapp import run; run()"
    ended = subprocess.run(
        [sys.executable, "-I", "-c", code, "-c", "python:userapi.gunicorn_conf", "userapi.app:create_app()"],
        env={"PATH": "/usr/bin"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "listens on the sockets of LISTEN_FDS" in ended.stderr


def test_sockets_meant_for_another_process_are_not_taken():
    assert run({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, "pass").returncode == 1


def test_an_address_that_is_not_loopback_is_refused_without_tls():
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        prepare = f"os.dup2({listener.fileno()}, 3); os.environ['LISTEN_PID'] = str(os.getpid())"
        ended = run({"LISTEN_FDS": "1"}, prepare, (listener.fileno(),))
    assert ended.returncode == 1
    assert "does not speak without TLS on 0.0.0.0" in ended.stderr


def test_a_setting_that_is_wrong_is_named():
    ended = run({"DURWARD_API": '{"worker": 2}'}, "pass")
    assert ended.returncode == 1
    assert "DURWARD_API" in ended.stderr
    assert "worker" in ended.stderr


def test_a_certificate_that_cannot_be_read_is_named():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        prepare = f"os.dup2({listener.fileno()}, 3); os.environ['LISTEN_PID'] = str(os.getpid())"
        tls = '{"tls": {"certificate": "/nonexistent/cert.pem", "key": "/nonexistent/key.pem"}}'
        ended = run({"LISTEN_FDS": "1", "DURWARD_API": tls}, prepare, (listener.fileno(),))
    assert ended.returncode == 1
    assert "/nonexistent/cert.pem" in ended.stderr
