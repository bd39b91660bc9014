"""The doors, with whatever may come through them: in this process, so that every descriptor can be counted."""

from __future__ import annotations

import array
import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from lingering import does, lingering, rights

from policy import login, wire
from rootd import ipc
from rootd.auth import doors
from rootd.auth.doors import Connection, Door
from rootd.auth.timers import Timers

LOGIN = login.Login("alice", "secret", "192.0.2.1")
DENIED = login.Denied("no")


class House:
    def __init__(
        self, path: Path, limit: int = 8, each: int = 8, uids: frozenset[int] | None = None,
        but: frozenset[int] = frozenset(),
    ) -> None:  # fmt: skip
        self.now = 100.0
        self.loop, self.timers = ipc.Loop(), Timers()
        self.asked: list[tuple[Connection, login.Ask]] = []
        self.said: list[str] = []
        self.path = str(path / "door.sock")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.bind(self.path)
        listening.listen(128)
        kinds = (login.Login, login.Logout)
        self.door = Door(
            "door", listening.detach(), uids, kinds, limit, each, self.loop, self.timers, lambda: self.now,
            lambda connection, ask: self.asked.append((connection, ask)), self.said.append, but,
        )  # fmt: skip
        self.door.open()
        self.ends: list[socket.socket] = []

    def connect(self) -> socket.socket:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        end.settimeout(5.0)
        end.connect(self.path)
        self.ends.append(end)
        self.turn()
        return end

    def turn(self) -> None:
        """Everything that is there to be done."""
        for _ in range(4):
            self.loop.turn(0.0)
        self.timers.run(self.now)

    def is_open(self, end: socket.socket) -> bool:
        self.turn()
        end.setblocking(False)
        try:
            return end.recv(10) != b""
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False

    def close(self) -> None:
        for end in self.ends:
            end.close()
        self.turn()
        assert not self.door._connections
        assert not self.door._by_uid
        assert self.timers.next() is None
        self.loop.forget(self.door._sock.fileno())
        self.door._sock.close()
        self.loop.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    before = len(os.listdir("/proc/self/fd"))
    made = House(tmp_path)
    yield made
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_question_is_asked_once_and_its_answer_comes_back(house: House) -> None:
    end = house.connect()
    end.send(wire.ASK.encode(LOGIN))
    house.turn()
    [(connection, ask)] = house.asked
    assert (ask, connection.uid) == (LOGIN, os.geteuid())
    connection.answer(DENIED)
    connection.answer(DENIED)
    assert wire.TELL.decode(end.recv(wire.LIMIT)) == DENIED
    assert house.is_open(end)


def test_a_second_question_is_not_heard_before_the_first_is_answered(house: House) -> None:
    end = house.connect()
    for _ in range(5):
        end.send(wire.ASK.encode(LOGIN))
    for count in range(1, 6):
        house.turn()
        assert len(house.asked) == count
        house.asked[-1][0].answer(DENIED)
    for _ in range(5):
        assert wire.TELL.decode(end.recv(wire.LIMIT)) == DENIED


@pytest.mark.parametrize(
    "packet",
    [b"", b"{", b"{}", b"null", b"[]", b"\0", b"\xff" * 20, b"[" * 60_000, b'{"do":"reboot"}', b'{"do":"peer-login"}',
     b'{"do":"login"}', b'{"do":"login","user":"a","password":1}', b'{"do":"login","user":"a","password":"b","uid":0}',
     b'{"do":"login","user":"' + b"a" * 257 + b'","password":"b"}', b'{"do":"logout","token":"AB"}',
     b'{"do":"login","user":"a","password":"' + b"b" * 4097 + b'"}', b'{"do":"logout","token":"' + b"a" * 65 + b'"}',
     b'{"do":"login","user":"a","password":"b","source":"x\\n"}', b" " * wire.LIMIT, b" " * (wire.LIMIT + 1),
     b"x" * 150_000],
)  # fmt: skip
def test_what_is_no_question_closes_that_connection_and_no_other(house: House, packet: bytes) -> None:
    other, end = house.connect(), house.connect()
    end.send(packet)
    assert not house.is_open(end)
    assert house.asked == []
    assert house.door.turned_away == 1
    assert house.is_open(other)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(min_size=1, max_size=300))
def test_whatever_the_bytes_are_they_are_a_question_or_the_end(house: House, packet: bytes) -> None:
    end = house.connect()
    end.send(packet)
    assert not house.is_open(end)
    end.close()


def test_ten_thousand_malformed_questions_are_said_five_times(house: House) -> None:
    whole = bytearray(wire.ASK.encode(LOGIN))
    chance = random.Random(1)
    closed = 0
    for _ in range(10_000):
        packet = bytearray(whole)
        packet[chance.randrange(len(packet))] = chance.randrange(256)
        end = house.connect()
        end.send(packet[: chance.randrange(1, len(packet) + 1)])
        closed += not house.is_open(end)
        end.close()
        for connection, _ in house.asked:
            connection.close()
        house.asked.clear()
        house.turn()
    assert closed > 9_000
    assert house.door.turned_away == closed
    assert len(house.said) <= 5


def test_a_descriptor_closes_the_connection_and_is_not_kept(house: House) -> None:
    end = house.connect()
    before = len(os.listdir("/proc/self/fd"))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 10))]
    try:
        end.sendmsg([wire.ASK.encode(LOGIN)], rights)
    except PermissionError:  # SO_PASSRIGHTS: this kernel does not even send it
        assert house.asked == []
        return
    assert not house.is_open(end)
    assert house.asked == []
    assert len(os.listdir("/proc/self/fd")) == before - 1


@pytest.mark.parametrize("limit", [8, 0], ids=["heard", "turned away"])
def test_a_descriptor_whose_end_takes_an_hour_holds_up_nobody(tmp_path: Path, limit: int) -> None:
    """Sent with the first words, before the connection is taken."""

    def act() -> None:
        house = House(tmp_path, each=limit)
        with lingering() as sock, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as end:
            end.connect(house.path)
            end.sendmsg([wire.ASK.encode(LOGIN)], rights(sock))
            sock.close()
            assert not house.is_open(end)
            assert house.asked == []

    assert does(act)


def test_a_descriptor_is_refused_on_a_kernel_that_would_pass_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "SO_PASSRIGHTS", 250)
    end = house.connect()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))]
    end.sendmsg([wire.ASK.encode(LOGIN)], rights)
    assert not house.is_open(end)
    assert house.asked == []


def test_who_says_nothing_is_closed_when_the_time_is_up(house: House) -> None:
    end = house.connect()
    house.now += doors.FIRST - 0.01
    assert house.is_open(end)
    house.now += 0.02
    house.turn()
    assert not house.is_open(end)
    assert house.door.turned_away == 0


def test_after_an_answer_there_is_time_for_the_next_question_and_while_it_is_awaited_no_hurry(house: House) -> None:
    end = house.connect()
    end.send(wire.ASK.encode(LOGIN))
    house.turn()
    house.now += 1_000.0
    assert house.is_open(end)
    house.asked[0][0].answer(DENIED)
    end.setblocking(True)
    end.recv(wire.LIMIT)
    house.now += doors.NEXT - 0.01
    assert house.is_open(end)
    house.now += 0.02
    house.turn()
    assert not house.is_open(end)


def test_who_leaves_before_the_answer_is_gone_for_the_one_who_answers(house: House) -> None:
    end = house.connect()
    end.send(wire.ASK.encode(LOGIN))
    house.turn()
    end.close()
    house.turn()
    connection = house.asked[0][0]
    assert connection.closed
    connection.answer(DENIED)


def test_who_does_not_read_is_dropped(house: House) -> None:
    end = house.connect()
    for _ in range(2_000):
        try:
            end.setblocking(False)
            end.send(wire.ASK.encode(LOGIN))
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass
        house.turn()
        if house.asked[-1][0].closed:
            return
        house.asked[-1][0].answer(DENIED)
    raise AssertionError("it is still there")


def test_more_connections_than_there_may_be_wait_until_one_leaves(house: House) -> None:
    ends = [house.connect() for _ in range(12)]
    assert len(house.door._connections) == 8
    ends[0].close()
    house.turn()
    assert len(house.door._connections) == 8
    ends[11].send(wire.ASK.encode(LOGIN))
    for end in ends[1:8]:
        end.close()
    house.turn()
    assert len(house.asked) == 1


def test_one_uid_has_only_so_many(tmp_path: Path) -> None:
    made = House(tmp_path, limit=8, each=2)
    ends = [made.connect() for _ in range(5)]
    assert [made.is_open(end) for end in ends] == [True, True, False, False, False]
    ends[0].close()
    made.turn()
    assert made.is_open(made.connect())
    made.close()


def test_connections_of_others_are_closed_unheard(tmp_path: Path) -> None:
    made = House(tmp_path, uids=frozenset({os.geteuid() + 1}))
    end = made.connect()
    assert not made.is_open(end)
    assert made.door.turned_away == 1
    assert made.asked == []
    made.close()


def test_whose_connections_are_never_taken_is_closed_where_everybody_is_let_in(tmp_path: Path) -> None:
    made = House(tmp_path, but=frozenset({os.geteuid()}))
    assert not made.is_open(made.connect())
    assert (made.door.turned_away, made.asked) == (1, [])
    made.close()


def test_a_thousand_connections_do_not_keep_the_door_shut(house: House) -> None:
    begun = time.monotonic()
    for _ in range(1_000):
        house.connect().close()
    house.turn()
    assert house.is_open(house.connect())
    assert time.monotonic() - begun < 20.0


def test_when_descriptors_are_short_accepting_is_tried_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short:
        def fileno(self) -> int:
            return real.fileno()

        def accept(self) -> None:
            raise OSError(24, "Too many open files")

    real = house.door._sock
    with monkeypatch.context() as patch:
        patch.setattr(house.door, "_sock", Short())
        end = house.connect()
        assert "Too many open files" in house.said[0]
        assert not house.door._connections
    house.now += doors.BREATH
    house.turn()
    house.turn()
    assert len(house.door._connections) == 1
    assert house.is_open(end)
