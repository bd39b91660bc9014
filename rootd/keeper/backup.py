"""What the store holds, once more with the service manager: systemd's FD store, out of which the next keeper begins.

Rule 1: it waits for nobody but at an orderly end. What the manager does not take now is sent when it does, in the order
        in which it happened; what is dropped before it was sent is never sent.
Rule 2: the manager knows numbers: it hands on all that it calls descriptors by in one variable, which execve(2) limits.
        What each number is called is in a memfd that it holds as well, written when the descriptor has been sent: one
        that has no name there was never stored, or is over.
Rule 3: an orderly end leaves nothing there, and the names go first.

Sources: sd_notify(3) FDSTORE, FDSTOREREMOVE, FDPOLL, sd_listen_fds(3), systemd.exec(5) $FDSTORE, unix(7), execve(2).
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from rootd import ipc
from rootd.keeper import manifest, reap
from rootd.keeper.manifest import Manifest

HEAD = 4_096  # bytes at the beginning of the names: what the next keeper is told besides, up to the first NUL
LIMIT = 26_000  # numbers: four hexadecimal digits and a colon each, of MAX_ARG_STRLEN (131,072 bytes)
RECORD = struct.Struct(f"<Q{ipc.NAME_LIMIT}s")  # of one number: when it was sent (0: it is free), what it is called
NAMES, SOCKET, PART = "backup/names", "backup/socket", "part/"  # what is held beside the store's
Unreadable = Callable[[Mapping[str, int], str], Iterable[str]]  # what of these versions, of that program, is not read
PATIENCE = 5.0  # seconds that the manager has to take the last of it


class Backup:
    """held: what the store holds, and ours, which is taken out of it: SOCKET is connected to the manager; NAMES, where
    there is one, is of the program before this one, and says what the manager has already."""

    def __init__(self, held: dict[str, int]) -> None:
        self.sock = socket.socket(fileno=held.pop(SOCKET))
        self.sock.setblocking(False)
        self.names = held.pop(NAMES) if NAMES in held else os.memfd_create("durward-names", os.MFD_CLOEXEC)
        self._told = dict[str, int]()  # what the manager has: names and their numbers
        self._waiting = dict[str | int, int]()  # what it is to be told: descriptors by name; numbers that are over: -1
        self._texts = list[bytes]()
        self._order, wanted = 0, {NAMES: self.names, **held}
        records = list(read(self.names))
        for number, order, name in records:
            self._order = max(self._order, order)
            if name in wanted and name not in self._told:
                self._told[name] = number
            else:
                self._waiting[number] = -1
        over, self._waiting = self._waiting, {name: fd for name, fd in wanted.items() if name not in self._told}
        self._waiting |= over  # the names first: theirs is number 0
        self._next = max((number for number, _, _ in records), default=-1) + 1
        self._free = sorted(set(range(self._next)) - {number for number, _, _ in records}, reverse=True)

    def fds(self) -> dict[str, int]:
        """What the next program needs to go on with it."""
        return {SOCKET: self.sock.fileno(), NAMES: self.names}

    def say(self, text: bytes) -> None:
        self._texts.append(text)

    def note(self, told: bytes) -> None:
        """What the next keeper is to know besides: a manifest of at most HEAD bytes."""
        os.pwrite(self.names, struct.pack(f"{HEAD}s", told), 0)

    def put(self, name: str, fd: int) -> None:
        """The descriptor stays the caller's, who keeps it open until he drops it."""
        self._waiting[name] = fd

    def drop(self, name: str) -> None:
        self._waiting.pop(name, None)
        if name in self._told:
            number = self._told.pop(name)
            self._waiting[number] = -1
            if name != NAMES:
                write(self.names, number, 1)  # the next keeper, too, knows at once that it is over

    def flush(self) -> bool:
        """Send what waits, as far as the manager takes it. False: EPOLLOUT tells when it takes more."""
        try:
            while self._texts:
                self._send(self._texts[0])
                self._texts.pop(0)
            while self._waiting:
                what, fd = next(iter(self._waiting.items()))
                if isinstance(what, int):
                    self._send(b"FDSTOREREMOVE=1\nFDNAME=%x" % what)
                    write(self.names, what)
                    self._free.append(what)
                else:
                    self._store(what, fd)
                del self._waiting[what]
        except BlockingIOError:
            return False
        except OSError as error:  # with the next change it is tried again
            ipc.note("keeper", f"the service manager does not take what is to be kept: {error.strerror}")
        return True

    def _store(self, name: str, fd: int) -> None:
        number = self._free[-1] if self._free else self._next
        if number >= LIMIT:
            ipc.note("keeper", f"'{name}' is not kept by the service manager, which has {LIMIT} descriptors already")
            return
        self._send(b"FDSTORE=1\nFDPOLL=0\nFDNAME=%x" % number, fd)
        self._order += 1
        write(self.names, number, self._order, name)
        self._told[name] = number
        if self._free:
            self._free.pop()
        else:
            self._next += 1

    def _send(self, text: bytes, *fds: int) -> None:
        self.sock.sendmsg([text], ipc.rights(fds), socket.MSG_NOSIGNAL)

    def clear(self) -> None:
        """At an orderly end: whoever is started next begins anew."""
        until = time.monotonic() + PATIENCE
        for name in [*self._told, *self._waiting]:
            if isinstance(name, str):
                self.drop(name)
        while not self.flush() and (left := until - time.monotonic()) > 0:
            ipc.wait(self.sock, select.POLLOUT, left)


def write(names: int, number: int, order: int = 0, name: str = "") -> None:
    os.pwrite(names, RECORD.pack(order, name.encode()), HEAD + number * RECORD.size)


def read(names: int) -> Iterator[tuple[int, int, str]]:
    """Number, order and name of everything that the manager was sent."""
    data = os.pread(names, os.fstat(names).st_size, HEAD)
    for number, (order, name) in enumerate(RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size])):
        if order:
            yield number, order, name.rstrip(b"\0").decode(errors="replace")


def found(environ: Mapping[str, str], unreadable: Unreadable) -> tuple[dict[str, int], Manifest | None]:
    """What a manager that keeps descriptors for us hands over: SOCKET and NAMES, and what the last keeper has left.

    Nothing where no manager keeps any; no Manifest where there is nothing to go on with. The parts that there were are
    ended. unreadable: says why this program could not go on with it. Raises OSError when the manager is not there.
    """
    path, room = environ.get("NOTIFY_SOCKET", ""), environ.get("FDSTORE", "")
    if not path or not room.isdecimal() or int(room) == 0:
        return {}, None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + path[1:] if path[0] == "@" else path)
        came, fd = dict(came_with(environ)), sock.detach()
    names = came.pop(0) if 0 in came else os.memfd_create("durward-names", os.MFD_CLOEXEC)
    known = {number: (order, name) for number, order, name in read(names) if name}
    for number in known.keys() - came.keys() - {0}:  # the manager was told that this is over
        write(names, number)
        del known[number]
    for number in came.keys() - known.keys():  # what has no name is over too: Backup finds it there, and says so
        write(names, number, 1)
        os.close(came[number])
    ordered = sorted(known.keys() - {0}, key=lambda number: known[number][0])
    held = {known[number][1]: came[number] for number in ordered}
    for name in [name for name in held if name.startswith(PART)]:
        reap.end(held.pop(name), group=name != f"{PART}privileged")
    ours = {SOCKET: fd, NAMES: names}
    told = manifest_of(names, unreadable) if any(name.startswith("generation/") for name in held) else None
    if told is None:  # the one before us had not begun, or had ended
        ipc.close_all(held.values())
        return ours, None
    return {}, told._replace(held=held | ours)


def manifest_of(names: int, unreadable: Unreadable) -> Manifest | None:
    """What the keeper before us has noted; nothing, and that is said, where this program cannot go on with it."""
    try:
        told = manifest.read(os.pread(names, HEAD, 0).partition(b"\0")[0])
        wrong = [*unreadable(told.formats, told.program)]
    except manifest.Unreadable as problem:
        wrong = [str(problem)]
    if wrong:
        ipc.note("keeper", f"what a keeper before has left cannot be used, all begins anew: {'; '.join(wrong)}")
    return None if wrong else told


def came_with(environ: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Numbers and descriptors; one that was never ours is closed."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return
    words = environ.get("LISTEN_FDNAMES", "").split(":")
    seen = set[int]()
    for fd, word in enumerate(words[: int(environ.get("LISTEN_FDS", "0"))], 3):
        try:
            number = int(word, 16)
        except ValueError:
            number = -1
        if 0 <= number < LIMIT and number not in seen:
            seen.add(number)
            os.set_inheritable(fd, False)
            yield number, fd
        else:
            os.close(fd)
