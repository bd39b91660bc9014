"""What the worker does with the rest of an answer, where its peer is slow to read."""

from __future__ import annotations

import socket
import ssl
import time

import msgspec
import pytest

from policy import messages

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
