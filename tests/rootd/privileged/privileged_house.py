"""A real privileged in a process of its own, as root at first; the test plays keeper, supervisor and log."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rootd import confine, ipc, sealed
from rootd.config import settings as settings_file, shape
from rootd.config.table import Entry, Socket, Table
from rootd.privileged import cgroup, main, stage
from rootd.privileged.spawner import Spawner

WAIT = 20.0  # seconds before a test gives up
PRIVILEGED_UID, SERVICE_UID, SERVICE_GROUP = 61001, 61002, 61003  # numbers that no account of this machine has
PYTHON = "/usr/bin/python3"


def account(name: str, uid: int) -> settings_file.Account:
    return settings_file.Account(name, uid, uid, ())


def entry(program: str = "", **words: Any) -> Entry:
    """A service that runs a few lines of Python, as SERVICE_UID."""
    fields: dict[str, Any] = {
        "service": "site", "count": 1, "path": PYTHON, "argv": (PYTHON, "-I", "-c", program), "env": (("HOME", "/"),),
        "cwd": "/", "uid": SERVICE_UID, "gid": SERVICE_UID, "groups": (SERVICE_GROUP,), "umask": 0o022, "limits": (),
        "sockets": (), "signals": (signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL), "notify": False,
        "ready_fd": 0, "probe": False, "nnp": True, "root": False, "log": (1 << 20, 3),
    }  # fmt: skip
    return Entry(**(fields | words))


def tcp_socket(name: str, port: int) -> Socket:
    key = f"tcp:127.0.0.1:{port}"
    return Socket(
        key=key, name=name, family="inet", kind="stream", host="127.0.0.1", port=port, path="", backlog=64,
        mode=0o660, gid=0, v6only=True, freebind=False, users=(SERVICE_UID,),
    )  # fmt: skip


class House:
    """The test's side of one privileged, which can be killed and started again over the same store."""

    def __init__(self, directory: Path, entries: tuple[Entry, ...], sockets: tuple[Socket, ...]) -> None:
        self.directory = directory
        paths = settings_file.Paths(str(directory), str(directory / "log"), str(directory / "state"))
        names = {
            role: account(role, PRIVILEGED_UID) for role in ("privileged", "supervisor", "auth", "log", "probe", "api")
        }
        auth = settings_file.Auth("none", "none", "password", 60.0, 60.0)
        settings = settings_file.Settings("/nonexistent", paths, names, auth, None, settings_file.Audit("refuse"))
        self.tree = f"{cgroup.mount()}/{cgroup.name_of(str(directory))}"
        stage.make_directories(settings)
        self.digest = b""
        self.store: dict[str, int] = {}
        self.store["settings"] = sealed.memfd("settings", settings_file.to_json(settings))
        self.store["generation/1"] = self.table(entries, sockets)
        for spec in sockets:
            sock = socket.create_server((spec.host, spec.port), backlog=spec.backlog)
            self.store[f"socket/{spec.key}"] = sock.detach()
        self.reaped: list[tuple[int, int]] = []
        self.renewed: list[tuple[str, int]] = []
        self.upgrades: list[tuple[int, str, int, int]] = []
        self.spawned: list[int] = []
        self.stand_ins: list[int] = []
        self.inside: Callable[[], None] = lambda: None
        self.pid = 0

    def table(self, entries: tuple[Entry, ...], sockets: tuple[Socket, ...]) -> int:
        line = shape.to_json(Table(entries, sockets, any(one.root for one in entries)))
        return sealed.memfd("generation", line + b"\n{}")

    def start(self) -> None:
        """Fork it, hand it the store, and become its supervisor and log."""
        self.ended = False
        ours, theirs = ipc.pair()
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(theirs.fileno(), 3, inheritable=False)
            os.closerange(4, 4096)
            self.inside()
            status = 99
            try:
                status = main.main(3, "/nonexistent", PYTHON, lambda reasons: [main.note(reason) for reason in reasons])
            except BaseException:
                sys.excepthook(*sys.exc_info())
            os._exit(status)
        theirs.close()
        self.pidfd = os.pidfd_open(self.pid)
        self.keeper = ipc.Link(ours, takes_fds=True, body=True)
        for name, fd in self.store.items():
            self.keeper.send_now(ipc.Message(ipc.HELD, name=name), fd)
        for number, status in self.reaped:
            self.keeper.send_now(ipc.Message(ipc.REAPED, arg=number, extra=status))
        self.supervisor = self.link("supervisor", takes_fds=True)
        self.log = self.link("log", takes_fds=True)
        self.keeper.send_now(ipc.Message(ipc.HELD_END))

    def link(self, role: str, **options: bool) -> ipc.Link:
        ours, theirs = ipc.pair()
        self.keeper.send_now(ipc.Message(ipc.LINK, name=role), theirs.fileno(), self.stand_in())
        theirs.close()
        return ipc.Link(ours, **options)

    def stand_in(self) -> int:
        """The pidfd of a process that may be killed in the place of a supervisor or log."""
        if not self.stand_ins or select.select([self.stand_ins[-1]], [], [], 0)[0]:
            pid = os.fork()
            if pid == 0:
                os.closerange(3, 4096)
                signal.pause()
                os._exit(0)
            self.stand_ins.append(os.pidfd_open(pid))
        return self.stand_ins[-1]

    def serve_keeper(self) -> None:
        """Do what a keeper does with what has arrived, and reap what privileged's death left to us."""
        while True:
            try:
                received = self.keeper.receive()
            except BlockingIOError:
                break
            if received is None:
                self.ended = True
                break
            message, fds = received
            if message.op == ipc.STORE:
                names = message.body.decode().split("\n") if message.body else [message.name]
                for name, fd in zip(names, fds, strict=True):
                    assert name not in self.store
                    self.store[name] = fd
            elif message.op == ipc.DROP:
                os.close(self.store.pop(message.name))
            elif message.op == ipc.RENEW:
                self.renewed.append((message.name, message.arg))
            elif message.op == ipc.UPGRADE:
                self.upgrades.append((message.seq, message.name, message.arg, message.run))
            elif message.op == ipc.END:
                self.ended = True

    def reap_orphans(self) -> None:
        """A subreaper's work: wait for every child of ours but privileged itself."""
        for name in list(self.store):
            if name.startswith("process/"):
                pid = int(name.split("/")[4])
                try:
                    found, raw = os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    continue
                if found:
                    self.reaped.append((pid, os.waitstatus_to_exitcode(raw)))
                    if self.pid:
                        self.keeper.send_now(ipc.Message(ipc.REAPED, arg=pid, extra=self.reaped[-1][1]))

    def reap_orphans_until(self, pid: int) -> None:
        """This one ends, is ours by then, and its status is told."""
        while pid not in dict(self.reaped):
            self.serve_keeper()
            try:
                found, raw = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # its parent still lives
                found, raw = 0, 0
            if found:
                self.reaped.append((pid, os.waitstatus_to_exitcode(raw)))
                self.keeper.send_now(ipc.Message(ipc.REAPED, arg=pid, extra=self.reaped[-1][1]))
            select.select([], [], [], 0.01)

    def hear(self, *ops: int, on: str = "supervisor", run: int = 0) -> tuple[ipc.Message, list[int]]:
        """The next message with one of these ops on a link; what comes before is let go, the store is served."""
        link = {"supervisor": self.supervisor, "log": self.log}[on]
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            select.select([link, self.keeper], [], [], 0.2)
            self.serve_keeper()
            try:
                received = link.receive()
            except BlockingIOError:
                continue
            assert received is not None, f"the {on} link has ended"
            message, fds = received
            if message.op in ops and run in (0, message.run):
                self.serve_keeper()
                return message, fds
            ipc.close_all(fds)
        raise AssertionError(f"no {ops} on {on}")

    def ask(self, op: int, **words: Any) -> None:
        self.supervisor.send(ipc.Message(op, **words))

    def spawn(self, slot: int = 0, generation: int = 1) -> ipc.Message:
        self.ask(ipc.SPAWN, seq=77, generation=generation, slot=slot)
        message, _ = self.hear(ipc.SPAWNED, ipc.DONE)
        if message.op == ipc.SPAWNED:
            self.spawned.append(message.arg)
        return message

    def output(self, run: int) -> dict[int, int]:
        """The read ends of a run's pipes, as log gets them: 1 is stdout, 2 is stderr."""
        pipes = {}
        while len(pipes) < 2:
            message, fds = self.hear(ipc.PIPE, on="log", run=run)
            pipes[message.scope] = fds[0]
        return pipes

    def finish(self, run: int) -> ipc.Message:
        """Wait for the exit, acknowledge it, wait until nothing is left; the EXITED."""
        message, _ = self.hear(ipc.EXITED, run=run)
        self.ask(ipc.SIGNAL, run=run, arg=9, scope=ipc.TREE)
        self.hear(ipc.EMPTY, run=run)
        return message

    def store_pidfd(self, run: int) -> int:
        return next(fd for name, fd in self.store.items() if name.startswith("process/") and f"/{run}/" in name)

    def kill(self) -> None:
        """kill -9 of privileged; what it had stored is served first."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        assert select.select([self.pidfd], [], [], WAIT)[0]
        _, raw = os.waitpid(self.pid, 0)
        if self.keeper.fileno() >= 0:
            self.serve_keeper()
        os.close(self.pidfd)
        for link in (self.keeper, self.supervisor, self.log):
            link.close()
        self.pid = 0
        return os.waitstatus_to_exitcode(raw)

    def close(self) -> None:
        if self.pid:
            self.kill()
        for name, fd in self.store.items():
            if name.startswith("process/"):
                try:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    os.waitpid(int(name.split("/")[4]), 0)
                except (ProcessLookupError, ChildProcessError):
                    pass
            os.close(fd)
        for pidfd in self.stand_ins:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            os.close(pidfd)
        if os.path.isdir(self.tree):
            cgroup.sweep(self.tree, set())
            events = cgroup.open_events(f"{self.tree}/self")
            while cgroup.populated(events):  # the spawner of one that was killed sees the end of its link
                ipc.wait(events, select.POLLPRI, WAIT)
            os.close(events)
            os.rmdir(f"{self.tree}/self")
            os.rmdir(self.tree)


@pytest.fixture
def helper() -> Iterator[Spawner]:
    """A spawner that is root, as we are."""
    helper = Spawner()
    helper.become(0, 0, (), confine.held(), keep_bounding=True)
    yield helper
    helper.close()


@pytest.fixture
def build() -> Iterator[Callable[..., House]]:
    """Makes houses; each is taken down at the end, with everything that it started."""
    import prctl

    prctl.set_child_subreaper(1)
    houses: list[House] = []
    with tempfile.TemporaryDirectory(prefix="durward-privileged-", dir="/run") as directory:
        Path(directory).chmod(0o755)

        def make(*entries: Entry, sockets: tuple[Socket, ...] = (), start: bool = True, cgroups: bool = True) -> House:
            house = House(Path(directory), entries, sockets)
            if not cgroups:
                house.inside = without_cgroups
            houses.append(house)
            if start:
                house.start()
                house.hear(ipc.FACTS_END)
            return house

        yield make
        for house in houses:
            house.close()
    prctl.set_child_subreaper(0)


def without_cgroups() -> None:
    """In privileged before its main: a mount namespace in which there is no cgroup2."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x20000) == 0, "CLONE_NEWNS"
    assert libc.mount(None, b"/", None, 0x44000, None) == 0, "MS_REC | MS_PRIVATE"
    while cgroup.mount():
        with open("/proc/self/mountinfo") as table:
            points = [line.split()[4] for line in table if " - cgroup2 " in line]
        assert libc.umount2(points[-1].encode(), 2) == 0, "MNT_DETACH"


def read_json(fd: int) -> Any:
    """All that a service printed, until it ended."""
    parts = []
    while part := os.read(fd, 65536):
        parts.append(part)
    os.close(fd)
    return json.loads(b"".join(parts))
