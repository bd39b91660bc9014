"""What limits count, whoever dies: against a naive evaluator, and through a restart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from policy.conditions import Limit
from rootd.supervisor import limits as module
from rootd.supervisor.limits import Limits

THREE = Limit(3, 10.0, "3 in 10s")


class Kept:
    """Limits, their clock and their file."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.file = b""
        self.problem = ""
        self.start()

    def start(self) -> None:
        self.limits = Limits(lambda: self.now, self.write)
        self.problem = self.limits.restore(self.file)

    def write(self, text: bytes) -> None:
        self.file = text

    def wait(self, rule: str = "r", limit: Limit = THREE, uid: int = 1001, service: str = "site") -> float:
        return self.limits.wait(rule, limit, uid, service)

    def charge(self, rule: str = "r", limit: Limit = THREE, uid: int = 1001, service: str = "site") -> None:
        self.limits.charge(rule, limit, uid, service)


def test_a_limit_lets_through_so_many_and_the_next_when_the_first_is_long_enough_ago() -> None:
    kept = Kept()
    for _ in range(3):
        assert kept.wait() == 0
        kept.charge()
        kept.now += 1
    assert kept.wait() == 7.0
    kept.now += 6.9
    assert 0 < kept.wait() < 0.2
    kept.now += 0.2
    assert kept.wait() == 0


def test_each_rule_person_and_service_is_counted_by_itself() -> None:
    kept = Kept()
    for _ in range(3):
        kept.charge()
    assert kept.wait() > 0
    assert kept.wait(rule="s") == kept.wait(uid=1002) == kept.wait(service="shop") == 0


def test_what_is_asked_and_not_charged_is_not_counted() -> None:
    kept = Kept()
    assert [kept.wait() for _ in range(10)] == [0.0] * 10


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("use"), st.sampled_from(["a", "b"])),
        st.tuples(st.just("pass"), st.integers(0, 12)),
        st.tuples(st.just("die"), st.just(0)),
    ),
    max_size=30,
)


@given(events=EVENTS)
def test_at_no_time_are_more_let_through_than_the_limit_says_and_never_fewer(events: list[tuple[str, Any]]) -> None:
    kept, used = Kept(), list[tuple[str, float]]()
    for what, how in events:
        if what == "pass":
            kept.now += how
        elif what == "die":
            kept.start()
        else:
            recent = [at for rule, at in used if rule == how and kept.now - at < THREE.seconds]
            assert (kept.wait(how) == 0) == (len(recent) < THREE.times)
            if len(recent) < THREE.times:
                kept.charge(how)
                used.append((how, kept.now))


def test_a_limit_that_a_reload_has_changed_counts_what_was_used_before() -> None:
    kept = Kept()
    for _ in range(3):
        kept.charge()
    assert kept.wait(limit=Limit(4, 10.0, "")) == 0
    assert kept.wait(limit=Limit(1, 5.0, "")) == 5.0


def test_what_is_kept_and_damaged_counts_as_used_up_for_the_time_of_each_limit() -> None:
    kept = Kept()
    for damaged in (b"{", b"[1]", b'[{"rule": 1}]', b"\xff", b'[{"rule": "\xff"}]'):
        kept.file = damaged
        kept.start()
        assert kept.problem.startswith("what limits were used is damaged, they count as used up: ")
        assert kept.wait() == 10.0
        assert kept.wait(limit=Limit(1, 60.0, "")) == 60.0
        kept.now += 10
        assert kept.wait() == 0


def test_times_of_another_boot_count_for_nothing() -> None:
    kept = Kept()
    for _ in range(3):
        kept.charge()
    kept.now = 5.0
    kept.start()
    assert (kept.problem, kept.wait()) == ("", 0.0)


def test_what_has_not_begun_is_taken_back() -> None:
    kept = Kept()
    kept.charge()
    kept.now += 1
    for _ in range(5):
        kept.charge()
        kept.limits.take_back("r", 1001, "site")
    kept.start()
    kept.charge()
    assert kept.wait() == 0
    kept.charge()
    assert kept.wait() == 9.0, "the first is a second older than the others"


def test_what_is_long_ago_is_forgotten() -> None:
    kept = Kept()
    kept.charge(uid=7)
    kept.now += 11
    kept.charge()
    assert b'"uid":7' not in kept.file


def test_more_than_can_be_counted_is_let_through_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 4)
    kept = Kept()
    for uid in range(4):
        kept.charge(uid=uid)
    assert kept.wait(uid=9) == 10.0
    kept.now += 10
    assert kept.wait(uid=9) == 0
