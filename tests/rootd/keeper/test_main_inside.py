"""rootd/keeper/main: its methods, with parts that are children of the test."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootd import ipc
from rootd.keeper import main as keeper

WAIT = 20.0  # seconds before a test gives up


def cast(house: keeper.Keeper, role: str) -> ipc.Link:
    """A part that is a child of this test, and our end of its link."""
    ours, theirs = ipc.pair()
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    house.children[role] = keeper.Child(pid, ipc.Link(theirs, takes_fds=True), 0.0)
    return ipc.Link(ours, takes_fds=True)


def come(house: keeper.Keeper, *numbers: int) -> None:
    """As signals do."""
    for number in numbers:
        house.writer.send(bytes([number]))
        house.signalled(number, None)


def end(house: keeper.Keeper) -> None:
    for child in house.children.values():
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        os.close(child.pidfd)
        child.link.close()
    for sock in (house.wakeup, house.writer):
        sock.close()
    house.loop.close()


class Seen(Exception):
    pass


def test_d11_none_of_ten_thousand_signals_that_asks_for_an_end_is_lost_when_nobody_has_looked_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = keeper.Keeper({})
    house.due.clear()
    look = house.loop.turn

    def busy(_seconds: float | None) -> None:
        for _ in range(10_000 // 3):
            for number in (signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1):
                os.kill(os.getpid(), number)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        look(0.0)
        raise Seen

    monkeypatch.setattr(house.loop, "turn", busy)
    before = {number: signal.getsignal(number) for number in keeper.HANDLED}
    try:
        with pytest.raises(Seen):
            house.run()
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
    assert house.asked_to_end == 2, "once is in order, and again is at once"
    assert house.signals == []
    assert house.ended_at is not None
    end(house)


def test_a_part_is_not_started_again_when_privileged_has_said_end_meanwhile() -> None:
    house = keeper.Keeper({})
    link = cast(house, "privileged")
    link.send(ipc.Message(ipc.END))
    house.start("log", 0.0)
    assert set(house.children) == {"privileged"}
    link.close()
    end(house)


def test_c7_a_supervisor_that_is_there_before_the_others_is_linked_to_each_of_them_once() -> None:
    house = keeper.Keeper({})
    links = {role: cast(house, role) for role in ("privileged", "supervisor", "log")}
    house.begun, house.due = True, {"log": 0.0, "supervisor": 0.0}
    for role in ("log", "supervisor"):
        del house.due[role]
        house.start(role, 0.0)
    told = {role: sorted(linked(link)) for role, link in links.items()}
    assert told["log"] == ["privileged", "supervisor"]
    assert told["supervisor"] == ["log", "privileged"]
    assert told["privileged"] == ["log", "supervisor"]
    for link in links.values():
        link.close()
    end(house)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_comes_while_parts_end_for_an_upgrade_is_not_lost_in_silence(
    capfd: pytest.CaptureFixture[str], number: int
) -> None:
    house = keeper.Keeper({})
    house.begun, house.renewal.under_way = True, True
    house.due.clear()
    link = cast(house, "supervisor")
    come(house, number)
    house.woken()
    assert "send it again" in capfd.readouterr().err
    link.close()
    end(house)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM])
def test_a_supervisor_that_waits_for_what_it_is_handed_is_told_of_no_signal_before_it_has_all(number: int) -> None:
    """The signal comes in the turn in which privileged says that it has begun."""
    house = keeper.Keeper({})
    house.due.clear()
    links = {role: cast(house, role) for role in ("privileged", "supervisor")}
    links["privileged"].send(ipc.Message(ipc.BEGIN))
    assert house.hear(house.children["privileged"])
    come(house, number)
    house.woken()
    house.start("supervisor", 0.0)
    inherited = ipc.inherit(links["supervisor"])
    assert set(inherited.links) == {"privileged"}
    told = [ipc.END] if number == signal.SIGTERM else []
    for op in told:
        received = links["supervisor"].receive()
        assert received is not None
        assert received[0].op == op
    with pytest.raises(BlockingIOError):
        links["supervisor"].receive()
    ipc.close_all(fd for pair in inherited.links.values() for fd in pair)
    for link in links.values():
        link.close()
    end(house)


def test_what_a_signal_does_not_do_and_what_a_second_one_does_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    house = keeper.Keeper({})
    links = {role: cast(house, role) for role in ("privileged", "supervisor")}
    house.due, house.begun = {"supervisor": 0.0}, True

    def hear(*numbers: int) -> str:
        come(house, *numbers)
        house.woken()
        return capfd.readouterr().err

    early = "durward-keeper: SIGHUP reloads nothing while we end, or a part is being started: send it again\n"
    assert hear(signal.SIGHUP) == early
    house.due.clear()
    assert hear(signal.SIGHUP) == ""
    assert hear(signal.SIGTERM) == ""
    assert hear(signal.SIGHUP) == early
    assert hear(signal.SIGINT) == "durward-keeper: SIGINT again: what has not ended yet is killed now\n"
    assert hear(signal.SIGTERM) == ""
    assert told(links["supervisor"]) == [ipc.STAGE, ipc.END]
    assert told(links["privileged"]) == [ipc.END, ipc.END]
    for link in links.values():
        link.close()
    end(house)


def told(link: ipc.Link) -> list[int]:
    """The messages that wait on a link."""
    found = []
    while ipc.wait(link, seconds=0):
        received = link.receive()
        assert received is not None
        found.append(received[0].op)
    return found


def linked(link: ipc.Link) -> Iterator[str]:
    """Whom what waits on a link is about."""
    while ipc.wait(link, seconds=0):
        received = link.receive()
        assert received is not None
        ipc.close_all(received[1])
        if received[0].op == ipc.LINK:
            yield received[0].name


def test_d7_orphans_without_end_are_taken_some_at_a_time_and_never_fill_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: the keeper waits for any child."""
    monkeypatch.setattr(keeper, "REAPED_AT_ONCE", 16)
    monkeypatch.setattr(keeper, "REAPED_LIMIT", 8)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            house = keeper.Keeper({})
            link = cast(house, "privileged")
            while not house.children["privileged"].link.waiting:  # it reads nothing
                house.tell("privileged", ipc.Message(ipc.HELD, name="x"))
            for _ in range(40):
                child = os.fork() or os._exit(0)
                assert ipc.wait(os.pidfd_open(child), seconds=WAIT)
            house.reap()
            seen = [40 - zombies()]
            while ipc.wait(house.wakeup, seconds=0):
                house.woken()
                seen.append(40 - zombies())
            assert seen[:3] == [16, 32, 40]
            assert house.children["privileged"].link.waiting == 8
            assert not ipc.wait(house.children["privileged"].pidfd, seconds=0), "it is not ended for it"
            link.close()
            end(house)
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def zombies() -> int:
    """Children of this process that have ended and are not waited for."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return sum(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z" for child in children)


def test_d7_a_privileged_that_cannot_be_handed_everything_is_ended(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a part of its memory it would start a second copy of what it has forgotten."""
    house = keeper.Keeper({})
    link = cast(house, "privileged")

    def send(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(ipc.Link, "send", send)
    house.tell("privileged", ipc.Message(ipc.HELD, name="process/1"), 0)
    monkeypatch.undo()
    house.tell("privileged", ipc.Message(ipc.HELD_END))
    with pytest.raises(BlockingIOError):
        link.receive()  # of an end of what it was handed: it may not have died yet
    assert ipc.wait(house.children["privileged"].pidfd, seconds=WAIT)
    assert "Too many open files" in capfd.readouterr().err
    link.close()
    end(house)
