"""The link to probe, with probe played over a real socket."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from rootd import ipc
from rootd.probe import checks
from rootd.supervisor import probe_link
from rootd.supervisor.lifecycle import Impossible
from rootd.supervisor.probe_link import ProbeLink

KEY = "tcp:127.0.0.1:8080"


class Ends:
    """The two ends of the link."""

    def __init__(self) -> None:
        self.loop = ipc.Loop()
        self.notes: list[str] = []
        self.told: list[tuple[int, str]] = []
        self.gone = self.renewed = 0
        told = self.told
        self.link = ProbeLink(self.loop, self.notes.append, lambda *found: told.append(found), self.lost, self.renew)
        self.probe: ipc.Link | None = None

    def lost(self) -> None:
        self.gone += 1

    def renew(self) -> None:
        self.renewed += 1

    def connect(self) -> ipc.Link:
        self.close()
        ours, theirs = ipc.pair()
        self.probe = ipc.Link(theirs, body=True)
        self.link.connect(ours.detach())
        return self.probe

    def close(self) -> None:
        if self.probe is not None:
            self.probe.close()
            self.probe = None

    def turn(self) -> None:
        for _ in range(3):
            self.link.watch()
            self.loop.turn(0)

    def asked(self) -> list[ipc.Message]:
        """Everything that probe was asked."""
        assert self.probe is not None
        found: list[ipc.Message] = []
        while True:
            self.turn()
            try:
                received = self.probe.receive()
            except BlockingIOError:
                return found
            assert received is not None
            found.append(received[0])

    def answer(self, seq: int, problem: str = "", fields: dict[str, int] | None = None) -> None:
        assert self.probe is not None
        words = {"op": ipc.CHECKED, "seq": seq, "arg": int(bool(problem))} | (fields or {})
        self.probe.send(ipc.Message(name=problem, **words))  # type: ignore[arg-type]
        self.turn()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    made.connect()
    yield made
    made.close()
    made.link.disconnect()
    made.loop.close()


def test_what_is_asked_is_a_check_as_probe_takes_it(ends: Ends) -> None:
    assert ends.link.ask(1, KEY, None, 2.0)
    assert ends.link.ask(2**32 - 1, "unix:/run/site.sock", "/healthz?x=1", 0.5)
    tcp, http = ends.asked()
    assert (tcp.op, tcp.seq, tcp.scope, tcp.arg, tcp.name, tcp.body) == (ipc.CHECK, 1, ipc.TCP, 2_000, KEY, b"")
    assert (http.seq, http.scope, http.arg, http.body) == (2**32 - 1, ipc.HTTP, 500, b"/healthz?x=1")
    for message in (tcp, http):
        assert checks.asked(message).seq == message.seq


@pytest.mark.parametrize(("seconds", "milliseconds"), [(0.0, 1), (0.0004, 1), (1e9, 600_000), (600, 600_000)])
def test_a_timeout_is_a_millisecond_to_ten_minutes(ends: Ends, seconds: float, milliseconds: int) -> None:
    assert ends.link.ask(1, KEY, None, seconds)
    (message,) = ends.asked()
    assert message.arg == milliseconds
    checks.asked(message)
    assert probe_link.TIMEOUT_LIMIT == checks.TIMEOUT_LIMIT


def test_each_answer_is_told_once(ends: Ends) -> None:
    for seq in (1, 2):
        ends.link.ask(seq, KEY, None, 1.0)
    ends.answer(2, "connection refused")
    ends.answer(1)
    assert ends.told == [(2, "connection refused"), (1, "")]
    assert ends.link.ask(1, KEY, None, 1.0), "its number is free again"
    assert (ends.gone, ends.notes) == (0, [])


def test_a_number_that_waits_for_its_answer_is_not_asked_twice(ends: Ends) -> None:
    ends.link.ask(1, KEY, None, 1.0)
    with pytest.raises(Impossible, match="check 1 is asked twice"):
        ends.link.ask(1, KEY, "/", 1.0)


def test_while_probe_is_away_nothing_is_asked_and_when_it_went_that_was_said(ends: Ends) -> None:
    ends.link.ask(1, KEY, None, 1.0)
    ends.close()
    ends.turn()
    assert (ends.gone, ends.told, ends.notes) == (1, [], [])
    assert not ends.link.ask(1, KEY, None, 1.0)
    ends.connect()
    assert ends.gone == 1, "it was said when it went"
    assert ends.link.ask(1, KEY, None, 1.0)
    ends.answer(1)
    assert ends.told == [(1, "")]


def test_one_that_does_not_answer_is_killed_and_one_that_ended_by_itself_is_not(ends: Ends) -> None:
    ends.link.ask(1, KEY, None, 1.0)
    ends.link.disconnect()
    assert (ends.renewed, ends.gone, ends.notes) == (1, 1, ["probe does not answer: it is killed, and started again"])
    ends.link.disconnect()
    ends.link.told_again()  # the last privileged may have died before it passed that on
    assert (ends.renewed, ends.gone) == (2, 1)
    ends.connect()
    ends.close()
    ends.turn()
    ends.link.told_again()
    assert (ends.renewed, ends.gone) == (2, 2)


def test_a_probe_that_is_not_there_yet_is_not_gone() -> None:
    made = Ends()
    assert not made.link.ask(1, KEY, None, 1.0)
    made.link.watch()
    made.link.disconnect()
    made.connect()
    assert made.gone == 0
    made.link.disconnect()
    made.close()
    made.loop.close()


def test_a_restarted_probe_may_be_asked_by_who_hears_that_the_old_one_is_gone(ends: Ends) -> None:
    ends.link.ask(1, KEY, None, 1.0)
    asked = []
    ends.link.gone = lambda: asked.append(ends.link.ask(1, KEY, None, 1.0))
    ends.connect()
    assert asked == [True]
    assert [message.seq for message in ends.asked()] == [1]


def test_who_is_told_may_ask_again_at_once(ends: Ends) -> None:
    ends.link.told = lambda seq, _: ends.told.append((seq, str(ends.link.ask(seq, KEY, None, 1.0))))
    ends.link.ask(1, KEY, None, 1.0)
    ends.answer(1)
    assert ends.told == [(1, "True")]
    assert len(ends.asked()) == 2


def test_who_is_told_may_end_the_link(ends: Ends) -> None:
    ends.link.told = lambda *_: ends.link.disconnect()
    for seq in (1, 2):
        ends.link.ask(seq, KEY, None, 1.0)
    assert ends.probe is not None
    ends.probe.send(ipc.Message(ipc.CHECKED, seq=1))
    ends.answer(2)
    assert (ends.gone, ends.renewed) == (1, 1)


@pytest.mark.parametrize(
    ("problem", "fields"),
    [("", {"op": ipc.CHECK}), ("", {"op": ipc.SPAWNED}), ("", {"seq": 2}), ("", {"seq": 0}), ("", {"arg": 1}),
     ("no", {"arg": 0}), ("no", {"arg": 2}), ("", {"arg": -1}), ("a\nb", {}), ("\x1b[2J", {}), ("\u202eabc", {}),
     ("caf\u00e9", {})],
    ids=repr,
)  # fmt: skip
def test_c5_an_answer_to_nothing_that_was_asked_ends_the_link(ends: Ends, problem: str, fields: dict[str, int]) -> None:
    ends.link.ask(1, KEY, None, 1.0)
    ends.answer(1, problem, fields)
    assert ends.told == []
    assert ends.gone == 1
    assert len(ends.notes) == 1
    assert ends.notes[0].startswith("the link to probe is closed")
    assert ends.notes[0].isprintable()
    assert not ends.link.ask(1, KEY, None, 1.0)


@pytest.mark.parametrize(
    "packet", [b"x", b"\0" * ipc.SIZE, ipc.Message(ipc.CHECKED, seq=1).encode() + b"x", bytes(100_000)], ids=len
)
def test_c1_what_is_no_message_ends_the_link(ends: Ends, packet: bytes) -> None:
    ends.link.ask(1, KEY, None, 1.0)
    assert ends.probe is not None
    ends.probe.sock.send(packet)
    ends.turn()
    assert (ends.gone, ends.told) == (1, [])


def test_c6_descriptors_are_not_taken_from_probe(ends: Ends) -> None:
    before = len(os.listdir("/proc/self/fd"))
    ends.link.ask(1, KEY, None, 1.0)
    assert ends.probe is not None
    ends.probe.send(ipc.Message(ipc.CHECKED, seq=1), 0, 1)
    ends.turn()
    assert (ends.gone, ends.told) == (1, [])
    assert len(os.listdir("/proc/self/fd")) == before - 1, "the link is closed"


def test_a_probe_that_does_not_read_is_asked_in_vain_when_too_much_waits(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipc, "QUEUE_LIMIT", 20)
    seq = 0
    while ends.link.ask(seq, KEY, None, 1.0):
        seq += 1
        assert seq < 100_000
    assert [message.seq for message in ends.asked()] == list(range(seq))


def test_without_callbacks_answers_are_ignored() -> None:
    loop = ipc.Loop()
    link = ProbeLink(loop, print)
    ours, theirs = ipc.pair()
    link.connect(ours.detach())
    link.ask(1, KEY, None, 1.0)
    theirs.send(ipc.Message(ipc.CHECKED, seq=1).encode())
    loop.turn(1.0)
    theirs.close()
    loop.turn(1.0)
    assert not link.ask(1, KEY, None, 1.0)
    link._hear(select.EPOLLIN)
    loop.close()
