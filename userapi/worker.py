"""The gunicorn worker: one loop reads, threads answer, and a request that is not whole never holds a thread.

Rule 1: the loop collects each request to its last byte, within REQUEST seconds of the connection's beginning or of
        the answer before. Half-sent requests cost a descriptor each; when there are too many the oldest goes.
Rule 2: a thread gets whole requests as bytes and reads no socket. It gets none before what was answered has left room
        for the next answer, and what it writes has a deadline as a whole. Where the peer is slow to read, a stream
        keeps its thread, which it has a permit for; the rest of any other answer is the loop's to send.
Rule 3: with a certificate every TCP socket speaks TLS, 1.2 at least; a Unix socket never does.
Rule 4: no error page, no version and no text of the request goes out: problem details only.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import ssl
import struct
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gunicorn.http import RequestParser, wsgi
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, NoMoreData, ParseException
from gunicorn.workers.base import Worker as Base

from userapi.framing import Bad, Framing, Wait
from userapi.http.problems import document

REQUEST = 10.0  # seconds for one request to arrive, TLS handshake included
RESPONSE = 10.0  # seconds for one answer to leave, of its first byte on; streams ask for more
LINGER = 1.0  # seconds that an answer has to be read after the connection was closed for writing
MOST = 500  # connections of one worker
UNSENT = 32 * 1024 * 1024  # bytes of answers that wait to be read, in one worker; who is beyond that is hung up on
UCRED = struct.Struct("3i")  # struct ucred of unix(7)
STOPPING = 8.0  # seconds for what is being answered, when the worker ends


class Connection:
    """One peer. Belongs to the loop while it waits, to one thread while it is answered."""

    def __init__(self, sock: socket.socket, peer: Any, local: Any) -> None:
        self.sock = sock
        self.peer = peer
        self.local = local
        self.secure = False
        self.shaking = False
        self.lingering = False
        self.continued = False
        self.data = bytearray()
        self.framing = Framing()
        self.left = bytearray()  # of the answer, for the loop to send
        self.until = time.monotonic() + REQUEST

    def has_room(self) -> bool:
        """Does an answer find room to leave? Where the peer is gone it finds its end at once."""
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLOUT)
        return bool(poll.poll(0))


class Out:
    """What gunicorn's response writes to. The whole answer must be gone by its deadline, `until`.

    left: what the peer has no room for yet, of an answer that is no stream.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._stream = False
        self.until = 0.0
        self.left = bytearray()

    def extend(self, seconds: float) -> None:
        self._stream = True
        self.until = max(self.until, time.monotonic() + seconds)

    def sendall(self, data: bytes) -> None:
        self.until = self.until or time.monotonic() + RESPONSE
        view = memoryview(data)
        while view and not self.left:
            left = self.until - time.monotonic()
            if left <= 0:
                raise TimeoutError("the answer was not read in time")
            self._sock.settimeout(left if self._stream else 0)
            try:
                view = view[self._sock.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                break
        self.left += view

    def send(self, data: bytes) -> int:
        """gunicorn sends nothing so but 100 Continue, and the loop has sent that."""
        return len(data)

    def gone(self) -> bool:
        """Has the peer hung up?"""
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))


def local(sock: socket.socket) -> str:
    """Who connected to a Unix socket, as REMOTE_ADDR has it: the uid that the kernel says, and no pid."""
    _, uid, _ = UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return f"unix:{uid}"


def context(certificate: str, key: str) -> ssl.SSLContext:
    """Raises OSError, ssl.SSLError among them."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_cert_chain(certificate, key)
    made.set_alpn_protocols(["http/1.1"])
    return made


class Worker(Base):  # type: ignore[misc]  # gunicorn has no types
    def init_process(self) -> None:
        self._poller = selectors.DefaultSelector()
        self._threads = ThreadPoolExecutor(max_workers=self.cfg.threads, thread_name_prefix="answer")
        self._waiting: dict[Connection, None] = {}  # the longest waiting first
        self._answered: deque[tuple[Connection, bool]] = deque()
        self._busy = 0
        self._unsent = 0  # bytes of what waits to be read
        self._listening = False
        self._swept = 0.0
        self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        tls = getattr(self, "tls", None)  # set by gunicorn_conf's post_fork
        self._tls = context(tls.certificate, tls.key) if tls is not None else None
        super().init_process()

    def handle_quit(self, sig: int, frame: Any) -> None:
        self.alive = False  # like SIGTERM: the loop ends, and what is being answered has STOPPING seconds

    def run(self) -> None:
        self._poller.register(self._wake[0], selectors.EVENT_READ, self._drain)
        self._poller.register(self.PIPE[0], selectors.EVENT_READ, self._drain)
        while self.alive and self.ppid == os.getppid():
            self._listen(self._busy + len(self._waiting) < MOST or bool(self._waiting))
            self._turn(1.0)
        self.alive = False
        self._listen(False)
        until = time.monotonic() + STOPPING
        while (self._busy or self._unsent) and time.monotonic() < until:
            self._turn(0.2)
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._busy:
            os._exit(0)  # a thread that nobody reads from would keep the process

    def _turn(self, seconds: float) -> None:
        self.notify()
        there = self._poller.get_map()
        for key, _ in self._poller.select(seconds):
            if there.get(key.fd) is key:  # else it has gone for another one in this very turn
                key.data(key.fileobj)
        while self._answered:
            self._take_back(*self._answered.popleft())
        now = time.monotonic()
        if now - self._swept >= 0.5:
            self._swept = now
            for connection in [waiting for waiting in self._waiting if waiting.until <= now]:
                self._drop(connection)

    def _drain(self, pipe: Any) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(pipe, 4096):
                pass

    def _listen(self, yes: bool) -> None:
        if yes == self._listening:
            return
        self._listening = yes
        for listener in self.sockets:
            if yes:
                listener.setblocking(False)
                self._poller.register(listener.sock, selectors.EVENT_READ, self._accept)
            else:
                self._poller.unregister(listener.sock)

    def _accept(self, listener: Any) -> None:
        for _ in range(16):
            try:
                sock, peer = listener.accept()
            except OSError:  # nothing more, or no descriptor left: the next turn tries again
                return
            sock.setblocking(False)
            unix = sock.family == socket.AF_UNIX
            connection = Connection(
                sock, local(sock) if unix else peer, ("localhost", 80) if unix else sock.getsockname()
            )
            if self._tls is not None and not unix:
                try:
                    connection.sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                except OSError:  # gone already
                    sock.close()
                    continue
                connection.secure = connection.shaking = True
            if self._busy + len(self._waiting) >= MOST and self._waiting:
                self._drop(next(iter(self._waiting)))
            self._wait(connection)

    def _wait(self, connection: Connection) -> None:
        self._waiting[connection] = None
        self._poller.register(connection.sock, selectors.EVENT_READ, lambda _: self._readable(connection))

    def _forget(self, connection: Connection) -> None:
        del self._waiting[connection]
        self._poller.unregister(connection.sock)

    def _drop(self, connection: Connection) -> None:
        self._forget(connection)
        self._unsent -= len(connection.left)
        with contextlib.suppress(OSError):
            connection.sock.close()

    def _readable(self, connection: Connection) -> None:
        sock = connection.sock
        try:
            if connection.shaking and isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
                connection.shaking = False
            while True:
                data = sock.recv(16384)
                if not data:
                    self._drop(connection)
                    return
                if not connection.lingering:
                    connection.data += data
                if not (isinstance(sock, ssl.SSLSocket) and sock.pending()):
                    break
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except ssl.SSLWantWriteError:  # its window is full although it has read nothing yet: not a client of ours
            self._drop(connection)
            return
        except (OSError, ValueError):
            self._drop(connection)
            return
        if not connection.lingering:
            self._look(connection)

    def _look(self, connection: Connection) -> None:
        found = connection.framing.look(connection.data)
        if isinstance(found, Wait):
            if found.expects and not connection.continued:
                connection.continued = True
                with contextlib.suppress(OSError):
                    connection.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        if not connection.has_room():  # it has not read the answers before
            self._poller.modify(connection.sock, selectors.EVENT_WRITE, lambda _: self._look(connection))
            return
        self._forget(connection)
        self._busy += 1
        if isinstance(found, Bad):
            self._threads.submit(self._answer, connection, b"", True, found.status)
            return
        request = bytes(connection.data[: found.length])
        del connection.data[: found.length]
        connection.framing = Framing()
        self._threads.submit(self._answer, connection, request, found.last, 0)

    def _take_back(self, connection: Connection, keep: bool) -> None:
        """On the loop: what a thread has answered is sent to its end."""
        self._busy -= 1
        if not connection.left:
            self._go_on(connection, keep)
        elif self._unsent + len(connection.left) > UNSENT:
            connection.sock.close()
        else:
            self._unsent += len(connection.left)
            connection.sock.setblocking(False)
            self._waiting[connection] = None
            self._poller.register(connection.sock, selectors.EVENT_WRITE, lambda _: self._send(connection, keep))

    def _send(self, connection: Connection, keep: bool) -> None:
        try:
            sent = connection.sock.send(connection.left)
        except (BlockingIOError, ssl.SSLWantWriteError):
            return
        except (OSError, ValueError):
            self._drop(connection)
            return
        del connection.left[:sent]
        self._unsent -= sent
        if not connection.left:
            self._forget(connection)
            self._go_on(connection, keep)

    def _go_on(self, connection: Connection, keep: bool) -> None:
        """What was answered waits for its next request, or lingers."""
        try:
            connection.sock.setblocking(False)
            if not keep:
                if isinstance(connection.sock, ssl.SSLSocket):
                    with contextlib.suppress(OSError, ValueError):
                        connection.sock.unwrap()  # says that this is the end, and does not wait for an answer
                connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            connection.sock.close()
            return
        connection.continued = False
        connection.lingering = not keep
        connection.until = time.monotonic() + (REQUEST if keep else LINGER)
        self._wait(connection)
        if connection.data and keep:
            self._look(connection)
        elif isinstance(connection.sock, ssl.SSLSocket) and connection.sock.pending():
            self._readable(connection)

    def _answer(self, connection: Connection, request: bytes, last: bool, status: int) -> None:
        """In a thread."""
        keep = False
        out = Out(connection.sock)
        try:
            if status:
                _refuse(out, status)
            else:
                keep = self._respond(connection, request, out) and not last
        except (OSError, ValueError):
            keep = False  # the peer is gone, or did not read
        except BaseException:
            self.log.exception("an answer failed")
        else:
            connection.left, connection.until = out.left, out.until
        finally:
            self._answered.append((connection, keep and self.alive))
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake[1], b"!")

    def _respond(self, connection: Connection, data: bytes, out: Out) -> bool:
        """True when the connection may go on."""
        try:
            request = next(RequestParser(self.cfg, [data], connection.peer))
        except (NoMoreData, StopIteration):
            return False
        except ParseException as error:
            _refuse(out, _status(error))
            return False
        request.scheme = "https" if connection.secure else "http"
        response, environ = wsgi.create(request, out, connection.peer, connection.local, self.cfg)
        response.version = "durward"
        environ["wsgi.multithread"] = True
        environ["durward.extend"] = out.extend
        environ["durward.gone"] = lambda: not self.alive or out.gone()
        if not self.alive:
            response.force_close()
        parts = self.wsgi(environ, response.start_response)
        try:
            for part in parts:
                response.write(part)
            response.close()
        finally:
            if hasattr(parts, "close"):
                parts.close()
        return not response.should_close()


def _status(error: Exception) -> int:
    if isinstance(error, LimitRequestHeaders):
        return 431
    return 414 if isinstance(error, LimitRequestLine) else 400


def _refuse(out: Out, status: int) -> None:
    body = document(status, "invalid", "this is not a request as RFC 9112 has it, or it is too large")
    head = (
        f"HTTP/1.1 {status} Refused\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    out.sendall(head.encode() + body)
