"""The link to the supervisor, from the supervisor's end: what comes, in which order, and what ends the link."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator

import pytest

from policy import login, wire
from rootd import ipc
from rootd.auth import link as module
from rootd.auth.link import Link

KNOWN = "ab" * 32
NOTE = login.LoginNoted("alice", "192.0.2.1", False, "wrong password, or locked")
DOWN = login.SessionDown(KNOWN, "logout")


class House:
    def __init__(self) -> None:
        self.loop = ipc.Loop()
        self.heard: list[login.Pull] = []
        self.said: list[str] = []
        self.lost = 0
        self.link = Link(self.loop, self.heard.append, self.said.append, self.count)
        self.end: socket.socket | None = None

    def count(self) -> None:
        self.lost += 1

    def connect(self) -> socket.socket:
        if self.end is not None:
            self.end.close()
        self.end, ours = ipc.pair()
        self.end.settimeout(5.0)
        self.link.connect(ours.detach())
        return self.end

    def is_over(self) -> bool:
        assert self.end is not None
        self.loop.turn(0.0)
        try:
            return self.end.recv(wire.LIMIT) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.link.lose()
        self.loop.close()
        if self.end is not None:
            self.end.close()


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


def test_what_is_pushed_arrives_and_what_the_supervisor_says_is_heard(house: House) -> None:
    end = house.connect()
    house.link.push(DOWN)
    assert wire.PUSH.decode(end.recv(wire.LIMIT)) == DOWN
    for pull in (login.Seen(7), login.Touched(KNOWN), login.RevokeSessions()):
        end.send(wire.PULL.encode(pull))
    house.loop.turn(5.0)
    assert house.heard == [login.Seen(7), login.Touched(KNOWN), login.RevokeSessions()]


def test_notes_for_the_audit_log_wait_for_the_next_supervisor_and_sessions_do_not(house: House) -> None:
    house.link.push(NOTE)
    house.link.push(DOWN)
    end = house.connect()
    house.link.push(login.SessionsEnd())
    assert wire.PUSH.decode(end.recv(wire.LIMIT)) == NOTE
    assert wire.PUSH.decode(end.recv(wire.LIMIT)) == login.SessionsEnd()


def test_what_the_supervisor_does_not_read_yet_comes_later_and_in_order(house: House) -> None:
    end = house.connect()
    for number in range(5_000):
        house.link.push(login.LoginNoted("alice", "", True, str(number)))
    came = []
    while len(came) < 5_000:
        came.append(wire.PUSH.decode(end.recv(wire.LIMIT)))
        if len(came) % 50 == 0:
            house.loop.turn(0.0)
    assert [note.why for note in came if isinstance(note, login.LoginNoted)] == [str(n) for n in range(5_000)]
    assert house.said == []


def test_a_supervisor_that_never_reads_loses_the_link(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE", 100)
    house.connect()
    for _ in range(3_000):
        house.link.push(NOTE)
    assert house.said == ["the supervisor does not read what auth tells it, the link is closed"]
    assert (house.lost, house.link.is_there) == (1, False)


def test_a_supervisor_that_has_gone_is_no_trouble_and_the_next_one_is_heard(house: House) -> None:
    house.connect().close()
    house.link.push(DOWN)
    house.loop.turn(0.0)
    end = house.connect()
    end.send(wire.PULL.encode(login.Seen(1)))
    house.loop.turn(5.0)
    assert house.heard == [login.Seen(1)]


@pytest.mark.parametrize(
    "packet",
    [b"{}", b"x", b'{"pull":"seen","number":-1}', b'{"pull":"seen","number":1,"more":1}', b'{"push":"sessions-end"}',
     b'{"pull":"touched","hash":"x"}', b"[" * 60_000, b"\0" * 100],
)  # fmt: skip
def test_nonsense_ends_the_link_and_is_said(house: House, packet: bytes) -> None:
    house.connect().send(packet)
    assert house.is_over()
    assert house.heard == []
    assert "the link to the supervisor is closed" in house.said[0]
    assert (house.lost, house.link.is_there) == (1, False)


def test_a_packet_that_is_too_long_ends_the_link(house: House) -> None:
    house.connect().send(b" " * (wire.LIMIT + 1))
    assert house.is_over()


def test_an_empty_packet_is_the_end(house: House) -> None:
    house.connect().send(b"")
    assert house.is_over()


def test_a_descriptor_ends_the_link_and_is_not_kept(house: House) -> None:
    end = house.connect()
    before = len(os.listdir("/proc/self/fd"))
    rights = array.array("i", [end.fileno()])
    end.sendmsg([wire.PULL.encode(login.Seen(1))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    assert house.is_over()
    assert house.heard == []
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_what_does_not_fit_into_a_packet_is_an_error_of_the_caller(house: House) -> None:
    house.connect()
    groups = [f"group-{number:0200d}" for number in range(1_000)]
    with pytest.raises(ValueError, match="more than"):
        house.link.push(login.SessionUp(KNOWN, "alice", 1001, groups, 1.0, 1.0, 1))
