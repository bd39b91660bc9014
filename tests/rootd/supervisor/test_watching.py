"""What watchers get to see."""

from __future__ import annotations

from typing import Any

import pytest

from policy import login, messages
from rootd.supervisor import watching


def states(events: list[Any]) -> list[str]:
    return [event.service for event in events]


def test_b10_a_watcher_sees_the_events_of_what_he_may_view_and_nothing_of_the_rest(room: Any) -> None:
    alice, root = room.client(), room.client("root")
    alice.send(messages.Watch())
    root.send(messages.Watch(), "")
    room.settle()
    for name in ("vault", "site", "jobs", "durward-api"):
        room.services.changed(name)
    assert states([alice.receive() for _ in range(2)]) == ["site", "jobs"]
    assert states([root.receive() for _ in range(4)]) == ["vault", "site", "jobs", "durward-api"]
    assert alice.quiet()


def test_a_watcher_of_one_service_sees_that_one(room: Any) -> None:
    alice = room.client()
    alice.send(messages.Watch(service="jobs"))
    room.settle()
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
    alice = room.client()
    alice.send(messages.Watch())
    room.settle()
    room.login(tokens[0], "alice", 1001, [])
    room.services.changed("site")
    assert alice.quiet()


def test_a14_a_session_that_ends_ends_its_watches(room: Any) -> None:
    alice = room.client()
    alice.send(messages.Watch())
    room.settle()
    room.sessions.push(login.SessionsEnd(), room.now)
    room.sessions.linked()
    room.sessions.push(login.SessionsEnd(), room.now)
    room.services.changed("site")
    assert alice.receive().kind == "no-session"
    assert len(room.desk.watchers._watchers) == 0


def test_c16_a_watcher_that_does_not_read_loses_the_rest_and_is_told_so(room: Any) -> None:
    slow, other = room.client(), room.client()
    for client in (slow, other):
        client.send(messages.Watch())
    room.settle()
    for number in range(800):
        room.services.operations.changed("site", "site:0", "RUNNING", number, "x" * 2000)
        assert other.receive().pid == number
    seen: list[Any] = []
    while not isinstance(seen[-1:] and seen[-1], messages.Dropped):
        seen.append(slow.receive())
    assert [event.pid for event in seen[:-1]] == list(range(len(seen) - 1)), "what came, came in order"
    assert len(seen) < 800
    assert slow.receive() is None


def test_a_watcher_that_has_gone_is_forgotten(room: Any) -> None:
    client = room.client()
    client.send(messages.Watch())
    room.settle()
    client.sock.close()
    room.services.changed("site")
    room.settle()
    room.services.changed("site")
    assert len(room.desk.watchers._watchers) == 0


def test_there_are_so_many_watchers_of_one_user_and_so_many_in_all(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    room.door("control", limit=100)
    monkeypatch.setattr(watching, "EACH", 2)
    monkeypatch.setattr(watching, "LIMIT", 3)
    clients = [room.client() for _ in range(2)]
    for client in clients:
        client.send(messages.Watch())
    room.settle()
    assert room.client().ask(messages.Watch()).kind == "later"
    root = room.client("root")
    root.send(messages.Watch(), "")
    room.settle()
    assert room.client("root").ask(messages.Watch(), "").kind == "later"
    clients[0].sock.close()
    room.settle()
    last = room.client()
    last.send(messages.Watch())
    assert last.quiet()
