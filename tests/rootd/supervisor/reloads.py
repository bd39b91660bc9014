"""Reloads whose privileged is played: for tests of their ways and ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from whole import whole

from policy import messages
from rootd import ipc
from rootd.supervisor.operations import Operations
from rootd.supervisor.reload import Loaded, Reloads, read_generation

JOBS = '[service.jobs]\ncommand = ["/srv/jobs"]\nuser = "www-site"\n'


class House:
    def __init__(self, generation: Callable[..., Any]) -> None:
        self.make = generation
        self.events: list[Any] = []
        self.sent: list[ipc.Message] = []
        self.adopted: list[Loaded] = []
        self.there = True
        self.begun: dict[str, int] = {}  # by each configuration that counts
        self.operations = Operations(self.events.append, lambda: "now")
        self.reloads = Reloads(self.operations, self.send, self.adopt)
        self.first = generation()
        self.reloads.facts(read_generation(1, self.first.digest, self.first.fd), 0.0)
        self.adopted.clear()

    def adopt(self, loaded: Loaded, _now: float) -> dict[str, int]:
        self.adopted.append(loaded)
        return self.begun

    def send(self, message: ipc.Message) -> bool:
        if self.there:
            self.sent.append(message)
        return self.there

    def begin(self, dry_run: bool = False) -> ipc.Message:
        """STAGE."""
        self.reloads.begin("id", dry_run, 0.0)
        assert self.sent[-1].op == ipc.STAGE
        return self.sent[-1]

    def staged(self, generation: Any, **words: Any) -> None:
        self.reloads.staged(generation.table(seq=self.sent[-1].seq, **words), generation.fd, 1.0)

    def done(self, **words: Any) -> None:
        self.reloads.done(ipc.Message(ipc.DONE, seq=self.sent[-1].seq, **words), 2.0)

    def ops(self) -> list[int]:
        return [message.op for message in self.sent]

    @property
    def end(self) -> messages.Ended:
        assert isinstance(self.events[-1], messages.Ended), self.events
        return whole(self.events[-1])


def new(house: House, extra: str = "", number: int = 2) -> Any:
    assert house.first.compiled.specs
    return house.make({"services.d/jobs.toml": JOBS + extra}, number)
