"""Records, and what waits for them."""

from __future__ import annotations

import errno
import json
import os

import pytest

from rootd import ipc
from rootd.supervisor.auditing import AGAIN, CUT, KEPT, MINUTE, PATIENCE, SINGLY, USERS, Audit, Rate


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


def test_e4_a_disk_that_has_refused_is_asked_again_each_second_and_then_gets_everything(log: Log) -> None:
    for number in range(3):
        log.audit.record({"number": number})
    for message in list(log.sent):
        log.answer(message, errno.ENOSPC)
    assert log.audit.wake_at() == AGAIN
    log.sent.clear()
    log.audit.wake(AGAIN - 0.1)
    assert log.sent == []
    for second in (1, 2, 3):
        log.now = second * AGAIN
        log.audit.wake(log.now)
        assert len(log.sent) == second, "one is enough to know"
        log.answer(log.sent[-1], errno.ENOSPC)
    log.now = 4 * AGAIN
    log.audit.wake(log.now)
    log.answer(log.sent[-1])
    assert log.bodies() == [{"number": number} for number in (0, 0, 0, 0, 1, 2)], "in their order"
    for message in log.sent[4:]:
        log.answer(message)
    assert log.audit.wake_at() is None


def test_a_log_that_was_started_again_gets_the_oldest_records_first(log: Log) -> None:
    log.audit.record({"number": 1})
    log.answer(log.sent[0], errno.EIO)
    log.audit.record({"number": 2})
    log.audit.linked()
    assert log.bodies()[2:] == [{"number": 1}, {"number": 2}]
    log.audit.wake(AGAIN)
    assert len(log.sent) == 4, "the new one has not refused anything"
    assert log.audit.wake_at() is None


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


# -- what changes nothing ------------------------------------------------------------------------------------------


class Counted:
    """A rate, and what it records."""

    def __init__(self) -> None:
        self.records: list[object] = []
        self.rate = Rate(self.records.append, lambda at: f"at {at:g}")

    def ask(self, times: int, now: float, user: str = "alice", uid: int = 1001) -> int:
        return sum(self.rate.lets(user, uid, now) for _ in range(times))


def test_so_many_a_minute_are_recorded_one_by_one_and_the_others_are_one_record_when_the_next_begins() -> None:
    counted = Counted()
    assert counted.ask(SINGLY + 5, 10.0) == SINGLY
    assert counted.ask(2, 10.0 + MINUTE - 0.1) == 0
    assert counted.records == [], "there is no timer"
    assert counted.ask(1, 10.0 + MINUTE) == 1
    assert counted.records == [{"kind": "decisions", "user": "alice", "uid": 1001, "count": 7, "since": "at 10"}]
    assert counted.ask(SINGLY, 11.0 + MINUTE) == SINGLY - 1, "the new minute has its own number"


def test_where_nothing_was_left_out_nothing_is_said() -> None:
    counted = Counted()
    assert counted.ask(SINGLY, 0.0) == SINGLY
    assert counted.ask(1, MINUTE) == 1
    assert counted.records == []


def test_each_user_has_his_own_rate() -> None:
    counted = Counted()
    counted.ask(SINGLY + 1, 0.0)
    assert counted.ask(1, 0.0, "bob", 1002) == 1
    assert counted.ask(1, 0.0, "alice", 1003) == 1
    assert counted.ask(1, 0.0) == 0


def test_the_oldest_user_gives_up_his_place_and_his_count_is_recorded_first() -> None:
    counted = Counted()
    counted.ask(SINGLY + 3, 0.0, "first", 1)
    counted.ask(1, 1.0, "second", 2)
    for uid in range(3, USERS + 1):
        counted.ask(1, 2.0, "other", uid)
    assert counted.records == []
    counted.ask(1, 3.0, "new", 0)
    assert counted.records == [{"kind": "decisions", "user": "first", "uid": 1, "count": 3, "since": "at 0"}]
    counted.ask(1, 3.0, "newer", 0)
    assert len(counted.records) == 1, "the second had none to tell"


def test_a_user_whose_minute_begins_again_is_the_youngest_and_puts_nobody_out() -> None:
    counted = Counted()
    for uid in range(USERS):
        counted.ask(SINGLY + 1, 0.0, "one", uid)
    counted.ask(1, MINUTE, "one", 0)
    counted.ask(1, MINUTE, "new", 0)
    assert [record["uid"] for record in counted.records if isinstance(record, dict)] == [0, 1]


def test_all_is_on_disk_when_nothing_waits_and_nothing_was_refused(log: Log) -> None:
    assert log.audit.is_settled
    log.audit.record({"kind": "load"})
    assert not log.audit.is_settled
    log.answer(log.sent[-1], errno.ENOSPC)
    assert not log.audit.is_settled
    log.now += AGAIN
    log.audit.wake(log.now)
    log.answer(log.sent[-1])
    assert log.audit.is_settled
