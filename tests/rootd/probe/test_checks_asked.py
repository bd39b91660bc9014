"""rootd/probe/checks: what a CHECK may ask for, each of its fields looked at."""

from __future__ import annotations

import socket

import pytest

from rootd import ipc
from rootd.config import keys
from rootd.probe import checks


def check(**changes: object) -> ipc.Message:
    words = {"op": ipc.CHECK, "seq": 1, "scope": ipc.HTTP, "arg": 1_000, "name": "tcp:127.0.0.1:80", "body": b"/"}
    return ipc.Message(**(words | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "message",
    [check(op=ipc.CHECKED), check(op=0), check(scope=0), check(scope=3), check(arg=0), check(arg=-1),
     check(arg=600_001), check(arg=2**62), check(scope=ipc.TCP), check(body=b""), check(body=b"healthz"),
     check(body=b"http://example/"), check(body=b"/ x"), check(body=b"/\r\nHost: x"), check(body=b"/\x00"),
     check(body=b"/\x7f"), check(body=b"/\xc3\xa4"), check(body=b"/" + b"x" * 2_000), check(body=b"*")],
    ids=repr,
)  # fmt: skip
def test_c5_a_check_that_the_supervisor_does_not_send_is_malformed(message: ipc.Message) -> None:
    with pytest.raises(ipc.Malformed):
        checks.asked(message)


@pytest.mark.parametrize(
    "key",
    ["", "tcp", "tcp:", "tcp:127.0.0.1", "tcp:127.0.0.1:", "tcp:127.0.0.1:0", "tcp:127.0.0.1:65536", "tcp::80",
     "tcp:localhost:80", "tcp:example.org:80", "tcp:127.1:80", "tcp:127.0.0.1:+80", "tcp:127.0.0.1: 80", "tcp:::1:80",
     "tcp:127.0.0.1:\u0668\u0660", "tcp:127.0.0.1\0:80", "tcp:[::1]", "tcp:[::1%lo]:80", "tcp:[127.0.0.1]:80",
     "tcp:[]:80", "tcp:<broadcast>:80", "udp:127.0.0.1:53", "unix:", "unix:relative", "unix:\0abstract", "unix:/a\0b",
     "unix:/" + "x" * 107, "unixgram:/x", "/x", "http://127.0.0.1:80/"],
)  # fmt: skip
def test_c5_an_address_is_numbers_or_a_path_and_never_a_name(key: str) -> None:
    with pytest.raises(ipc.Malformed, match="the address"):
        checks.address_of(key)


def test_the_keys_of_sockets_are_addresses() -> None:
    for spelled, family in (
        ("0.0.0.0:80", socket.AF_INET), ("[::]:443", socket.AF_INET6), ("unix:/run/x/y.sock", socket.AF_UNIX),
        ("[fe80::1]:8080", socket.AF_INET6), ("unix:/run/" + "x" * 95, socket.AF_UNIX),
    ):  # fmt: skip
        key = keys.parse("address", spelled).key
        assert checks.address_of(key)[0] == family
