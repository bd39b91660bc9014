"""Delays as a pure matter of times: histories, and the attackers of SECURITY.md rows A17 and A18."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, strategies as st

from rootd import throttle
from rootd.throttle import AT_ONCE, FORGIVE, PAIR, PEER, REMOTE, SHARED, STEPS, USER, Throttle, Ticket, network

HERE, THERE = "192.0.2.1", "198.51.100.7"


def attempt(book: Throttle, user: str, source: str, now: float, right: bool = False) -> float:
    """0 when it was tried, else the seconds to wait."""
    ticket = book.begin(user, source, now)
    if not isinstance(ticket, Ticket):
        assert ticket > 0
        return ticket
    if right:
        book.right(ticket)
    else:
        book.wrong(ticket, now)
    return 0.0


def test_the_delay_after_each_wrong_attempt_grows_as_said() -> None:
    book, now, waited = Throttle(), 1_000.0, []
    for _ in range(7):
        assert attempt(book, "alice", HERE, now) == 0.0
        waited.append(attempt(book, "alice", HERE, now))
        assert attempt(book, "alice", HERE, now + waited[-1] - 0.01) == pytest.approx(0.01)
        now += waited[-1]
    assert waited == [2.0, 4.0, 8.0, 15.0, 15.0, 15.0, 15.0]
    assert STEPS == (2.0, 4.0, 8.0, 15.0)


def test_somebody_who_was_never_wrong_never_waits() -> None:
    book = Throttle()
    assert [attempt(book, "alice", HERE, 0.0, right=True) for _ in range(100)] == [0.0] * 100


def test_the_right_password_clears_the_delay_of_this_user_at_this_source() -> None:
    book = Throttle()
    for now in (0.0, 2.0, 6.0):
        assert attempt(book, "alice", HERE, now) == 0.0
    assert attempt(book, "alice", HERE, 14.0, right=True) == 0.0
    assert attempt(book, "alice", HERE, 14.0) == 0.0
    assert attempt(book, "alice", HERE, 14.0) == 2.0


def test_a_wrong_attempt_is_forgiven_after_a_while() -> None:
    book = Throttle()
    for now in (0.0, 2.0, 6.0):
        assert attempt(book, "alice", HERE, now) == 0.0
    later = 6.0 + 3 * FORGIVE
    assert attempt(book, "alice", HERE, later) == 0.0
    assert attempt(book, "alice", HERE, later) == 2.0


def test_a17_attempts_that_are_under_way_count_as_wrong_ones() -> None:
    """Four workers with fifty attempts each, all at once: those of the first moment, and no more."""
    book = Throttle()
    tickets = [book.begin("alice", HERE, 0.0) for _ in range(200)]
    assert sum(isinstance(ticket, Ticket) for ticket in tickets) == AT_ONCE
    for ticket in tickets:
        if isinstance(ticket, Ticket):
            book.wrong(ticket, 0.1)
    assert attempt(book, "alice", HERE, 0.2) == pytest.approx(7.9)


def test_a17_a_long_attack_on_one_account_from_one_source_gets_four_attempts_a_minute() -> None:
    book = Throttle()
    tried = sum(attempt(book, "alice", HERE, tenth / 10) == 0.0 for tenth in range(36_000))
    assert tried <= 3600 / STEPS[-1] + 4


def test_a17_one_password_for_two_hundred_users_from_one_source() -> None:
    book = Throttle()
    tried = sum(attempt(book, f"user{number}", HERE, number / 100) == 0.0 for number in range(200))
    assert tried == REMOTE.free


@pytest.mark.parametrize("bits", [64, 80, 128])
def test_a17_a_customer_who_changes_his_ipv6_address_is_still_one_source(bits: int) -> None:
    book = Throttle()
    sources = [f"2001:db8:1:2:{number:x}::{number:x}" for number in range(1, 100)]
    if bits == 64:
        sources = ["2001:db8:1:2::"] * 99
    if bits == 80:
        sources = [f"2001:db8:1:2:0:{number:x}::1" for number in range(1, 100)]
    tried = sum(attempt(book, f"user{number}", source, 0.0) == 0.0 for number, source in enumerate(sources))
    assert tried == REMOTE.free


def test_a17_a_good_account_of_his_own_does_not_clear_the_attackers_source() -> None:
    book, tried = Throttle(), 0
    for number in range(100):
        attempt(book, "mallory", HERE, 0.0, right=True)
        tried += attempt(book, f"user{number}", HERE, 0.0) == 0.0
    assert tried == REMOTE.free


def test_a17_many_sources_against_one_account_are_slowed_down() -> None:
    book = Throttle()
    tried = sum(attempt(book, "alice", f"203.0.{number // 250}.{number % 250}", 0.0) == 0.0 for number in range(1_000))
    assert tried == USER.free


def test_a18_an_attacker_elsewhere_does_not_lock_the_victim_out() -> None:
    book = Throttle()
    for tenth in range(6_000):
        attempt(book, "alice", HERE, tenth / 10)
        if tenth % 600 == 0:
            assert attempt(book, "alice", THERE, tenth / 10, right=True) == 0.0


def test_a18_other_uids_of_the_machine_lock_nobody_out_however_they_flood() -> None:
    """Names of many and the victim's own, from one uid and from fifty: the victim's uid is tried at once."""
    book = Throttle()
    for tenth in range(6_000):
        now = tenth / 10
        attempt(book, "alice", f"unix:{2000 + tenth % 50}", now)
        attempt(book, f"user{tenth}", "unix:2000", now)
        attempt(book, "", "unix:2000", now)
        if tenth % 600 == 0:
            assert attempt(book, "alice", f"unix:{1001 + tenth}", now, right=True) == 0.0


def test_a17_a_uid_of_the_machine_is_a_source_of_its_own() -> None:
    book = Throttle()
    tried = sum(attempt(book, f"user{number}", "unix:1001", number / 100) == 0.0 for number in range(200))
    assert tried == REMOTE.free
    assert attempt(book, "user0", "unix:1002", 2.0) == 0.0


def test_a18_whoever_has_logged_in_from_there_before_is_not_held_up_by_a_thousand_sources() -> None:
    book = Throttle()
    assert attempt(book, "alice", THERE, 0.0, right=True) == 0.0
    for number in range(2_000):
        attempt(book, "alice", f"203.0.{number // 250}.{number % 250}", number / 10)
        attempt(book, f"user{number}", THERE, number / 10)
        if number % 100 == 0:
            assert attempt(book, "alice", THERE, number / 10, right=True) == 0.0


def test_a18_nobody_ever_waits_longer_than_the_last_step() -> None:
    book = Throttle()
    for number, source in itertools.product(range(50), (HERE, THERE, "unix", "::1")):
        assert attempt(book, "alice", source, number / 100) <= STEPS[-1]


def test_a18_at_what_all_local_people_share_the_delay_begins_late_and_stays_short() -> None:
    book = Throttle()
    tried = sum(attempt(book, f"user{number}", "unix", 0.0) == 0.0 for number in range(200))
    assert tried == SHARED.free
    assert attempt(book, "alice", "unix", 0.0) == 2.0
    assert attempt(book, "alice", "unix", 2.0, right=True) == 0.0


@pytest.mark.parametrize(
    ("source", "whole", "patience"),
    [
        ("192.0.2.9", "192.0.2.9", REMOTE),
        ("::ffff:192.0.2.9", "192.0.2.9", REMOTE),
        ("2001:db8::1", "2001:db8::/64", REMOTE),
        ("2001:db8:0:0:ffff::1", "2001:db8::/64", REMOTE),
        ("127.0.0.1", "127.0.0.1", SHARED),
        ("127.9.9.9", "127.9.9.9", SHARED),
        ("::1", "::/64", SHARED),
        ("fe80::1%eth0", "fe80::/64", REMOTE),
        ("unix", "(unix)", SHARED),
        ("", "()", SHARED),
        ("peer #1001", "(peer #1001)", SHARED),
    ],
)
def test_what_counts_as_one_source(source: str, whole: str, patience: throttle.Patience) -> None:
    assert network(source) == (whole, patience)


def test_a_user_known_by_uid_may_log_in_often_but_not_without_end() -> None:
    book, tried = Throttle(), 0
    for _ in range(100):
        ticket = book.begin("#1001", "peer #1001", 0.0, PEER)
        if isinstance(ticket, Ticket):
            tried += 1
            book.wrong(ticket, 0.0)
    assert tried == PEER.free
    assert isinstance(book.begin("#1001", "peer #1001", 2.0, PEER), Ticket)
    assert isinstance(book.begin("#1002", "peer #1002", 0.0, PEER), Ticket)


def test_what_was_not_tried_counts_for_nothing() -> None:
    book = Throttle()
    for _ in range(100):
        ticket = book.begin("alice", HERE, 0.0)
        assert isinstance(ticket, Ticket)
        book.untried(ticket)


def test_memory_is_bounded_and_what_is_in_use_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "LIMIT", 300)
    book, now = Throttle(), 0.0
    for number in range(2_000):
        attempt(book, f"user{number}", f"203.0.{number // 250}.{number % 250}", now)
        if number % 20 == 0:
            attempt(book, "alice", HERE, now)
        assert len(book) <= 300
    assert attempt(book, "alice", HERE, now) > 0


def test_a_ticket_that_was_forgotten_in_the_meantime_can_be_handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "LIMIT", 3)
    book = Throttle()
    first = book.begin("alice", HERE, 0.0)
    attempt(book, "bob", THERE, 0.0)
    assert isinstance(first, Ticket)
    book.right(first)
    assert attempt(book, "alice", HERE, 0.0) == 0.0


STEP = st.tuples(
    st.sampled_from(["alice", "bob", ""]), st.sampled_from([HERE, THERE, "unix", "2001:db8::1"]),
    st.floats(0, 30), st.sampled_from(["wrong", "right", "untried", "open"]),
)  # fmt: skip


@given(st.lists(STEP, max_size=60))
def test_whatever_happens_a_wait_that_is_kept_is_followed_by_an_attempt(
    steps: list[tuple[str, str, float, str]],
) -> None:
    book, now, still = Throttle(), 0.0, []
    for user, source, pause, end in steps:
        now += pause
        ticket = book.begin(user, source, now)
        if not isinstance(ticket, Ticket):
            assert 0 < ticket <= STEPS[-1]
            continue
        if end == "wrong":
            book.wrong(ticket, now)
        elif end == "right":
            book.right(ticket)
        elif end == "untried":
            book.untried(ticket)
        else:
            still.append(ticket)
    for ticket in still:
        book.wrong(ticket, now)
    for user, source, _, _ in steps:
        ticket = book.begin(user, source, now + STEPS[-1])
        assert isinstance(ticket, Ticket)
        book.untried(ticket)


def test_the_first_attempt_costs_nothing() -> None:
    assert throttle.Patience(1, STEPS) == PAIR
