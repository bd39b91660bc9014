"""A socket that keeps for ten minutes who closes it last; and a watch on who does not let go of it."""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator

from rootd import ipc

LINGER, WAIT = 600, 20.0  # seconds


@contextlib.contextmanager
def lingering() -> Iterator[socket.socket]:
    """Its peer reads nothing of what is on the way."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))
        near.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                near.send(bytes(1 << 16))
        yield near
        far.close()  # before it: what was not read makes a reset, and nothing lingers any more


def rights(*socks: socket.socket) -> list[tuple[int, int, array.array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno() for sock in socks]))]


def does(act: Callable[[], object]) -> bool:
    """Whether a child that does this, with sockets of its own, is done with it; one that is kept is killed."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    pidfd = os.pidfd_open(pid)
    done = ipc.wait(pidfd, seconds=WAIT)
    os.close(pidfd)
    if not done:
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1] == 0 and done
