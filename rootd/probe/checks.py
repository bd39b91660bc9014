"""One check over TCP or HTTP after the other, all at once: what may be asked, what is sent, what an answer means.

Rule 1: an address is numbers or a path: no name is looked up, and nothing is waited for but by the loop.
Rule 2: of what a service says 13 bytes are kept; the status in them is all that anybody is told of it.
Rule 3: every check has an end, at its deadline if not before, and exactly one answer.

Sources: connect(2) (EINPROGRESS; EAGAIN of a Unix socket whose queue is full), socket(7) SO_ERROR, RFC 9112 §3, §4.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from functools import partial

from rootd import closing, ipc

CHECKS_LIMIT = 1_024  # under way at once
TIMEOUT_LIMIT = 600_000  # milliseconds
TARGET_LIMIT = 2_000  # bytes
PATH_LIMIT = 107  # bytes of a Unix socket's path
READ_LIMIT = 4_096  # bytes of an answer that are read at once; what is not read makes a reset of the close
AGAIN = 0.05  # seconds until a socket whose queue was full is tried again
CLOSED = "connection closed without an answer"
NOT_HTTP = "not HTTP"
REQUEST = "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: durward-probe\r\nConnection: close\r\n\r\n"
# a status line as far as the end of its status: what each byte may be
DIGITS = b"0123456789"
SHAPE = (b"H", b"T", b"T", b"P", b"/", b"1", b".", DIGITS, b" ", b"12345", DIGITS, DIGITS, b" \r\n")


class Check:
    """One that was asked for. `rest` is what of the request is not sent: nothing from the start means TCP alone."""

    __slots__ = ("address", "deadline", "due", "family", "heard", "rest", "seq", "sock", "timeout")

    def __init__(self, seq: int, timeout: int, family: int, address: str | tuple[str, int], rest: bytes) -> None:
        self.seq = seq
        self.timeout = timeout  # milliseconds
        self.family = family
        self.address = address
        self.rest = rest
        self.heard = b""
        self.sock: socket.socket | None = None  # None: its queue is full, and it is tried again when `due`
        self.deadline = self.due = 0.0  # seconds, by the clock of the loop


def asked(message: ipc.Message) -> Check:
    """What a CHECK asks for. Raises ipc.Malformed for a message that the supervisor does not send."""
    if message.op != ipc.CHECK or message.scope not in (ipc.TCP, ipc.HTTP):
        raise ipc.Malformed(f"{message!r}, which is no check")
    if not 1 <= message.arg <= TIMEOUT_LIMIT:
        raise ipc.Malformed(f"a timeout of {message.arg} ms")
    family, address, host = address_of(message.name)
    rest = b""
    if message.scope == ipc.HTTP:
        target = message.body
        if not target.startswith(b"/") or len(target) > TARGET_LIMIT or not all(0x20 < byte < 0x7F for byte in target):
            raise ipc.Malformed(f"the target {target[:80]!r}")
        rest = REQUEST.format(target.decode(), host).encode()
    elif message.body:
        raise ipc.Malformed("a target where none belongs")
    return Check(message.seq, message.arg, family, address, rest)


def address_of(key: str) -> tuple[int, str | tuple[str, int], str]:
    """Family, address for connect(2), and Host for HTTP, by the key of a socket. Raises ipc.Malformed."""
    kind, _, where = key.partition(":")
    if kind == "unix" and where.startswith("/") and "\0" not in where and len(where.encode()) <= PATH_LIMIT:
        return socket.AF_UNIX, where, "localhost"
    host, _, port = where.rpartition(":")
    v6 = host.startswith("[") and host.endswith("]")
    family, bare = (socket.AF_INET6, host[1:-1]) if v6 else (socket.AF_INET, host)
    try:
        if kind == "tcp" and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535 and "\0" not in bare:
            socket.inet_pton(family, bare)
            return family, (bare, int(port)), where
    except OSError:
        pass
    raise ipc.Malformed(f"the address {key!r}")


def verdict(heard: bytes) -> str | None:
    """What the first bytes of an answer mean: "" is success, a text is why not, None is that more is needed."""
    if not all(byte in may for byte, may in zip(heard, SHAPE, strict=False)):
        return NOT_HTTP
    if len(heard) < len(SHAPE):
        return None
    status = int(heard[9:12])
    return "" if 200 <= status < 400 else f"HTTP status {status}"


def why(number: int) -> str:
    """An errno, for people."""
    return os.strerror(number).lower()


def is_itself(sock: socket.socket) -> bool:
    """Nobody listens there, and the kernel chose that very port for our end: TCP then connects a socket to itself."""
    return bool(sock.getsockname() == sock.getpeername())


class Checks:
    """Those that are under way, each with a socket of its own. answer(seq, problem): "" is success."""

    def __init__(self, loop: ipc.Loop, answer: Callable[[int, str], None]) -> None:
        self._loop = loop
        self._answer = answer
        self._under_way: dict[int, Check] = {}

    def begin(self, check: Check, now: float) -> None:
        """Raises ipc.Malformed where one of that number is under way. It may be answered before this returns."""
        if check.seq in self._under_way:
            raise ipc.Malformed(f"check {check.seq}, which is under way already")
        if len(self._under_way) >= CHECKS_LIMIT:
            return self._answer(check.seq, f"{CHECKS_LIMIT} checks are under way already")
        check.deadline = check.due = now + check.timeout / 1000
        self._under_way[check.seq] = check
        return self._connect(check, now)

    def wake_at(self) -> float | None:
        """When the next one is due; None while none is under way."""
        return min((check.due for check in self._under_way.values()), default=None)

    def wake(self, now: float) -> None:
        """The deadlines that have passed, and what is to be tried again."""
        for check in [check for check in self._under_way.values() if check.due <= now]:
            if now < check.deadline:
                self._connect(check, now)
            elif check.sock is None:
                self._end(check, "its queue of connections is full")
            else:
                self._end(check, f"no answer in {check.timeout / 1000:g} s")

    def clear(self) -> None:
        """Whoever asked is gone: nothing is answered."""
        for check in self._under_way.values():
            self._close(check)
        self._under_way.clear()

    def _connect(self, check: Check, now: float) -> None:
        check.due = check.deadline
        try:
            check.sock = sock = socket.socket(check.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            number = sock.connect_ex(check.address)
            if number == errno.EINPROGRESS:
                return self._loop.watch(sock.fileno(), partial(self._connected, check, sock), select.EPOLLOUT)
        except OSError as error:
            return self._end(check, why(error.errno or 0))
        if number == errno.EAGAIN:
            self._close(check)
            check.due = min(check.deadline, now + AGAIN)
            return None
        return self._end(check, why(number)) if number else self._connected(check, sock)

    def _connected(self, check: Check, sock: socket.socket, _events: int = 0) -> None:
        try:
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not number and check.family != socket.AF_UNIX and is_itself(sock):
                number = errno.ECONNREFUSED
        except OSError as error:
            number = error.errno or 0
        if number or not check.rest:
            return self._end(check, why(number) if number else "")
        return self._send(check, sock)

    def _send(self, check: Check, sock: socket.socket, _events: int = 0) -> None:
        try:
            check.rest = check.rest[sock.send(check.rest) :]
        except BlockingIOError:
            pass
        except OSError as error:
            return self._end(check, CLOSED if isinstance(error, ConnectionError) else why(error.errno or 0))
        if check.rest:
            return self._loop.watch(sock.fileno(), partial(self._send, check, sock), select.EPOLLOUT)
        return self._loop.watch(sock.fileno(), partial(self._hear, check, sock), select.EPOLLIN)

    def _hear(self, check: Check, sock: socket.socket, _events: int = 0) -> None:
        try:
            said = closing.at_once(lambda: sock.recv(READ_LIMIT))
        except BlockingIOError:
            return
        except ConnectionError:
            said = b""
        except OSError as error:
            return self._end(check, why(error.errno or 0))
        check.heard = (check.heard + said)[: len(SHAPE)]
        found = verdict(check.heard)
        if found is not None or not said:
            self._end(check, CLOSED if found is None else found)

    def _end(self, check: Check, problem: str) -> None:
        self._close(check)
        del self._under_way[check.seq]
        self._answer(check.seq, problem)

    def _close(self, check: Check) -> None:
        if check.sock is not None:
            self._loop.forget(check.sock.fileno())
            closing.at_once(check.sock.close)
            check.sock = None
