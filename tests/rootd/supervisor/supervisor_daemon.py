"""The supervisor as a process of its own, after its real start-up; everything around it is played by the test."""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policy import login, messages, wire
from rootd import ipc
from rootd.config import settings as settings_file
from rootd.supervisor import main

PATIENCE = 20.0  # seconds before a test gives up
SUPERVISOR_UID = 61001  # an account that no machine has
ALICE = "1" * 64


def settings_of(path: Path) -> settings_file.Settings:
    accounts = {role: settings_file.Account(role, 61002, 61002, ()) for role in ("privileged", "auth", "log", "probe")}
    accounts["api"] = settings_file.Account("api", os.getuid(), os.getgid(), ())
    accounts["supervisor"] = settings_file.Account("sup", SUPERVISOR_UID, SUPERVISOR_UID, ())
    paths = settings_file.Paths(str(path / "run"), str(path / "log"), str(path / "state"))
    auth = settings_file.Auth("durward", "durward-account", "password", 28800.0, 1800.0)
    return settings_file.Settings("/etc/durward", paths, accounts, auth, None, settings_file.Audit("refuse"))


class Daemon:
    """The supervisor's process, and its keeper, privileged, log, auth and callers, all played here."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = settings_of(path)
        self.memfd = os.memfd_create("settings")
        os.write(self.memfd, settings_file.to_json(self.settings))
        self.doors = {}
        for name in ("control", "root"):
            self.doors[name] = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.doors[name].bind(str(path / name))
            self.doors[name].listen(128)
        self.pid = 0
        self.links: dict[str, ipc.Link] = {}
        self.auth: socket.socket | None = None
        self.stderr = path / "stderr"

    # -- the keeper

    def start(self, *roles: str) -> Daemon:
        ours, theirs = ipc.pair()
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                for sock in self.doors.values():
                    os.dup(sock.fileno())
                os.dup2(os.open(self.stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
                sys.stderr = os.fdopen(2, "w", closefd=False)
                link = os.dup2(theirs.fileno(), 100)
                os.closerange(3, 100)
                os.closerange(101, 4096)
                status = main.main(link)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(status)
        theirs.close()
        self.keeper = ipc.Link(ours)
        for name, fd in (("settings", self.memfd), *((f"door/{n}", s.fileno()) for n, s in self.doors.items())):
            self.keeper.send_now(ipc.Message(ipc.HELD, name=name), fd)
        for role in roles or ("privileged", "log", "auth"):
            self.link(role)
        self.keeper.send_now(ipc.Message(ipc.HELD_END))
        return self

    def link(self, role: str) -> None:
        ours, theirs = ipc.pair()
        self.unlink(role)
        pidfd = os.pidfd_open(os.getpid())
        self.keeper.send_now(ipc.Message(ipc.LINK, name=role), theirs.fileno(), pidfd)
        os.close(pidfd)
        theirs.close()
        if role == "auth":
            ours.settimeout(PATIENCE)
            self.auth = ours
        else:
            self.links[role] = ipc.Link(ours, body=role == "log")

    def unlink(self, role: str) -> None:
        if role in self.links:
            self.links.pop(role).close()
        if role == "auth" and self.auth is not None:
            self.auth.close()
            self.auth = None

    def wait(self) -> int:
        pidfd = os.pidfd_open(self.pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), "it does not end"
        os.close(pidfd)
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()
        for role in (*self.links, "auth"):
            self.unlink(role)
        self.keeper.close()

    # -- privileged and log

    def tell(self, message: ipc.Message, *fds: int) -> None:
        self.links["privileged"].send_now(message, *fds)

    def begin(self, generation: Any, *facts: ipc.Message) -> None:
        self.tell(generation.table(flags=ipc.RUNNING), generation.fd)
        for fact in facts:
            self.tell(fact)
        self.tell(ipc.Message(ipc.FACTS_END))

    def heard(self, role: str, op: int) -> ipc.Message:
        """The next message of a role, which must be this one."""
        link = self.links[role]
        poll = select.poll()
        poll.register(link.sock, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), f"nothing came to {role}: {self.stderr.read_text()}"
        received = link.receive()
        assert received is not None, self.stderr.read_text()
        assert received[0].op == op, received[0]
        return received[0]

    def silent(self, role: str) -> bool:
        """Whether nothing is there for it, after a request has gone through the whole of the supervisor."""
        self.ask(messages.WhatMayI(), "", "root")
        poll = select.poll()
        poll.register(self.links[role].sock, select.POLLIN)
        return not poll.poll(0)

    def record(self) -> dict[str, Any]:
        """The next record that is no step of an operation, acknowledged."""
        while True:
            message = self.heard("log", ipc.RECORD)
            self.links["log"].send_now(ipc.Message(ipc.RECORDED, seq=message.seq))
            found: dict[str, Any] = json.loads(message.body)
            if found["kind"] != "step":
                return found

    def spawned(self, run: int, pid: int = 4242) -> None:
        """SPAWN comes, and is answered."""
        asked = self.heard("privileged", ipc.SPAWN)
        answer = ipc.Message(ipc.SPAWNED, seq=asked.seq, run=run, slot=asked.slot, generation=asked.generation)
        self.tell(answer._replace(arg=pid, extra=time.clock_gettime_ns(time.CLOCK_BOOTTIME)))

    # -- auth and callers

    def login(self, groups: tuple[str, ...] = ("webops",)) -> None:
        known = hashlib.sha256(ALICE.encode()).hexdigest()
        assert self.auth is not None
        self.auth.send(wire.PUSH.encode(login.SessionUp(known, "alice", 1001, list(groups), 1e12, 1800.0, 7)))
        self.auth.send(wire.PUSH.encode(login.SessionsEnd()))
        assert wire.PULL.decode(self.auth.recv(wire.LIMIT)) == login.Seen(7)

    def call(self, door: str = "control") -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(PATIENCE)
        sock.connect(str(self.path / door))
        return sock

    def send(self, command: messages.Command, session: str = ALICE, door: str = "control") -> socket.socket:
        sock = self.call(door)
        sock.send(wire.REQUEST.encode(messages.Request(1, command, session)))
        return sock

    def ask(self, command: messages.Command, session: str = ALICE, door: str = "control") -> Any:
        with self.send(command, session, door) as sock:
            return reply(sock)

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        for role in (*self.links, "auth"):
            self.unlink(role)
        self.keeper.close()
        for sock in self.doors.values():
            sock.close()
        os.close(self.memfd)


def reply(sock: socket.socket) -> Any:
    packet = sock.recv(wire.LIMIT)
    return wire.ANSWER.decode(packet).reply if packet else None


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    path = Path(tempfile.mkdtemp(prefix="durward-"))
    path.chmod(0o755)
    for folder in ("run/supervisor", "log/site", "state/choices"):
        (path / folder).mkdir(parents=True)
    if os.getuid() == 0:
        os.chown(path / "run/supervisor", SUPERVISOR_UID, SUPERVISOR_UID)
    made = Daemon(path)
    yield made
    made.close()
    shutil.rmtree(path)
