"""The doors, over real sockets."""

from __future__ import annotations

import errno
import os
import random
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from lingering import does, lingering, rights

from policy import messages, wire
from rootd import ipc
from rootd.supervisor import control

STATUS = messages.Status()
PLENTY = 60
GOOD = wire.REQUEST.encode(messages.Request(1, STATUS))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_request_is_answered_with_its_number(room: Any) -> None:
    client = room.client()
    client.send(STATUS, number=7)
    assert isinstance(client.receive(), messages.Services)
    client.send(STATUS, number=8)
    room.settle()
    assert wire.ANSWER.decode(client.sock.recv(wire.LIMIT)).id == 8


def test_c9_whoever_is_not_the_right_account_is_turned_away_and_counted(room: Any) -> None:
    door = room.door("control", uid=os.getuid() + 1)
    client = room.client()
    assert client.receive() is None
    assert door.turned_away == 1
    assert f"a connection of uid {os.getuid()}" in room.notes[0]


@pytest.mark.root
def test_c9_root_does_not_enter_by_the_apis_door_nor_the_api_by_roots(room: Any) -> None:
    room.door("control", uid=61999)
    room.door("root", uid=0)
    os.chmod(room.path / "root", 0o777)
    for folder in (room.path, *room.path.parents):
        if folder.stat().st_mode & 0o777 == 0o700:
            folder.chmod(0o755)
    assert room.client("control").receive() is None
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(61999, 61999, 61999)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.connect(str(room.path / "root"))
            time.sleep(PLENTY)  # it is ended by its parent
        finally:
            os._exit(9)
    room.until(lambda: room.doors["root"].turned_away == 1)
    os.kill(pid, 9)
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        GOOD[:-1],
        GOOD + b"x",
        b"[" * 50_000,
        b'{"id":1e400,"command":{"do":"status"}}',
        b'{"id":-1,"command":{"do":"status"}}',
        b'{"id":9007199254740993,"command":{"do":"status"}}',
        b'{"id":true,"command":{"do":"status"}}',
        b'{"id":NaN,"command":{"do":"status"}}',
        b'{"id":1,"command":{"do":"status","more":1}}',
        b'{"id":1,"command":{"do":"status"},"user":"root"}',
        b'{"id":1,"command":{"do":"__class__"}}',
        b'{"id":1,"command":{"do":"answer_stop"}}',
        b'{"id":1,"command":{"do":"start","service":"a.b\\n"}}',
        b'{"id":1,"command":{"do":"start","service":"../../etc"}}',
        b'{"id":1,"command":{"do":"start","service":"\xff"}}',
        b'{"id":1,"session":"' + b"A" * 64 + b'","command":{"do":"status"}}',
    ],
    ids=range(20),
)
def test_c2_c15_what_is_no_request_closes_that_connection_and_no_other(room: Any, packet: bytes) -> None:
    client, other = room.client(), room.client()
    client.raw(packet)
    assert client.receive() is None
    assert room.doors["control"].turned_away == 1
    assert isinstance(other.ask(STATUS), messages.Services)


def test_c1_an_oversized_packet_closes_the_connection(room: Any) -> None:
    client = room.client()
    client.raw(b" " * (wire.LIMIT - len(GOOD)) + GOOD)
    assert isinstance(client.receive(), messages.Refused), "exactly the limit is read"
    client.raw(b" " * (wire.LIMIT + 1 - len(GOOD)) + GOOD)
    assert client.receive() is None
    assert "more than 65536 bytes" in room.notes[0]


def test_c4_a_thousand_empty_packets_harm_nobody(room: Any) -> None:
    before = descriptors()
    for _ in range(1000):
        client = room.client()
        client.raw(b"")
        assert client.receive() is None
        client.sock.close()
        room.clients.pop()
    assert room.doors["control"].turned_away == 1000
    assert len(room.notes) == 4, "at 1, 10, 100 and 1000"
    assert descriptors() <= before + 1
    assert isinstance(room.client().ask(STATUS), messages.Services)


def test_c5_fuzzed_packets_harm_nobody(room: Any) -> None:
    """20,000 packets: noise, and requests with a few bytes changed."""
    dice = random.Random(5)
    before, asked = descriptors(), list(room.services.asked)
    room.door("control", limit=64)
    client = None
    start = wire.REQUEST.encode(messages.Request(1, messages.Start("site"), "1" * 64))
    for number in range(20_000):
        if client is None:
            client = room.client()
        if number % 2:
            packet = dice.randbytes(dice.randrange(300))
        else:
            changed = bytearray(start)
            for _ in range(dice.randrange(1, 4)):
                changed[dice.randrange(len(changed))] = dice.randrange(256)
            packet = bytes(changed)
        try:
            client.raw(packet)
        except OSError:
            client.sock.close()
            client = None
            room.clients.clear()
        room.turn() if number % 8 == 0 else None
    room.settle()
    assert descriptors() <= before + 3
    assert all(kind == "start" for kind, *_ in room.services.asked[len(asked) :])
    assert isinstance(room.client().ask(STATUS), messages.Services)


@pytest.mark.parametrize("option", [control.SO_PASSRIGHTS, 9999], ids=["where the kernel refuses them", "elsewhere"])
def test_c6_attached_descriptors_are_never_taken(room: Any, monkeypatch: pytest.MonkeyPatch, option: int) -> None:
    monkeypatch.setattr(control, "SO_PASSRIGHTS", option)
    room.client().ask(STATUS)
    before = descriptors()
    for number in range(100):
        client = room.client()
        room.settle()
        with open("/dev/null", "rb") as null:
            try:
                client.raw(GOOD, *[null.fileno()] * (1 + number * 2))
            except PermissionError:
                assert option == control.SO_PASSRIGHTS
            else:
                assert client.receive() is None
        client.sock.close()
        room.clients.pop()
    room.settle()
    assert descriptors() == before


def test_c7_what_is_accepted_is_not_inherited(room: Any) -> None:
    room.client()
    room.settle()
    for connection in room.doors["control"]._connections.values():
        assert not os.get_inheritable(connection.fileno())


def test_c8_whoever_says_nothing_is_dropped(room: Any) -> None:
    client, other = room.client(), room.client()
    room.settle()
    assert isinstance(other.ask(STATUS), messages.Services)
    room.pass_time(control.FIRST - 0.01)
    assert client.quiet()
    room.pass_time(0.02)
    assert client.receive() is None
    assert isinstance(other.ask(STATUS), messages.Services), "after an answer there is more time"
    room.pass_time(control.NEXT)
    assert other.receive() is None


def test_c8_beyond_the_limit_connections_wait_until_others_leave(room: Any) -> None:
    room.door("control", limit=4)
    silent = [room.client() for _ in range(4)]
    room.settle()
    honest = room.client()
    honest.send(STATUS)
    assert honest.quiet()
    room.pass_time(control.FIRST)
    assert isinstance(honest.receive(), messages.Services)
    assert all(client.receive() is None for client in silent)


def test_c8_a_thousand_connections_are_survived(room: Any) -> None:
    room.door("control", limit=8)
    socks, refused = [], 0
    for _ in range(1000):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            sock.connect(str(room.path / "control"))
        except BlockingIOError:
            refused += 1
        socks.append(sock)
        room.turn() if len(socks) % 100 == 0 else None
    assert len(room.doors["control"]._connections) == 8
    assert refused > 900
    root = room.client("root")
    assert isinstance(root.ask(STATUS, ""), messages.Services), "the other door is open as ever"
    for sock in socks:
        sock.close()
    room.settle()
    assert isinstance(room.client().ask(STATUS), messages.Services)


def test_c8_the_accept_loop_survives_a_lack_of_descriptors(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    door = room.door("control")

    class Empty:
        def accept(self) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        def fileno(self) -> int:
            return listener.fileno()

    listener = door._sock
    monkeypatch.setattr(door, "_sock", Empty())
    client = room.client()
    client.send(STATUS)
    assert client.quiet()
    assert "no connection can be taken now: Too many open files" in room.notes[0]
    assert len(room.notes) == 1, "it does not spin"
    monkeypatch.setattr(door, "_sock", listener)
    assert door.wake_at() == room.now + control.BREATH
    room.pass_time(control.BREATH)
    assert isinstance(client.receive(), messages.Services)


def test_c14_one_request_at_a_time_and_the_next_one_waits(room: Any) -> None:
    room.log_answers = None
    client = room.client()
    client.send(messages.Start("site"), number=1)
    client.send(messages.Stop("site"), number=2)
    client.send(messages.Start("site"), number=3)
    assert client.quiet()
    assert len(room.decisions()) == 1
    room.log_answers = 0
    replies = [client.receive() for _ in range(3)]
    assert all(isinstance(reply, messages.Accepted) for reply in replies)
    assert [kind for kind, *_ in room.services.asked] == ["start", "stop", "start"]


def test_c14_a_peer_that_leaves_while_it_waits_is_forgotten_and_its_command_is_done(room: Any) -> None:
    room.log_answers = None
    client = room.client()
    client.send(messages.Start("site"))
    room.settle()
    client.sock.close()
    room.settle()
    assert not room.doors["control"]._connections
    room.log_answers = 0
    room.settle()
    assert [kind for kind, *_ in room.services.asked] == ["start"]


def test_c16_a_peer_that_does_not_read_delays_nobody_and_is_dropped(room: Any) -> None:
    room.services.text = "x" * 30_000
    room.services.groups = {f"site{number}": () for number in range(100)} | {"site": ()}
    stuck, other = room.client("root"), room.client()
    stuck.send(STATUS, "")
    room.settle()
    begun = time.monotonic()
    assert isinstance(other.ask(messages.WhatMayI()), messages.Rights)
    assert time.monotonic() - begun < 1.0
    assert len(room.doors["root"]._connections) == 1
    room.pass_time(control.READ)
    assert len(room.doors["root"]._connections) == 0


def test_c16_a_peer_that_reads_slowly_gets_everything(room: Any) -> None:
    room.services.text = "x" * 30_000
    room.services.groups = {f"site{number}": () for number in range(30)}
    client = room.client("root")
    client.send(STATUS, "")
    found = []
    while True:
        room.settle()
        reply = client.receive()
        found += [info.name for info in reply.services]
        if not reply.more:
            break
    assert found == list(room.services.groups)
    assert isinstance(client.ask(messages.WhatMayI(), ""), messages.Rights), "and may ask again"


def test_an_answer_that_fits_into_no_packet_is_a_refusal(room: Any) -> None:
    room.services.text = "x" * 70_000
    reply = room.client().ask(messages.Describe("site"))
    assert reply.kind == "failed"


def test_a_queued_descriptor_arrives_and_none_is_left_behind(room: Any) -> None:
    """An Outbox on its own: the peer reads late, or never."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    out = control.Outbox(ours)
    before = descriptors()
    with open("/dev/null", "rb") as null:
        while not out:
            out.send(b"x" * 40_000)
        out.send(b"last", null.fileno())
        out.send(b"never", null.fileno())
    count = len(out)
    assert count == 3
    while True:
        packet, fds, _, _ = socket.recv_fds(theirs, 65536, 4)
        out.flush()
        if packet == b"last":
            break
    assert len(fds) == 1
    os.close(fds[0])
    with open("/dev/null", "rb") as null:
        while len(out) < 5:
            out.send(b"x" * 40_000, null.fileno())
    out.clear()
    theirs.close()
    with pytest.raises(OSError, match=r"."):
        out.send(b"gone")
    ours.close()
    assert descriptors() == before - 2


@pytest.mark.parametrize("uid", [os.geteuid(), os.geteuid() + 1], ids=["heard", "turned away"])
def test_a_descriptor_whose_end_takes_an_hour_holds_up_nobody(tmp_path: Path, uid: int) -> None:
    """Sent with the first words, before the connection is taken."""

    def act() -> None:
        said, loop = list[str](), ipc.Loop()
        with lingering() as sock, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(str(tmp_path / "door"))
            listening.listen()
            door = control.Door("door", listening.detach(), uid, 8, loop, lambda: 0.0, lambda *_: None, said.append)
            door.open()
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as end:
                end.connect(str(tmp_path / "door"))
                end.sendmsg([GOOD], rights(sock))
                sock.close()
                while not said:
                    loop.turn(1.0)

    assert does(act)
