"""Service output, from pipes to files: <log>/<process>/{stdout,stderr}.log, rotated to .1, .2 … by size.

Rule 1: bytes leave a pipe and enter their file in one system call (splice), so that SIGKILL at any moment loses none
        and doubles none. Nothing that must survive is held here: where a file ends is asked of the file, each time.
Rule 2: nothing is ever thrown away but rotated files beyond `keep`. A pipe whose file cannot be written is left as it
        is, its service waits when the pipe is full, and it is tried again each RETRY seconds; the others go on.
Rule 3: output is not parsed; the only byte that is looked for is the newline before which a file may end.
Rule 4: every name is opened beneath the log directory, component by component, never through a link.
Rule 5: one turn moves at most TURN bytes of a pipe and looks at most at BATCH pipes; then the links have their turn.

A file ends at the last newline that its size allows. A line that is longer than that makes the file end after it, but
at most LINE_LIMIT bytes (or once more its size, where that is less) beyond: there the line is cut, no byte is lost.
Two runs of one process (a rolling restart) append to one file in the order in which their bytes come.

Sources: splice(2) (O_APPEND files are refused, so the offset is the size), tee(2), pipe(7), fcntl(2) F_SETPIPE_SZ.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import stat
from collections.abc import Callable
from typing import NamedTuple

TURN = 1024 * 1024  # bytes of one pipe in one go; also the size to which a busy pipe grows
BATCH = 16  # pipes in one go
LINE_LIMIT = 64 * 1024  # bytes by which the end of a line may make a file larger than its size
FILES_LIMIT = 512  # files kept open
KEEP_LIMIT = 1_000
LAST_ROUNDS = 4  # looks at each pipe when log ends
RETRY = 1.0  # seconds
STREAMS = {"stdout": 1, "stderr": 2}

_NAMES = {1: "stdout.log", 2: "stderr.log"}
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_OTHER = _FIRST | frozenset("_.-")
_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Source(NamedTuple):
    """Whose pipe it is: one stream of one run, and the file that it goes to."""

    process: str
    stream: int
    run: int
    slot: int
    size: int  # bytes at which the file is rotated
    keep: int  # rotated files that are kept


def check(source: Source) -> Source:
    """The source itself, or ValueError with what is wrong with it."""
    name = source.process
    if not name or len(name) > 80 or name[0] not in _FIRST or not _OTHER.issuperset(name):
        raise ValueError(f"{name!r} is not the name of a process")
    if source.stream not in _NAMES:
        raise ValueError(f"{source.stream} is not a stream")
    if source.size < 1 or not 0 <= source.keep <= KEEP_LIMIT or source.run < 0 or source.slot < 0:
        raise ValueError(f"a number of {source!r} is out of range")
    return source


def source_of(held_name: str) -> Source:
    """From the name in the keeper's store, pipe/<process>/<stream>/<run>/<size>/<keep>/<slot>. Raises ValueError."""
    parts = held_name.split("/")
    if len(parts) != 7 or parts[0] != "pipe" or not all(p.isdecimal() and p.isascii() for p in parts[3:]):
        raise ValueError(f"{held_name!r} is not the name of a pipe")
    run, size, keep, slot = (int(part) for part in parts[3:])
    return check(Source(parts[1], STREAMS.get(parts[2], 0), run, slot, size, keep))


def cut(window: bytes, room: int, reach: int, at_line_end: bool) -> tuple[int, bool]:
    """How much of window goes into the file, and whether the file then ends there.

    room: bytes until the file has its size, reach: until it may not grow further (room < reach);
    at_line_end: whether the file is not empty and ends with a newline.
    """
    if len(window) <= room:
        return len(window), False
    room = max(room, 0)
    if end := window.rfind(b"\n", 0, room) + 1:
        return end, True
    if at_line_end or reach <= 0:
        return 0, True
    if end := window.find(b"\n", room, reach) + 1:
        return end, True
    return min(len(window), reach), len(window) >= reach


class LogFile:
    """One file that pipes end in, with its rotated predecessors. Open only while it is busy."""

    __slots__ = ("_allowance", "_name", "_process", "_root", "fd", "users")

    def __init__(self, root: int, process: str, stream: int) -> None:
        self._root = root
        self._process = process
        self._name = _NAMES[stream]
        self._allowance = 0  # bytes that a file may grow further because it could not be rotated
        self.users = 0
        self.fd = -1

    @property
    def shown(self) -> str:
        return f"{self._process}/{self._name}"

    def ready(self) -> int:
        """Have the file open; its size. Raises OSError."""
        if self.fd >= 0:
            now = os.fstat(self.fd)
            if now.st_nlink == 1:
                return now.st_size
            self.close()  # somebody removed it
        directory = self._directory()
        try:
            self.fd = self._open(directory)
        finally:
            os.close(directory)
        return os.fstat(self.fd).st_size

    def room(self, size: int, limit: int) -> int:
        return limit + self._allowance - size

    def ends_line(self, size: int) -> bool:
        return size > 0 and os.pread(self.fd, 1, size - 1) == b"\n"

    def rotate(self, keep: int) -> None:
        """Begin a new file. Killed in between, the next rotation goes on; a number left free is used first."""
        directory = self._directory()
        try:
            numbers = self._numbers(directory)
            for number in numbers:
                if number > keep:
                    os.unlink(f"{self._name}.{number}", dir_fd=directory)
            if keep == 0:
                os.unlink(self._name, dir_fd=directory)
            else:
                free = next((number for number in range(1, keep) if number not in numbers), keep)
                for number in range(free, 0, -1):
                    older = f"{self._name}.{number - 1}" if number > 1 else self._name
                    os.rename(older, f"{self._name}.{number}", src_dir_fd=directory, dst_dir_fd=directory)
            self._allowance = 0
            self.close()
            self.fd = self._open(directory)
        finally:
            os.close(directory)

    def allow(self, more: int) -> None:
        """Let the file grow further: it could not be rotated, and bytes matter more than sizes."""
        self._allowance += more

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _directory(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | _SAFE
        try:
            return os.open(self._process, flags, dir_fd=self._root)
        except FileNotFoundError:
            os.mkdir(self._process, 0o750, dir_fd=self._root)  # the group comes from the setgid log directory
            return os.open(self._process, flags, dir_fd=self._root)

    def _open(self, directory: int) -> int:
        fd = os.open(self._name, os.O_RDWR | os.O_CREAT | _SAFE, 0o640, dir_fd=directory)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            os.close(fd)
            raise OSError(errno.EPERM, f"{self.shown} is not a plain file of log's own")
        return fd

    def _numbers(self, directory: int) -> set[int]:
        tails = (name.removeprefix(f"{self._name}.") for name in os.listdir(directory))
        return {int(tail) for tail in tails if tail.isascii() and tail.isdecimal() and tail[0] != "0"}


class Pipe:
    """One stream of one run: the read end, which this owns, and where it goes."""

    __slots__ = ("capacity", "fd", "file", "grown", "source")

    def __init__(self, source: Source, fd: int, file: LogFile) -> None:
        self.source = source
        self.fd = fd
        self.file = file
        self.capacity = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
        self.grown = self.capacity >= TURN


class Mover:
    """All pipes. `root` is the log directory, kept open; `drained` is told of each pipe at its end.

    fileno() is ready when a pipe is: call turn then. wake_at says when to call retry, None when there is no trouble.
    """

    def __init__(self, root: int, drained: Callable[[Source], None], say: Callable[[str], None]) -> None:
        self._root = root
        self._drained = drained
        self._say = say
        self._epoll = select.epoll()
        self._pipes: dict[int, Pipe] = {}
        self._known: set[tuple[int, int]] = set()
        self._files: dict[tuple[str, int], LogFile] = {}
        self._open: dict[LogFile, None] = {}
        self._parked: list[Pipe] = []  # not watched until the next retry
        self._troubled: set[Pipe] = set()  # those whose last attempt failed
        self._said: set[int] = set()
        self._look_out, self._look_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _grow(self._look_out)
        self._tee = ctypes.CDLL(None, use_errno=True).tee
        self._tee.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)
        self._tee.restype = ctypes.c_ssize_t
        self.wake_at: float | None = None

    def fileno(self) -> int:
        return self._epoll.fileno()

    def add(self, source: Source, fd: int) -> None:
        """Take a pipe over, and its descriptor. One that is known already, or is no pipe, is closed."""
        key = (source.run, source.stream)
        if key in self._known or not stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.close(fd)
            return
        os.set_blocking(fd, False)
        file = self._files.setdefault(
            (source.process, source.stream), LogFile(self._root, source.process, source.stream)
        )
        file.users += 1
        self._known.add(key)
        self._pipes[fd] = Pipe(source, fd, file)
        self._epoll.register(fd, select.EPOLLIN)

    def turn(self, now: float) -> None:
        """Move what is ready, a bounded amount."""
        for fd, _events in self._epoll.poll(0, BATCH):
            self._serve(self._pipes[fd], now)

    def retry(self, now: float) -> None:
        """Look again at the pipes whose files could not be written."""
        if self.wake_at is None or now < self.wake_at:
            return
        parked, self._parked, self.wake_at = self._parked, [], None
        for pipe in parked:
            self._epoll.register(pipe.fd, select.EPOLLIN)

    def last(self, now: float) -> None:
        """Move what lies in the pipes now: log ends. A service that goes on talking does not hold it up."""
        for _ in range(LAST_ROUNDS):
            for fd, _events in self._epoll.poll(0, len(self._pipes) + 1):
                self._serve(self._pipes[fd], now)

    def close(self) -> None:
        """Let go of every descriptor but the log directory. What is still in the pipes stays in them."""
        for fd in [*self._pipes, self._look_out, self._look_in]:
            os.close(fd)
        for file in self._files.values():
            file.close()
        self._epoll.close()

    def _serve(self, pipe: Pipe, now: float) -> None:
        try:
            ended = self._move(pipe)
        except BlockingIOError:
            return
        except OSError as error:
            self._park(pipe, error, now)
            return
        if pipe in self._troubled:
            self._troubled.discard(pipe)
            if not self._troubled:
                self._said.clear()
                self._say("all log files are being written again; nothing was lost")
        if ended:
            self._end(pipe)

    def _move(self, pipe: Pipe) -> bool:
        """One splice. True at the end of the pipe; raises BlockingIOError when there is nothing in it."""
        file, source = pipe.file, pipe.source
        self._use(file)
        size = file.ready()
        room = file.room(size, source.size)
        if room >= TURN:
            moved = self._splice(pipe, size, TURN)
            return moved == 0
        reach = room + min(source.size, LINE_LIMIT)
        window = self._look(pipe.fd, min(max(reach, 1), TURN))
        if not window:
            return True
        take, full = cut(window, room, reach, file.ends_line(size))
        if take and self._splice(pipe, size, take) < take:
            return False
        if full:
            try:
                file.rotate(source.keep)
            except OSError as error:
                file.allow(source.size)
                self._say(f"{file.shown} cannot be rotated and grows on: {error.strerror}")
        return False

    def _splice(self, pipe: Pipe, offset: int, count: int) -> int:
        moved = os.splice(pipe.fd, pipe.file.fd, count, offset_dst=offset, flags=os.SPLICE_F_NONBLOCK)
        if not pipe.grown and moved >= pipe.capacity:
            pipe.grown = True
            _grow(pipe.fd)
        return moved

    def _look(self, fd: int, count: int) -> bytes:
        """A copy of what the pipe holds, at most count bytes, which stay in it. Empty at its end."""
        copied = self._tee(fd, self._look_in, count, os.SPLICE_F_NONBLOCK)
        if copied < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))  # EAGAIN is a BlockingIOError
        window = b""
        while len(window) < copied:
            window += os.read(self._look_out, copied - len(window))
        return window

    def _use(self, file: LogFile) -> None:
        """Keep the files open that were used last."""
        self._open.pop(file, None)
        self._open[file] = None
        if len(self._open) > FILES_LIMIT:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.close()

    def _park(self, pipe: Pipe, error: OSError, now: float) -> None:
        self._epoll.unregister(pipe.fd)
        self._parked.append(pipe)
        self._troubled.add(pipe)
        if self.wake_at is None:
            self.wake_at = now + RETRY
        if error.errno not in self._said:  # each kind of trouble once, not once a pipe
            self._said.add(error.errno or 0)
            self._say(
                f"{pipe.file.shown} cannot be written: {error.strerror}; its service waits when its pipe is full,"
                " and so does every other with this trouble; tried again each second"
            )

    def _end(self, pipe: Pipe) -> None:
        self._epoll.unregister(pipe.fd)
        os.close(pipe.fd)
        del self._pipes[pipe.fd]
        source = pipe.source
        self._known.discard((source.run, source.stream))
        pipe.file.users -= 1
        if pipe.file.users == 0:
            pipe.file.close()
            self._open.pop(pipe.file, None)
            del self._files[(source.process, source.stream)]
        self._drained(source)


def _grow(fd: int) -> None:
    """To TURN bytes, where the kernel's limit for the pipe's owner allows; EPERM is normal (pipe(7))."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, TURN)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EBUSY, errno.ENOMEM):
            raise
