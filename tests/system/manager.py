"""What a service manager does for a program that lets it keep descriptors, as systemd does it: sd_notify(3).

Rule: only what is written there: FDSTORE and FDSTOREREMOVE by FDNAME, no watching with FDPOLL=0, and that the same
descriptor is kept once.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import sys
import threading
from pathlib import Path

GIVEN = Path(__file__).with_name("given.py")
FDS_LIMIT = 253


class Manager:
    """`kept`: descriptors by the name that the program gave them; `said`: what else it said."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.kept: dict[str, int] = {}
        self.said: list[str] = []
        self._thread: threading.Thread | None = None

    def listen(self) -> None:
        """From now on whatever comes is taken at once."""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while self.take():
            continue

    def take(self, wait: bool = True) -> bool:
        """One datagram. False: there is none, or close() has sent its own."""
        space = socket.CMSG_SPACE(FDS_LIMIT * 4)
        flags = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
        try:
            packet, control, _, _ = self.sock.recvmsg(4096, space, flags)
        except BlockingIOError:
            return False
        fds = array.array("i")
        for _, _, data in control:
            fds.frombytes(data)
        words = dict(line.split("=", 1) for line in packet.decode().splitlines())
        name = words.pop("FDNAME", "stored")
        assert len(name) < 256, name
        assert ":" not in name, name
        if words.pop("FDSTOREREMOVE", ""):
            if name in self.kept:
                os.close(self.kept.pop(name))
        elif words.pop("FDSTORE", ""):
            assert words.pop("FDPOLL") == "0"
            assert name not in self.kept, "a name that is taken"
            (self.kept[name],) = fds
        self.said += [f"{word}={value}" for word, value in words.items()]
        return packet != b"END=1"

    def settle(self) -> None:
        """Everything that was sent until now has been taken, and nothing more is until listen()."""
        if self._thread is not None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.connect(str(self.path))
                sock.send(b"END=1")
            self._thread.join()
            self._thread = None

    def command(self, *argv: str) -> tuple[list[str], tuple[int, ...]]:
        """The argument vector that starts argv with all that is kept, as the same pid, and the descriptors it needs."""
        pairs = [f"{name}={fd}" for name, fd in self.kept.items()]
        return [sys.executable, "-I", "-B", str(GIVEN), str(self.path), *pairs, "--", *argv], tuple(self.kept.values())

    def close(self) -> None:
        self.settle()
        self.sock.close()
        for fd in self.kept.values():
            os.close(fd)
        self.kept.clear()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
