"""One request over HTTP/1.1."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import threading

import pytest

from userapi.cli import http1
from userapi.cli.failure import Failure
from userapi.cli.http1 import Where, ask, quoted, where


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("unix:/run/durward/api.sock", Where("unix", "/run/durward/api.sock", 0)),
        ("unix:///run/api.sock", Where("unix", "/run/api.sock", 0)),
        ("https://ops.example", Where("https", "ops.example", 443)),
        ("https://ops.example:9443/", Where("https", "ops.example", 9443)),
        ("https://[2001:db8::1]:9443", Where("https", "2001:db8::1", 9443)),
        ("http://127.0.0.1:9001", Where("http", "127.0.0.1", 9001)),
        ("http://[::1]", Where("http", "::1", 80)),
        ("http://127.255.0.9", Where("http", "127.255.0.9", 80)),
        ("https://127.evil.example", Where("https", "127.evil.example", 443)),
    ],
)
def test_addresses(url, expected):
    assert where(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ops",
        "unix:api.sock",
        "ftp://x",
        "https://",
        "https://a/b",
        "https://u@h",
        "https://a:b",
        "https://a:0",
        "https://a:99999",
        "http://127.0.0.1:99999",
        "https://a:٣",
    ],
)
def test_what_is_no_address_is_a_usage_error(url):
    with pytest.raises(Failure, match=r"or to this machine http://127\.0\.0\.1") as failure:
        where(url)
    assert failure.value.exit == 2


@pytest.mark.parametrize(
    "host",
    ["ops.example", "127.evil.example", "127.0.0.1.evil.example", "127.0.0", "127.0.0.256", "127.0.0.1\n", "127."],
)
def test_a_password_is_not_sent_in_clear_over_a_network(host):
    with pytest.raises(Failure, match=f"use https://{host}"):
        where(f"http://{host}")


def test_what_speaks_no_tls_and_what_is_not_to_be_trusted_are_told_apart(server, tmp_path):
    place = server(b"HTTP/1.1 400 Refused\r\n\r\n")._replace(scheme="https")
    with pytest.raises(Failure, match=r"127\.0\.0\.1:[0-9]+ does not speak TLS") as failure:
        http1.connect(place)
    assert failure.value.exit == 69
    place = server(b"")._replace(scheme="https")
    with pytest.raises(Failure, match="--cacert /nonexistent: no certificates can be read there") as failure:
        http1.connect(place, "/nonexistent")
    assert failure.value.exit == 2


def test_a_certificate_that_nobody_vouches_for_is_not_to_be_trusted(tmp_path):
    names = [str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", names[1]]
    subprocess.run([*make, "-out", names[0]], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*names)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with listener.accept()[0] as line, contextlib.suppress(OSError):
                context.wrap_socket(line, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(Failure, match="is not to be trusted: self-signed certificate"):
            http1.connect(Where("https", "127.0.0.1", listener.getsockname()[1]))
        thread.join()


def test_only_unreserved_characters_stay():
    assert quoted("a-Z_0.~/ ü\n") == "a-Z_0.~%2F%20%C3%BC%0A"


@pytest.fixture
def server():
    """Answers each connection with the bytes given; a place to ask."""
    threads = []

    def start(answer: bytes, hold: threading.Event | None = None) -> Where:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]

        def serve():
            with listener, listener.accept()[0] as line:
                line.recv(65536)
                with contextlib.suppress(OSError):
                    line.sendall(answer)
                if hold is not None:
                    hold.wait(10)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return Where("http", "127.0.0.1", port)

    yield start
    for thread in threads:
        thread.join()


def got(place: Where, seconds: float = 5) -> tuple[int, bytes]:
    reply = ask(place, "GET", "/", {}, b"", seconds)
    with contextlib.closing(reply):
        return reply.status, reply.body()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
    ],
)
def test_a_body_by_length_by_chunks_and_by_the_end(server, answer):
    assert got(server(answer)) == (200, b"hello")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", 69),
        (b"SSH-2.0-x\r\n\r\n", 69),
        (b"HTTP/1.1 200", 69),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20000, 69),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 75),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhel", 75),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe", 75),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 75),
    ],
)
def test_an_answer_that_is_none_ends_in_an_exit_code(server, answer, code):
    with pytest.raises(Failure) as failure:
        got(server(answer))
    assert failure.value.exit == code


def test_a_server_that_hangs_does_not_hang_us(server):
    over = threading.Event()
    with pytest.raises(Failure) as failure:
        got(server(b"HTTP/1.1 200 OK\r\n", over), seconds=0.1)
    over.set()
    assert failure.value.exit == 75


def test_nobody_there_is_unreachable(tmp_path):
    for place in (Where("unix", str(tmp_path / "none"), 0), Where("http", "127.0.0.1", 1)):
        with pytest.raises(Failure, match="is it running") as failure:
            http1.connect(place)
        assert failure.value.exit == 69
        by_root = place.scheme == "unix" and os.geteuid() == 0
        assert failure.value.text.endswith("As root, durward --root asks it without the api") == by_root
