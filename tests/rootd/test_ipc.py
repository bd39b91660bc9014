"""rootd/ipc: fixed-size messages, links, what is refused."""

from __future__ import annotations

import os
import resource
import signal
import socket
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from rootd import ipc

U8, U32, U64 = st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text(st.characters(min_codepoint=1, exclude_categories=("Cs",)), max_size=40)


def links(**options: bool) -> tuple[ipc.Link, ipc.Link]:
    one, two = ipc.pair()
    return ipc.Link(one, **options), ipc.Link(two, **options)


@given(op=U8, scope=U8, flags=U8, seq=U32, generation=U32, slot=U32, run=U64, arg=I64, extra=I64,
       digest=st.binary(min_size=32, max_size=32), name=NAMES, body=st.binary(max_size=200))  # fmt: skip
def test_every_message_comes_back_as_it_was_sent(**fields: object) -> None:
    message = ipc.Message(**fields)  # type: ignore[arg-type]
    again = ipc.decode(message.encode(), body=True)
    assert {f: getattr(again, f) for f in fields} == fields


@given(st.binary(max_size=2 * ipc.SIZE))
def test_arbitrary_bytes_are_a_message_or_malformed(packet: bytes) -> None:
    try:
        message = ipc.decode(packet)
    except ipc.Malformed:
        return
    assert message.encode() == packet


@pytest.mark.parametrize("fields", [{"op": 256}, {"op": -1}, {"op": 1, "run": 2**64}, {"op": 1, "arg": 2**63}])
def test_a_field_out_of_range_is_not_encoded(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        ipc.Message(**fields).encode()  # type: ignore[arg-type]


@pytest.mark.parametrize("field", [{"name": "n" * 177}, {"digest": b"short"}, {"body": bytes(ipc.BODY_LIMIT + 1)}])
def test_a_field_that_is_too_long_is_not_encoded(field: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="too long"):
        ipc.Message(1, **field).encode()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "0 bytes"),
        (ipc.Message(1).encode()[:-1], "bytes where"),
        (ipc.Message(1).encode() + b"x", "bytes where"),
        (b"\x02" + ipc.Message(1).encode()[1:], "version 2"),
        (ipc.Message(1).encode()[:-1] + b"x", "after the end of the name"),
        (ipc.Message(1).encode()[: -ipc.NAME_LIMIT] + b"\xff" + bytes(ipc.NAME_LIMIT - 1), "not UTF-8"),
    ],
)
def test_what_is_no_message_says_why(packet: bytes, reason: str) -> None:
    with pytest.raises(ipc.Malformed, match=reason):
        ipc.decode(packet)


def test_repr_names_only_what_is_set() -> None:
    assert repr(ipc.Message(3, run=7, name="x")) == "<Message op=3 run=7 name='x'>"


def test_a_link_carries_messages_and_descriptors_and_tells_its_end() -> None:
    one, two = links(takes_fds=True)
    reader, writer = os.pipe()
    one.send(ipc.Message(ipc.STORE, name="pipe"), reader)
    received = two.receive()
    assert received is not None
    message, fds = received
    os.write(writer, b"through")
    assert (message.name, os.read(fds[0], 10)) == ("pipe", b"through")
    with pytest.raises(BlockingIOError):
        two.receive()
    one.close()
    assert two.receive() is None
    ipc.close_all((reader, writer, *fds))
    two.close()


def test_what_a_peer_had_sent_is_read_though_it_is_gone_and_has_left_something_unread() -> None:
    one, two = links()
    two.send(ipc.Message(ipc.PONG))
    one.send(ipc.Message(ipc.DEED, seq=1))
    one.send(ipc.Message(ipc.DEED, seq=2))
    one.close()
    heard = [two.receive() for _ in range(3)]
    assert [received[0].seq for received in heard if received is not None] == [1, 2]
    assert heard[2] is None
    two.close()


def test_c7_descriptors_arrive_close_on_exec() -> None:
    one, two = links(takes_fds=True)
    one.send(ipc.Message(1), 0)
    received = two.receive()
    assert received is not None
    assert not os.get_inheritable(received[1][0])
    ipc.close_all(received[1])
    one.close()
    two.close()


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_c6_a_descriptor_where_none_is_taken_is_closed_and_malformed() -> None:
    one, two = links()
    before = open_descriptors()
    for _ in range(100):
        one.send(ipc.Message(1), 0, 1)
        with pytest.raises(ipc.Malformed, match="descriptor"):
            two.receive()
    assert open_descriptors() == before
    one.close()
    two.close()


def test_c6_more_descriptors_than_are_taken_are_closed_and_malformed() -> None:
    one, two = links(takes_fds=True)
    before = open_descriptors()
    one.send(ipc.Message(1), *([0] * (ipc.FDS_LIMIT + 9)))
    with pytest.raises(ipc.Malformed, match="truncated"):
        two.receive()
    assert open_descriptors() == before
    one.close()
    two.close()


def test_c1_a_packet_that_is_too_long_is_malformed_not_cut() -> None:
    one, two = links()
    one.sock.send(ipc.Message(1).encode() + b"more")
    with pytest.raises(ipc.Malformed, match="truncated"):
        two.receive()
    one.close()
    two.close()


def test_c4_an_empty_packet_is_the_end_and_no_crash() -> None:
    one, two = links()
    one.sock.send(b"")
    assert two.receive() is None
    one.close()
    two.close()


def test_a_body_is_taken_only_where_the_link_says_so() -> None:
    one, two = links(body=True)
    one.send(ipc.Message(ipc.RECORD, body=b"{}"))
    received = two.receive()
    assert received is not None
    assert received[0].body == b"{}"
    one.close()
    two.close()
    with pytest.raises(ipc.Malformed):
        ipc.decode(ipc.Message(1, body=b"{}").encode())


def test_what_the_peer_does_not_read_waits_in_order_with_its_descriptors() -> None:
    one, two = links(takes_fds=True)
    count = 0
    while not one.waiting:
        one.send(ipc.Message(1, seq=count), 0)
        count += 1
    one.send(ipc.Message(1, seq=count))
    one.flush()
    assert one.waiting
    seen = []
    while one.waiting or len(seen) <= count:
        received = two.receive()
        assert received is not None
        seen.append(received[0].seq)
        ipc.close_all(received[1])
        one.flush()
    assert seen == list(range(count + 1))
    one.close()
    two.close()


def test_closing_a_link_closes_what_waits() -> None:
    before = open_descriptors()
    one, two = links(takes_fds=True)
    while not one.waiting:
        one.send(ipc.Message(1), 0)
    one.close()
    two.close()
    assert open_descriptors() == before


def test_what_cannot_wait_for_want_of_descriptors_leaves_none_behind() -> None:
    one, two = links(takes_fds=True)
    while not one.waiting:
        one.send(ipc.Message(1))
    before = open_descriptors()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.dup(0)  # the lowest number that is free: there is room for one
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe + 1, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            one.send(ipc.Message(1), 0, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert open_descriptors() == before
    one.close()
    two.close()


def test_a_peer_that_never_reads_is_an_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipc, "QUEUE_LIMIT", 3)
    one, two = links()
    while not one.waiting:
        one.send(ipc.Message(1))
    for _ in range(2):
        one.send(ipc.Message(1))
    with pytest.raises(OverflowError):
        one.send(ipc.Message(1))
    one.close()
    two.close()


def test_sending_now_waits_for_the_reader_and_keeps_the_order() -> None:
    one, two = links()
    count = 0
    while not one.waiting:
        one.send(ipc.Message(1, seq=count))
        count += 1
    pid = os.fork()
    if pid == 0:
        one.send_now(ipc.Message(1, seq=count))
        one.send_now(ipc.Message(1, seq=count + 1))
        os._exit(0)
    one.sock.close()
    two.sock.setblocking(True)
    assert [two.receive()[0].seq for _ in range(count + 2)] == list(range(count + 2))  # type: ignore[index]
    os.waitpid(pid, 0)
    two.close()


def test_inherit_gathers_until_the_end_and_refuses_anything_else() -> None:
    one, two = links(takes_fds=True)
    one.send(ipc.Message(ipc.HELD, name="settings"), 0)
    one.send(ipc.Message(ipc.LINK, name="log"), 0, 1)
    one.send(ipc.Message(ipc.REAPED, arg=12, extra=-9))
    one.send(ipc.Message(ipc.HELD_END))
    inherited = ipc.inherit(two)
    assert set(inherited.held) == {"settings"}
    assert set(inherited.links) == {"log"}
    assert inherited.reaped == {12: -9}
    ipc.close_all((*inherited.held.values(), *inherited.links["log"]))
    one.send(ipc.Message(ipc.SPAWN))
    with pytest.raises(ipc.Malformed, match="inheriting"):
        ipc.inherit(two)
    one.close()
    with pytest.raises(EOFError):
        ipc.inherit(two)
    two.close()


def test_a_link_can_be_made_from_a_descriptor_that_arrived() -> None:
    one, two = ipc.pair()
    link = ipc.link_from(one.detach())
    link.send(ipc.Message(9))
    assert ipc.decode(two.recv(ipc.SIZE)).op == 9
    link.close()
    two.close()


def test_the_loop_calls_what_is_watched_and_nothing_that_was_forgotten() -> None:
    loop = ipc.Loop()
    one, two = socket.socketpair()
    called: list[str] = []
    loop.watch(one.fileno(), lambda _: called.append("first"))
    loop.watch(one.fileno(), lambda _: called.append("second"))
    two.send(b"x")
    loop.turn(1)
    assert called == ["second"]
    loop.forget(one.fileno())
    loop.forget(one.fileno())
    loop.turn(0)
    assert called == ["second"]
    loop.watch(one.fileno(), lambda _: called.append("out"), 4)  # EPOLLOUT
    loop.watch(one.fileno(), lambda _: called.append("in"), 1)
    loop.turn(0)
    assert called[-1] == "in"
    loop.close()
    one.close()
    two.close()


def test_a_handler_may_forget_a_descriptor_that_is_ready_in_the_same_turn() -> None:
    loop = ipc.Loop()
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def forget_the_other(index: int) -> None:
        called.append(index)
        loop.forget(pairs[1 - index][0].fileno())

    for index, (one, two) in enumerate(pairs):
        loop.watch(one.fileno(), lambda _, index=index: forget_the_other(index))  # type: ignore[misc]
        two.send(b"x")
    loop.turn(1)
    assert len(called) == 1
    for one, two in pairs:
        one.close()
        two.close()
    loop.close()


@pytest.mark.parametrize("reader", ["gone", "asleep"])
def test_d7_a_note_that_nobody_takes_is_lost_and_neither_raises_nor_waits(reader: str) -> None:
    """stderr is a pipe into a program that was ended or stopped."""
    taken, stderr = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(taken)
        os.dup2(stderr, 2)
        signal.alarm(20)
        for _ in range(1_000):
            ipc.note("keeper", "log ended (signal 9) and is started again \udcff" * 10)
        os._exit(0)
    os.close(stderr)
    if reader == "gone":
        os.close(taken)
    assert os.waitpid(child, 0)[1] == 0
    if reader == "asleep":
        assert os.read(taken, 100).startswith(b"durward-keeper: log ended")
        os.close(taken)


def test_d5_an_event_is_not_given_to_a_newcomer_that_has_the_number_of_the_one_it_was_for() -> None:
    loop = ipc.Loop()
    first, second, quiet = os.pipe(), os.pipe(), os.pipe()
    heard = []

    def swap(events: int) -> None:
        """Whichever comes first closes both, and a pipe that nothing came by takes a number."""
        for fd in (first[0], second[0]):
            loop.forget(fd)
        os.dup2(quiet[0], second[0])
        os.dup2(quiet[0], first[0])
        for fd in (first[0], second[0]):
            loop.watch(fd, heard.append)

    for reader, writer in (first, second):
        loop.watch(reader, swap)
        os.write(writer, b"x")
    loop.turn(1.0)
    assert heard == []
    loop.close()
    ipc.close_all((*first, *second, *quiet))


@pytest.mark.parametrize("part", ["keeper", "privileged", "supervisor", "auth", "log", "probe"])
def test_every_part_speaks_by_notes_alone_which_wait_for_no_reader(part: str) -> None:
    """A terminal that was stopped, or a full pipe, at the other end of stderr must stop nothing."""
    sources = list((Path(ipc.__file__).parent / part).glob("*.py"))
    assert sources
    assert not [path for path in sources for word in ("stderr.write(", " print(") if word in path.read_text()]


@pytest.mark.parametrize("text", ["\x1b]0;x\x07\ndurward-keeper: \u202eé\x9b2J\udcff\r", "a\n" * 9_000])
def test_e_a_note_is_one_line_that_no_terminal_obeys_whoever_has_chosen_its_words(text: str) -> None:
    taken, stderr = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(stderr, 2)
        ipc.note("supervisor", text)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    found = os.read(taken, 1 << 16).decode()
    ipc.close_all((taken, stderr))
    assert found.endswith("\n")
    assert found[:-1].isprintable()
    assert found.startswith(("durward-supervisor: \\x1b]0;x\\x07\\ndurward-keeper: ", "durward-supervisor: a\\na"))


def test_a_link_whose_peer_takes_nothing_more_says_so_before_its_end_is_heard() -> None:
    ours, theirs = ipc.pair()
    link = ipc.Link(ours)
    link.send(ipc.Message(ipc.PING))
    assert not link.broken
    theirs.close()
    with pytest.raises(ConnectionError):
        link.send(ipc.Message(ipc.PING))
    assert link.broken
    link.close()
