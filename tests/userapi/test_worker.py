"""The worker under real gunicorn, with clients that mean no good."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from policy import messages
from userapi.worker import Out

TOKEN = "ab" * 32
STATUS = f"GET /api/v1/services HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
REVOKE = b"POST /api/v1/revoke HTTP/1.1\r\nHost: localhost\r\n"
CLOSE = b"Connection: close\r\n\r\n"


def test_a_status_is_answered_over_tcp_and_over_the_unix_socket(gunicorn, world):
    server = gunicorn().ready()
    answer = server.raw(STATUS + CLOSE)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"name":"site"' in answer
    assert b"Server: durward\r\n" in answer
    assert [request.source for request in world.supervisor.asked] == ["127.0.0.1"]
    server.port = 0
    assert server.raw(STATUS + CLOSE).startswith(b"HTTP/1.1 200")
    assert world.supervisor.asked[-1].source == f"unix:{os.getuid()}"


def test_a_connection_serves_several_requests_that_were_sent_at_once(gunicorn):
    answer = gunicorn().ready().raw(STATUS + b"\r\n" + STATUS + b"\r\n" + STATUS + CLOSE)
    assert answer.count(b"HTTP/1.1 200") == 3


def test_h6_forty_drippers_that_come_again_do_not_stop_an_honest_client(gunicorn):
    server = gunicorn(threads=8).ready()
    over = threading.Event()

    def drip():
        while not over.is_set():
            try:
                with server.connect() as sock:
                    sock.sendall(b"GET /api/v1/services HTTP/1.1\r\nHost: localhost\r\n")
                    while not over.wait(0.2):
                        sock.sendall(b"X-A: b\r\n")
            except OSError:
                continue

    drippers = [threading.Thread(target=drip) for _ in range(40)]
    for dripper in drippers:
        dripper.start()
    try:
        slowest = 0.0
        for _ in range(30):
            begun = time.monotonic()
            assert server.raw(STATUS + CLOSE).startswith(b"HTTP/1.1 200")
            slowest = max(slowest, time.monotonic() - begun)
    finally:
        over.set()
        for dripper in drippers:
            dripper.join()
    assert slowest < 2


def test_h6_more_half_sent_requests_than_a_worker_holds_do_not_stop_an_honest_client(gunicorn):
    server = gunicorn(threads=8).ready()
    drippers = []
    try:
        for _ in range(600):
            sock = server.connect()
            sock.sendall(b"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            drippers.append(sock)
        begun = time.monotonic()
        assert server.raw(STATUS + CLOSE).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - begun < 2
    finally:
        for sock in drippers:
            sock.close()


def test_h6_a_half_sent_request_is_closed_when_its_time_is_up_however_it_drips(gunicorn):
    with gunicorn().ready().connect() as sock:
        begun = time.monotonic()
        sock.settimeout(0.5)
        sock.sendall(b"GET / HTTP/1.1\r\n")
        while time.monotonic() - begun < 20:
            try:
                sock.sendall(b"X: y\r\n")
                if not sock.recv(100):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert 8 < time.monotonic() - begun < 13


def test_h6_clients_that_read_no_answers_do_not_stop_an_honest_one_and_get_them_all_later(gunicorn):
    server = gunicorn(threads=4, tcp=False).ready()
    anybody = b"GET /api/v1/services HTTP/1.1\r\nHost: localhost\r\n"
    deaf = [server.connect() for _ in range(8)]
    try:
        for sock in deaf:
            sock.sendall((anybody + b"\r\n") * 399 + anybody + CLOSE)
        for _ in range(30):
            begun = time.monotonic()
            assert server.raw(STATUS + CLOSE).startswith(b"HTTP/1.1 200")
            assert time.monotonic() - begun < 2
        got = b""
        while data := deaf[0].recv(65536):
            got += data
        assert got.count(b"HTTP/1.1 401") == 400
    finally:
        for sock in deaf:
            sock.close()


def test_a_client_that_waits_for_100_continue_gets_it(gunicorn):
    with gunicorn().ready().connect() as sock:
        body = b'{"user": "alice", "password": "right"}'
        sock.sendall(
            b"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: %d\r\n" % len(body) + CLOSE
        )
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert sock.recv(100).startswith(b"HTTP/1.1 201")


@pytest.mark.parametrize(
    "request_",
    [
        REVOKE + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        REVOKE + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\n{}   ",
        REVOKE + b"Content-Length : 3\r\n\r\n{} ",
        REVOKE + b"Content_Length: 3\r\n\r\n{} ",
        REVOKE + b"Content-Length: +3\r\n\r\n{} ",
        REVOKE + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        REVOKE + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        REVOKE + b"A: b\r\n folded: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\nHost: localhost\n\n\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
    ],
)
def test_h8_an_ambiguous_request_is_400_and_what_follows_it_is_not_a_request(gunicorn, world, request_):
    answer = gunicorn().ready().raw(request_ + STATUS + CLOSE)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in head
    assert json.loads(body)["kind"] == "invalid"
    assert world.commands() == []


def test_h8_a_header_with_an_underscore_is_refused(gunicorn):
    answer = gunicorn().ready().raw(STATUS + b"X_Forwarded_For: 1.2.3.4\r\n" + CLOSE)
    assert answer.startswith(b"HTTP/1.1 400")


def test_h8_a_chunked_body_is_refused_and_closes(gunicorn, world):
    head = b"POST /api/v1/services/site/stop HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = gunicorn().ready().raw(head + b"2\r\n{}\r\n0\r\n\r\n" + STATUS + CLOSE)
    assert answer.startswith(b"HTTP/1.1 411")
    assert answer.count(b"HTTP/1.1") == 1
    assert world.commands() == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 5000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 60 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"A: " + b"b" * 40000, b"431"),
        (b"POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n", b"413"),
    ],
)
def test_what_is_too_large_is_refused_before_it_is_read(gunicorn, request_, status):
    assert gunicorn().ready().raw(request_).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("tcp", [True, False])
def test_h5_forwarded_headers_change_neither_scheme_nor_source(gunicorn, world, tcp):
    server = gunicorn(tcp=tcp).ready()
    forged = b"X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: on\r\nX-Forwarded-For: 203.0.113.9\r\n"
    forged += b"Forwarded: for=203.0.113.9\r\nX-Forwarded-Host: evil.example\r\n"
    assert server.raw(STATUS + forged + CLOSE).startswith(b"HTTP/1.1 200")
    assert world.supervisor.asked[-1].source == ("127.0.0.1" if tcp else f"unix:{os.getuid()}")
    assert server.raw(STATUS + b"SCRIPT_NAME: /api\r\n" + CLOSE).startswith(b"HTTP/1.1 400")


def test_h5_behind_a_configured_proxy_the_last_forwarded_address_is_the_source(gunicorn, world):
    server = gunicorn(behind_proxy=True).ready()
    server.raw(STATUS + b"X-Forwarded-For: 203.0.113.9, 198.51.100.7\r\n" + CLOSE)
    assert world.supervisor.asked[-1].source == "198.51.100.7"


STREAM = f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()


def test_streams_are_refused_before_commands_are_and_free_again_when_their_readers_hang_up(gunicorn, world):
    world.answers[messages.Watch] = [world.open]
    server = gunicorn(threads=20).ready()

    other = "cd" * 32
    world.live.add(other)

    def stream(token=world.token):
        sock = server.connect()
        sock.sendall(STREAM.replace(world.token.encode(), token.encode()))
        return sock, sock.recv(100)

    held = [stream(), stream(), stream(other)]  # three in all, two for one session
    assert all(answer.startswith(b"HTTP/1.1 200") for _, answer in held)
    for token, status in ((world.token, b"429"), (other, b"503")):
        sock, answer = stream(token)
        sock.close()
        assert answer.startswith(b"HTTP/1.1 " + status)
    assert server.raw(STATUS + CLOSE).startswith(b"HTTP/1.1 200")
    for sock, _ in held:
        sock.close()
    until = time.monotonic() + 10
    while not answer.startswith(b"HTTP/1.1 200") and time.monotonic() < until:
        sock, answer = stream()
        sock.close()
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_stop_does_not_wait_for_streams(gunicorn, world):
    world.answers[messages.Watch] = [world.open]
    server = gunicorn().ready()
    with server.connect() as sock:
        sock.sendall(STREAM)
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 0
        assert time.monotonic() - begun < 5


def test_a_stream_that_is_not_read_ends_at_its_deadline():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        out = Out(ours)
        out.extend(0.2)
        with pytest.raises(TimeoutError):
            out.sendall(b"x" * (1 << 24))
        rest = Out(ours)  # of no stream: it is the loop's to send
        rest.sendall(b"x" * (1 << 20))
        rest.sendall(b"y")
        assert rest.left == b"x" * (1 << 20) + b"y"
        assert not out.gone()
        theirs.close()
        assert out.gone()


def test_the_time_of_an_answer_runs_from_its_first_byte(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("userapi.worker.time.monotonic", lambda: clock[0])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        out = Out(ours)
        clock[0] = 100.0  # the password was being looked at
        out.sendall(b"x")
        clock[0] = 109.0
        out.sendall(b"x")
        clock[0] = 110.0
        with pytest.raises(TimeoutError):
            out.sendall(b"x")


def test_kill_9_of_a_worker_is_made_good_by_the_next_one(gunicorn):
    server = gunicorn().ready()
    assert server.raw(STATUS + CLOSE).startswith(b"HTTP/1.1 200")
    (before,) = server.workers()
    os.kill(before, signal.SIGKILL)
    assert server.raw(STATUS + CLOSE).startswith(b"HTTP/1.1 200")
    assert server.workers() != [before]


def test_a_stop_lets_the_answer_that_is_under_way_end(gunicorn, world):
    server = gunicorn().ready()
    asked, stopping = threading.Event(), threading.Event()
    told = world.answers[messages.Status]

    def slow(_):
        asked.set()
        stopping.wait(5)
        return told

    world.answers[messages.Status] = slow
    with server.connect() as sock:
        sock.sendall(STATUS + CLOSE)
        assert asked.wait(10)
        server.process.send_signal(signal.SIGTERM)
        stopping.set()
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert server.process.wait(15) == 0


def test_a_worker_writes_no_core_and_cannot_be_read_by_its_own_account(gunicorn):
    server = gunicorn().ready()
    server.raw(STATUS + CLOSE)
    for pid in [server.process.pid, *server.workers()]:
        assert "Max core file size        0                    0" in Path(f"/proc/{pid}/limits").read_text()
        if os.geteuid() != 0:
            assert Path(f"/proc/{pid}/environ").stat().st_uid == 0


def test_with_a_certificate_tcp_speaks_tls_and_the_unix_socket_does_not(gunicorn, tls):
    server = gunicorn(tls=tls).ready()
    context = ssl.create_default_context(cafile=tls["certificate"])
    with server.connect() as plain, context.wrap_socket(plain, server_hostname="localhost") as sock:
        for _ in range(2):
            sock.sendall(STATUS + b"\r\n")
            got = b""
            while not got.endswith(b'"trouble":""}'):
                got += (more := sock.recv(65536))
                assert more, got
            assert got.startswith(b"HTTP/1.1 200")
        sock.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 403"), "of a page that came without TLS"
    assert server.raw(STATUS + CLOSE) == b""  # not TLS: closed without a word
    server.port = 0
    assert server.raw(STATUS + CLOSE).startswith(b"HTTP/1.1 200")


def test_tls_older_than_1_2_is_refused(gunicorn, tls):
    server = gunicorn(tls=tls).ready()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(tls["certificate"])
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with server.connect() as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(plain, server_hostname="localhost")


def test_h6_half_a_tls_handshake_holds_no_thread(gunicorn, tls):
    server = gunicorn(tls=tls, threads=4).ready()
    half = [server.connect() for _ in range(40)]
    for sock in half:
        sock.sendall(b"\x16\x03\x01\x02\x00")
    context = ssl.create_default_context(cafile=tls["certificate"])
    with (
        server.connect() as plain,
        context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as sock,
    ):
        sock.sendall(STATUS + CLOSE)
        got = b""
        while data := sock.recv(65536):
            got += data
        assert got.startswith(b"HTTP/1.1 200")
        assert got.endswith(b'"trouble":""}')
    for one in half:
        one.close()


def test_the_sockets_are_still_listening_after_the_server_has_ended(gunicorn, world):
    server = gunicorn(tcp=False).ready()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(15) == 0
    assert server.unix.exists()
