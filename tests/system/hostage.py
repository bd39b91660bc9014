"""The test's end of a part that takeover.py has taken over: code goes in, what it found comes out."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import textwrap
import time
from pathlib import Path
from typing import Any, cast

from asker import PATIENCE
from house import PREFIX, House
from people import processes_of

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

    def run(self, code: str, timeout: float = PATIENCE * 2, **words: Any) -> Any:
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
            ready, _, _ = select.select([sock.fileno(), pidfd], [], [], timeout)
            if not ready:
                raise AssertionError(f"no answer of the hostile code within {timeout} s")
            if sock.fileno() not in ready:
                raise Dead(pid)
        finally:
            os.close(pidfd)
        answer = json.loads(sock.recv(1 << 22))
        assert "error" not in answer, answer["error"]
        return answer.get("result")

    def dies(self, code: str, **words: Any) -> int:
        """Run the code, and wait until the process is gone and another plays its role, which works; its pid."""
        old = self.house.pid_of(self.role)
        with contextlib.suppress(Dead):
            self.run(code, **words)
        return self.house.wait_back(self.role, old)

    def resume(self) -> None:
        self.run("resume")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()
        self.theirs.close()


def standing(house: House, *without: str) -> dict[str, object]:
    """Who must not notice anything: the pids of the keeper, of our parts but those, and of every service process."""
    assert house.daemon is not None
    parts = {role: house.pid_of(role) for role in ("privileged", "log", "supervisor", "auth") if role not in without}
    users = {short: house.people[short].uid for short in ("www", "jobs", "api") if short not in without}
    services = {
        short: sorted(pid for pid in processes_of({uid}) if house.space.holds(pid)) for short, uid in users.items()
    }
    return {"keeper": house.daemon.pid, **parts, **services}


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def prompt_status(house: House) -> float:
    """Seconds that root.sock takes for a status."""
    begun = time.monotonic()
    assert house.status()
    return time.monotonic() - begun


def deeds(house: House, *kinds: str) -> list[tuple[str, int, int]]:
    """deed, run and arg of privileged's own records."""
    found = [record for record in house.audit() if record["kind"] == "deed" and record["deed"] in kinds]
    return [(str(record["deed"]), cast("int", record["run"]), cast("int", record["arg"])) for record in found]
