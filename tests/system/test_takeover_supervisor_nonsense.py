"""A supervisor that has been taken over and sends privileged what is no message, or reads nothing: it is ended."""

from __future__ import annotations

import pytest
from hostage import Hostage, descriptors

pytestmark = pytest.mark.root

ROLE = "supervisor"
TOOLS = """
import os, random, socket
from rootd import ipc

def mine(sock):
    own = socket.socket(fileno=os.dup(sock.fileno()))
    own.settimeout(10.0)
    return own

raw = mine(part.links["privileged"].sock)
"""

NONSENSE = {
    "short": "b'x'",
    "one byte less": "good[:-1]",
    "one byte more": "good + b'x'",
    "another version": "b'\\x02' + good[1:]",
    "a name that is not UTF-8": "good[:-160] + b'\\xff' * 160",
    "as large as the kernel lets it": "bytes(200_000)",
}


@pytest.mark.parametrize("packet", list(NONSENSE))
def test_c1_c5_what_is_no_message_ends_it_and_nobody_else(hostage: Hostage, packet: str) -> None:
    house, old = hostage.house, hostage.house.pid_of("supervisor")
    hostage.dies(f"good = ipc.Message(ipc.ABORT).encode()\nraw.send({NONSENSE[packet]})\nraw.recv(1)\nraw.recv(1)")
    assert house.pid_of("supervisor") not in (0, old)
    assert "supervisor sent " in house.stderr()


def test_c6_a_descriptor_that_is_attached_ends_it_and_is_not_kept(hostage: Hostage) -> None:
    privileged = hostage.house.pid_of("privileged")
    before = descriptors(privileged)
    hostage.dies("""
    for _ in range(50):
        socket.send_fds(raw, [ipc.Message(ipc.ABORT).encode()], [0, 1, 2])
    raw.recv(1)
    raw.recv(1)
    """)
    hostage.house.until(lambda: descriptors(privileged) == before, "nothing of it is kept")


def test_c16_who_does_not_read_his_answers_is_ended_when_they_are_too_many(hostage: Hostage) -> None:
    hostage.dies("""
    packet = ipc.Message(ipc.ABORT, seq=1).encode()
    while True:
        raw.send(packet)
    """)
    assert "supervisor cannot be told; it is ended and started again: the peer does not read" in hostage.house.stderr()
