"""What is asked of log, and who is told when it is done."""

from __future__ import annotations

import errno

import pytest

from rootd import ipc
from rootd.supervisor import clearing
from rootd.supervisor.clearing import PATIENCE, Clearing
from rootd.supervisor.operations import Refusal


class Log:
    def __init__(self) -> None:
        self.sent: list[ipc.Message] = []
        self.told: list[tuple[str | None, str]] = []
        self.clearing = Clearing(self.send)

    def send(self, message: ipc.Message) -> bool:
        self.sent.append(message)
        return True

    def then(self, kind: str | None, why: str) -> None:
        self.told.append((kind, why))

    def answer(self, *numbers: int) -> None:
        for message, number in zip(self.sent, numbers, strict=False):
            self.clearing.cleared(ipc.Message(ipc.CLEARED, seq=message.seq, arg=number))


@pytest.fixture
def log() -> Log:
    return Log()


def test_it_is_told_when_every_process_is_done(log: Log) -> None:
    log.clearing.ask(["site.0", "site.1"], False, 10.0, log.then)
    log.clearing.ask(["jobs"], True, 10.0, log.then)
    sent = [(one.op, one.scope, one.name) for one in log.sent]
    assert sent == [(ipc.CLEAR, 0, "site.0"), (ipc.CLEAR, 0, "site.1"), (ipc.CLEAR, ipc.REOPEN, "jobs")]
    log.answer(0)
    assert log.told == []
    log.answer(0, 0)
    assert log.told == [(None, "")]
    log.answer(0, 0, 0)
    log.answer(0, 0, 0)
    assert log.told == [(None, "")] * 2
    assert log.clearing.wake_at() is None


def test_the_first_error_is_told_and_no_nonsense_of_logs_is(log: Log) -> None:
    log.clearing.ask(["a", "b", "c"], False, 0.0, log.then)
    log.answer(0, errno.EACCES, errno.EIO)
    assert log.told == [("failed", "Permission denied")]
    log.clearing.ask(["d"], False, 0.0, log.then)
    log.clearing.cleared(ipc.Message(ipc.CLEARED, seq=log.sent[-1].seq, arg=1 << 40))
    assert log.told[-1] == ("failed", "Unknown error 4095")


def test_a_log_that_does_not_answer_is_waited_for_so_long_and_its_late_answer_means_nothing(log: Log) -> None:
    log.clearing.ask(["a"], False, 10.0, log.then)
    assert log.clearing.wake_at() == 10.0 + PATIENCE
    log.clearing.wake(10.0)
    assert log.told == []
    log.clearing.wake(10.0 + PATIENCE)
    assert log.told == [("later", "log, or its disk, does not answer")]
    log.answer(0)
    assert len(log.told) == 1


def test_a_log_that_was_started_again_is_asked_for_what_was_not_answered(log: Log) -> None:
    log.clearing.ask(["a", "b"], False, 0.0, log.then)
    log.answer(0)
    log.sent.clear()
    log.clearing.linked()
    assert [one.name for one in log.sent] == ["b"]
    log.answer(0)
    assert log.told == [(None, "")]


def test_there_is_a_limit_to_what_waits(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing, "LIMIT", 2)
    log.clearing.ask(["a", "b"], False, 0.0, log.then)
    with pytest.raises(Refusal, match="wait for log"):
        log.clearing.ask(["c"], False, 0.0, log.then)
    log.answer(0, 0)
    log.clearing.ask(["c"], False, 0.0, log.then)
