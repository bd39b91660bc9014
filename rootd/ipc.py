"""The fixed-size messages between the processes, and the links they travel on.

Rule 1: a message is one SEQPACKET packet of exactly SIZE bytes, and a body on the links that allow one; anything else
        is Malformed.
Rule 2: nothing here decides what a message may ask; each receiver checks every field it uses.
Rule 3: standard library only, and little of it: keeper and privileged import this file.

Sources: unix(7) (SOCK_SEQPACKET, SCM_RIGHTS), recvmsg(2) (MSG_TRUNC, MSG_CTRUNC), epoll(7), DESIGN §14.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

T = TypeVar("T")

VERSION = 1
# version op scope flags | seq generation slot | run arg extra | digest name
_LAYOUT = struct.Struct("<BBBBIIIQqq32s176s")
SIZE = _LAYOUT.size
NAME_LIMIT = 176  # bytes of UTF-8 in Message.name
BODY_LIMIT = 48 * 1024  # bytes that may follow the fixed part, on the links that allow a body
SO_PASSRIGHTS = 83  # linux/socket.h; not in the socket module of Python 3.11
FDS_LIMIT = 4  # descriptors in one packet
STDERR_LIMIT = 4_096  # bytes of a note: PIPE_BUF, what a pipe that is ready takes at once
QUEUE_LIMIT = 65_536  # packets waiting for a peer that does not read

# supervisor -> privileged; RENEW goes on to the keeper: a probe that does not answer is to be killed. So does UPGRADE,
# which comes back, with why not in a memfd, when the keeper stays what it is
SPAWN, SIGNAL, ADOPT, STAGE, COMMIT, ABORT, REPLACE, SHUTDOWN, RENEW, UPGRADE = range(1, 11)
# privileged -> supervisor
TABLE, FACT, FACTS_END, CHANNEL, SPAWNED, EXITED, EMPTY, DONE = range(20, 28)
# privileged -> log, log -> privileged, supervisor -> log, log -> supervisor
PIPE, DEED, PING, PONG, DRAINED, RECORD, RECORDED, KEEP, KEPT, LOST, CLEAR, CLEARED = range(40, 52)
# privileged -> keeper (STORE … END), keeper -> everybody (HELD, HELD_END, LINK), keeper -> privileged (REAPED)
STORE, DROP, BEGIN, END, HELD, HELD_END, LINK, REAPED = range(60, 68)
# supervisor -> probe, probe -> supervisor
CHECK, CHECKED = 80, 81

MAIN, TREE = 0, 1  # scope of SIGNAL
KNOWN, CORE, NEEDS_ROOT, INVALID, RUNNING, LEFT = 1, 2, 4, 8, 16, 32  # flags; LEFT: of a FACT, its end is known
NOTIFY, READY = 1, 2  # scope of CHANNEL: the socket of sd_notify(3), the read end of a pipe for a newline
TCP, HTTP = 1, 2  # scope of CHECK
NO_LOGINS, RUNS, REOPEN = 1, 1, 1  # scope of BEGIN: nobody logs in; of KEEP: when jobs ran; of CLEAR: begun anew
KEPT_TOO = 1  # scope of HELD_END: what is held outlives the keeper
LOW = (1 << 56) - 1  # of PIPE and DRAINED, how a log is kept: these bits of it are extra, those above generation
REPLACED = 1  # scope of KEPT: what was there is not there any more, whatever its errno says

# in the store at the start: what who has checked root's files has made of them (stage.show), in this order
STAGED = ("staged/generation", "staged/settings", "staged/secrets")
REPLACE_CODE = 75  # exit status of a privileged that wants to be started again as root
# what a child of privileged was doing when it failed, by number in EXITED.extra
STEPS = (
    "nothing", "gate", "cgroup", "session", "descriptors", "limits", "groups", "gid", "uid", "capabilities",
    "no-new-privileges", "directory", "exec", "verify", "pipe", "fork", "store", "notify", "left",
    "nice", "I/O priority", "OOM score", "CPU affinity", "files", "credentials", "cgroup limits",
    "/dev/null",
)  # fmt: skip
UNSET = (0, "", bytes(32))


class Malformed(Exception):
    """The peer sent what is not a message: close that link, note it, carry on."""


class Message(NamedTuple):
    """One fixed-size message, its fields in the order of the packet: unsigned integers unless said otherwise.

    arg and extra are signed 64 bit; digest is 32 bytes; name is text of at most NAME_LIMIT bytes.
    body (at most BODY_LIMIT bytes) follows the fixed part and is empty on every link but those from supervisor
    to log and to probe, and from privileged to the keeper: the names of several descriptors that are stored at once.
    """

    op: int
    scope: int = 0
    flags: int = 0
    seq: int = 0
    generation: int = 0
    slot: int = 0
    run: int = 0
    arg: int = 0
    extra: int = 0
    digest: bytes = bytes(32)
    name: str = ""
    body: bytes = b""

    def __repr__(self) -> str:
        fields = zip(self._fields[:-1], self, strict=False)
        return f"<Message {' '.join(f'{name}={value!r}' for name, value in fields if value not in UNSET)}>"

    def encode(self) -> bytes:
        """The packet. Raises ValueError when a field does not fit."""
        *fixed, name, body = self
        text = name.encode()
        if len(text) > NAME_LIMIT or len(self.digest) not in (0, 32) or len(body) > BODY_LIMIT:
            raise ValueError(f"a field of {self!r} is too long")
        try:
            return _LAYOUT.pack(VERSION, *fixed, text) + body
        except struct.error as error:
            raise ValueError(f"a field of {self!r} is out of range: {error}") from None


def decode(packet: bytes, *, body: bool = False) -> Message:
    """A message from one packet; raises Malformed. `body` says whether this link may carry one."""
    if len(packet) < SIZE or (len(packet) > SIZE and not body) or len(packet) > SIZE + BODY_LIMIT:
        raise Malformed(f"a packet of {len(packet)} bytes where {SIZE} were expected")
    version, *fixed, raw = _LAYOUT.unpack_from(packet)
    if version != VERSION:
        raise Malformed(f"message version {version} where {VERSION} was expected")
    name, _, padding = raw.partition(b"\0")
    if padding.strip(b"\0"):
        raise Malformed("bytes after the end of the name")
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise Malformed("the name is not UTF-8") from None
    return Message._make((*fixed, text, packet[SIZE:]))


class Link:
    """One end of a SEQPACKET socketpair between two of our processes. Owns its socket.

    `takes_fds` says whether descriptors may arrive here; where they may not, any that come are closed
    and the packet is Malformed. `body` says whether packets may carry a body.
    """

    def __init__(self, sock: socket.socket, *, takes_fds: bool = False, body: bool = False) -> None:
        self.sock = sock
        self._takes_fds = takes_fds
        self._body = body
        self.broken = False  # the peer has taken no more: what is sent is lost, though the end was not heard yet
        self._queue: deque[tuple[bytes, tuple[int, ...]]] = deque()
        sock.setblocking(False)

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def waiting(self) -> int:
        """How many packets wait for the peer: while some do, the loop should watch EPOLLOUT and call flush."""
        return len(self._queue)

    def send(self, message: Message, *fds: int) -> None:
        """Send, or queue a duplicate of each descriptor with the packet. The caller keeps its descriptors.

        Raises BrokenPipeError or ConnectionResetError when the peer is gone, OverflowError when it does not read, and
        OSError when there are no descriptors left.
        """
        packet = message.encode()
        if not self._queue:
            with contextlib.suppress(BlockingIOError):
                return self._push(packet, fds)
        if len(self._queue) >= QUEUE_LIMIT:
            raise OverflowError("the peer does not read its messages")
        kept = list[int]()
        try:
            for fd in fds:
                kept.append(os.dup(fd))
        except OSError:
            close_all(kept)
            raise
        self._queue.append((packet, tuple(kept)))

    def send_now(self, message: Message, *fds: int) -> None:
        """Send and wait until the packet is in the peer's queue: for the store, whose peer always reads."""
        packet = message.encode()
        while True:
            self.flush()
            with contextlib.suppress(BlockingIOError):
                if not self._queue:
                    return self._push(packet, fds)
            wait(self.sock, select.POLLOUT)

    def flush(self) -> None:
        """Send what waits, as far as the peer reads."""
        while self._queue:
            packet, fds = self._queue[0]
            try:
                self._push(packet, fds)
            except BlockingIOError:
                return
            self._queue.popleft()
            close_all(fds)

    def drain(self, seconds: float) -> None:
        """Send what waits, until the peer takes nothing for so long or is gone."""
        with contextlib.suppress(OSError):
            while self.waiting and wait(self.sock, select.POLLOUT, seconds):
                self.flush()

    def _push(self, packet: bytes, fds: Iterable[int]) -> None:
        try:
            self.sock.sendmsg([packet], rights(fds), socket.MSG_NOSIGNAL)
        except ConnectionError:
            self.broken = True
            raise

    def receive(self) -> tuple[Message, list[int]] | None:
        """The next message and its descriptors (the caller's to close), or None at the end of the link.

        Raises BlockingIOError when nothing is there and Malformed when the packet is no message (its
        descriptors are closed by then). An empty packet counts as the end: our own processes send none.
        """
        limit = SIZE + (BODY_LIMIT if self._body else 0)
        space = socket.CMSG_SPACE(FDS_LIMIT * 4)
        packet, control, flags, _ = after_reset(lambda: self.sock.recvmsg(limit, space, socket.MSG_CMSG_CLOEXEC))
        fds = descriptors(control)
        try:
            if flags & socket.MSG_CTRUNC and self._takes_fds:
                raise Malformed("a truncated packet of descriptors: raise the limit of open files (LimitNOFILE=)")
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise Malformed("a truncated packet")
            if fds and not self._takes_fds:
                raise Malformed("a descriptor where none is taken")
            if not packet:
                close_all(fds)
                return None
            return decode(packet, body=self._body), fds
        except Malformed:
            close_all(fds)
            raise

    def close(self) -> None:
        for _, fds in self._queue:
            close_all(fds)
        self._queue.clear()
        self.sock.close()


def rights(fds: Iterable[int]) -> list[tuple[int, int, array.array[int]]]:
    """What sendmsg(2) sends these by; nothing for none."""
    sent = array.array("i", fds)
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, sent)] if sent else []


def descriptors(control: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """Those that have come with what recvmsg(2) says; the caller's to close."""
    found = array.array("i")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def after_reset(read: Callable[[], T]) -> T:
    """What `read` gives. A peer that is gone and has left something unread is told of once, by ECONNRESET, and before
    what it had sent (af_unix.c, unix_release_sock): that is read all the same."""
    try:
        return read()
    except ConnectionResetError:
        return read()


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def wait(fd: int | socket.socket | Link, events: int = select.POLLIN, seconds: float | None = None) -> bool:
    """Wait for an event on one descriptor, whatever its number is (select(2) ends at 1,024). False: none in time."""
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def note(who: str, text: str) -> None:
    """A line on stderr, and one alone, harmless for a terminal: what is wrong with a message is told in its own words.
    One that nobody takes is lost: neither a reader that is gone nor one that sleeps stops us."""
    line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:STDERR_LIMIT])
    with contextlib.suppress(OSError):
        if wait(2, select.POLLOUT, 0):
            os.write(2, f"durward-{who}: {line}".encode()[: STDERR_LIMIT - 1] + b"\n")


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected SEQPACKET sockets, close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def link_from(fd: int, *, takes_fds: bool = False, body: bool = False) -> Link:
    """A Link over a descriptor that arrived; the Link owns it from now on."""
    return Link(socket.socket(fileno=fd), takes_fds=takes_fds, body=body)


class Inherited:
    """What the keeper handed to a role at its start: descriptors by name, links by the peer's role."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.links: dict[str, tuple[int, int]] = {}  # role -> (socket, pidfd of the peer)
        self.reaped: dict[int, int] = {}  # pid -> last exit status of orphans; privileged alone is told
        self.outlives = False  # what is held outlives the keeper
        self.program, self.upgrades = "", 0  # the keeper's version, and how often it has become another

    def add(self, message: Message, fds: list[int]) -> None:
        """One HELD, LINK or REAPED message; anything else is Malformed."""
        if message.op == HELD and len(fds) == 1:
            self.held[message.name] = fds[0]
        elif message.op == LINK and len(fds) == 2:
            self.links[message.name] = (fds[0], fds[1])
        elif message.op == REAPED and not fds:
            self.reaped[message.arg] = message.extra
        else:
            close_all(fds)
            raise Malformed(f"{message!r} while inheriting")


def inherit(keeper: Link, inherited: Inherited | None = None, until: str = "") -> Inherited:
    """Everything that the keeper sends before HELD_END. Waits for it; raises EOFError when the keeper is gone.

    inherited: what has been heard already. until: or up to the descriptor of this name.
    """
    inherited = inherited or Inherited()
    while not until or until not in inherited.held:
        wait(keeper)
        received = keeper.receive()
        if received is None:
            raise EOFError("the keeper is gone")
        message, fds = received
        if message.op == HELD_END:
            inherited.outlives = message.scope == KEPT_TOO
            inherited.program, inherited.upgrades = message.name, message.arg
            return inherited
        inherited.add(message, fds)
    return inherited


Handler = Callable[[int], None]


class Loop:
    """One epoll, one handler a descriptor. The only place of a process that waits."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[Handler, int]] = {}
        self._forgotten: set[int] = set()  # in this turn

    def watch(self, fd: int, handler: Handler, events: int = select.EPOLLIN) -> None:
        """Call handler(events) when fd is ready; calling again changes handler and events."""
        if fd not in self._watched:
            self._epoll.register(fd, events)
        elif self._watched[fd][1] != events:
            self._epoll.modify(fd, events)
        self._watched[fd] = handler, events

    def forget(self, fd: int) -> None:
        """Stop watching; must be called before the descriptor is closed. Unknown descriptors are ignored."""
        if self._watched.pop(fd, None) is not None:
            self._forgotten.add(fd)
            self._epoll.unregister(fd)

    def turn(self, timeout: float | None = None) -> None:
        """Wait at most `timeout` seconds (None: for ever) and run the handlers of what is ready."""
        self._forgotten.clear()
        for fd, events in self._epoll.poll(timeout if timeout is None else max(timeout, 0.0), 256):
            if fd not in self._forgotten:  # by an earlier handler of this turn: its number may be another's already
                self._watched[fd][0](events)

    def close(self) -> None:
        self._epoll.close()
