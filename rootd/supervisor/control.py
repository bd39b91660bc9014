"""The doors: control.sock for the api, root.sock for uid 0. Packets in, requests out, answers back.

Rule 1: SO_PEERCRED says which part of ours, or whether root, is at the other end. It is only a gate: who asks is
        the session's word (dispatch), and no pid is ever looked at.
Rule 2: nobody is waited for. A peer that says nothing, or does not read its answers, is dropped when its time is up.
Rule 3: what is no request closes that connection and is counted, and nothing else happens.
Rule 4: descriptors are never taken: no room is offered for them, so the kernel drops what is attached.

Sources: unix(7), recvmsg(2) MSG_TRUNC and MSG_CTRUNC, accept(2), socket(7) SO_PASSRIGHTS (Linux 6.16).
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from functools import partial

from policy import messages, wire
from rootd import closing, ipc
from rootd.check import headline
from rootd.ipc import SO_PASSRIGHTS
from rootd.supervisor import mentions

FIRST = 2.0  # seconds from the connection to its first request
NEXT = 10.0  # seconds from an answer to the next request
READ = 10.0  # seconds that an answer may wait for a peer that does not read
WATCH_QUEUE = 256  # events that may wait for a watcher
AT_ONCE = 32  # connections accepted in one turn
BREATH = 0.2  # seconds until accepting is tried again when descriptors or memory were short
_UCRED = struct.Struct("=iII")

Asked = Callable[["Connection", messages.Request], None]


class Outbox:
    """Packets on their way to a peer that may be slow. Raises OSError when it is gone."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.told = 0  # the number of the last event that the kernel has taken
        self._queue: deque[tuple[bytes, int, int]] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def send(self, packet: bytes, fd: int = -1, number: int = 0) -> None:
        """The caller keeps its descriptor; -1 is none. number: of an event, 0 for what is none."""
        if self._queue or not self._push(packet, fd, number):
            self._queue.append((packet, os.dup(fd) if fd >= 0 else fd, number))

    def flush(self) -> None:
        while self._queue and self._push(*self._queue[0]):
            self._forget()

    def clear(self) -> None:
        while self._queue:
            self._forget()

    def _forget(self) -> None:
        _, fd, _ = self._queue.popleft()
        if fd >= 0:
            os.close(fd)

    def _push(self, packet: bytes, fd: int, number: int) -> bool:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
        try:
            self.sock.sendmsg([packet], rights, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        self.told = number or self.told
        return True


class Connection:
    """One peer. It has one request at a time: until that is answered, nothing more is read.

    sight: which services he may view who asks, at this moment. Of others he is told no name, whatever is sent.
    """

    sight: Callable[[], mentions.Sees] = staticmethod(lambda: lambda whose: False)

    def __init__(self, door: Door, sock: socket.socket, now: float) -> None:
        self.door = door
        self.root = door.root
        self.closed = False
        self._sock = sock
        self._out = Outbox(sock)
        self._asked: int | None = None  # the id of the request that is being answered
        self._room = WATCH_QUEUE
        self._last = False  # closes when everything is sent
        self._until = now + FIRST  # for the next request
        self._stuck: float | None = None  # since when the peer has not read
        self._watch()

    def wake_at(self) -> float | None:
        if self._stuck is not None:
            return self._stuck + READ
        return self._until if self._asked is None else None

    def answer(self, reply: messages.Reply | messages.Event, fd: int = -1, *, more: bool = False) -> None:
        """Send; the request is over unless there is more. The descriptor stays the caller's."""
        if self.closed or self._asked is None:
            return
        try:
            packet = wire.ANSWER.encode(messages.Answer(self._asked, reply), partial(mentions.told, sight=self.sight))
        except ValueError as error:
            refused = messages.Refused("failed", f"the answer does not fit into a packet: {error}")
            packet, more = wire.ANSWER.encode(messages.Answer(self._asked, refused)), False
        if not more:
            self._asked, self._until = None, self.door.clock() + NEXT
        try:
            self._out.send(packet, fd, getattr(reply, "number", 0))
        except OSError:
            return self.close()
        self._watch()

    def watched(self, number: int) -> None:
        """A watch begins; of the events up to this number nothing is missing to the peer."""
        self._room, self._out.told = WATCH_QUEUE, number

    def event(self, event: messages.Event, kept: bool = False) -> None:
        """Send one of many, or, to a peer that has stopped reading, say so and close.

        kept: it is of the past, and comes at once with others: that they wait is not the peer's slowness.
        """
        self._room += kept
        if len(self._out) < self._room:
            return self.answer(event, more=True)
        told, waiting = self._out.told, len(self._out)
        self._out.clear()
        self._last = True
        self.answer(messages.Dropped(f"{waiting} events were waiting to be read: watch again, after {told}", told))

    def over(self, ended: messages.Ended) -> None:
        """The operation that was asked for: a peer learns of it by watching."""

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.door.left(self)
            self._out.clear()
            closing.at_once(self._sock.close)

    def fileno(self) -> int:
        return self._sock.fileno()

    def _watch(self) -> None:
        events = select.EPOLLRDHUP
        if self._out:
            events |= select.EPOLLOUT
            self._stuck = self.door.clock() if self._stuck is None else self._stuck
        elif self._last:
            return self.close()
        else:
            self._stuck = None
            events |= select.EPOLLIN if self._asked is None else 0
        self.door.loop.watch(self.fileno(), self._ready, events)

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            try:
                self._out.flush()
            except OSError:
                return self.close()
            self._stuck = None
            return self._watch()
        if events & select.EPOLLIN and self._asked is None:
            return self._hear(events)
        return self.close()

    def _hear(self, events: int) -> None:
        try:
            recvmsg = partial(self._sock.recvmsg, wire.LIMIT, 0, socket.MSG_CMSG_CLOEXEC)
            packet, _, flags, _ = closing.at_once(recvmsg)
            if flags & socket.MSG_CTRUNC:
                raise wire.Malformed("a descriptor was attached")
            if flags & socket.MSG_TRUNC:
                raise wire.Malformed(f"a packet of more than {wire.LIMIT} bytes")
            if not packet and events & (select.EPOLLRDHUP | select.EPOLLHUP):
                return self.close()
            request = wire.REQUEST.decode(packet)
        except BlockingIOError:
            return None
        except OSError:
            return self.close()
        except wire.Malformed as problem:
            self.door.wrong(str(problem))
            return self.close()
        self._asked = request.id
        self._watch()
        return self.door.asked(self, request)


class NoConnection(Connection):
    """Of root, who asks by a signal to the daemon. What is refused is noted, and how else it has ended."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.root, self.closed, self._note = True, True, note

    def answer(self, reply: messages.Reply | messages.Event, fd: int = -1, *, more: bool = False) -> None:
        if isinstance(reply, messages.Refused):
            self._note(f"a signal asked for what is refused: {reply.text}")

    def over(self, ended: messages.Ended) -> None:
        self._note(f"asked for by a signal: {ended.text}")
        for problem in ended.problems:
            self._note(headline(mentions.plain_problem(problem)))


class Door:
    """One listening socket and its connections. `uid` is whose connections are taken."""

    def __init__(
        self, name: str, fd: int, uid: int, limit: int, loop: ipc.Loop, clock: Callable[[], float], asked: Asked,
        note: Callable[[str], None], root: bool = False,
    ) -> None:  # fmt: skip
        self.loop, self.clock, self.asked, self.root = loop, clock, asked, root
        self.turned_away = 0  # connections of somebody else, and packets that were no requests
        self._name, self._uid, self._limit, self._note = name, uid, limit, note
        self._sock = socket.socket(fileno=fd)
        self._sock.setblocking(False)
        self._connections: dict[int, Connection] = {}
        self._again: float | None = None  # when accepting is tried again

    def open(self) -> None:
        """Take connections from now on; those that came before have waited in the queue."""
        self._again = None
        self.loop.watch(self._sock.fileno(), lambda _: self._accept())

    def wake_at(self) -> float | None:
        due = [at for connection in self._connections.values() if (at := connection.wake_at()) is not None]
        return min([*due, *([] if self._again is None else [self._again])], default=None)

    def wake(self, now: float) -> None:
        if self._again is not None and self._again <= now:
            self.open()
        for connection in list(self._connections.values()):
            at = connection.wake_at()
            if at is not None and at <= now:
                connection.close()

    def left(self, connection: Connection) -> None:
        self.loop.forget(connection.fileno())
        del self._connections[connection.fileno()]
        if len(self._connections) == self._limit - 1:
            self.open()

    def wrong(self, what: str) -> None:
        """Count it, and say so at 1, 10, 100, …: whoever sends nonsense must not fill a disk with it."""
        self.turned_away += 1
        if str(self.turned_away).strip("0") == "1":
            self._note(f"{self._name}: {what[:200]} ({self.turned_away} such so far)")

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if len(self._connections) >= self._limit:
                return self.loop.forget(self._sock.fileno())  # the others wait in the queue until one leaves
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return None
            except OSError as error:
                self._note(f"{self._name}: no connection can be taken now: {error.strerror}")
                self._again = self.clock() + BREATH
                return self.loop.forget(self._sock.fileno())
            sock.setblocking(False)
            _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            if uid != self._uid:
                self.wrong(f"a connection of uid {uid}")
                closing.at_once(sock.close)
                continue
            with contextlib.suppress(OSError):  # an older kernel: _hear refuses what is attached
                sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
            self._connections[sock.fileno()] = Connection(self, sock, self.clock())
        return None
