"""What watchers get to see."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import pytest

from policy import login, messages
from rootd.supervisor import watching


def watch(client: Any, told: Iterable[int] = (), session: str = "1" * 64, **asked: Any) -> Any:
    """He watches, and has been told the events of these numbers."""
    client.send(messages.Watch(**asked), session)
    for number in told:
        assert client.receive().number == number
    assert isinstance(client.receive(), messages.Watching)
    return client


def missed(number: int, after: int) -> messages.Missed:
    text = f"event {after} is too old: only later ones than event {number} are kept. "
    return messages.Missed(number, text + "Look at the status for how things are; what follows here is complete")


def states(events: list[Any]) -> list[str]:
    return [event.service for event in events]


def test_b10_a_watcher_sees_the_events_of_what_he_may_view_and_nothing_of_the_rest(room: Any) -> None:
    alice, root = watch(room.client()), watch(room.client("root"), session="")
    for name in ("vault", "site", "jobs", "durward-api"):
        room.services.changed(name)
    assert states([alice.receive() for _ in range(2)]) == ["site", "jobs"]
    assert states([root.receive() for _ in range(4)]) == ["vault", "site", "jobs", "durward-api"]
    assert alice.quiet()


def test_a_watcher_of_one_service_sees_that_one(room: Any) -> None:
    alice = watch(room.client(), service="jobs")
    room.services.changed("site")
    room.services.changed("jobs")
    assert alice.receive().service == "jobs"


def test_an_operation_is_told_from_its_beginning_until_its_end(room: Any) -> None:
    alice = room.client()
    operation = alice.ask(messages.Restart("site")).operation
    found = room.services.operations.find(operation)
    room.services.operations.step(found, "starting the new process")
    alice.send(messages.Watch(operation=operation))
    assert alice.receive().text == "starting the new process"
    room.services.changed("site")
    other = room.services.operations.begin("restart", "site", "", 0.0)
    room.services.operations.step(other, "something else")
    room.services.end(operation)
    assert alice.receive().text.startswith("done in")
    ended = alice.receive()
    assert isinstance(ended, messages.Ended)
    assert ended.ok
    room.services.changed("site")
    assert isinstance(alice.ask(messages.WhatMayI()), messages.Rights), "the watch is over, the connection is not"


def test_an_operation_that_is_over_is_told_whole_and_not_watched(room: Any) -> None:
    alice = room.client()
    room.services.ends_at_once = True
    operation = alice.ask(messages.Restart("site")).operation
    alice.send(messages.Watch(operation=operation))
    assert isinstance(alice.receive(), messages.Step)
    assert isinstance(alice.receive(), messages.Ended)
    alice.send(messages.Status("site"), number=5)
    room.services.changed("site")
    assert isinstance(alice.receive(), messages.Services)


@pytest.mark.parametrize("unknown", [99, 1])
def test_b10_an_operation_on_what_one_may_not_view_is_as_unknown_as_none(room: Any, unknown: int) -> None:
    assert room.client("root").ask(messages.Restart("vault"), "").operation == 1
    reply = room.client().ask(messages.Watch(operation=unknown))
    assert (reply.kind, reply.text) == ("unknown", f"no operation {unknown} that you may view")


def test_a13_a_right_that_is_taken_away_ends_the_view_with_the_next_event(room: Any, tokens: Any) -> None:
    alice = watch(room.client())
    room.login(tokens[0], "alice", 1001, [])
    room.services.changed("site")
    assert alice.quiet()


def test_a13_who_follows_an_operation_and_loses_the_right_to_view_it_waits_for_nothing(room: Any, tokens: Any) -> None:
    alice = room.client()
    number = alice.ask(messages.Restart("site")).operation
    alice.send(messages.Watch(operation=number))
    room.login(tokens[0], "alice", 1001, [])
    operations = room.services.operations
    operations.step(operations.find(number), "starting the new process")
    reply = alice.receive()
    assert (reply.kind, reply.text) == ("unknown", f"no operation {number} that you may view")
    assert room.desk.watchers._watchers == []


def test_a14_a_session_that_ends_ends_its_watches(room: Any) -> None:
    alice = watch(room.client())
    room.sessions.push(login.SessionsEnd(), room.now)
    room.sessions.linked()
    room.sessions.push(login.SessionsEnd(), room.now)
    room.services.changed("site")
    assert alice.receive().kind == "no-session"
    assert len(room.desk.watchers._watchers) == 0


@pytest.mark.parametrize("how", ["logout", "revoked", "forgotten by auth"])
def test_a14_who_watches_by_a_session_that_ends_is_told_at_once(room: Any, tokens: Any, how: str) -> None:
    alice, bob = watch(room.client()), watch(room.client(), session=tokens[1])
    if how == "logout":
        known = hashlib.sha256(tokens[0].encode()).hexdigest()
        room.sessions.push(login.SessionDown(known, "logout"), room.now)
    elif how == "revoked":
        room.sessions.revoke("alice")
    else:
        room.sessions.linked()
        room.login(tokens[1], "bob", 1002, [])
        room.sessions.push(login.SessionsEnd(), room.now)
    assert alice.receive().kind == "no-session", "though nothing has happened that he would be told"
    assert [watcher.call.user for watcher in room.desk.watchers._watchers] == ["bob"]
    assert bob.quiet()


def test_c16_a_watcher_that_does_not_read_loses_the_rest_and_is_told_so(room: Any) -> None:
    slow, other = watch(room.client()), watch(room.client())
    for number in range(800):
        room.services.operations.changed("site", "site:0", "RUNNING", number, "x" * 2000)
        assert other.receive().pid == number
    seen: list[Any] = []
    while not isinstance(seen[-1:] and seen[-1], messages.Dropped):
        seen.append(slow.receive())
    assert [event.pid for event in seen[:-1]] == list(range(len(seen) - 1)), "what came, came in order"
    assert len(seen) < 800
    assert seen[-1].number == seen[-2].number
    assert seen[-1].text == f"256 events were waiting to be read: watch again, after {seen[-2].number}"
    assert slow.receive() is None
    again = watch(room.client(), after=seen[-1].number, told=range(len(seen), 801))
    assert again.quiet(), "so nothing was lost"


def test_a_watcher_that_has_gone_is_forgotten(room: Any) -> None:
    client = watch(room.client())
    client.sock.close()
    room.services.changed("site")
    room.settle()
    room.services.changed("site")
    assert len(room.desk.watchers._watchers) == 0


def test_there_are_so_many_watchers_of_one_user_and_so_many_in_all(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    room.door("control", limit=100)
    monkeypatch.setattr(watching, "EACH", 2)
    monkeypatch.setattr(watching, "LIMIT", 3)
    clients = [watch(room.client()) for _ in range(2)]
    assert room.client().ask(messages.Watch()).kind == "later"
    watch(room.client("root"), session="")
    assert room.client("root").ask(messages.Watch(), "").kind == "later"
    clients[0].sock.close()
    room.settle()
    watch(room.client())


def test_who_resumes_is_told_what_has_happened_since_and_then_what_happens(room: Any) -> None:
    for name in ("site", "vault", "jobs", "site"):
        room.services.changed(name)
    alice = watch(room.client(), after=1, told=(3, 4))
    room.services.changed("jobs")
    assert alice.receive().number == 5
    watch(room.client(), after=5)
    watch(room.client(), after=2, service="site", told=(4,))


def test_what_is_not_kept_any_more_is_said_with_its_last_number(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "KEPT", 3)
    for _ in range(5):
        room.services.changed("site")
    alice = room.client()
    assert alice.ask(messages.Watch(after=1)) == missed(2, 1)
    assert [alice.receive().number for _ in range(3)] == [3, 4, 5]
    assert alice.receive() == messages.Watching(5)
    watch(room.client(), after=2, told=(3, 4, 5))
    for _ in range(5):
        room.services.changed("site")
    assert room.client().ask(messages.Watch(after=1)) == missed(7, 1)


def test_b10_what_one_may_not_view_is_not_missing_to_him(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "KEPT", 3)
    for name in ("site", "jobs", "vault", "vault", "vault", "vault"):
        room.services.changed(name)
    watch(room.client(), after=2)
    assert room.client().ask(messages.Watch(after=1)) == missed(2, 1)
    watch(room.client(), after=1, service="site")
    assert room.client("root").ask(messages.Watch(after=2), "") == missed(3, 2)


def test_more_services_than_are_known_by_name_make_the_oldest_missing_to_everybody(
    room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "KEPT", 1)
    monkeypatch.setattr(watching, "GONE", 1)
    for name in ("vault", "site", "site"):
        room.services.changed(name)
    watch(room.client(), after=2, told=(3,))
    watch(room.client(), after=1, service="jobs")
    room.services.changed("vault")
    room.services.changed("vault")
    assert room.client().ask(messages.Watch(after=1, service="jobs")).number == 3


def test_a_number_of_another_daemon_is_said_to_be_one_and_events_follow_from_now_on(room: Any) -> None:
    room.services.changed("site")
    alice = room.client()
    told = alice.ask(messages.Watch(after=77))
    assert told.number == 1
    assert told.text.startswith(
        "there is no event 77 yet, the last one is 1: the number is of another start, or wrong. "
    )
    assert "Look at the status" in told.text
    assert alice.receive() == messages.Watching(1)
    room.services.changed("site")
    assert alice.receive().number == 2


def test_a_number_of_the_last_supervisor_is_of_what_is_not_kept_any_more(room: Any) -> None:
    room.services.operations.events = 500
    room.desk.watchers.begin(500)
    room.services.changed("site")
    alice = room.client()
    assert alice.ask(messages.Watch(after=41)) == missed(500, 41)
    assert alice.receive().number == 501
    watch(room.client(), after=500, told=(501,))


def test_a_supervisor_begins_where_no_number_was_ever_given_out() -> None:
    assert watching.first(7) == 7 + watching.AHEAD
    fresh = {watching.first(0) for _ in range(100)}
    assert len(fresh) == 100
    assert all(watching.AHEAD <= number < 1 << 53 for number in fresh)


def test_a_whole_past_is_told_to_one_who_has_not_begun_to_read_and_then_he_is_as_slow_as_any_other(room: Any) -> None:
    for number in range(watching.KEPT):
        room.services.operations.changed("site", "site:0", "RUNNING", number, "x" * 2000)
    alice = room.client()
    alice.send(messages.Watch(after=1))
    room.settle()
    for _ in range(200):
        room.services.changed("site")
    assert [alice.receive().number for _ in range(2, watching.KEPT + 1)] == list(range(2, watching.KEPT + 1))
    assert alice.receive() == messages.Watching(watching.KEPT)
    assert alice.receive().number == watching.KEPT + 1
    slow = room.client()
    slow.send(messages.Watch(after=2000))
    room.settle()
    for number in range(1000):
        room.services.operations.changed("site", "site:0", "RUNNING", number, "x" * 2000)
    while not isinstance(event := slow.receive(), messages.Dropped):
        assert event.number <= 1300


def test_who_was_told_nothing_is_dropped_with_the_number_from_which_he_came(room: Any) -> None:
    room.services.changed("site")
    alice = watch(room.client(), after=1)
    connection = room.desk.watchers._watchers[0].call.connection
    connection.watched(41)
    connection._room = 0
    room.services.changed("site")
    assert alice.receive().number == 41


def test_an_operation_goes_on_after_the_step_that_was_seen_and_its_end_is_told_again(room: Any) -> None:
    alice = room.client()
    operation = alice.ask(messages.Restart("site")).operation
    found = room.services.operations.find(operation)
    for text in ("one", "two"):
        room.services.operations.step(found, text)
    alice.send(messages.Watch(operation=operation, after=1))
    assert alice.receive().text == "two"
    room.services.end(operation)
    assert alice.receive().text.startswith("done in")
    end = alice.receive()
    assert alice.ask(messages.Watch(operation=operation, after=end.number)) == end
    assert isinstance(alice.ask(messages.WhatMayI()), messages.Rights), "that was all"


@pytest.mark.parametrize("after", [3, 77], ids=["of the last supervisor", "of another daemon"])
def test_an_operation_that_was_followed_is_not_another_one_of_the_same_number(room: Any, after: int) -> None:
    room.services.operations.events = 10
    room.desk.watchers.begin(10)
    operation = room.client().ask(messages.Restart("site")).operation
    room.services.operations.step(room.services.operations.find(operation), "one")
    reply = room.client().ask(messages.Watch(operation=operation, after=after))
    assert (reply.kind, reply.text) == ("unknown", f"no operation {operation} that you may view")


def test_a_noisy_service_costs_the_watchers_of_the_others_nothing(room: Any) -> None:
    first = watch(room.client("root"), session="", service="jobs")
    room.services.changed("jobs")
    seen = first.receive().number
    for _ in range(40):
        room.services.changed("jobs")
    for _ in range(3 * watching.KEPT):
        room.services.changed("site")
    watch(room.client("root"), range(seen + 1, seen + 41), session="", service="jobs", after=seen)
    noisy = room.client("root")
    noisy.send(messages.Watch(service="site", after=seen), "")
    assert isinstance(noisy.receive(), messages.Missed)
    kept = room.desk.watchers._kept
    assert len(kept) == watching.KEPT
    assert list(kept) == sorted(kept)
