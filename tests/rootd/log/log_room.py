"""A Log in the test's own process, and the ends of its links that its peers have."""

from __future__ import annotations

import json
import os
import select
from pathlib import Path
from typing import Any

from rootd import ipc
from rootd.config import settings
from rootd.log import chain, main
from userapi.audit import verify

CONF = settings.Audit("refuse", anchors="none")


class Room:
    """A Log in this process, and the peers' ends of its links."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "log").mkdir()
        (path / "log" / "audit").mkdir()
        for name in ("state/log", "state/choices", "run/log"):
            (path / name).mkdir(parents=True)
        ours, theirs = ipc.pair()
        self.keeper = ipc.Link(ours)
        self.links: dict[str, ipc.Link] = {}
        self.directories = main.open_directories(*(str(path / name) for name in ("log", "state", "run")))
        self.log = main.Log(ipc.Link(theirs, takes_fds=True), *self.directories, f"{path}/state/log", CONF)
        self.log.begin()
        self.log.loop.watch(self.log.keeper.fileno(), self.log.from_keeper)
        self.log.loop.watch(self.log.mover.fileno(), self.log.move)

    def close(self) -> None:
        self.log.mover.close()
        self.log.audit._release()
        self.log.outside.close()
        ipc.close_all(self.directories)

    def connect(self, role: str) -> ipc.Link:
        """As the keeper does when that peer has started."""
        ours, theirs = ipc.pair()
        pidfd = os.pidfd_open(os.getpid())
        self.keeper.send(ipc.Message(ipc.LINK, name=role), theirs.fileno(), pidfd)
        theirs.close()
        os.close(pidfd)
        if role in self.links:
            self.links[role].close()
        self.links[role] = ipc.Link(ours, body=role == "supervisor")
        return self.links[role]

    def turn(self, now: float = 0.0) -> None:
        """As Log.run does, until nothing is ready."""
        poll = select.poll()
        poll.register(self.log.loop._epoll, select.POLLIN)
        while poll.poll(0):
            self.log.loop.turn(0)
            self.log.mover.retry(now)
            self.log.settle(now)

    def heard(self, role: str) -> list[ipc.Message]:
        """What a peer was sent; None stands for the end of its link."""
        messages = []
        while True:
            try:
                received = self.links[role].receive()
            except BlockingIOError:
                return messages
            if received is None:
                return messages
            messages.append(received[0])

    def is_closed(self, role: str) -> bool:
        self.heard(role)
        try:
            return self.links[role].receive() is None
        except BlockingIOError:
            return False

    def record(self, seq: int = 1, **body: Any) -> None:
        text = json.dumps({"kind": "decision", **body}).encode()
        self.links["supervisor"].send(ipc.Message(ipc.RECORD, seq=seq, body=text))

    def pipe(self, **fields: Any) -> int:
        reader, writer = os.pipe()
        message = {"scope": 1, "run": 1, "slot": 7, "name": "site", "arg": 100_000, "extra": 3, **fields}
        self.links["privileged"].send(ipc.Message(ipc.PIPE, **message), reader)
        os.close(reader)
        return writer

    def audit(self) -> list[dict[str, Any]]:
        data = (self.path / "log" / "audit" / "audit.jsonl").read_bytes()
        keys = chain.parse_keys((self.path / "state" / "log" / "audit.initial").read_bytes())
        assert not verify.verify(data.splitlines(keepends=True), keys).problems
        return [chain.parse(line).body for line in data.splitlines()]

    def text(self, name: str = "site/stdout.log") -> bytes:
        return (self.path / "log" / name).read_bytes()
