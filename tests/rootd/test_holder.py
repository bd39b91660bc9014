"""rootd/holder: who has a port, as /proc tells root."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rootd import holder
from rootd.config.table import Socket
from rootd.privileged import listen


def reason(kind: str, port: int) -> str:
    address = Socket(f"{kind}:127.0.0.1:{port}", "inet", "stream", "127.0.0.1", port, "", "http")
    return listen.failure(address, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))


@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "shown"), [(b"python", "python"), (b"\xff\x1b]0;\nroot: ok", "\\xff\\x1b]0;\\nroot: ok")]
)
def test_a_taken_port_is_refused_with_its_holder_whatever_that_calls_itself(name: bytes, shown: str) -> None:
    program = (
        f"import socket, sys; open('/proc/self/comm', 'wb').write({name!r}); "
        "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        sentence = holder.named(reason("tcp", port))
        assert holder.named(reason("udp", port)) == reason("udp", port), "another one of the same number"
        other.communicate()
    assert sentence.startswith(f"socket http: tcp:127.0.0.1:{port}: Address already in use; {shown}")
    assert f"(pid {other.pid}) has it" in sentence
    assert holder.holder(port) == ""


@pytest.mark.root
def test_c5_whoever_has_a_port_may_call_himself_as_he_likes() -> None:
    """What he is called is said to people, and read as bytes: it is no text, and moves no cursor."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        comm, before = Path("/proc/self/comm"), Path("/proc/self/comm").read_bytes()
        comm.write_bytes(b"\xff\x1b[2J\r")
        try:
            assert holder.holder(server.getsockname()[1]) == f"\\xff\\x1b[2J (pid {os.getpid()})"
        finally:
            comm.write_bytes(before)
