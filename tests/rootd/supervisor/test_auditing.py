"""Records, and what waits for them."""

from __future__ import annotations

import errno
import json
import os

import pytest

from rootd import ipc
from rootd.supervisor.auditing import CUT, KEPT, PATIENCE, Audit


class Log:
    """log, played."""

    def __init__(self) -> None:
        self.sent: list[ipc.Message] = []
        self.there = True
        self.now = 0.0
        self.notes: list[str] = []
        self.audit = Audit(self.send, lambda: self.now, self.notes.append)

    def send(self, message: ipc.Message) -> bool:
        if self.there:
            self.sent.append(message)
        return self.there

    def answer(self, message: ipc.Message, number: int = 0) -> None:
        self.audit.recorded(ipc.Message(ipc.RECORDED, seq=message.seq, arg=number))

    def bodies(self) -> list[object]:
        return [json.loads(message.body) for message in self.sent]


@pytest.fixture
def log() -> Log:
    return Log()


def test_nothing_is_told_before_the_record_is_on_disk(log: Log) -> None:
    told: list[str] = []
    log.audit.record({"kind": "decision"}, told.append)
    assert told == []
    log.answer(log.sent[0])
    log.answer(log.sent[0])
    assert told == [""], "once"


def test_e4_a_disk_that_is_full_is_told_in_words_and_the_record_is_kept_for_later(log: Log) -> None:
    told: list[str] = []
    log.audit.record({"number": 1}, told.append)
    log.answer(log.sent[0], errno.ENOSPC)
    assert told == [os.strerror(errno.ENOSPC)]
    log.audit.record({"number": 2})
    log.answer(log.sent[1])
    assert log.bodies() == [{"number": 1}, {"number": 2}, {"number": 1}]
    assert log.notes == ["the audit log: No space left on device", "the audit log: it can be written again"]


def test_a_log_that_is_away_is_told_at_once_and_the_record_goes_to_the_next(log: Log) -> None:
    told: list[str] = []
    log.there = False
    log.audit.record({"number": 1}, told.append)
    assert told == ["log is being started again"]
    log.there = True
    log.audit.linked()
    assert log.bodies() == [{"number": 1}]
    log.answer(log.sent[0])
    assert len(told) == 1
    log.audit.linked()
    assert len(log.sent) == 1, "it is on disk"


def test_a_log_that_dies_is_told_to_those_who_wait_and_its_successor_gets_their_records(log: Log) -> None:
    told: list[str] = []
    log.audit.record({"number": 1}, told.append)
    log.audit.record({"number": 2})
    log.audit.lost()
    assert told == ["log is being started again"]
    log.audit.linked()
    assert log.bodies()[2:] == [{"number": 1}, {"number": 2}]


def test_a_disk_that_does_not_answer_is_waited_for_only_so_long(log: Log) -> None:
    told: list[str] = []
    assert log.audit.wake_at() is None
    log.audit.record({"number": 1}, told.append)
    log.audit.record({"number": 2})
    assert log.audit.wake_at() == PATIENCE
    log.audit.wake(PATIENCE - 0.1)
    assert told == []
    log.audit.wake(PATIENCE)
    assert told == ["log's disk does not answer"]
    assert log.audit.wake_at() is None
    log.answer(log.sent[0])
    assert len(told) == 1


def test_records_are_kept_up_to_a_limit_and_what_is_decided_stops_before(log: Log) -> None:
    log.there = False
    for _ in range(KEPT // 4 - 1):
        log.audit.record({})
    assert not log.audit.is_crowded
    for _ in range(KEPT // 4):
        log.audit.record({})
    assert log.audit.is_crowded
    assert not log.audit.is_full
    log.audit.record({})
    assert log.audit.is_full
    for _ in range(KEPT // 2):
        log.audit.record({})
    told: list[str] = []
    log.audit.record({}, told.append)
    log.audit.record({})
    assert told == ["too many records are waiting"]
    assert log.notes[-1] == "the audit log cannot keep up: a record is lost"


def test_e3_one_record_is_one_line_of_ascii_and_fits_whatever_is_in_it(log: Log) -> None:
    log.audit.record({"why": "a\n\0\x1b[2J\udc80ü" * 9999, "n": 5, "ok": True})
    body = log.sent[0].body
    assert body.isascii()
    assert b"\n" not in body
    assert len(log.sent[0].encode()) < ipc.SIZE + ipc.BODY_LIMIT
    assert len(json.loads(body)["why"]) == CUT


@pytest.mark.parametrize("number", [-1, -(1 << 63), 4096, 1 << 31, 1 << 32, (1 << 63) - 1])
def test_c5_a_number_that_is_no_errno_is_an_error_like_others(log: Log, number: int) -> None:
    told: list[str] = []
    log.audit.record({"number": 1}, told.append)
    log.answer(log.sent[0], number)
    assert told == [os.strerror(errno.EIO)]


def test_answers_that_were_not_asked_for_mean_nothing(log: Log) -> None:
    log.audit.recorded(ipc.Message(ipc.RECORDED, seq=77))
    assert log.sent == []
