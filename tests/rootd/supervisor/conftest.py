"""A desk behind real doors, with services, log and auth played by the test. The clock is the test's."""

from __future__ import annotations

import array
import fcntl
import hashlib
import json
import os
import select
import socket
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_services import FakeServices
from supervisor_daemon import daemon

from policy import login, messages, wire
from policy.parse import parse
from policy.rules import Policy
from rootd import ipc
from rootd.config import compile as compiler, schedules
from rootd.config.settings import User
from rootd.config.trusted import File
from rootd.supervisor.approvals import Approvals
from rootd.supervisor.auditing import Audit
from rootd.supervisor.choices import Choices
from rootd.supervisor.clearing import Clearing
from rootd.supervisor.control import Door
from rootd.supervisor.desk import Desk
from rootd.supervisor.limits import Limits
from rootd.supervisor.reload import SEALS, Reloads
from rootd.supervisor.sessions import Sessions
from rootd.supervisor.upgrading import Upgrades

__all__ = ["daemon"]

PATIENCE = 10.0  # seconds before a test gives up
ALICE, BOB, EVE = (str(number) * 64 for number in (1, 2, 3))  # tokens
POLICY = """
[[grant]]
id = "ops"
who = ["group:webops"]
may = ["view", "logs", "clear", "start", "stop", "restart", "signal", "scale", "enable"]
on = ["site", "group:back"]
[[grant]]
id = "leads"
who = ["user:bob"]
may = ["audit", "policy", "reload", "revoke", "shutdown"]
[[grant]]
id = "sight"
who = ["user:bob"]
may = ["view"]
on = ["site"]
"""


def hash_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def policy_of(text: str, services: dict[str, tuple[str, ...]]) -> Policy:
    found = parse([("policy.d/10-web.toml", text)], services)
    assert isinstance(found, Policy), found
    return found


class Client:
    """Somebody at a door."""

    def __init__(self, room: Room, path: str) -> None:
        self.room = room
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)
        self.sock.connect(path)
        self.fds: list[int] = []

    def send(self, command: messages.Command, session: str = ALICE, number: int = 1) -> None:
        self.raw(wire.REQUEST.encode(messages.Request(number, command, session, "198.51.100.7")))

    def raw(self, packet: bytes, *fds: int) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([packet], rights, socket.MSG_NOSIGNAL)

    def receive(self) -> Any:
        """The next reply, or None at the end of the connection. Lets the desk work until it is there."""
        self.room.until(self.readable)
        try:
            packet, control_data, _, _ = self.sock.recvmsg(wire.LIMIT, socket.CMSG_SPACE(4))
        except ConnectionResetError:
            return None
        for _, _, data in control_data:
            self.fds += list(array.array("i", data))
        return wire.ANSWER.decode(packet).reply if packet else None

    def quiet(self) -> bool:
        """Whether nothing has come, after the desk has done all that it could."""
        self.room.settle()
        return not self.readable()

    def readable(self) -> bool:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def ask(self, command: messages.Command, session: str = ALICE) -> Any:
        self.send(command, session)
        return self.receive()


class Room:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 1000.0
        self.wall = 1_795_521_600.0  # Tue 2026-11-24 12:00 UTC
        self.loop = ipc.Loop()
        self.notes: list[str] = []
        self.records: list[dict[str, Any]] = []
        self.pending: list[ipc.Message] = []
        self.log_answers: int | None = 0  # the errno of each record; None: log says nothing
        self.log_is_there = True
        self.told: list[login.Pull] = []
        self.auth_is_there = True
        self.sent: list[ipc.Message] = []  # to privileged
        self.privileged_is_there = True
        self.events: list[Any] = []
        self.services = FakeServices(self.publish)
        self.sessions = Sessions()
        self.audit = Audit(self.to_log, self.clock, self.notes.append)
        self.reloads = Reloads(self.services.operations, self.to_privileged, lambda loaded, now: {})
        self.reloads.current = self.reloads.current._replace(shown=zlib.compress(b"{}"))
        self.kept: list[ipc.Message] = []
        self.log_keeps: int | None = 0  # the errno of each KEEP and CLEAR; None: log says nothing
        self.choices = Choices(self.to_log_to_keep, lambda now: None, lambda mark: None, self.notes.append)
        self.clearing = Clearing(self.to_log_to_keep)
        self.limits = Limits(self.clock, lambda kept: None)
        self.approvals = Approvals(self.clock, lambda kept: None)
        (path / "log" / "audit").mkdir(parents=True)
        (path / "log" / "audit" / "audit.jsonl").write_bytes(b"{}\n")
        self.desk = Desk(
            self.services, self.sessions, self.audit, self.reloads, self.choices,  # type: ignore[arg-type]
            self.clearing, clock=self.clock, expires=lambda at: f"at {at:g}", tell_auth=self.to_auth,
            log=str(path / "log"), goes_on=False, windows=lambda: self.wall, limits=self.limits,
            approvals=self.approvals,
        )  # fmt: skip
        inherited = ipc.Inherited()
        inherited.program = "0.1"
        self.desk.upgrades = Upgrades(
            self.services.operations, inherited, self.to_privileged, lambda kept: None, lambda now, request: None
        )
        self.desk.policy = policy_of(POLICY, self.services.groups)
        self.doors: dict[str, Door] = {}
        self.clients: list[Client] = []
        self.login(ALICE, "alice", 1001, ["webops"])
        self.login(BOB, "bob", 1002, [])
        self.login(EVE, "eve", 1003, [])

    def clock(self) -> float:
        return self.now

    def publish(self, event: Any) -> None:
        self.events.append(event)
        self.desk.publish(event)

    def login(self, token: str, user: str, uid: int, groups: list[str], ends: float = 9e9, idle: float = 1800.0) -> Any:
        return self.sessions.push(login.SessionUp(hash_of(token), user, uid, groups, ends, idle, 1), self.now)

    def to_log(self, message: ipc.Message) -> bool:
        if self.log_is_there:
            self.records.append(json.loads(message.body))
            self.pending.append(message)
        return self.log_is_there

    def to_log_to_keep(self, message: ipc.Message) -> bool:
        if self.log_is_there:
            self.kept.append(message)
        return self.log_is_there

    def to_auth(self, pull: login.Pull) -> bool:
        if self.auth_is_there:
            self.told.append(pull)
        return self.auth_is_there

    def to_privileged(self, message: ipc.Message) -> bool:
        if self.privileged_is_there:
            self.sent.append(message)
        return self.privileged_is_there

    def decisions(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record["kind"] == "decision"]

    def outcomes(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record["kind"] == "outcome"]

    def door(self, name: str, uid: int | None = None, limit: int = 16) -> Door:
        """An open door; whoever runs the tests may enter it, unless uid says otherwise."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(self.path / name))
        listener.listen(64)
        uid = os.getuid() if uid is None else uid
        self.doors[name] = Door(
            name, listener.detach(), uid, limit, self.loop, self.clock, self.desk.ask, self.notes.append,
            root=name == "root",
        )  # fmt: skip
        self.doors[name].open()
        return self.doors[name]

    def client(self, name: str = "control") -> Client:
        if name not in self.doors:
            self.door(name)
        self.clients.append(Client(self, str(self.path / name)))
        return self.clients[-1]

    def turn(self) -> None:
        self.loop.turn(0.01)
        pending, self.pending = self.pending, self.pending if self.log_answers is None else []
        for message in pending if self.log_answers is not None else ():
            self.audit.recorded(ipc.Message(ipc.RECORDED, seq=message.seq, arg=self.log_answers))
        kept, self.kept = self.kept, self.kept if self.log_keeps is None else []
        for message in kept if self.log_keeps is not None else ():
            answer = ipc.Message(message.op + 1, seq=message.seq, arg=self.log_keeps)
            self.choices.kept(answer, self.now) if answer.op == ipc.KEPT else self.clearing.cleared(answer)

    def settle(self) -> None:
        """Several turns, each of which does all that is ready."""
        for _ in range(4):
            self.turn()

    def until(self, done: Callable[[], bool]) -> None:
        give_up = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < give_up, "nothing came"
            self.turn()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for timer in (*self.doors.values(), self.audit, self.choices, self.clearing, self.reloads, self.approvals):
            timer.wake(self.now)

    def close(self) -> None:
        for client in self.clients:
            client.sock.close()
            for fd in client.fds:
                os.close(fd)
        for door in self.doors.values():
            for connection in list(door._connections.values()):
                connection.close()
            door._sock.close()
        self.loop.close()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.close()


@pytest.fixture
def tokens() -> tuple[str, str, str]:
    """alice may work on site and jobs, bob may reload, revoke and shut down, eve may nothing."""
    return ALICE, BOB, EVE


# -- configurations ------------------------------------------------------------------------------------------------

SITE = """
[socket.http]
listen = "0.0.0.0:80"
[service.site]
command = ["/srv/site/bin/serve"]
user = "www-site"
sockets = ["http"]
groups = ["front"]
ready = { notify = true }
"""
GRANT = """
[[grant]]
id = "ops"
who = ["group:webops"]
may = ["view", "restart"]
on = ["site"]
"""
ACCOUNTS = ("_durward", "_durward-sup", "_durward-auth", "_durward-log", "_durward-probe", "_durward-api")


class Generation:
    """A configuration of these files as privileged would have made it, in a sealed memfd."""

    def __init__(self, files: dict[str, str], number: int = 1, sealed: bool = True, denied: bool = False) -> None:
        """denied: what they name beside them can be read by root alone."""
        given = tuple(File(path, text) for path, text in {"durward.toml": "", **files}.items())
        users, groups, paths, pam = compiler.names_needed(given)
        known = {name: User(900 + n, 900 + n, (900 + n,), "/", "") for n, name in enumerate((*ACCOUNTS, "www-site"))}

        def beside(paths: Iterable[str]) -> dict[str, File]:
            return {path: File(path, "", f"{path} is {'denied' if denied else 'missing'}", denied) for path in paths}

        bundle = compiler.Bundle(
            "/etc/durward", "/opt/durward/bin/python3", given, beside(paths),
            {name: known.get(name) for name in users}, dict.fromkeys(groups), dict.fromkeys(pam, True),
            beside(compiler.credentials_needed(given)[0]), True,
            {name: schedules.read_zone(name) for name in compiler.zones_needed(given)},
        )  # fmt: skip
        self.compiled = compiler.compile_bundle(bundle)
        self.number = number
        self.digest = self.compiled.digest or bytes(32)
        self.fd = os.memfd_create("generation", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(self.fd, compiler.generation_bytes(self.compiled, bundle))
        if sealed:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, SEALS)

    def table(self, **words: Any) -> ipc.Message:
        return ipc.Message(ipc.TABLE, generation=self.number, digest=self.digest, arg=len(self.compiled.specs), **words)


@pytest.fixture
def generation() -> Iterator[Callable[..., Generation]]:
    """Makes generations; with no files, one service that is wanted and a policy for it."""
    made: list[Generation] = []

    def make(
        files: dict[str, str] | None = None, number: int = 1, sealed: bool = True, main: str = "", denied: bool = False
    ) -> Generation:
        given = {"services.d/site.toml": SITE, "policy.d/10-web.toml": GRANT} if files is None else files
        made.append(Generation({**given, "durward.toml": main}, number, sealed, denied))
        return made[-1]

    yield make
    for one in made:
        os.close(one.fd)
