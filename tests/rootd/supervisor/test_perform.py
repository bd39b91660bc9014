"""Requests: one a slot at a time, none twice, none forgotten; and the messages that they become."""

from __future__ import annotations

import signal

import pytest

from rootd import ipc
from rootd.supervisor.perform import OTHERS, WAITING_LIMIT, Adopt, Performer, Request, Requests, Resume, Shutdown
from rootd.supervisor.states import Signal, Spawn

SITE, OTHER = ("site", 0), ("site", 1)
KILL = Signal(5, 9, tree=True)


def test_one_request_of_a_slot_is_out_and_the_next_follows_its_answer() -> None:
    sent: list[Request] = []
    requests = Requests(sent.append)
    first = requests.ask(SITE, Spawn(), 7, 2)
    second = requests.ask(SITE, Signal(5, 15))
    third = requests.ask(OTHER, Spawn(), 8, 2)
    assert [request.seq for request in sent] == [first, third]
    assert sent[0] == Request(first, 7, 2, Spawn())
    assert requests.answered(second) is None
    assert requests.answered(4711) is None
    asked = requests.answered(first)
    assert asked == (SITE, Request(first, 7, 2, Spawn()))
    assert sent[-1].seq == second
    assert requests.answered(first) is None
    assert requests.answered(second) == (SITE, Request(second, 0, 0, Signal(5, 15)))


def test_what_was_not_answered_is_given_back_in_its_order_and_is_not_out_any_more() -> None:
    requests = Requests(lambda _: None)
    seqs = [requests.ask(SITE, Spawn()), requests.ask(SITE, Signal(1, 1)), requests.ask(OTHER, Shutdown())]
    assert [asked.request.seq for asked in requests.forget()] == seqs
    assert requests.forget() == []
    assert requests.answered(seqs[0]) is None
    assert requests.ask(SITE, Spawn()) == seqs[-1] + 1


def test_a_kill_that_waits_is_not_asked_twice_but_everything_else_is() -> None:
    requests = Requests(lambda _: None)
    out = requests.ask(SITE, KILL)
    waiting = requests.ask(SITE, KILL)
    assert out != waiting
    assert requests.ask(SITE, KILL) == waiting
    assert requests.ask(SITE, Signal(5, 1)) != requests.ask(SITE, Signal(5, 1))


def test_a_slot_for_which_too_much_waits_is_full() -> None:
    requests = Requests(lambda _: None)
    for _ in range(WAITING_LIMIT + 1):
        assert not requests.full(SITE)
        requests.ask(SITE, Signal(5, 1))
    assert requests.full(SITE)
    assert not requests.full(OTHER)


def test_numbers_stay_below_those_of_others() -> None:
    requests = Requests(lambda _: None)
    requests._last = OTHERS - 2
    assert requests.ask(SITE, Spawn()) == OTHERS - 1
    assert requests.ask(OTHER, Spawn()) == 1


def test_requests_become_messages_once_the_facts_are_known() -> None:
    ours, theirs = (ipc.Link(end) for end in ipc.pair())
    performer = Performer()
    performer.perform(Request(0, 0, 0, Resume()))
    performer.perform(Request(1, 7, 2, Spawn()))  # nobody is there
    performer.connect(ours)
    performer.perform(Request(2, 7, 2, Spawn()))  # before the facts
    performer.perform(Request(0, 0, 0, Resume()))
    for seq, effect in ((3, Spawn()), (4, KILL), (5, Signal(5, signal.SIGHUP)), (6, Adopt(5, 4711)), (7, Shutdown())):
        performer.perform(Request(seq, 7, 2, effect))
    heard = []
    for _ in range(5):
        received = theirs.receive()
        assert received is not None
        heard.append(received[0])
    ops = [ipc.SPAWN, ipc.SIGNAL, ipc.SIGNAL, ipc.ADOPT, ipc.SHUTDOWN]
    assert [(m.op, m.seq) for m in heard] == list(zip(ops, range(3, 8), strict=True))
    assert (heard[0].slot, heard[0].generation) == (7, 2)
    assert (heard[1].run, heard[1].arg, heard[1].scope) == (5, 9, ipc.TREE)
    assert (heard[2].run, heard[2].arg, heard[2].scope) == (5, 1, ipc.MAIN)
    assert (heard[3].run, heard[3].arg) == (5, 4711)
    with pytest.raises(BlockingIOError):
        theirs.receive()
    theirs.close()
    performer.perform(Request(7, 7, 2, Spawn()))  # a broken link is no error
    performer.perform(Request(8, 7, 2, Spawn()))
    ours.close()
