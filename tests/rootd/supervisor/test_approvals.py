"""What waits for a second person: whole, once, and only so long, whoever dies meanwhile."""

from __future__ import annotations

import pytest
from second_person import waiting

from policy import messages
from rootd.supervisor.approvals import EACH, LIMIT, Approvals
from rootd.supervisor.operations import Refusal


class Kept:
    def __init__(self) -> None:
        self.now = 100.0
        self.file = b""
        self.start()

    def start(self) -> None:
        self.approvals = Approvals(lambda: self.now, self.write)
        self.problem = self.approvals.restore(self.file)

    def write(self, text: bytes) -> None:
        self.file = text

    def numbers(self) -> list[int]:
        return [one.number for one in self.approvals.all()]


def test_what_was_asked_for_is_found_again_as_it_was_after_a_kill_9() -> None:
    kept = Kept()
    commands = (messages.Signal("site", "HUP"), messages.Restart("site", hard=True), messages.Scale("site", 3))
    for command in commands:
        kept.approvals.add(lambda number, command=command: waiting(number, command=command, reason="«x»"))
    before = list(kept.approvals.all())
    kept.start()
    assert (kept.problem, list(kept.approvals.all())) == ("", before)
    assert [one.command for one in before] == list(commands)


def test_a_number_is_used_once_and_never_given_out_again() -> None:
    kept = Kept()
    assert kept.approvals.add(waiting).number == 1
    assert kept.approvals.take(1).number == 1
    with pytest.raises(Refusal, match="1 does not wait any more"):
        kept.approvals.take(1)
    kept.start()
    assert kept.numbers() == []
    assert kept.approvals.add(waiting).number == 2


def test_who_asks_for_the_same_again_waits_for_the_same() -> None:
    kept = Kept()
    first = kept.approvals.add(waiting)
    assert kept.approvals.add(waiting) is first
    for number, changed in enumerate(
        ({"reason": "x"}, {"uid": 7}, {"session": "y"}, {"rule": "z"}, {"also": ("a",)}), 2
    ):
        assert kept.approvals.add(lambda new, changed=changed: waiting(new, **changed)).number == number


def test_what_has_waited_too_long_does_not_wait_any_more() -> None:
    kept = Kept()
    kept.approvals.add(lambda number: waiting(number, until=110.0))
    kept.now = 109.9
    assert kept.approvals.find(1) is not None
    kept.now = 110.0
    assert kept.approvals.find(1) is None
    with pytest.raises(Refusal):
        kept.approvals.take(1)


def test_each_whose_time_is_over_is_told_once_also_after_a_kill_9() -> None:
    kept = Kept()
    for until in (110.0, 120.0, 130.0):
        kept.approvals.add(lambda number, until=until: waiting(number, until=until, reason=str(number)))
    told: list[int] = []
    kept.approvals.expired = lambda one: told.append(one.number)
    assert kept.approvals.wake_at() == 110.0
    kept.now = 110.0
    kept.approvals.wake(kept.now)
    assert (told, kept.approvals.wake_at()) == ([1], 120.0)
    kept.start()
    kept.approvals.expired = lambda one: told.append(one.number)
    kept.now = 125.0
    kept.approvals.wake(kept.now)
    kept.approvals.wake(kept.now)
    assert (told, kept.numbers()) == ([1, 2], [3])
    kept.approvals.take(3)
    assert kept.approvals.wake_at() is None


def test_nobody_fills_what_waits_for_the_others() -> None:
    kept = Kept()
    for _ in range(EACH):
        kept.approvals.add(lambda number: waiting(number, reason=str(number)))
    with pytest.raises(Refusal, match="too much waits for approval already"):
        kept.approvals.add(lambda number: waiting(number, reason="more"))
    for uid in range(LIMIT - EACH):
        kept.approvals.add(lambda number, uid=uid: waiting(number, uid=2000 + uid))
    with pytest.raises(Refusal):
        kept.approvals.add(lambda number: waiting(number, uid=9))


@pytest.mark.parametrize("damaged", [b"{", b"[]", b'{"waiting": [1]}', b'{"last": "x"}', b"\xff", b"[" * 9999])
def test_where_the_file_is_damaged_nothing_waits(damaged: bytes) -> None:
    kept = Kept()
    kept.file = damaged
    kept.start()
    assert kept.problem.startswith("what waited for approval is damaged, and must be asked for again: ")
    assert kept.numbers() == []
