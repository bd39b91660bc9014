"""What services say: READY=1, STATUS=…, STOPPING=1, MAINPID=… on a notify socket (sd_notify), or a newline (s6).

Rule 1: only the run's main process, or a process of the run's cgroup, is heard: the kernel says who sent it.
Rule 2: what a service says is text for people and never more: cut, and without control characters.
Rule 3: a service that talks without end is heard again in the next second, and holds up nobody.
Rule 4: that it is ready is written down before it is taken from its socket or pipe, where the next supervisor finds it.

Sources: sd_notify(3), unix(7) SCM_CREDENTIALS, cgroups(7) /proc/PID/cgroup, skarnet.org/software/s6/notifywhenup.html.
"""

from __future__ import annotations

import os
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

from rootd import closing, ipc

LIMIT = 4_096  # bytes of a datagram
A_SECOND = 32  # datagrams, or readings of a pipe, that one run may cost in a second
STATUS = 200  # characters that are shown
PROC = "/proc"
KEYS = frozenset({"READY", "STATUS", "STOPPING", "RELOADING", "WATCHDOG", "MAINPID"})
PID_LIMIT = 1 << 22  # of Linux
_UCRED = struct.Struct("=iII")

Heard = Callable[[int, dict[str, str], float], None]
Remember = Callable[[int, bool], None]  # Readiness.remember


class Channel(ABC):
    """One run's socket or pipe; it is ours."""

    def __init__(self, run: int, fd: int) -> None:
        self.run, self.fd = run, fd
        self.since = 0.0
        self.count = 0
        os.set_blocking(fd, False)

    @abstractmethod
    def hear(self, remember: Remember) -> dict[str, str] | None:
        """What is said now, if anything is; None at the end."""

    def close(self) -> None:
        os.close(self.fd)


class Pipe(Channel):
    """Of one that writes a newline when it is ready; what else it writes is nothing."""

    def hear(self, remember: Remember) -> dict[str, str] | None:
        remember(self.run, True)  # nobody can look into a pipe: what is in it is most likely the newline
        data = b""
        try:
            data = os.read(self.fd, LIMIT)
        finally:
            if b"\n" not in data:
                remember(self.run, False)
        return {"READY": "1"} if b"\n" in data else {} if data else None


class Socket(Channel):
    """main: the pid of a run's main process, which another may become (MAINPID)."""

    def __init__(self, run: int, fd: int, main: Callable[[int], int]) -> None:
        super().__init__(run, fd)
        self.sock, self.main = socket.socket(fileno=fd), main

    def hear(self, remember: Remember) -> dict[str, str]:
        said = self._look()
        if said.get("READY") == "1":
            remember(self.run, True)
        closing.at_once(lambda: self.sock.recv(1))
        return said

    def _look(self) -> dict[str, str]:
        # no room but for the credentials: descriptors that come too are closed by the kernel, when it is read below
        packet, control, flags, _ = self.sock.recvmsg(LIMIT, socket.CMSG_SPACE(_UCRED.size), socket.MSG_PEEK)
        sender = next((data for level, kind, data in control if kind == socket.SCM_CREDENTIALS), b"")
        if not packet or flags & socket.MSG_TRUNC or len(sender) != _UCRED.size:
            return {}
        pid, said = _UCRED.unpack(sender)[0], parse(packet)
        return said if said and (pid == self.main(self.run) or is_in_run(pid, self.run)) else {}

    def close(self) -> None:
        closing.at_once(self.sock.close)


class Notify:
    """`heard` is Services.notified."""

    def __init__(self, loop: ipc.Loop, clock: Callable[[], float], heard: Heard, remember: Remember) -> None:
        self._loop, self._clock, self._heard, self._remember = loop, clock, heard, remember
        self._channels: dict[int, Channel] = {}
        self._tired: dict[int, float] = {}  # runs that are heard again at that time

    def add(self, channel: Channel) -> None:
        """Owns it from now on."""
        self.drop(channel.run)
        self._channels[channel.run] = channel
        self._loop.watch(channel.fd, partial(self._hear, channel.run))

    def drop(self, run: int) -> None:
        channel = self._channels.pop(run, None)
        self._tired.pop(run, None)
        if channel is not None:
            self._loop.forget(channel.fd)
            channel.close()

    def hear_out(self, run: int) -> None:
        """It has ended: what it has said before."""
        while run in self._channels and run not in self._tired and ipc.wait(self._channels[run].fd, seconds=0):
            self._hear(run)

    def wake_at(self) -> float | None:
        return min(self._tired.values(), default=None)

    def wake(self, now: float) -> None:
        for run in [run for run, at in self._tired.items() if at <= now]:
            del self._tired[run]
            self._loop.watch(self._channels[run].fd, partial(self._hear, run))

    def _hear(self, run: int, _events: int = 0) -> None:
        channel, now = self._channels[run], self._clock()
        if now - channel.since >= 1.0:
            channel.since, channel.count = now, 0
        channel.count += 1
        if channel.count > A_SECOND:
            self._tired[run] = channel.since + 1.0
            return self._loop.forget(channel.fd)
        try:
            said = channel.hear(self._remember)
        except OSError:
            return None
        if said is None:
            self.drop(run)
        elif said:
            self._heard(run, said, now)
        return None


def parse(packet: bytes) -> dict[str, str]:
    """The keys that mean something here; the rest of the protocol is not spoken."""
    pairs = (line.partition("=") for line in packet.decode("utf-8", "replace").split("\n"))
    said = {key: "".join(filter(str.isprintable, value))[:STATUS] for key, _, value in pairs if key in KEYS}
    pid = said.get("MAINPID", "")
    if not (pid.isascii() and pid.isdigit() and 2 <= int(pid) <= PID_LIMIT):
        said.pop("MAINPID", None)
    return said


def is_in_run(pid: int, run: int) -> bool:
    """Whether that process is in the cgroup of the run; one that has ended is not.

    privileged made it beneath the group that we are in ourselves. Others may make one of the same name elsewhere: a
    user's systemd has a tree of its own.
    """
    tree, _, name = _group(pid).rpartition("/")
    return name == f"run-{run:d}" and tree.rpartition("/")[:2] == (_group("self").rstrip("/"), "/")


def _group(pid: int | str) -> str:
    """Of a process; "" where there is none."""
    try:
        fd = os.open(f"{PROC}/{pid}/cgroup", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        lines = os.read(fd, LIMIT).decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    finally:
        os.close(fd)
    return next((line[3:] for line in lines if line.startswith("0::")), "")
