"""When a part of ours ends: by the keeper's will or end, or without a link to a supervisor that lives on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from rootd import ipc
from rootd.lifeline import ALIVE, Lifeline


class Part:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.linked: list[str] = []
        self.line = Lifeline("probe", self.said.append)
        keeper, ours = ipc.pair()
        self.keeper, self.ours = ipc.Link(keeper), ipc.Link(ours, takes_fds=True)

    def connect(self, role: str, *fds: int) -> None:
        self.linked.append(role)
        ipc.close_all(fds)

    def is_over(self) -> bool:
        return self.line.is_over(self.ours, self.connect)

    def close(self) -> None:
        self.keeper.close()
        self.ours.close()


@pytest.fixture
def part() -> Iterator[Part]:
    made = Part()
    yield made
    made.close()


def test_without_a_link_to_a_supervisor_that_lives_it_is_cut_when_that_could_have_died(part: Part) -> None:
    part.line.linked(os.pidfd_open(os.getpid()))
    assert (part.line.wake_at(), part.line.is_cut(1e9)) == (None, False)
    part.line.lost(10.0)
    assert part.line.wake_at() == 10.0 + ALIVE
    assert not part.line.is_cut(10.0 + ALIVE / 2)
    assert part.line.is_cut(10.0 + ALIVE)
    assert part.said == ["the supervisor lives and is not linked: probe ends, to be started again and linked anew"]


def test_one_that_was_linked_again_meanwhile_or_has_died_is_waited_for(part: Part) -> None:
    part.line.linked(os.pidfd_open(os.getpid()))
    part.line.lost(10.0)
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    part.line.linked(os.pidfd_open(child))
    assert not part.line.is_cut(20.0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    part.line.lost(20.0)
    assert (part.line.is_cut(30.0), part.line.wake_at(), part.said) == (False, None, [])


def test_it_is_over_when_the_keeper_says_so_or_is_gone(part: Part) -> None:
    assert not part.is_over(), "nothing was said"
    part.keeper.send(ipc.Message(ipc.LINK, name="supervisor"), 0, 0)
    assert (part.is_over(), part.linked) == (False, ["supervisor"])
    part.keeper.send(ipc.Message(ipc.LINK, name="supervisor"), 0)
    assert (part.is_over(), part.linked) == (False, ["supervisor"])
    assert part.said[0].endswith(", which probe does not know")
    part.keeper.send(ipc.Message(ipc.END))
    assert part.is_over()
    part.keeper.close()
    assert part.is_over()
