"""The test's end of a part that takeover.py has taken over: code goes in, what it found comes out."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import textwrap
import threading
import time
from collections.abc import Iterator
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
        return self.talk(pid, self.sock, self.worded(code, words), timeout)

    @staticmethod
    def worded(code: str, words: dict[str, Any]) -> bytes:
        return ("".join(f"{name} = {value!r}\n" for name, value in words.items()) + textwrap.dedent(code)).encode()

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


class ApiHostage(Hostage):
    """The first worker of the api."""

    def __init__(self, house: House) -> None:
        program = house.programs / "hostile.py"
        program.write_text(f"#!{PREFIX}/bin/python3 -IB\n{program.read_text()}")
        super().__init__(house, "api", str(program))
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(house.folder / "hostage.sock"))
        os.chmod(house.folder / "hostage.sock", 0o666)
        self.listener.listen()
        self.listener.settimeout(PATIENCE)
        self.pid = 0

    def run(self, code: str, timeout: float = PATIENCE * 2, **words: Any) -> Any:
        if not self.pid:
            self.sock.close()
            self.sock, _ = self.listener.accept()
            credentials = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            self.pid = struct.unpack("=iII", credentials)[0]
        return self.talk(self.pid, self.sock, self.worded(code, words), timeout)

    def close(self) -> None:
        super().close()
        self.listener.close()


def standing(house: House, *without: str) -> dict[str, object]:
    """Who must not notice anything: the pids of the keeper, of our parts but those, and of every service process."""
    assert house.daemon is not None
    parts = {
        role: house.pid_of(role) for role in ("privileged", "log", "supervisor", "auth", "probe") if role not in without
    }
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


@contextlib.contextmanager
def prompt(house: House, patience: float) -> Iterator[None]:
    """Meanwhile root.sock answers a status each 50 ms within `patience` seconds; a slower one fails the test."""
    over, slowest, failures = threading.Event(), [0.0], list[BaseException]()

    def ask() -> None:
        try:
            while not over.wait(0.05):
                slowest.append(prompt_status(house))
        except BaseException as failure:
            failures.append(failure)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()
    assert not failures
    assert max(slowest) < patience, f"a status took {max(slowest)} s"


STAY = """
import os, select, signal, time
found, tell = os.pipe()

def tried(leave):
    try:
        leave()
    except OSError as error:
        return error.errno
    return 0

def family(depth, moving):
    # each tries to be out of reach, and then holds what it has; one of them never stays the same process
    for number in signal.valid_signals() - {9, 19}:
        signal.signal(number, signal.SIG_IGN)
    errors = {tried(leave) for leave in (os.setsid, lambda: os.setpgid(0, 0), lambda: os.setpgid(os.getppid(), 0))}
    os.write(tell, bytes(errors | {0}) if errors != {1} else bytes([1]))
    if depth and os.fork() == 0:
        family(depth - 1, moving)
    while moving and not depth:
        if os.fork():
            os._exit(0)
    while True:
        time.sleep(1000)

for depth, moving in ((0, False), (0, True), (2, False), (1, True)):
    if os.fork() == 0:
        try:
            family(depth, moving)
        finally:
            os._exit(1)
result = sorted(os.read(found, 1)[0] for _ in range(7))
"""


def nothing_stays(hostage: Hostage, short: str) -> None:
    """What a part that was taken over has forked ends with it, and another one is there: of its account, alone."""
    house, uid = hostage.house, hostage.house.people[short].uid
    old = house.pid_of(hostage.role)
    assert hostage.run(STAY) == [1] * 7, "no process of it gets into another session or group"
    os.kill(old, signal.SIGKILL)  # pid_of would find any of them
    house.until(
        lambda: (new := house.pid_of(hostage.role)) != old and [*processes_of({uid})] == [new],
        "another one is of its account, and alone",
    )
    house.until(house.answers, "the house answers")
