"""Service output, from pipes to files: <log>/<process>/{stdout,stderr}.log, rotated to .1, .2 … by size and age.

Rule 1: bytes leave a pipe and enter their file in one system call (splice), so that SIGKILL at any moment loses none
        and doubles none. Nothing that must survive is held here: where a file ends is asked of the file, each time.
Rule 2: what cannot be written stays in its pipe, and is tried again each RETRY seconds; the others go on. After GRACE
        seconds it is lost, and counted, where the service is not to wait (`full`); nothing else is ever thrown away
        but rotated files beyond `keep`.
Rule 3: plain output is not parsed; the only byte that is looked for is the newline before which a file may end.
        What is stamped or sent on (pipes.py, forward.py) is read and written, so it is at most once.
Rule 4: every name is opened beneath the log directory, component by component, never through a link.
Rule 5: one turn moves at most TURN bytes of a pipe and looks at most at BATCH pipes; then the links have their turn.

A file ends at the last newline that its size allows. A line that is longer than that makes the file end after it, but
at most LINE_LIMIT bytes (or once more its size, where that is less) beyond: there the line is cut, no byte is lost.
Two runs of one process (a rolling restart) append to one file in the order in which their bytes come.

Sources: splice(2) (O_APPEND files are refused, so the offset is the size), tee(2), pipe(7), fcntl(2) F_SETPIPE_SZ.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import stat
from collections.abc import Callable

from rootd.log import lines
from rootd.log.files import LogFile, write_whole
from rootd.log.forward import Sender
from rootd.log.pack import Packer
from rootd.log.pipes import READ, Pipe
from rootd.log.source import Source, cut

TURN = 1024 * 1024  # bytes of one pipe in one go; also the size to which a busy pipe grows
BATCH = 16  # pipes in one go
LINE_LIMIT = 64 * 1024  # bytes by which the end of a line may make a file larger than its size
FILES_LIMIT = 512  # files kept open
LAST_ROUNDS = 4  # looks at each pipe when log ends
RETRY, SOON, GRACE = 1.0, 0.01, 1.0  # seconds; SOON where a receiver has no room for a moment


class Mover:
    """All pipes. `root` is the log directory, kept open; `drained` is told of each pipe at its end.

    fileno() is ready when a pipe is: call turn then. next() says when to call tend, None when there is nothing to do.
    wall: nanoseconds of the wall clock, for stamps. lost: is told of each loss, bytes and lines since the last time.
    """

    def __init__(
        self, root: int, drained: Callable[[Source], None], say: Callable[[str], None],
        wall: Callable[[], int] = lambda: 0, lost: Callable[[Source, int, int], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self._root = root
        self._drained, self._say, self._wall, self._lost = drained, say, wall, lost
        self._epoll = select.epoll()
        self._pipes: dict[int, Pipe] = {}
        self._known: set[tuple[int, int]] = set()
        self._files: dict[tuple[str, int], LogFile] = {}
        self._open: dict[LogFile, None] = {}
        self._aging: dict[LogFile, None] = {}  # with something in them that will be too old
        self._age_due: float | None = None  # when one of those is, or earlier
        self._parked: list[Pipe] = []  # not watched until the next retry
        self._troubled: set[Pipe] = set()  # those whose last attempt failed
        self._said: set[tuple[str, int | None]] = set()
        self._gone = 0  # bytes lost in this trouble
        self._packer = Packer(root, say)
        self._sender: Sender | None = None
        self._look_out, self._look_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _grow(self._look_out)
        self._tee = ctypes.CDLL(None, use_errno=True).tee
        self._tee.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)
        self._tee.restype = ctypes.c_ssize_t
        self.wake_at: float | None = None  # when parked pipes are looked at again

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
        self._pipes[fd] = pipe = Pipe(source, fd, file, TURN)
        self._epoll.register(fd, select.EPOLLIN)
        if pipe.how.compress and pipe.target == "file":
            self._packer.want(source.process, file.name)  # what a log that was killed had left

    def open_sender(self) -> Sender:
        """Before the walls stand: behind them there is no socket to be had."""
        self._sender = self._sender or Sender()
        return self._sender

    def turn(self, now: float) -> None:
        """Move what is ready, a bounded amount."""
        for fd, _events in self._epoll.poll(0, BATCH):
            self._serve(self._pipes[fd], now)

    def next(self) -> float | None:
        """When to call tend; None: nothing is in trouble, no file grows old, and none is to be compressed."""
        due = (self.wake_at, self._age_due, self._packer.due if self._packer.busy else None)
        return min((when for when in due if when is not None), default=None)

    def tend(self, now: float) -> None:
        """What is due: pipes in trouble, files that are too old, a slice of what is to be compressed."""
        self.retry(now)
        if self._age_due is not None and now >= self._age_due:
            for file in [file for file in self._aging if file.due is None or now >= file.due]:
                self._grown_old(file, now)
            self._age_due = min((file.due for file in self._aging if file.due is not None), default=None)
        if self._packer.busy and now >= self._packer.due:
            self._packer.step(now, busy=bool(self._epoll.poll(0, 1)))

    def retry(self, now: float) -> None:
        """Look again at the pipes whose files could not be written."""
        if self.wake_at is None or now < self.wake_at:
            return
        parked, self._parked, self.wake_at = self._parked, [], None
        for pipe in parked:
            self._epoll.register(pipe.fd, select.EPOLLIN)
            if pipe.out:  # which has left the pipe: nothing else would wake up for it
                self._serve(pipe, now)

    def last(self, now: float) -> None:
        """Move what lies in the pipes now: log ends. A service that goes on talking does not hold it up."""
        for _ in range(LAST_ROUNDS):
            for fd, _events in self._epoll.poll(0, len(self._pipes) + 1):
                self._serve(self._pipes[fd], now)
        for pipe in self._pipes.values():
            if pipe.held and not pipe.losing:  # it has left the pipe: written as it is, where that can be
                pipe.queue(pipe.record(pipe.held, self._time(), len(pipe.held)))
                pipe.held = b""
            with contextlib.suppress(OSError):
                self._deliver(pipe, now)
            if pipe.out or pipe.losing:
                with contextlib.suppress(BlockingIOError):
                    pipe.discard()
                self._report(pipe)

    def close(self) -> None:
        """Let go of every descriptor but the log directory. What is still in the pipes stays in them."""
        for fd in [*self._pipes, self._look_out, self._look_in]:
            os.close(fd)
        for file in self._files.values():
            file.close()
        self._packer.close()
        if self._sender is not None:
            self._sender.close()
        self._epoll.close()

    def _serve(self, pipe: Pipe, now: float) -> None:
        try:
            if pipe.losing and now < pipe.try_at:
                ended = pipe.discard()
            elif pipe.losing and not self._own_up(pipe, now):
                return
            elif pipe.spliced:
                ended = self._move(pipe, now)
            else:
                ended = not pipe.out and pipe.fill(self._time())
                self._deliver(pipe, now)
        except BlockingIOError:
            return
        except OSError as error:
            ended = self._failed(pipe, error, now)
        else:
            self._recovered(pipe)
        if ended:
            self._end(pipe, now)

    def _recovered(self, pipe: Pipe) -> None:
        if pipe in self._troubled and not pipe.losing:
            pipe.since = None
            self._troubled.discard(pipe)
            if not self._troubled:
                self._said.clear()
                lost = f"{self._gone} bytes were lost" if self._gone else "nothing was lost"
                self._gone = 0
                self._say(f"all log files are being written again; {lost}")

    def _failed(self, pipe: Pipe, error: OSError, now: float) -> bool:
        """Nothing takes what the pipe holds: wait, or lose it. True at the end of the pipe."""
        self._troubled.add(pipe)
        pipe.since = now if pipe.since is None else pipe.since
        pipe.why = error.strerror or ""
        if pipe.how.drop and now - pipe.since >= GRACE:
            pipe.try_at = now + RETRY
            if ("dropped", error.errno) not in self._said:
                self._said.add(("dropped", error.errno))
                self._say(f"{pipe.shown}: output is dropped and counted from now on: {error.strerror}")
            try:
                return pipe.discard()
            except BlockingIOError:
                return False
        self._park(pipe, error, now)
        return False

    def _own_up(self, pipe: Pipe, now: float) -> bool:
        """Say in the log itself what is missing. False when the rest of a torn line is still to come. Raises OSError,
        BlockingIOError while there is nothing new."""
        if pipe.torn and not pipe.skip(self._look(pipe.fd, READ)):
            return False
        if pipe.spliced:
            self._use(pipe)
            size = pipe.file.ready(now)
            text = (b"" if not size or pipe.file.ends_line(size) else b"\n") + pipe.notice() + b"\n"
            write_whole(pipe.file.fd, text, size)
        else:
            pipe.queue(pipe.record(pipe.notice(), self._time(), 0))
            try:
                self._deliver(pipe, now)
            except OSError:
                pipe.out.clear()
                raise
        self._report(pipe)
        return True

    def _report(self, pipe: Pipe) -> None:
        self._say(f"{pipe.shown}: lost {pipe.lost_bytes} bytes, {pipe.lost_lines} lines: {pipe.why}")
        self._lost(pipe.source, pipe.lost_bytes, pipe.lost_lines)
        self._gone += pipe.lost_bytes
        pipe.lost_bytes = pipe.lost_lines = 0

    def _time(self) -> str:
        return lines.time_of(self._wall())

    def _deliver(self, pipe: Pipe, now: float) -> None:
        """The records of a pipe to what takes them. Raises OSError; what was not taken stays."""
        if not pipe.out:
            return
        if pipe.target != "file":
            self.open_sender().send(pipe.target, pipe.source.stream, pipe.out)
            return
        file, source = pipe.file, pipe.source
        self._use(pipe)
        while pipe.out:
            size = file.ready(now)
            self._note_age(file, size, now)
            batch, length, room = 0, 0, file.room(size, source.size)
            for record, _ in pipe.out:
                if length + len(record) > room and (length or size):
                    break
                batch, length = batch + 1, length + len(record)
            if not batch:
                self._rotate(file, source.size)
                continue
            write_whole(file.fd, b"".join(record for record, _ in list(pipe.out)[:batch]), size)
            for _ in range(batch):
                pipe.out.popleft()

    def _move(self, pipe: Pipe, now: float) -> bool:
        """One splice. True at the end of the pipe; raises BlockingIOError when there is nothing in it."""
        file, source = pipe.file, pipe.source
        self._use(pipe)
        size = file.ready(now)
        self._note_age(file, size, now)
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
            self._rotate(file, source.size)
        return False

    def _rotate(self, file: LogFile, more: int) -> None:
        self._aging.pop(file, None)
        try:
            file.rotate(file.how.keep)
        except OSError as error:
            file.allow(more)
            self._say(f"{file.shown} cannot be rotated and grows on: {error.strerror}")
        if file.how.compress:
            self._packer.want(file.process, file.name)

    def _note_age(self, file: LogFile, size: int, now: float) -> None:
        if file.how.age and not file.overdue:
            before = file.due
            file.age(size, now, self._wall() / 1e9)
            self._aging[file] = None
            if file.due is not None and file.due != before:
                self._age_due = file.due if self._age_due is None else min(self._age_due, file.due)

    def _grown_old(self, file: LogFile, now: float) -> None:
        """At the end of a line; where it is in the middle of one, when that ends."""
        if file.due is None:
            del self._aging[file]
            return
        try:
            size = file.ready(now)
            if size and file.ends_line(size):
                self._rotate(file, file.limit)
            elif file.due is not None:
                file.overdue = size > 0
                file.due = None if not size else file.due
        except OSError:
            file.due = now + RETRY
        if file.overdue or file.due is None:
            self._aging.pop(file, None)

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

    def _use(self, pipe: Pipe) -> None:
        """Keep the files open that were used last."""
        file = pipe.file
        file.how, file.limit = pipe.how, pipe.source.size
        self._open.pop(file, None)
        self._open[file] = None
        if len(self._open) > FILES_LIMIT:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.close()

    def _park(self, pipe: Pipe, error: OSError, now: float) -> None:
        self._epoll.unregister(pipe.fd)
        self._parked.append(pipe)
        soon = now + (SOON if error.errno == errno.ENOBUFS else RETRY)
        self.wake_at = soon if self.wake_at is None else min(self.wake_at, soon)
        kind = ("waiting", error.errno)  # each kind of trouble once, not once a pipe
        if kind not in self._said and error.errno != errno.ENOBUFS:
            self._said.add(kind)
            self._say(
                f"{pipe.shown} cannot be written: {error.strerror}; its service waits when its pipe is full,"
                " and so does every other with this trouble; tried again each second"
                + ("; then output is dropped" if pipe.how.drop else "")
            )

    def _end(self, pipe: Pipe, now: float) -> None:
        if pipe.losing:
            pipe.torn = False
            with contextlib.suppress(OSError):
                self._own_up(pipe, now)
            if pipe.losing:
                self._report(pipe)
        self._troubled.discard(pipe)
        self._epoll.unregister(pipe.fd)
        os.close(pipe.fd)
        del self._pipes[pipe.fd]
        source = pipe.source
        self._known.discard((source.run, source.stream))
        pipe.file.users -= 1
        if pipe.file.users == 0:
            pipe.file.close()
            self._open.pop(pipe.file, None)
            self._aging.pop(pipe.file, None)
            del self._files[(source.process, source.stream)]
        self._drained(source)


def _grow(fd: int) -> None:
    """To TURN bytes, where the kernel's limit for the pipe's owner allows; EPERM is normal (pipe(7))."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, TURN)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EBUSY, errno.ENOMEM):
            raise
