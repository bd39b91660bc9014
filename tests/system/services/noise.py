"""noise.py: says everything that can be said to NOTIFY_SOCKET, true or not, from four processes, until it is ended."""

from __future__ import annotations

import array
import contextlib
import os
import random
import socket
import struct
import time

far: list[socket.socket] = []


def linger(sock: socket.socket, server: socket.socket) -> None:
    """Send a descriptor that keeps for an hour who closes it last."""
    with socket.create_connection(server.getsockname()) as near:
        far.append(server.accept()[0])  # who reads nothing
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3_600))
        near.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                near.send(bytes(1 << 16))
        near.setblocking(True)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [near.fileno()]))]
        sock.sendmsg([b"STATUS=lingering"], rights, socket.MSG_DONTWAIT)


def main() -> None:
    first = os.getpid()
    if os.fork() == 0 or os.fork() == 0:
        os.setsid()
    dice, own = random.Random(os.getpid()), os.getpid()
    words = [
        b"READY=1", b"STATUS=" + b"x" * 9_000, b"\xff" * 100, b"", b"STOPPING=1", b"RELOADING=1", b"WATCHDOG=1",
        b"MAINPID=1", b"MAINPID=0x10", b"MAINPID=%d" % first, b"READY=1\nMAINPID=%d\nSTATUS=hello" % own,
    ]  # fmt: skip
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2] * 20))]
    server = socket.create_server(("127.0.0.1", 0))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        while True:
            word = dice.choice([*words, b"STATUS=%d" % dice.getrandbits(64), b"MAINPID=%d" % dice.randrange(2, 9_999)])
            with contextlib.suppress(OSError):  # nobody reads so fast; or the run is over
                sock.connect(os.environ["NOTIFY_SOCKET"])
                sock.sendmsg([word], dice.choice([rights, []]), socket.MSG_DONTWAIT)
                if dice.random() < 0.02:
                    linger(sock, server)
            time.sleep(0.002)


if __name__ == "__main__":
    main()
