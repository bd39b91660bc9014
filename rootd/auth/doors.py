"""auth.sock, where the api asks, and peer.sock, where local people may ask for themselves: packets in, answers out.

Rule 1: SO_PEERCRED says who is at the other end; no pid is ever looked at, nothing else is believed.
Rule 2: one request a connection at a time; until it is answered, nothing more is read.
Rule 3: what is no request of this door closes that connection and is counted, and nothing else happens.
Rule 4: descriptors are never taken; nobody is waited for: each connection has a time by which it must have asked.

Sources: unix(7), recvmsg(2) MSG_TRUNC and MSG_CTRUNC, socket(7) SO_PASSRIGHTS (Linux 6.16).
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections import Counter
from collections.abc import Callable
from functools import partial

from policy import login, wire
from rootd import closing, ipc
from rootd.auth.timers import Timer, Timers
from rootd.ipc import SO_PASSRIGHTS

FIRST = 2.0  # seconds from the connection to its first request
NEXT = 10.0  # seconds from an answer to the next request
AT_ONCE = 32  # connections accepted in one turn
BREATH = 0.2  # seconds until accepting is tried again when descriptors or memory were short
_UCRED = struct.Struct("=iII")

Asked = Callable[["Connection", login.Ask], None]


class Connection:
    """One peer. `uid` is the kernel's word."""

    def __init__(self, door: Door, sock: socket.socket, uid: int) -> None:
        self.uid = uid
        self.closed = False
        self._door, self._sock = door, sock
        self._asked = False
        self._timer: Timer = door.timers.at(door.clock() + FIRST, self.close)
        self._watch()

    def answer(self, tell: login.Tell) -> None:
        """Nothing happens when the peer is gone; one that does not read is dropped."""
        if self.closed or not self._asked:
            return
        self._asked = False
        self._timer = self._door.timers.at(self._door.clock() + NEXT, self.close)
        try:
            self._sock.send(wire.TELL.encode(tell), socket.MSG_NOSIGNAL)
        except OSError:
            return self.close()
        self._watch()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._timer.cancel()
            self._door.left(self)
            closing.at_once(self._sock.close)

    def fileno(self) -> int:
        return self._sock.fileno()

    def _watch(self) -> None:
        self._door.loop.watch(self.fileno(), self._ready, select.EPOLLRDHUP | (0 if self._asked else select.EPOLLIN))

    def _ready(self, events: int) -> None:
        if self._asked or not events & select.EPOLLIN:
            return self.close()
        try:
            recvmsg = partial(self._sock.recvmsg, wire.LIMIT, 0, socket.MSG_CMSG_CLOEXEC)
            packet, _, flags, _ = closing.at_once(recvmsg)
            if flags & socket.MSG_CTRUNC:
                raise wire.Malformed("a descriptor was attached")
            if flags & socket.MSG_TRUNC:
                raise wire.Malformed(f"a packet of more than {wire.LIMIT} bytes")
            if not packet and events & (select.EPOLLRDHUP | select.EPOLLHUP):
                return self.close()
            ask = wire.ASK.decode(packet)
            if not isinstance(ask, self._door.kinds):
                raise wire.Malformed("a request that this door does not take")
        except BlockingIOError:
            return None
        except OSError:
            return self.close()
        except wire.Malformed as problem:
            self._door.wrong(str(problem))
            return self.close()
        self._asked = True
        self._timer.cancel()
        self._watch()
        return self._door.asked(self, ask)


class Door:
    """One listening socket and its connections.

    uids: whose connections are taken, None is everybody's; never those of `but`. kinds: what may be asked.
    each: connections of one uid.
    """

    def __init__(
        self, name: str, fd: int, uids: frozenset[int] | None, kinds: tuple[type[login.Ask], ...], limit: int,
        each: int, loop: ipc.Loop, timers: Timers, clock: Callable[[], float], asked: Asked, say: Callable[[str], None],
        but: frozenset[int] = frozenset(),
    ) -> None:  # fmt: skip
        self.loop, self.timers, self.clock, self.asked, self.kinds = loop, timers, clock, asked, kinds
        self.turned_away = 0  # connections of somebody else, and packets that were no requests
        self._name, self._uids, self._but, self._limit, self._each, self._say = name, uids, but, limit, each, say
        self._sock = socket.socket(fileno=fd)
        self._sock.setblocking(False)
        self._connections: set[Connection] = set()
        self._by_uid: Counter[int] = Counter()

    def open(self) -> None:
        """Take connections from now on; those that came before have waited in the queue."""
        self.loop.watch(self._sock.fileno(), lambda _: self._accept())

    def left(self, connection: Connection) -> None:
        self.loop.forget(connection.fileno())
        self._connections.discard(connection)
        self._by_uid[connection.uid] -= 1
        if not self._by_uid[connection.uid]:
            del self._by_uid[connection.uid]
        if len(self._connections) == self._limit - 1:
            self.open()

    def wrong(self, what: str) -> None:
        """Count it, and say so at 1, 10, 100, …: whoever sends nonsense must not fill a disk with it."""
        self.turned_away += 1
        if str(self.turned_away).strip("0") == "1":
            self._say(f"{self._name}: {what[:200]} ({self.turned_away} such so far)")

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if len(self._connections) >= self._limit:
                return self.loop.forget(self._sock.fileno())  # the others wait in the queue until one leaves
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return None
            except OSError as error:
                self._say(f"{self._name}: no connection can be taken now: {error.strerror}")
                self.timers.at(self.clock() + BREATH, self.open)
                return self.loop.forget(self._sock.fileno())
            sock.setblocking(False)
            _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            if uid in self._but or (self._uids is not None and uid not in self._uids):
                self.wrong(f"a connection of uid {uid}")
                closing.at_once(sock.close)
                continue
            if self._by_uid[uid] >= self._each:
                self.wrong(f"more than {self._each} connections of uid {uid}")
                closing.at_once(sock.close)
                continue
            with contextlib.suppress(OSError):  # an older kernel: _ready refuses what is attached
                sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
            self._by_uid[uid] += 1
            self._connections.add(Connection(self, sock, uid))
        return None
