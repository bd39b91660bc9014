"""What the worker does with the rest of an answer, where its peer is slow to read."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time

import msgspec
import pytest

from policy import messages
from userapi.worker import MOST

CLOSE = b"Connection: close\r\n\r\n"


@pytest.mark.parametrize("secure", [False, True])
def test_h6_large_answers_that_nobody_reads_hold_no_thread_and_are_whole_when_they_are_read(
    gunicorn, world, token, tls, secure
):
    wordy = msgspec.structs.replace(world.site, text="x" * 4000)
    world.answers[messages.Status] = [messages.Services([wordy] * 10, more=more < 19) for more in range(20)]
    server = gunicorn(threads=4, **({"tls": tls} if secure else {})).ready()
    status = f"GET /api/v1/services HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()

    def connect():
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # over loopback the sender has much room
        sock.settimeout(15)
        sock.connect(("127.0.0.1", server.port))
        if not secure:
            return sock
        return ssl.create_default_context(cafile=tls["certificate"]).wrap_socket(sock, server_hostname="localhost")

    deaf = [connect() for _ in range(9)]
    try:
        for sock in deaf:
            sock.sendall(status)
        for _ in range(9):
            with connect() as honest:
                begun = time.monotonic()
                honest.sendall(b"GET /login HTTP/1.1\r\nHost: localhost\r\n" + CLOSE)
                assert honest.recv(100).startswith(b"HTTP/1.1 200")
                assert time.monotonic() - begun < 2
        got = b""
        while not got.endswith(b'"trouble":""}'):
            got += (more := deaf[0].recv(65536))
            assert more, len(got)
        assert len(got) > 800_000
        deaf[0].sendall(b"GET /login HTTP/1.1\r\nHost: localhost\r\n" + CLOSE)
        assert deaf[0].recv(100).startswith(b"HTTP/1.1 200"), "and the connection goes on"
    finally:
        for sock in deaf:
            sock.close()


def test_h6_c6_one_that_goes_for_a_new_one_while_it_says_something_does_not_end_the_worker(gunicorn):
    """Both are ready in one turn of the loop: the new one is taken first, in the place of one that is heard next."""
    server = gunicorn(threads=4, tcp=False).ready()
    half = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    assert server.raw(half + CLOSE).startswith(b"HTTP/1.1 ")
    (before,), held = server.workers(), []
    try:
        for _ in range(MOST):
            held.append(server.connect())
            held[-1].sendall(half)
        assert server.raw(half + CLOSE).startswith(b"HTTP/1.1 "), "all are taken, and the first has gone"
        for oldest in held[2:6]:
            os.kill(before, signal.SIGSTOP)
            held.append(server.connect())
            oldest.sendall(b"X: y\r\n")
            os.kill(before, signal.SIGCONT)
            assert server.raw(half + CLOSE).startswith(b"HTTP/1.1 ")
        assert server.workers() == [before]
    finally:
        os.kill(before, signal.SIGCONT)
        for sock in held:
            sock.close()
