"""userapi/walls: tried from inside, in a process of its own."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from userapi import walls


def inside(tries: dict[str, Callable[[], object]], *files: str) -> dict[str, int]:
    """What each try came to behind the walls: 0, or its errno."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            walls.enter(*files)
            for name, attempt in tries.items():
                number = 0
                try:
                    attempt()
                except OSError as error:
                    number = error.errno or -1
                os.write(writer, f"{name} {number}\n".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as said:
        found = dict(line.rsplit(" ", 1) for line in said)
    os.waitpid(pid, 0)
    return {name: int(number) for name, number in found.items()}


def start_thread() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join(10)


def test_a_worker_can_do_its_work_and_nothing_else(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "control.sock"))
    listener.listen()
    certificate, other = tmp_path / "certificate.pem", tmp_path / "other"
    certificate.write_text("certificate")
    other.write_text("secret")
    beat = os.open(tmp_path / "beat", os.O_RDWR | os.O_CREAT)

    def ask() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.connect(str(tmp_path / "control.sock"))

    tries: dict[str, Callable[[], object]] = {
        "ask the supervisor": ask,
        "read the certificate": certificate.read_text,
        "import": lambda: __import__("colorsys"),
        "start a thread": start_thread,
        "give a sign of life": lambda: os.utime(beat, (1, 1)),
        "execute": lambda: os.execve("/bin/true", ["true"], {}),
        "call out": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "open a raw socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "read another file": other.read_text,
        "read accounts": lambda: Path("/etc/passwd").read_text(),
        "write a file": lambda: (tmp_path / "new").write_text("x"),
        "write Python's own": lambda: os.open(walls.__file__, os.O_WRONLY),
        "signal": lambda: os.kill(os.getppid(), 0),
        "list the root": lambda: os.listdir("/"),
    }
    found = inside(tries, str(certificate))
    done = ("ask the supervisor", "read the certificate", "import", "start a thread", "give a sign of life")
    assert {name: found[name] for name in done} == dict.fromkeys(done, 0)
    refused = set(tries) - set(done)
    assert {name for name in refused if found[name] in (errno.EPERM, errno.EACCES)} == refused
    os.close(beat)
    listener.close()


def test_a_worker_whose_walls_do_not_stand_does_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walls.sandbox, "install", lambda _filters: None)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            walls.enter()
        except RuntimeError as problem:
            os.write(writer, str(problem).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as said:
        assert "execve" in said.read()
    os.waitpid(pid, 0)
