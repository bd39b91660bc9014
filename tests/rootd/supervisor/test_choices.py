"""Choices: what counts is what is on disk, whatever log, its disk and the supervisor do meanwhile."""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from policy.names import USER_PATTERN
from rootd import ipc
from rootd.supervisor import choices
from rootd.supervisor.choices import AGAIN, LIMIT, PATIENCE, Choice, Choices, read, write
from rootd.supervisor.operations import Already, Refusal

OFF = b'{"version":1,"choices":{"site":[false,"alice"]}}'


class Spec(NamedTuple):
    name: str
    autostart: bool
    digest: str = "d"


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


# -- the file ------------------------------------------------------------------------------------------------------


def test_what_was_written_is_read() -> None:
    held = {"site": Choice(False, "alice"), "a.b-c_d": Choice(True, "root")}
    assert read(write(held)) == (held, "")
    assert read(b"") == ({}, "")
    assert read(OFF) == ({"site": Choice(False, "alice")}, "")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"{", "it is damaged"), (b"\0" * 100, "it is damaged"), (b"[]", "it is damaged"), (OFF[:-1], "it is damaged"),
        (b'{"version":2,"choices":[]}', "it is of version 2"), (b'{"version":1}', "it is damaged"),
        (b'{"version":1,"choices":{},"more":1}', "it is damaged"),
        (b'{"version":1,"choices":{"Site":[true,"alice"]}}', "it is damaged"),
        (b'{"version":1,"choices":{"site":[1,"alice"]}}', "it is damaged"),
        (b'{"version":1,"choices":{"site":[true,"../x"]}}', "it is damaged"),
        (b'{"version":1,"choices":{"site":[true,"alice",1]}}', "it is damaged"),
        (b'{"version":1,"choices":{"durward-api":[false,"alice"]}}', "it is damaged: durward-api is nobody's choice"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_understood_counts_for_nothing_and_is_said_loudly(data: bytes, problem: str) -> None:
    log = Log(data)
    assert log.held() == {}
    [note] = log.notes
    assert problem in note
    assert "autostart alone counts" in note
    log.choices.linked()
    log.choices.wake(1e6)
    assert log.sent == [], "nor is it overwritten"
    log.choose("site", False)
    log.answers()
    assert log.disk == OFF, "until somebody chooses"


def test_a_file_that_cannot_be_read_counts_for_nothing() -> None:
    log = Log(None)
    log.notes.clear()
    log.start("it is not a plain file")
    assert log.held() == {}
    assert "it is not a plain file" in log.notes[0]
    log.choose("site", False)
    log.answers()
    assert log.disk == OFF


# -- what counts -----------------------------------------------------------------------------------------------------


def test_a_choice_is_laid_over_autostart_and_nothing_else_of_a_service_changes() -> None:
    log = Log(write({"site": Choice(False, "alice"), "job": Choice(True, "bob"), "gone": Choice(True, "bob")}))
    specs: Any = [Spec("site", True), Spec("job", False), Spec("other", True), Spec("off", False)]
    assert log.choices.over(specs) == [Spec("site", False), Spec("job", True), Spec("other", True), Spec("off", False)]
    assert [log.choices.by(name) for name in ("site", "job", "gone", "other")] == ["alice", "bob", "bob", ""]


def test_it_counts_when_it_is_on_disk_and_is_told_then_and_not_before() -> None:
    log = Log()
    log.choose("site", False)
    assert (log.held(), log.told, log.loads) == ({}, [], [])
    assert log.mark
    log.answers(now=7.0)
    assert (log.held(), log.told, log.loads) == ({"site": False}, [("site", False, None, "")], [7.0])
    assert log.disk == OFF
    assert not log.mark
    assert log.choices.wake_at() is None


def test_what_the_disk_refuses_has_changed_nothing() -> None:
    log = Log(OFF)
    log.choose("site", True)
    log.choose("job", True)
    log.answers(errno.ENOSPC)
    assert log.told == [("site", True, "failed", "it cannot be kept: No space left on device")]
    assert (log.held(), log.loads) == ({"site": False}, [])
    log.answers()
    assert (log.held(), log.told[1:]) == ({"site": False, "job": True}, [("job", True, None, "")])
    assert read(log.disk or b"")[0] == log.choices._held


def test_two_at_once_are_kept_one_after_the_other_and_the_later_has_the_earlier_in_it() -> None:
    log = Log()
    log.choose("site", False)
    log.choose("job", True)
    log.choose("site", True, by="bob")
    assert len(log.sent) == 1
    log.answers()
    assert log.told == [("site", False, None, "")]
    log.answers()
    assert [(name, enabled, kind) for name, enabled, kind, _ in log.told[1:]] == [
        ("job", True, None), ("site", True, None),
    ]  # fmt: skip
    assert log.held() == {"site": True, "job": True}
    assert log.choices.by("site") == "bob"


def test_what_is_so_already_is_not_written_again_unless_it_is_about_to_change() -> None:
    log = Log(OFF)
    with pytest.raises(Already, match="site is already disabled"):
        log.choose("site", False)
    log.choose("site", True)
    log.choose("site", False)
    log.answers()
    log.answers()
    assert log.held() == {"site": False}


def test_a_choice_that_agrees_with_the_configuration_is_kept_too() -> None:
    log = Log()
    log.choose("site", True)
    log.answers()
    assert log.choices.by("site") == "alice"


def test_our_own_services_are_nobodys_choice() -> None:
    with pytest.raises(Refusal, match="durward-api is a part of durward"):
        Log().choose("durward-api", False)


def test_as_many_as_fit_into_one_message_are_kept_and_one_more_is_refused_with_words() -> None:
    names = [f"service-{number:05d}" for number in range(2_000)]
    sizes = (len(write(dict.fromkeys(names[:count], Choice(False, "alice")))) for count in range(2_000))
    fit = sum(size <= LIMIT for size in sizes) - 1
    assert fit > 1_000
    log = Log(write(dict.fromkeys(names[: fit - 1], Choice(False, "alice"))))
    log.choose(names[fit - 1], False)
    with pytest.raises(Refusal, match=f"{fit - 1} choices are kept, .* into {ipc.BODY_LIMIT} bytes"):
        log.choose(names[fit], False)
    log.answers()
    assert len(log.told) == 1
    assert len(log.disk or b"") <= ipc.BODY_LIMIT
    log.choose("service-00000", True)
    log.answers()
    assert log.held()["service-00000"], "what has its place already can be changed"


# -- log away, or silent -----------------------------------------------------------------------------------------------


def test_a_log_that_was_started_again_is_told_again() -> None:
    log = Log()
    log.choose("site", False)
    lost = log.sent.pop()
    log.choices.linked()
    assert log.sent[0].body == lost.body
    log.answers()
    assert log.told == [("site", False, None, "")]


def test_what_was_asked_while_log_is_away_is_told_to_the_next_one() -> None:
    log = Log()
    log.is_there = False
    log.choose("site", False)
    assert log.sent == []
    log.is_there = True
    log.choices.linked()
    log.answers()
    assert log.told == [("site", False, None, "")]


def test_a_log_that_does_not_answer_is_waited_for_so_long_and_no_longer_and_then_it_is_taken_back() -> None:
    log = Log(OFF)
    log.choose("site", True, now=10.0)
    log.choose("job", True, now=11.0)
    assert log.choices.wake_at() == 10.0 + PATIENCE
    log.choices.wake(10.0 + PATIENCE - 0.1)
    assert log.told == []
    log.choices.wake(10.0 + PATIENCE)
    assert log.told == [("site", True, "later", "log, or its disk, does not answer")]
    log.choices.wake(11.0 + PATIENCE)
    assert [kind for *_, kind, _ in log.told] == ["later"] * 2
    assert log.held() == {"site": False}
    log.answers()
    assert log.disk != OFF, "it was written after all"
    assert log.held() == {"site": False}, "which means nothing any more"
    while log.sent:
        log.answers()
    assert log.disk == OFF, "and it was put back"
    assert not log.mark
    assert log.choices.wake_at() is None


def test_what_was_refused_and_is_there_all_the_same_is_put_back_as_soon_as_the_disk_takes_it() -> None:
    log = Log(OFF)
    log.choose("site", True)
    log.answers(errno.EIO, now=1.0, replaced=True)
    assert log.told == [("site", True, "failed", "it cannot be kept: Input/output error")]
    assert log.disk != OFF
    assert log.sent == []
    assert log.choices.wake_at() == 1.0 + AGAIN
    log.choices.wake(1.0 + AGAIN)
    log.answers(errno.EIO, now=7.0)
    assert "cannot be put back yet" in log.notes[-1]
    log.choices.wake(7.0 + AGAIN)
    log.answers()
    assert log.disk == OFF
    assert not log.mark


def test_a_supervisor_that_was_killed_in_between_leaves_no_choice_that_nobody_sees() -> None:
    """log writes what the dead one had asked for after the next one has read the file."""
    log = Log(OFF)
    log.choose("site", True)
    asked = log.sent.pop()
    log.start()
    assert log.held() == {"site": False}
    log.disk = asked.body
    log.choices.linked()
    log.answers()
    assert log.disk == OFF
    assert not log.mark


def test_answers_that_nobody_asked_for_mean_nothing() -> None:
    log = Log(OFF)
    for seq in (0, 1, 99):
        log.choices.kept(ipc.Message(ipc.KEPT, seq=seq), 1.0)
    assert (log.held(), log.told, log.sent) == ({"site": False}, [], [])
    log.choose("site", True)
    log.choices.kept(ipc.Message(ipc.KEPT, seq=log.sent[0].seq, arg=-7), 1.0)
    assert log.told == [("site", True, "failed", "it cannot be kept: Input/output error")]


def test_the_numbers_of_requests_begin_again_after_the_last_one() -> None:
    log = Log()
    log.choices._seq = 0xFFFF_FFFE
    for expected in (0xFFFF_FFFF, 1):
        log.choose("site", bool(expected == 1))
        assert log.sent[0].seq == expected
        log.answers()


def test_users_who_may_choose_can_be_written() -> None:
    assert choices.User.__metadata__[0].pattern == USER_PATTERN  # type: ignore[attr-defined]


# -- histories -----------------------------------------------------------------------------------------------------

SERVICES = ("site", "job", "db")


class History(RuleBasedStateMachine):
    """log, its disk and the supervisor do what they can; in the end what counts is what is on disk."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.log = Log()
        self.model: dict[str, bool] = {}  # by what people were told
        self.asked = 0

    @initialize(data=st.sampled_from([b"", OFF]))
    def begin(self, data: bytes) -> None:
        self.log = Log(data)
        self.model = self.log.held()

    @rule(name=st.sampled_from(SERVICES), enabled=st.booleans())
    def choose(self, name: str, enabled: bool) -> None:
        try:
            self.log.choose(name, enabled, self.now)
        except Already:
            assert self.model[name] == enabled
            return
        self.asked += 1
        self.hear()

    @precondition(lambda self: self.log.sent)
    @rule(number=st.sampled_from([0, 0, errno.ENOSPC, errno.EIO]))
    def answer(self, number: int) -> None:
        self.log.answers(number, self.now, replaced=number == errno.EIO)
        self.hear()

    @rule(written=st.integers(0, 3), back=st.booleans())
    def log_dies(self, written: int, back: bool) -> None:
        """Some of what it was asked for is on disk, and none of that is answered."""
        for message in self.log.sent[:written]:
            self.log.disk = message.body
        self.log.sent.clear()
        self.log.is_there = back
        if back:
            self.log.choices.linked()

    @precondition(lambda self: not self.log.is_there)
    @rule()
    def log_is_back(self) -> None:
        self.log.is_there = True
        self.log.choices.linked()

    @rule(seconds=st.sampled_from([0.5, PATIENCE, 2 * PATIENCE]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.log.choices.wake(self.now)
        self.hear()

    @rule(before=st.booleans())
    def supervisor_dies(self, before: bool) -> None:
        """What it had asked log for is written before the next one has read the file, or after."""
        late = self.log.sent
        self.log.sent = []
        if before:
            self.written(late)
        self.log.start()
        self.model = self.log.held()  # who had asked was told nothing: either is right
        self.log.told.clear()
        self.asked = 0
        if not before:
            self.written(late)
        if self.log.is_there:
            self.log.choices.linked()

    def written(self, messages: list[ipc.Message]) -> None:
        for message in messages:
            self.log.disk = message.body

    def hear(self) -> None:
        self.asked -= len(self.log.told)
        for name, enabled, kind, _ in self.log.told:
            if kind is None:
                self.model[name] = enabled
        self.log.told.clear()
        assert self.asked >= 0, "nobody is told twice"

    @invariant()
    def what_counts_is_what_people_were_told(self) -> None:
        assert self.log.held() == self.model

    @invariant()
    def nobody_waits_without_an_end(self) -> None:
        due = self.log.choices.wake_at()
        assert due is not None or not self.asked
        assert due is None or due <= self.now + max(PATIENCE, AGAIN)

    @invariant()
    def what_may_be_elsewhere_is_marked(self) -> None:
        differs = read(self.log.disk or b"")[0] != self.log.choices._held
        assert self.log.mark or not differs

    def teardown(self) -> None:
        """Everything works again: all are answered, and the disk says what counts."""
        self.log.is_there = True
        self.log.choices.linked()
        for _ in range(10):
            while self.log.sent:
                self.log.answers(0, self.now)
            self.now += AGAIN
            self.log.choices.wake(self.now)
        self.hear()
        assert self.asked == 0
        assert read(self.log.disk or b"")[0] == self.log.choices._held
        assert self.log.held() == self.model
        assert not self.log.mark
        assert self.log.choices.wake_at() is None


History.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestHistories = History.TestCase
