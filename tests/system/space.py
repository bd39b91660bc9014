"""A network namespace of the tests' own, in which port 80 is free.

It lives as long as its descriptor or a process in it. Unix sockets with a path do not care about it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
ENTER = Path(__file__).with_name("enter.py")

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _in_a_thread(work: Callable[[], T]) -> T:
    """A namespace belongs to a thread: the work's thread ends, and this one has never left its own."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class Space:
    """`fd` is the namespace. Raises PermissionError where none can be made."""

    def __init__(self) -> None:
        self.fd = _in_a_thread(self._make)

    @staticmethod
    def _make() -> int:
        _check(_libc.unshare(CLONE_NEWNET), "unshare")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP | IFF_RUNNING))
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def within(self, work: Callable[[], T]) -> T:
        """Do something with the namespace around: a socket that is made in it stays in it."""

        def body() -> T:
            _check(_libc.setns(self.fd, CLONE_NEWNET), "setns")
            return work()

        return _in_a_thread(body)

    def connect(self, host: str, port: int, timeout: float = 10.0) -> socket.socket:
        return self.within(lambda: socket.create_connection((host, port), timeout))

    def listen(self, host: str, port: int) -> socket.socket:
        return self.within(lambda: socket.create_server((host, port)))

    def holds(self, pid: int) -> bool:
        """Whether that process lives in here."""
        try:
            return os.stat(f"/proc/{pid}/ns/net").st_ino == os.fstat(self.fd).st_ino
        except (FileNotFoundError, ProcessLookupError):
            return False

    def command(self, *argv: str) -> tuple[list[str], tuple[int, ...]]:
        """The argument vector that starts argv in here, with the same pid, and the descriptors it needs."""
        return [sys.executable, "-I", "-B", str(ENTER), str(self.fd), *argv], (self.fd,)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
