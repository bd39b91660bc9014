"""A service manager that is measured: so many services of one user, all of them stamp.c, their output captured.

Rule 1: a figure comes from what the services have stamped, never from when we have noticed.
Rule 2: everything a manager has or makes is in its folder; by that path its processes are found and ended.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import shutil
import signal
import struct
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import proc
from fetch import Fetched
from people import Person
from space import CLONE_NEWNET, Space

TICK = 0.005  # seconds between two looks
PATIENCE = 120.0
RECORD = struct.Struct("=QII")
SECOND = 1_000_000_000

T = TypeVar("T")


class Stamp(NamedTuple):
    at: int  # ns of CLOCK_MONOTONIC
    pid: int
    index: int


class Here(Space):
    """A network namespace for the whole run: who is started from in here need not enter it."""

    def __enter__(self) -> Here:
        self._outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._move(self.fd)
        return self

    def __exit__(self, *_: object) -> None:
        self._move(self._outside)
        os.close(self._outside)
        self.close()

    def _move(self, fd: int) -> None:
        if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    def command(self, *argv: str) -> tuple[list[str], tuple[int, ...]]:
        return list(argv), ()


class Ground(NamedTuple):
    """What all managers have in common."""

    folder: Path
    peers: Fetched
    program: Path  # stamp
    run: Path  # run, for the managers whose services are directories
    space: Here
    user: Person  # whom the services of the peers run as


class Manager(ABC):
    """One start to one stop. `flood`: the only service writes so many MiB when it gets SIGUSR1."""

    name = ""

    def __init__(self, ground: Ground, count: int, flood: int = 0) -> None:
        self.ground, self.count, self.flood = ground, count, flood
        self.folder = ground.folder / f"{self.name}-{count}"
        self.launched = 0
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.stamps_file = self.folder / "stamps"
        self.stamps_file.touch()
        os.chown(self.stamps_file, self.user.uid, self.user.gid)

    @property
    def user(self) -> Person:
        return self.ground.user

    def command(self, index: int) -> list[str]:
        """What a service is."""
        more = [str(self.flood)] if self.flood else []
        return [str(self.ground.program), str(self.stamps_file), str(index), *more]

    # what each does in its own way

    @abstractmethod
    def prepare(self) -> None:
        """Write the configuration: no part of any figure."""

    @abstractmethod
    def launch(self) -> None: ...

    @abstractmethod
    def pid(self) -> int: ...

    @abstractmethod
    def ended(self) -> str:
        """Why it is not running any more, or nothing."""

    @abstractmethod
    def logged(self) -> int:
        """Bytes in all the logs of the services."""

    @abstractmethod
    def stop(self) -> None:
        """Nothing is left. Twice is harmless."""

    # what is the same for all

    def start(self) -> Manager:
        self.prepare()
        self.launched = time.monotonic_ns()
        self.launch()
        return self

    def stamps(self) -> list[Stamp]:
        return [Stamp(*record) for record in RECORD.iter_unpack(self.stamps_file.read_bytes())]

    def until(self, condition: Callable[[], T], what: str, timeout: float = PATIENCE) -> T:
        """The condition's first true value. The manager's end ends the wait at once."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            assert not (why := self.ended()), f"{self.name} has ended before {what}: {why}"
            assert time.monotonic() < deadline, f"{self.name}: not within {timeout} s: {what}"
            select.select([], [], [], TICK)
        return value

    def until_stamped(self, number: int) -> list[Stamp]:
        """The first so many stamps, or more."""
        size = number * RECORD.size
        self.until(lambda: self.stamps_file.stat().st_size >= size, f"{number} services have started")
        return self.stamps()

    def until_old(self, seconds: float, stamps: list[Stamp]) -> None:
        """The youngest of them has lived so long."""
        due = max(stamp.at for stamp in stamps) + int(seconds * SECOND)
        self.until(lambda: time.monotonic_ns() >= due, f"the youngest is {seconds} s old")

    def services(self) -> set[int]:
        """The pids of all that it runs."""
        return proc.running(self.ground.program, proc.descendants(self.pid()))

    def own(self) -> set[int]:
        """The pids of the manager's own processes."""
        everybody = proc.descendants(self.pid()) | {self.pid()}
        return everybody - proc.running(self.ground.program, everybody)

    def all_started(self) -> list[Stamp]:
        """The stamps of all: each has started once, is alive, is of the right user, and has its output captured."""
        stamps = self.until_stamped(self.count)
        assert sorted(stamp.index for stamp in stamps) == list(range(self.count)), f"{self.name}: doubled or lost"
        assert self.services() == {stamp.pid for stamp in stamps}, f"{self.name}: doubled or lost"
        for stamp in stamps:
            assert proc.uid(stamp.pid) == self.user.uid
            assert os.readlink(f"/proc/{stamp.pid}/fd/1").startswith(("pipe:", "socket:"))
        return stamps

    def replaced(self, victim: Stamp, killing: Callable[[], None] = lambda: None) -> tuple[int, Stamp]:
        """SIGKILL a service: ns to its replacement's first instruction, and that. `killing` kills before it."""
        before = len(self.stamps())
        fd = os.pidfd_open(victim.pid)
        try:
            then = time.monotonic_ns()
            killing()
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)
        new = self.until_stamped(before + 1)[before:]
        assert [stamp.index for stamp in new] == [victim.index], f"{self.name} replaced {victim} by {new}"
        return new[0].at - then, new[0]


class Foreign(Manager):
    """A peer: one process that is started in its folder and stays in the foreground."""

    process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def argv(self) -> list[str]: ...

    def before_exec(self) -> None:
        """In the child."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def launch(self) -> None:
        with (self.folder / "messages").open("wb") as messages:
            self.process = subprocess.Popen(
                self.argv(),
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=messages,
                cwd=self.folder,
                env={
                    "PATH": f"{self.ground.peers.programs}:/usr/sbin:/usr/bin:/sbin:/bin",
                    "LANG": "C.UTF-8",
                    "LD_LIBRARY_PATH": self.ground.peers.libraries,
                    "DURWARD_BENCH": f"{self.folder}/",
                },
                start_new_session=True,
                preexec_fn=self.before_exec,
            )

    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def ended(self) -> str:
        if self.process is None or self.process.poll() is None:
            return ""
        return f"status {self.process.returncode}\n{(self.folder / 'messages').read_text()}"

    def logged(self) -> int:
        return sum(path.stat().st_size for path in (self.folder / "log").rglob("*") if path.is_file())

    def stop(self) -> None:
        """At once: how long an orderly end takes is no figure of ours."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        proc.end_all(os.fsencode(self.folder) + b"/")
        shutil.rmtree(self.folder, ignore_errors=True)
