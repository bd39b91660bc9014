"""The test's end of a part that takeover.py has taken over: code goes in, what it found comes out."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import textwrap
from pathlib import Path
from typing import Any

from asker import PATIENCE
from house import PREFIX, House

LAUNCHER = Path(__file__).with_name("takeover.py")


class Dead(Exception):
    """The process ended, instead of answering."""


class Hostage:
    """One part of a house that is not started yet. `run` takes it over, `resume` lets it work again."""

    def __init__(self, house: House, role: str, how: str = "hostage") -> None:
        self.house, self.role = house, role
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(PATIENCE)
        house.program = [str(PREFIX / "bin" / "python3"), "-I", "-B", str(LAUNCHER), f"{role},{how}"]
        house.stdin = theirs.fileno()
        self.theirs = theirs

    def run(self, code: str, timeout: float = PATIENCE * 2, **words: object) -> Any:
        """What the code left in `result`; `part` is the part's own object, `words` are its variables.

        Raises Dead when the process ends meanwhile.
        """
        pid = self.house.until(lambda: self.house.pid_of(self.role), f"there is a {self.role}")
        given = "".join(f"{name} = {value!r}\n" for name, value in words.items())
        return self.talk(pid, self.sock, (given + textwrap.dedent(code)).encode(), timeout)

    @staticmethod
    def talk(pid: int, sock: socket.socket, packet: bytes, timeout: float) -> Any:
        pidfd = os.pidfd_open(pid)
        try:
            sock.send(packet)
            ready: list[object] = [*select.select([sock, pidfd], [], [], timeout)[0]]
            if not ready:
                raise AssertionError(f"no answer of the hostile code within {timeout} s")
            if sock not in ready:
                raise Dead(pid)
        finally:
            os.close(pidfd)
        answer = json.loads(sock.recv(1 << 22))
        assert "error" not in answer, answer["error"]
        return answer.get("result")

    def resume(self) -> None:
        self.run("resume")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()
        self.theirs.close()
