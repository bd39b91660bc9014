"""What services say, and what others say in their name."""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from lingering import does, lingering, rights

from rootd import ipc
from rootd.supervisor import notify
from rootd.supervisor.notify import A_SECOND, LIMIT, STATUS, Notify, Pipe, Socket, is_in_run, parse

RUN = 77
NOBODY = 1 << 30  # a pid that cannot be


class Place:
    def __init__(self, path: Path) -> None:
        self.path = str(path / "notify")
        self.now = 100.0
        self.loop = ipc.Loop()
        self.heard: list[tuple[int, dict[str, str], float]] = []
        self.remembered: list[bool] = []
        self.notify = Notify(
            self.loop,
            lambda: self.now,
            lambda *what: self.heard.append(what),
            lambda run, said: self.remembered.append(said),
        )
        self.open(os.getpid())
        self.service = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.service.connect(self.path)

    def open(self, pid: int) -> None:
        """privileged's part: a socket that tells who sends."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        Path(self.path).unlink(missing_ok=True)
        sock.bind(self.path)
        self.notify.add(Socket(RUN, sock.detach(), lambda _: pid))

    def say(self, data: bytes) -> list[dict[str, str]]:
        """What is heard of it."""
        self.heard.clear()
        self.service.send(data)
        self.turn()
        return [said for _, said, _ in self.heard]

    def turn(self) -> None:
        for _ in range(3):
            self.loop.turn(0)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.notify.drop(RUN)
    made.service.close()
    made.loop.close()


def test_the_main_process_is_heard(place: Place) -> None:
    assert place.say(b"READY=1\nSTATUS=serving\n") == [{"READY": "1", "STATUS": "serving"}]
    assert place.heard[0][0] == RUN
    assert place.heard[0][2] == 100.0


def test_somebody_else_is_not_heard(place: Place) -> None:
    place.open(NOBODY)
    place.service.connect(place.path)
    assert place.say(b"READY=1") == []


def test_a_process_of_the_runs_cgroup_is_heard_and_one_of_anothers_is_not(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.open(NOBODY)
    place.service.connect(place.path)
    monkeypatch.setattr(notify, "PROC", str(tmp_path))
    groups = [tmp_path / str(who) / "cgroup" for who in (os.getpid(), "self")]
    for group in groups:
        group.parent.mkdir()
    for text, ours, heard in (
        (f"1:cpu:/\n0::/durward-run/run-{RUN}\n", "0::/\n", 1),
        (f"0::/system.slice/durward.service/durward-run/run-{RUN}\n", "0::/system.slice/durward.service\n", 1),
        (f"0::/durward-run/run-{RUN}9\n", "0::/\n", 0),
        (f"1:cpu:/run-{RUN}\n0::/\n", "0::/\n", 0),
        (f"0::/user.slice/user@1001.service/x/run-{RUN}\n", "0::/\n", 0),
        (f"0::/user.slice/user@1001.service/durward-run/run-{RUN}\n", "0::/system.slice/durward.service\n", 0),
        (f"0::/system.slice/durward.service/x/y/run-{RUN}\n", "0::/system.slice/durward.service\n", 0),
        (f"0::/run-{RUN}\n", "0::/\n", 0),
        ("", "0::/\n", 0),
    ):
        for group, written in zip(groups, (text, ours), strict=True):
            group.write_text(written)
        assert len(place.say(b"READY=1")) == heard, text


def test_a_sender_that_has_ended_is_in_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_in_run(NOBODY, RUN)
    monkeypatch.setattr(notify, "PROC", str(tmp_path))
    (tmp_path / "5" / "cgroup").mkdir(parents=True)
    assert not is_in_run(5, RUN), "a read that fails"


def test_c4_empty_and_oversized_datagrams_are_ignored(place: Place) -> None:
    assert place.say(b"") == []
    assert place.say(b"READY=1\n" + b"x" * LIMIT) == []
    assert place.say(b"READY=1") == [{"READY": "1"}]


def test_a_socket_that_does_not_tell_who_sends_is_not_believed(place: Place) -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    Path(place.path).unlink()
    sock.bind(place.path)
    place.notify.add(Socket(RUN, sock.detach(), lambda _: os.getpid()))
    place.service.connect(place.path)
    assert place.say(b"READY=1") == []


def test_c6_attached_descriptors_are_closed_and_the_words_are_heard(place: Place) -> None:
    place.say(b"READY=1")
    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
        place.service.sendmsg([b"READY=1"], rights)
        place.turn()
    assert len(place.heard) == 21
    assert os.listdir("/proc/self/fd") == before


def test_a_service_that_talks_without_end_is_heard_again_in_the_next_second(place: Place) -> None:
    place.service.setblocking(False)
    for _ in range(10):
        with contextlib.suppress(BlockingIOError):
            for _ in range(8):
                place.service.send(b"STATUS=x")
        for _ in range(3):
            place.turn()
    assert len(place.heard) == A_SECOND
    assert place.notify.wake_at() == 101.0
    place.notify.wake(100.9)
    place.turn()
    assert len(place.heard) == A_SECOND
    place.now = 101.0
    place.notify.wake(101.0)
    place.turn()
    assert len(place.heard) > A_SECOND
    assert place.notify.wake_at() is None


def test_what_is_dropped_is_closed_and_forgotten(place: Place) -> None:
    before = len(os.listdir("/proc/self/fd"))
    place.open(os.getpid())
    assert len(os.listdir("/proc/self/fd")) == before, "the one before is closed"
    place.notify.drop(RUN)
    place.notify.drop(RUN)
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert place.notify.wake_at() is None


def test_what_was_said_before_an_exit_is_heard_before_it(place: Place) -> None:
    for _ in range(3):
        place.service.send(b"STATUS=x")
    place.service.send(b"MAINPID=4711")
    place.notify.hear_out(RUN)
    assert [said for _, said, _ in place.heard] == [{"STATUS": "x"}] * 3 + [{"MAINPID": "4711"}]
    place.notify.hear_out(RUN)
    place.notify.hear_out(99)
    place.service.setblocking(False)
    for _ in range(A_SECOND):
        with contextlib.suppress(BlockingIOError):
            place.service.send(b"STATUS=x")
        place.notify.hear_out(RUN)
    assert len(place.heard) == A_SECOND, "also now it holds up nobody"


def test_an_error_of_the_socket_is_survived(place: Place) -> None:
    place.notify._hear(RUN, select.EPOLLERR)
    assert place.heard == []


@pytest.fixture
def writer(place: Place) -> Iterator[int]:
    """The end of a pipe that a service writes to, whose other end is heard."""
    reader, end = os.pipe()
    os.set_blocking(end, False)
    place.notify.add(Pipe(RUN, reader))
    yield end
    with contextlib.suppress(OSError):
        os.close(end)


def test_a_newline_says_ready_and_the_bytes_before_and_after_it_say_nothing(place: Place, writer: int) -> None:
    for data, heard in ((b"READY=1", 0), (b"\0x", 0), (b"almost\n", 1), (b"more", 1), (b"\n", 2)):
        os.write(writer, data)
        place.turn()
        assert place.heard == [(RUN, {"READY": "1"}, 100.0)] * heard, data


def test_the_end_of_the_pipe_says_nothing_and_wakes_nobody_again(place: Place, writer: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    os.close(writer)
    place.turn()
    assert place.heard == []
    assert len(os.listdir("/proc/self/fd")) == before - 2
    place.notify.drop(RUN)


def test_a_service_that_writes_without_end_is_heard_again_in_the_next_second(place: Place, writer: int) -> None:
    for _ in range(A_SECOND + 1):
        os.write(writer, b"x")
        place.loop.turn(0)
    assert place.notify.wake_at() == 101.0
    os.write(writer, b"\n")
    place.turn()
    assert place.heard == []
    place.now = 101.0
    place.notify.wake(101.0)
    place.turn()
    assert place.heard == [(RUN, {"READY": "1"}, 101.0)]


def test_that_it_is_ready_is_written_down_while_the_next_supervisor_would_still_find_it(place: Place) -> None:
    """A kill in the middle of that is told by an exception: what was said is there for who listens next."""

    class Killed(Exception):
        pass

    def remember(run: int, said: bool) -> None:
        place.remembered.append(said)
        raise Killed

    other, place.notify._remember = place.notify._remember, remember
    place.service.send(b"STATUS=busy\nREADY=1")
    with pytest.raises(Killed):
        place.loop.turn(0)
    place.notify._remember = other
    place.turn()
    assert [said for _, said, _ in place.heard] == [{"READY": "1", "STATUS": "busy"}]
    assert place.remembered == [True, True]
    place.turn()
    assert place.say(b"STATUS=x") == [{"STATUS": "x"}], "it is taken then"
    assert place.remembered == [True, True], "what says something else is not written down"


def test_a_pipe_is_read_only_after_it_was_written_down_and_what_was_no_newline_is_taken_back(
    place: Place, writer: int
) -> None:
    for data, told in ((b"almost", [True, False]), (b"\n", [True])):
        place.remembered.clear()
        os.write(writer, data)
        place.turn()
        assert place.remembered == told
    place.remembered.clear()
    os.close(writer)
    place.turn()
    assert place.remembered == [True, False], "its end says nothing"


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        (b"READY=1", {"READY": "1"}),
        (b"STATUS=a=b", {"STATUS": "a=b"}),
        (b"FDSTORE=1\nEXTEND_TIMEOUT_USEC=9\n\xff", {}),
        (b"MAINPID=2", {"MAINPID": "2"}),
        (b"MAINPID=4194304\nREADY=1", {"MAINPID": "4194304", "READY": "1"}),
        (b"MAINPID=1", {}),
        (b"MAINPID=4194305", {}),
        (b"MAINPID=-5", {}),
        (b"MAINPID=", {}),
        (b"MAINPID= 5", {}),
        ("MAINPID=\u0665\u0666".encode(), {}),
        (b"MAINPID=" + b"9" * 4000, {}),
        (b"STATUS=" + b"x" * 1000, {"STATUS": "x" * STATUS}),
        ("STATUS=\x1b[2Jé\u202e\udcff".encode("utf-8", "surrogateescape"), {"STATUS": "[2Jé"}),
    ],
)
def test_d16_what_is_said_is_cut_and_has_no_control_characters(packet: bytes, said: dict[str, str]) -> None:
    found = parse(packet)
    if "STATUS" in found:
        found["STATUS"] = found["STATUS"].rstrip("\N{REPLACEMENT CHARACTER}")
    assert found == said


@pytest.mark.parametrize("heard", [True, False])
def test_a_descriptor_whose_end_takes_an_hour_holds_up_neither_its_hearing_nor_its_socket_s_end(
    tmp_path: Path, heard: bool
) -> None:
    def act() -> None:
        place = Place(tmp_path)
        with lingering() as sock:
            place.service.sendmsg([b"READY=1"], rights(sock))
            sock.close()
            if heard:
                place.turn()
                assert [said for _, said, _ in place.heard] == [{"READY": "1"}]
            place.notify.drop(RUN)

    assert does(act)
