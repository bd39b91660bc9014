"""Any history of events, watches, rights and deaths: each event that may be seen is told once or said to be missing."""

from __future__ import annotations

from typing import Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from policy import messages
from rootd.supervisor import watching

KEPT = 4
SERVICES = ("site", "jobs", "vault")
WHICH = st.sampled_from(SERVICES)


class Peer:
    """A connection whose peer reads everything, and the call on it."""

    closed = False

    def __init__(self, service: str | None) -> None:
        self.user = f"user{id(self)}"
        self.service = service
        self.told: list[Any] = []
        self.connection = self

    def watched(self, number: int) -> None:
        self.room_from = number

    def event(self, event: Any, kept: bool = False) -> None:
        self.told.append(event)

    def answer(self, reply: Any) -> None:
        raise AssertionError(reply)


class History(RuleBasedStateMachine):
    """The model knows everything that has happened, and what of it this supervisor has kept."""

    @initialize()
    def start(self) -> None:
        self.visible = set(SERVICES)
        self.peers: list[Peer] = []
        self.number = 0
        self.lead()

    def lead(self) -> None:
        self.begun = self.number
        self.happened: list[messages.Changed] = []  # in this supervisor's time
        self.watchers = watching.Watchers(lambda _, service: service in self.visible)
        self.watchers.begin(self.number)
        self.peers.clear()

    def shown(self, peer: Peer, event: messages.Changed) -> bool:
        return event.service in self.visible and peer.service in (None, event.service)

    @rule(service=WHICH)
    def happens(self, service: str) -> None:
        self.number += 1
        event = messages.Changed(self.number, "T", service, service, "RUNNING", 1)
        self.happened.append(event)
        before = [len(peer.told) for peer in self.peers]
        self.watchers.publish(event)
        for peer, count in zip(self.peers, before, strict=True):
            assert peer.told[count:] == ([event] if self.shown(peer, event) else [])

    @rule(service=WHICH)
    def is_allowed_or_forbidden(self, service: str) -> None:
        self.visible ^= {service}

    @rule(unsaved=st.integers(0, 3))
    def dies(self, unsaved: int) -> None:
        """Some numbers that were given out are not in the state file: the next one begins beyond them."""
        self.number = max(0, self.number - unsaved) + watching.AHEAD
        self.lead()

    @rule(service=st.none() | WHICH, back=st.integers(-2, 12), old=st.booleans())
    def resumes(self, service: str | None, back: int, old: bool) -> None:
        after = max(1, (self.begun if old else self.number) - back)
        peer = Peer(service)
        assert self.watchers.add(watching.Watcher(peer, service, 0, after))  # type: ignore[arg-type]
        mine = [event for event in self.happened if event.number > after and self.shown(peer, event)]
        kept = self.happened[-KEPT:]
        gone = [event.number for event in mine if event not in kept]
        if after > self.number:
            gone = [self.number]
        elif after < self.begun:
            gone.append(self.begun)
        told = list(peer.told)
        assert told.pop() == messages.Watching(self.number)
        if gone:
            found = told.pop(0)
            assert isinstance(found, messages.Missed)
            assert found.number == max(gone)
        assert told == [event for event in mine if event in kept]
        assert peer.room_from == after
        self.peers.append(peer)

    @rule(service=st.none() | WHICH)
    def watches_from_now_on(self, service: str | None) -> None:
        peer = Peer(service)
        assert self.watchers.add(watching.Watcher(peer, service, 0))  # type: ignore[arg-type]
        assert peer.told == [messages.Watching(self.number)]
        self.peers.append(peer)

    @rule()
    def one_leaves_and_resumes_with_what_he_has_seen(self) -> None:
        """What he has seen and what he is told now is everything, once."""
        if not self.peers:
            return
        peer = self.peers.pop(0)
        peer.closed = True
        seen = peer.told[-1].number
        self.resumes(peer.service, self.number - seen, False)


def test_any_history_tells_each_event_once_and_in_order_or_says_what_is_missing(monkeypatch: Any) -> None:
    monkeypatch.setattr(watching, "KEPT", KEPT)
    run_state_machine_as_test(History, settings=settings(max_examples=150, stateful_step_count=40, deadline=None))
