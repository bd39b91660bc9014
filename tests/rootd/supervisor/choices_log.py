"""log as the supervisor's choices see it, and what is on its disk: played by the test."""

from __future__ import annotations

from rootd import ipc
from rootd.supervisor.choices import Choices

OFF = b'{"version":1,"choices":{"site":[false,"alice"]}}'


class Log:
    """What the supervisor sees of log, and what people are told."""

    def __init__(self, data: bytes | None = b"", mark: bytes = b"") -> None:
        self.disk, self.mark = data, mark
        self.sent: list[ipc.Message] = []
        self.is_there = True
        self.loads: list[float] = []
        self.notes: list[str] = []
        self.told: list[tuple[str, bool, str | None, str]] = []
        self.start()

    def start(self, problem: str = "") -> None:
        self.choices = Choices(self.send, self.loads.append, self.marks, self.notes.append)
        self.choices.restore(self.mark)
        self.choices.load(self.disk, problem)

    def send(self, message: ipc.Message) -> bool:
        if self.is_there:
            self.sent.append(message)
        return self.is_there

    def marks(self, mark: bytes) -> None:
        self.mark = mark

    def choose(self, name: str, enabled: bool, now: float = 0.0, by: str = "alice") -> None:
        self.choices.choose(name, enabled, by, now, lambda kind, why: self.told.append((name, enabled, kind, why)))

    def answers(self, number: int = 0, now: float = 1.0, *, replaced: bool = False) -> None:
        message = self.sent.pop(0)
        if number == 0 or replaced:
            self.disk = message.body
        scope = ipc.REPLACED if replaced else 0
        self.choices.kept(ipc.Message(ipc.KEPT, seq=message.seq, arg=number, scope=scope), now)

    def held(self) -> dict[str, bool]:
        return {name: one.enabled for name, one in self.choices._held.items()}
