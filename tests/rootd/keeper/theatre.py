"""A real keeper forks puppets, which do and tell what the test says over a socket of their own."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import prctl

from rootd import ipc
from rootd.keeper import main as keeper, manifest

WAIT = 20.0  # seconds before a test gives up


def puppet(role: str, address: str, link_fd: int) -> int:
    """Runs as a role: says hello with what it inherited, then obeys."""
    link = ipc.link_from(link_fd, takes_fds=True)
    inherited = ipc.inherit(link)
    strings = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    strings.connect(address)

    def tell(**words: Any) -> None:
        strings.send(json.dumps({"role": role, **words}).encode())

    reaped = {str(pid): status for pid, status in inherited.reaped.items()}
    what = {name: os.readlink(f"/proc/self/fd/{fd}") for name, fd in inherited.held.items()}
    whose = {"parent": os.getppid(), "what": what}
    tell(hello=os.getpid(), held=sorted(inherited.held), links=sorted(inherited.links), reaped=reaped, **whose)
    while True:
        ready, _, _ = select.select([link, strings], [], [])
        if link in ready:
            received = link.receive()
            if received is None:
                tell(keeper_gone=True)
                return 0
            message, fds = received
            said = os.pread(fds[0], 4096, 0).decode() if message.op == ipc.UPGRADE else ""
            tell(op=message.op, name=message.name, arg=message.arg, extra=message.extra, seq=message.seq, said=said)
            ipc.close_all(fds)
        if strings in ready:
            words = strings.recv(65536)
            if not words:
                return 1
            order = json.loads(words)
            match order["do"]:
                case "send":
                    fds = [os.memfd_create(name) for name in order.get("made", ["x"] * order.get("fd", 0))]
                    more = {key: order[key] for key in ("name", "arg", "scope", "seq") if key in order}
                    link.send_now(ipc.Message(order["op"], **more, body=order.get("body", "").encode()), *fds)
                    ipc.close_all(fds)
                case "raw":
                    link.sock.send(b"nonsense")
                case "orphan":
                    reader, writer = os.pipe()
                    child = os.fork()
                    if child == 0:
                        grandchild = os.fork()
                        if grandchild == 0:
                            os.close(reader)
                            os.close(writer)
                            strings.close()
                            os._exit(order["status"])
                        os.write(writer, str(grandchild).encode())
                        os._exit(0)
                    os.waitpid(child, 0)
                    tell(orphan=int(os.read(reader, 20)))
                    ipc.close_all((reader, writer))
                case "fds":
                    tell(fds=sorted(os.listdir("/proc/self/fd")), comm=Path("/proc/self/comm").read_text().strip())
                case "raise":
                    raise RuntimeError("on purpose")
                case "exit":
                    return int(order["status"])


def roles(address: str) -> dict[str, keeper.Role]:
    names = ("privileged", "log", "supervisor", "auth", "probe")
    return {role: (lambda fd, role=role: puppet(role, address, fd)) for role in names}


class Theatre:
    """The test's side: a keeper in a process of its own, and the strings of its puppets."""

    def __init__(
        self, tmp: Path, *staged: str, command: Sequence[str] = (), told: manifest.Manifest | None = None
    ) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.address = str(tmp / "strings")
        self.listener.bind(self.address)
        self.listener.listen(16)
        self.listener.settimeout(WAIT)
        self.strings: dict[str, socket.socket] = {}
        self.heard: dict[str, list[dict[str, Any]]] = {}
        self.pid = os.fork()
        if self.pid == 0:
            prctl.set_child_subreaper(1)
            os.dup2(os.open(tmp / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            held = {name: os.memfd_create(name) for name in staged}
            os._exit(keeper.Keeper(roles(self.address), held, command, told).run())
        self.stderr = tmp / "stderr"

    def enter(self, *roles: str) -> dict[str, dict[str, Any]]:
        """Wait until these roles have come on stage; their hellos."""
        hellos: dict[str, dict[str, Any]] = {}
        while set(hellos) != set(roles):
            string, _ = self.listener.accept()
            string.settimeout(WAIT)
            hello = json.loads(string.recv(65536))
            hellos[hello["role"]] = hello
            if hello["role"] in self.strings:
                self.strings[hello["role"]].close()
            self.strings[hello["role"]] = string
        return hellos

    def order(self, role: str, **words: Any) -> None:
        self.strings[role].send(json.dumps(words).encode())

    def hear(self, role: str) -> dict[str, Any]:
        return json.loads(self.strings[role].recv(65536))  # type: ignore[no-any-return]

    def hear_op(self, role: str, op: int) -> None:
        """Wait for this message, passing over links to parts that are being started."""
        while self.hear(role).get("op") != op:
            continue

    def begin(self) -> dict[str, dict[str, Any]]:
        hellos = self.enter("privileged")
        self.order("privileged", do="send", op=ipc.BEGIN)
        hellos |= self.enter("log", "supervisor", "auth", "probe")
        for _ in range(2):
            assert self.hear("privileged")["op"] == ipc.LINK
        return hellos

    def wait(self) -> int:
        pidfd = os.pidfd_open(self.pid)
        ready, _, _ = select.select([pidfd], [], [], WAIT)
        os.close(pidfd)
        assert ready, "the keeper did not end"
        _, raw = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(raw)


def opened(stage: Theatre) -> Iterator[Theatre]:
    yield stage
    if stage.pid:
        os.kill(stage.pid, signal.SIGKILL)
        os.waitpid(stage.pid, 0)
    stage.listener.close()
    for string in stage.strings.values():
        string.close()
