"""The link to the supervisor: what is pushed about sessions, and what the supervisor says of them.

Rule 1: nothing waits here for the supervisor. One that does not read, or sends nonsense, loses the link: its sessions
        are then not confirmed, and end. Whoever owns this is told (`lost`), and sees to it that there is another one.
Rule 2: sessions are not kept for a supervisor that is away (the next one is told all of them); what is for the audit
        log is.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable
from functools import partial

from policy import login, wire
from rootd import ipc

QUEUE = 20_000  # packets for a supervisor that does not read: more than one telling of every session
NOTES = 4_096  # for the audit log, while no supervisor is there
AT_ONCE = 256  # of its words in one turn


class Link:
    def __init__(
        self, loop: ipc.Loop, heard: Callable[[login.Pull], None], say: Callable[[str], None], lost: Callable[[], None]
    ) -> None:
        self._loop, self._heard, self._say, self._lost = loop, heard, say, lost
        self._sock: socket.socket | None = None
        self._queue: deque[bytes] = deque()
        self._notes: deque[bytes] = deque(maxlen=NOTES)

    @property
    def is_there(self) -> bool:
        return self._sock is not None

    def connect(self, fd: int) -> None:
        """The supervisor has been (re)started; owns the descriptor from now on."""
        self.lose()
        self._sock = socket.socket(fileno=fd)
        self._sock.setblocking(False)
        self._queue.extend(self._notes)
        self._notes.clear()
        self._flush()

    def lose(self) -> None:
        if self._sock is not None:
            self._loop.forget(self._sock.fileno())
            self._sock.close()
            self._sock = None
            self._queue.clear()
            self._lost()

    def push(self, push: login.Push) -> None:
        """Raises ValueError when it does not fit into a packet."""
        packet = wire.PUSH.encode(push)
        if self._sock is None:
            if isinstance(push, login.LoginNoted | login.TokenNoted):
                self._notes.append(packet)
        elif len(self._queue) >= QUEUE:
            self._say("the supervisor does not read what auth tells it, the link is closed")
            self.lose()
        else:
            self._queue.append(packet)
            if len(self._queue) == 1:
                self._flush()

    def _flush(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            while self._queue:
                sock.send(self._queue[0], socket.MSG_NOSIGNAL)
                self._queue.popleft()
        except BlockingIOError:
            pass
        except OSError:
            return self.lose()  # it is gone: the keeper brings the next one
        events = select.EPOLLIN | (select.EPOLLOUT if self._queue else 0)
        self._loop.watch(sock.fileno(), self._ready, events)

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        try:
            for _ in range(AT_ONCE):
                if self._sock is None:
                    return
                packet, _, flags, _ = ipc.after_reset(
                    partial(self._sock.recvmsg, wire.LIMIT, 0, socket.MSG_CMSG_CLOEXEC)
                )
                if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                    raise wire.Malformed("a packet that is cut, or has a descriptor attached")
                if not packet:
                    return self.lose()
                self._heard(wire.PULL.decode(packet))
        except BlockingIOError:
            return
        except (OSError, wire.Malformed) as problem:
            self._say(f"the link to the supervisor is closed: {problem}")
            self.lose()
