"""rootd/probe/checks: real sockets on loopback, served by the test itself; time passes when the test says so."""

from __future__ import annotations

import errno
import functools
import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootd import ipc
from rootd.probe import checks

WAIT = 20.0  # seconds before a test gives up
BEGUN = 1_000.0
OK = b"HTTP/1.1 200 OK\r\n"
once = functools.cache(gc.collect)  # what other tests have left open is closed then, and not while we count


class Bench:
    """Checks on a loop of their own, and what was answered."""

    def __init__(self) -> None:
        self.loop = ipc.Loop()
        self.answers: dict[int, str] = {}
        self.checks = checks.Checks(self.loop, self.answer)
        self.servers: list[socket.socket] = []

    def answer(self, seq: int, problem: str) -> None:
        assert seq not in self.answers, "answered twice"
        self.answers[seq] = problem

    def server(self, where: str = "", family: int = socket.AF_INET, backlog: int = 512) -> tuple[socket.socket, str]:
        """A socket that listens, and its key."""
        sock = socket.socket(family)
        sock.settimeout(WAIT)
        self.servers.append(sock)
        if family == socket.AF_UNIX:
            sock.bind(where)
            key = f"unix:{where}"
        else:
            sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
            host, port = sock.getsockname()[:2]
            key = f"tcp:{host}:{port}" if family == socket.AF_INET else f"tcp:[{host}]:{port}"
        sock.listen(backlog)
        return sock, key

    def ask(self, key: str, target: bytes | None = None, seq: int = 1, timeout: int = 2_000) -> None:
        scope = ipc.TCP if target is None else ipc.HTTP
        message = ipc.Message(ipc.CHECK, seq=seq, scope=scope, arg=timeout, name=key, body=target or b"")
        self.checks.begin(checks.asked(ipc.decode(message.encode(), body=True)), BEGUN)

    def accept(self, server: socket.socket) -> socket.socket:
        conn, _ = server.accept()
        conn.settimeout(WAIT)
        self.servers.append(conn)
        return conn

    def request(self, conn: socket.socket) -> bytes:
        """The whole of it, while the check is served."""
        heard = b""
        while not heard.endswith(b"\r\n\r\n"):
            self.loop.turn(0)
            if ipc.wait(conn, seconds=0.05):
                heard += conn.recv(1 << 16)
        return heard

    def until(self, seq: int = 1) -> str:
        for _ in range(400):
            if seq in self.answers:
                return self.answers[seq]
            self.loop.turn(WAIT / 400)
        raise AssertionError("not answered")

    def said(self, conn: socket.socket, *parts: bytes, end: bool = True) -> str:
        """The request is read, this is answered, and what that means."""
        self.request(conn)
        for part in parts:
            conn.sendall(part)
        if end:
            conn.close()
        return self.until()

    def close(self) -> None:
        self.checks.clear()
        self.loop.close()
        for sock in self.servers:
            sock.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    once()
    made = Bench()
    before = len(os.listdir("/proc/self/fd"))
    yield made
    made.checks.clear()
    for sock in made.servers:
        sock.close()
    made.servers.clear()
    assert len(os.listdir("/proc/self/fd")) == before, "no socket is left"
    made.close()


FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX], ids=str)


@FAMILIES
def test_who_accepts_is_there_for_tcp(bench: Bench, tmp_path: Path, family: int) -> None:
    _, key = bench.server(str(tmp_path / "door"), family)
    bench.ask(key)
    assert bench.until() == ""
    assert bench.checks.wake_at() is None


@FAMILIES
def test_who_does_not_listen_is_not(bench: Bench, tmp_path: Path, family: int) -> None:
    server, key = bench.server(str(tmp_path / "door"), family)
    server.close()
    for seq, target in ((1, None), (2, b"/")):
        bench.ask(key, target, seq)
        assert bench.until(seq) == "connection refused"


@FAMILIES
def test_one_get_is_sent_and_its_status_is_the_answer(bench: Bench, tmp_path: Path, family: int) -> None:
    server, key = bench.server(str(tmp_path / "door"), family)
    bench.ask(key, b"/healthz?deep=1")
    conn = bench.accept(server)
    host = b"localhost" if family == socket.AF_UNIX else key.partition(":")[2].encode()
    assert bench.request(conn) == (
        b"GET /healthz?deep=1 HTTP/1.1\r\nHost: " + host + b"\r\nUser-Agent: durward-probe\r\nConnection: close\r\n\r\n"
    )
    conn.sendall(OK + b"Content-Length: 2\r\n\r\nok")
    assert bench.until() == ""


@pytest.mark.parametrize(
    ("status", "problem"),
    [(200, ""), (204, ""), (302, ""), (399, ""), (400, "HTTP status 400"), (404, "HTTP status 404"),
     (503, "HTTP status 503"), (599, "HTTP status 599"), (103, "HTTP status 103"), (199, "HTTP status 199")],
)  # fmt: skip
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_status_from_200_to_399_is_success(bench: Bench, status: int, problem: str, version: bytes) -> None:
    server, key = bench.server()
    bench.ask(key, b"/")
    line = b"HTTP/%b %d its words\r\n\r\n" % (version, status)
    assert bench.said(bench.accept(server), line) == problem


@pytest.mark.parametrize(
    "said",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x03\x00\x02\x02\x0a", b"HTTP/2.0 200 OK\r\n", b"http/1.1 200 OK\r\n",
     b"HTTP/1.1 600 OK\r\n", b"HTTP/1.1 099 OK\r\n", b"HTTP/1.1 2000 OK\r\n", b"HTTP/1.1  200 OK\r\n",
     b"HTTP/1.1 +20 OK\r\n", b"HTTP/1.1 20\xb2 OK\r\n", b"<html>", b"\0" * 100, b"\r\n" + OK, b"HTTP/1.11 200 OK\r\n"],
)  # fmt: skip
def test_what_is_no_status_line_is_not_http(bench: Bench, said: bytes) -> None:
    server, key = bench.server()
    bench.ask(key, b"/")
    assert bench.said(bench.accept(server), said) == "not HTTP"


@pytest.mark.parametrize("said", [b"", b"H", b"HTTP/1.1", b"HTTP/1.1 200"])
def test_who_closes_before_its_status_is_whole_has_not_answered(bench: Bench, said: bytes) -> None:
    server, key = bench.server()
    bench.ask(key, b"/")
    assert bench.said(bench.accept(server), said) == "connection closed without an answer"


@FAMILIES
def test_who_closes_at_once_has_not_answered(bench: Bench, tmp_path: Path, family: int) -> None:
    server, key = bench.server(str(tmp_path / "door"), family)
    bench.ask(key, b"/")
    bench.accept(server).close()
    assert bench.until() == "connection closed without an answer"


def test_who_is_reset_has_not_answered(bench: Bench) -> None:
    server, key = bench.server()
    bench.ask(key, b"/")
    conn = bench.accept(server)
    bench.request(conn)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    conn.close()
    assert bench.until() == "connection closed without an answer"


@pytest.mark.parametrize("target", [None, b"/"])
def test_who_resets_at_once_is_not_there(bench: Bench, target: bytes | None) -> None:
    server, key = bench.server()
    bench.ask(key, target)
    conn = bench.accept(server)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    conn.close()
    assert bench.until() == "connection reset by peer"


def test_who_closes_at_once_is_there_for_tcp(bench: Bench) -> None:
    server, key = bench.server()
    bench.ask(key)
    bench.accept(server).close()
    assert bench.until() == ""


def test_an_answer_may_come_a_byte_at_a_time(bench: Bench) -> None:
    server, key = bench.server()
    bench.ask(key, b"/")
    conn = bench.accept(server)
    bench.request(conn)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in OK[:12]:
        conn.send(bytes((byte,)))
        bench.loop.turn(WAIT)
        assert bench.answers == {}
    conn.send(b" ")
    assert bench.until() == ""


@pytest.mark.parametrize("first", [OK, b"HTTP/1.1 200 "])
def test_headers_without_end_are_not_waited_for(bench: Bench, first: bytes) -> None:
    server, key = bench.server()
    bench.ask(key, b"/")
    assert bench.said(bench.accept(server), first, b"X-Endless: yes\r\n" * 1_000, end=False) == ""


def test_of_an_answer_without_end_13_bytes_are_kept(bench: Bench) -> None:
    server, key = bench.server()
    bench.ask(key, b"/")
    conn = bench.accept(server)
    bench.request(conn)
    (check,) = bench.checks._under_way.values()
    assert check.sock is not None
    bench.checks._hear(check, check.sock)  # woken for nothing
    conn.sendall(OK * 10_000)
    assert bench.until() == ""
    assert check.heard == OK[:13]


def test_who_does_not_answer_has_its_time_and_no_more(bench: Bench) -> None:
    server, key = bench.server()
    bench.ask(key, b"/")
    conn = bench.accept(server)
    bench.request(conn)
    assert bench.checks.wake_at() == BEGUN + 2
    bench.checks.wake(BEGUN + 1.999)
    assert bench.answers == {}
    bench.checks.wake(BEGUN + 2)
    assert bench.answers == {1: "no answer in 2 s"}
    assert conn.recv(1) == b"", "the connection is closed"


def test_each_check_has_a_deadline_of_its_own(bench: Bench) -> None:
    _, key = bench.server()
    for seq, timeout in ((1, 1_500), (2, 250), (3, 600_000)):
        bench.ask(key, b"/", seq, timeout)
    assert bench.checks.wake_at() == BEGUN + 0.25
    bench.checks.wake(BEGUN + 100)
    assert bench.answers == {2: "no answer in 0.25 s", 1: "no answer in 1.5 s"}
    bench.checks.wake(BEGUN + 600)
    assert bench.answers[3] == "no answer in 600 s"


def test_a_tcp_queue_that_is_full_is_no_answer(bench: Bench) -> None:
    _, key = bench.server(backlog=0)
    for seq in range(8):
        bench.ask(key, None, seq)
        bench.loop.turn(0)
    bench.checks.wake(BEGUN + 2)
    assert sorted(set(bench.answers.values())) == ["", "no answer in 2 s"]


def test_a_unix_queue_that_is_full_is_tried_again_until_the_deadline(bench: Bench, tmp_path: Path) -> None:
    server, key = bench.server(str(tmp_path / "door"), socket.AF_UNIX, backlog=0)
    bench.ask(key, b"/", 1)  # it is in the queue
    bench.ask(key, None, 2)
    bench.ask(key, None, 3, timeout=50)
    assert bench.answers == {}
    assert bench.checks.wake_at() == BEGUN + checks.AGAIN
    bench.checks.wake(BEGUN + checks.AGAIN)
    assert bench.answers == {3: "its queue of connections is full"}
    bench.accept(server)
    bench.checks.wake(BEGUN + 1.99)
    assert bench.answers[2] == ""


def test_a_request_that_does_not_fit_at_once_is_sent_as_it_does(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Narrow(socket.socket):
        """send(2) takes what there is room for: here 100 bytes, and every other time none."""

        turns = 0

        def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]
            Narrow.turns += 1
            if Narrow.turns % 2:
                raise BlockingIOError(errno.EAGAIN, "full")
            return super().send(data[:100], flags)

    server, key = bench.server(str(tmp_path / "door"), socket.AF_UNIX)
    monkeypatch.setattr(checks.socket, "socket", Narrow)
    bench.ask(key, b"/" + b"x" * 1_999)
    conn = bench.accept(server)
    request = bench.request(conn)
    assert request.startswith(b"GET /xx")
    assert request.count(b"x") == 1_999
    conn.sendall(OK)
    assert bench.until() == ""


def test_a_socket_that_is_connected_to_itself_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may choose the very port that is checked for our end: nobody listens, and TCP connects."""

    class Unlucky(socket.socket):
        def connect_ex(self, address: object) -> int:
            self.bind(address)  # type: ignore[arg-type]
            return super().connect_ex(address)  # type: ignore[arg-type]

    server, key = bench.server()
    server.close()
    monkeypatch.setattr(checks.socket, "socket", Unlucky)
    bench.ask(key)
    assert bench.until() == "connection refused"


def test_hundreds_at_once_are_each_answered(bench: Bench) -> None:
    server, key = bench.server()
    for seq in range(300):
        bench.ask(key, b"/" if seq % 2 else None, seq)
    conns = [bench.accept(server) for _ in range(300)]
    for conn in conns:
        conn.setblocking(False)
    waiting = set(conns)
    for _ in range(10_000):
        if len(bench.answers) == 300:
            break
        bench.loop.turn(0.01)
        for conn in list(waiting):
            try:
                heard = conn.recv(4_096)
            except BlockingIOError:
                continue
            waiting.discard(conn)
            if heard:
                conn.sendall(OK)
    assert bench.answers == dict.fromkeys(range(300), "")


def test_one_more_than_the_limit_is_answered_at_once_and_frees_no_place(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "CHECKS_LIMIT", 3)
    _, key = bench.server()
    for seq in range(5):
        bench.ask(key, b"/", seq)
    assert bench.answers == dict.fromkeys((3, 4), "3 checks are under way already")
    bench.checks.wake(BEGUN + 2)
    bench.ask(key, None, 5)
    assert bench.until(5) == ""


def test_when_no_descriptor_is_left_that_is_the_reason(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "full")

    _, key = bench.server()
    monkeypatch.setattr(checks.socket, "socket", none_left)
    bench.ask(key)
    assert bench.answers == {1: "too many open files"}


def test_a_socket_of_another_kind_and_none_at_all_are_said(bench: Bench, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as packets:
        packets.bind(str(tmp_path / "packets"))
        packets.listen()
        bench.ask(f"unix:{tmp_path}/packets", None, 1)
    bench.ask(f"unix:{tmp_path}/absent", None, 2)
    assert bench.answers == {1: "protocol wrong type for socket", 2: "no such file or directory"}


def test_clear_answers_nothing_and_leaves_no_socket(bench: Bench) -> None:
    server, key = bench.server()
    bench.ask(key, b"/")
    conn = bench.accept(server)
    bench.request(conn)
    bench.checks.clear()
    assert conn.recv(1) == b""
    bench.checks.wake(BEGUN + 10)
    assert bench.answers == {}


def test_a_second_check_of_the_same_number_is_malformed(bench: Bench) -> None:
    _, key = bench.server()
    bench.ask(key, b"/")
    with pytest.raises(ipc.Malformed, match="under way already"):
        bench.ask(key, b"/")
