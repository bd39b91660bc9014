"""Histories of choices: whatever dies, hangs or is full, what counts is what people were told and what is on disk."""

from __future__ import annotations

import errno

from choices_log import OFF, Log
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rootd import ipc
from rootd.supervisor.choices import AGAIN, PATIENCE, read
from rootd.supervisor.operations import Already

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
