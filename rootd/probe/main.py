"""probe: checks over TCP and HTTP whether services answer. Its own account, no capability, sandboxed, no file at all.

Rule 1: it connects where the supervisor says, sends one fixed request, and tells yes, or why not; it decides nothing.
Rule 2: it keeps nothing: killed, it is started again, and the supervisor asks again what was not answered.
Rule 3: it waits for nothing but its loop, and wakes up only while something is being checked.
Rule 4: without its link to a supervisor that lives on, it ends (lifeline).
Rule 5: it imports little: it is one more process in the memory of every machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time

from rootd import confine, ipc, memory, sandbox
from rootd.lifeline import UNLINKED, Lifeline
from rootd.probe import checks

AT_ONCE = 64  # messages of the supervisor in one turn
NONSENSE = 76  # EX_PROTOCOL
SYSCALLS = ("connect", "setitimer")
SOCKETS = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def main(link_fd: int) -> int:
    keeper = ipc.link_from(link_fd, takes_fds=True)
    inherited = ipc.inherit(keeper)
    uid, gid = account(inherited.held.pop("settings"))
    os.umask(0o077)
    confine.become(uid, gid, ())
    sandbox.enter(allow=SYSCALLS, sockets=SOCKETS, streams=True)
    probe = Probe(keeper)
    probe.take_over(inherited)
    memory.trim()
    return probe.run()


def account(fd: int) -> tuple[int, int]:
    """uid and gid, out of the settings; closes fd. The rest of them, and what their types would cost, is not needed."""
    try:
        own = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))["accounts"]["probe"]
        return own["uid"], own["gid"]
    finally:
        os.close(fd)


def say(text: str) -> None:
    ipc.note("probe", text)


class Probe:
    """The loop. Owns the keeper's link."""

    def __init__(self, keeper: ipc.Link) -> None:
        self.keeper = keeper
        self.loop = ipc.Loop()
        self.checks = checks.Checks(self.loop, self.answer)
        self.link: ipc.Link | None = None  # to the supervisor
        self.lifeline = Lifeline("probe", say)
        self.status: int | None = None

    def take_over(self, inherited: ipc.Inherited) -> None:
        for name, fd in inherited.held.items():
            say(f"the keeper handed over what probe does not take: {name!r}")
            os.close(fd)
        for role, (sock, pidfd) in inherited.links.items():
            self.connect(role, sock, pidfd)

    def run(self) -> int:
        """Until the keeper is gone or wants an end (0), or there is no way on with this supervisor."""
        self.loop.watch(self.keeper.fileno(), self.from_keeper)
        while self.status is None:
            self.watch()
            due = [at for at in (self.checks.wake_at(), self.lifeline.wake_at()) if at is not None]
            self.loop.turn(min(due) - time.monotonic() if due else None)
            now = time.monotonic()
            self.checks.wake(now)
            if self.status is None and self.lifeline.is_cut(now):
                self.status = UNLINKED
        return self.status

    # -- the keeper ------------------------------------------------------------------------------------------

    def from_keeper(self, _events: int) -> None:
        if self.lifeline.is_over(self.keeper, self.connect):
            self.status = 0

    def connect(self, role: str, sock: int, pidfd: int) -> None:
        if role != "supervisor":
            return ipc.close_all((sock, pidfd))
        self.lose()
        self.lifeline.linked(pidfd)
        self.link = ipc.link_from(sock, body=True)
        return None

    # -- the supervisor --------------------------------------------------------------------------------------

    def watch(self) -> None:
        """While an answer waits to be read, nothing more is heard: so few of them ever wait."""
        if self.link is not None:
            events = select.EPOLLOUT if self.link.waiting else select.EPOLLIN
            self.loop.watch(self.link.fileno(), self.hear, events)

    def hear(self, _events: int) -> None:
        link = self.link
        if link is None:
            return
        try:
            link.flush()
            for _ in range(AT_ONCE):
                if link.waiting:
                    return
                received = link.receive()
                if received is None:
                    return self.lose()
                self.checks.begin(checks.asked(received[0]), time.monotonic())
        except BlockingIOError:
            return
        except ipc.Malformed as problem:
            say(f"the supervisor sent {problem}: probe ends, to be started again")
            self.status = NONSENSE
        except OSError:
            self.lose()

    def answer(self, seq: int, problem: str) -> None:
        if self.link is not None:
            with contextlib.suppress(OSError):  # it is gone: the end of the link will be heard
                self.link.send(ipc.Message(ipc.CHECKED, seq=seq, arg=int(problem != ""), name=problem))

    def lose(self) -> None:
        """The link has ended, by the supervisor's death, after which its successor is linked, or by its will."""
        if self.link is not None:
            self.loop.forget(self.link.fileno())
            self.link.close()
            self.link = None
            self.checks.clear()
            self.lifeline.lost(time.monotonic())
