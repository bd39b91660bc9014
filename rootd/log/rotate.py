"""Service output, from pipes to files: <log>/<process>/{stdout,stderr}.log, rotated to .1, .2 … by size and age.

Rule 1: bytes leave a pipe and enter their file in one system call (splice), so that SIGKILL at any moment loses none
        and doubles none. Nothing that must survive is held here: where a file ends is asked of the file, each time.
Rule 2: what cannot be written stays in its pipe, and is tried again each RETRY seconds; the others go on. After GRACE
        seconds it is lost, and counted, where the service is not to wait (`full`); nothing else is ever thrown away
        but rotated files beyond `keep`.
Rule 3: plain output is not parsed; the only byte that is looked for is the newline before which a file may end.
        What is stamped or sent on (pipes.py, forward.py) goes through a spool (spool.py): a file has it once, whoever
        is killed; a receiver at most once, and the one record that was on its way is counted as lost. So has a notice.
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
import os
import select
import stat
from collections import deque
from collections.abc import Callable

from rootd.log import lines
from rootd.log.files import write_whole
from rootd.log.forward import Record, Sender
from rootd.log.pipes import READ, TURN, Pipe, grow
from rootd.log.shelf import RETRY, Shelf
from rootd.log.source import Source, cut, name_of, sources_of_spools
from rootd.log.spool import Taking, Totals

BATCH = 16  # pipes in one go
LINE_LIMIT = 64 * 1024  # bytes by which the end of a line may make a file larger than its size
LAST_ROUNDS = 4  # looks at each pipe when log ends
SOON, GRACE = 0.01, 1.0  # seconds; SOON where a receiver has no room for a moment


class Mover:
    """All pipes. `root` is the log directory, `spools` that of the spools; both the caller's, kept open. `drained` is
    told of each pipe at its end.

    fileno() is ready when a pipe is: call turn then. next() says when to call tend, None when there is nothing to do.
    wall: nanoseconds of the wall clock, for stamps. lost: is told of each loss, bytes and lines since it was over last,
    and whether it is over.
    """

    def __init__(
        self, root: int, spools: int, drained: Callable[[Source], None], say: Callable[[str], None],
        wall: Callable[[], int] = lambda: 0, lost: Callable[[Source, int, int, bool], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self._root, self._spools = root, spools
        self._left = {name for name in os.listdir(spools) if name.startswith("pipe,")}  # by a log before this one
        self.totals = Totals(spools)
        self._drained, self._say, self._wall, self._lost = drained, say, wall, lost
        self._epoll = select.epoll()
        self._pipes: dict[int, Pipe] = {}
        self._known: set[tuple[int, int]] = set()
        self.shelf = Shelf(root, say, lambda: self._wall())
        self._parked: list[Pipe] = []  # not watched until the next retry
        self._troubled: set[Pipe] = set()  # those whose last attempt failed
        self._waiting, self._dropping = set[str](), set[str]()  # kinds of trouble that were told
        self._gone = 0  # bytes lost in this trouble
        self._sender: Sender | None = None
        self._look_out, self._look_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        grow(self._look_out)
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
        file = self.shelf.take(source)
        self._known.add(key)
        self._pipes[fd] = pipe = Pipe(source, fd, file, self._spools)
        self._epoll.register(fd, select.EPOLLIN)
        if (name := name_of(source)) in self._left:
            self._left.discard(name)
            self._resume(pipe)
        if pipe.how.compress and pipe.target == "file":
            self.shelf.packer.want(source.process, file.name)  # what a log that was killed had left

    def _resume(self, pipe: Pipe) -> None:
        """Before anything is written: what was on its way is looked for at the end of its file."""
        try:
            if pipe.resume(self._time(), self.totals.has):
                self._report(pipe)
                pipe.own().settle()
        except OSError as error:
            self._say(f"what was on its way to {pipe.shown} is lost, and nobody can count it: {error.strerror}")
            with contextlib.suppress(OSError):
                pipe.own().remove()  # or what it holds would be taken for a part of what comes after it
            pipe.spool = None
        if pipe.out or pipe.losing:
            pipe.since = 0.0 if pipe.losing else None
            self._epoll.unregister(pipe.fd)
            self._parked.append(pipe)
            self.wake_at = 0.0

    def strays(self, now: float) -> None:
        """Spools whose pipes are gone with a keeper that died: what they hold is written now, or lost and counted. All
        are asked first what was on its way: what is written behind that would be taken for the rest of it."""
        left = dict.fromkeys(sources_of_spools(self._left, self._say))
        for source in left:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            os.close(writer)
            self.add(source, reader)
        for pipe in [pipe for pipe in self._pipes.values() if pipe.source in left]:
            if pipe in self._parked:
                self._parked.remove(pipe)
                self._epoll.register(pipe.fd, select.EPOLLIN)
            if pipe.losing or pipe.torn:
                with contextlib.suppress(OSError):
                    self._own_up(pipe, now)
            self._write_out(pipe, now, lose=True)
            self._end(pipe, now)

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
        due = (self.wake_at, self.shelf.next())
        return min((when for when in due if when is not None), default=None)

    def tend(self, now: float) -> None:
        """What is due: pipes in trouble, files that are too old, a slice of what is to be compressed."""
        self.retry(now)
        self.shelf.tend(now, lambda: bool(self._epoll.poll(0, 1)))

    def retry(self, now: float) -> None:
        """Look again at the pipes whose files could not be written."""
        if self.wake_at is None or now < self.wake_at:
            return
        parked, self._parked, self.wake_at = self._parked, [], None
        for pipe in parked:
            self._epoll.register(pipe.fd, select.EPOLLIN)
            if pipe.out or pipe.losing:  # which has left the pipe: nothing else would wake up for it
                self._serve(pipe, now)

    def last(self, now: float) -> None:
        """Move what lies in the pipes now: log ends. A service that goes on talking does not hold it up."""
        for _ in range(LAST_ROUNDS):
            for fd, _events in self._epoll.poll(0, len(self._pipes) + 1):
                self._serve(self._pipes[fd], now)
        for pipe in self._pipes.values():
            self._write_out(pipe, now, lose=bool(pipe.how.drop))  # else it stays in its spool
            if pipe.losing:
                self._report(pipe)

    def _write_out(self, pipe: Pipe, now: float, *, lose: bool) -> None:
        """What has left the pipe: written as it is, where that can be. lose: what cannot be is lost, and counted."""
        self.shelf.use(pipe)
        try:
            self._deliver(pipe, pipe.out, now)
            if pipe.held and not pipe.losing:
                self._deliver(pipe, pipe.rest(self._time()), now)
                pipe.held = b""
        except OSError as error:
            pipe.why = error.strerror or ""
        if lose and (pipe.out or pipe.held or pipe.losing):
            with contextlib.suppress(BlockingIOError):
                pipe.discard()

    def close(self) -> None:
        """Let go of every descriptor but the log directory. What is still in the pipes stays in them."""
        for fd in [*self._pipes, self._look_out, self._look_in]:
            os.close(fd)
        for pipe in self._pipes.values():
            if pipe.spool is not None:
                pipe.spool.close()
        self.shelf.close()
        if self._sender is not None:
            self._sender.close()
        self._epoll.close()

    def _serve(self, pipe: Pipe, now: float) -> None:
        self.shelf.use(pipe)
        try:
            if pipe.losing and now < pipe.try_at:
                ended = pipe.discard()
            elif (pipe.losing or pipe.torn) and not self._own_up(pipe, now):
                return
            elif pipe.spliced:
                ended = self._move(pipe, now)
            else:
                ended = not pipe.out and pipe.take(self._look, self._time)
                self._deliver(pipe, pipe.out, now)
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
                self._waiting, self._dropping = set(), set()
                lost = f"{self._gone} bytes were lost" if self._gone else "nothing was lost"
                self._gone = 0
                self._say(f"all log files are being written again; {lost}")

    def _failed(self, pipe: Pipe, error: OSError, now: float) -> bool:
        """Nothing takes what the pipe holds: wait, or lose it. True at the end of the pipe."""
        self._troubled.add(pipe)
        pipe.since = now if pipe.since is None else pipe.since
        pipe.why = error.strerror or ""
        if pipe.how.drop and now - pipe.since >= GRACE:
            pipe.try_at, pipe.own().errno = now + RETRY, error.errno or 0
            if pipe.why not in self._dropping:
                self._dropping.add(pipe.why)
                self._say(f"{pipe.shown}: output is dropped and counted from now on: {error.strerror}")
            ended = False
            with contextlib.suppress(BlockingIOError):
                ended = pipe.discard()
            self._lost(pipe.source, *pipe.untold, False)
            return ended
        self._park(pipe, error, now)
        return False

    def _own_up(self, pipe: Pipe, now: float) -> bool:
        """Say in the log itself what is missing. False when the rest of a torn line is still to come. Raises OSError,
        BlockingIOError while there is nothing new."""
        if pipe.torn and not pipe.skip(self._look(pipe.fd, READ)):
            return False
        if not pipe.losing:  # the pipe has ended where the line was torn
            return True
        if pipe.spliced:
            size = pipe.file.ready(now)
            text = (b"" if not size or pipe.file.ends_line(size) else b"\n") + pipe.notice() + b"\n"
            self._put(pipe, text, 0, size)
        else:
            self._deliver(pipe, deque([pipe.record(pipe.notice(), self._time(), 0)]), now, settle=False)
        self._report(pipe)
        with contextlib.suppress(OSError):
            pipe.own().settle()  # not before: killed in between, the next log finds the notice, and says no other
        return True

    def _report(self, pipe: Pipe) -> None:
        size, count = pipe.untold
        self._say(f"{pipe.shown}: lost {size} bytes, {count} lines: {pipe.why}")
        spool = pipe.own()
        with contextlib.suppress(OSError):
            self.totals.add(pipe.source, size, count, spool.lost_bytes)
        spool.told()
        self._lost(pipe.source, size, count, True)
        self._gone += size

    def _time(self) -> str:
        return lines.time_of(self._wall())

    def _deliver(self, pipe: Pipe, out: deque[Record], now: float, *, settle: bool = True) -> None:
        """The records of a pipe, or a notice, to what takes them. Raises OSError; what was not taken stays."""
        if not out:
            return
        spool, file, source = pipe.own(), pipe.file, pipe.source
        if pipe.target != "file":
            send, way = self.open_sender().send, Taking(end=int(not settle))
            while out:
                try:
                    send(pipe.target, source.stream, out, lambda n: spool.intend(way._replace(size=n)), spool.withdraw)
                except OSError as error:
                    if error.errno != errno.EMSGSIZE or out is not pipe.out:
                        raise
                    pipe.why = error.strerror or ""
                    pipe.refuse()
            return spool.settle() if settle else None
        while out:
            try:
                size = file.ready(now)
            except OSError:
                spool.settle()  # the record before this one
                raise
            self.shelf.note_age(file, size, now)
            room = file.room(size, source.size)
            if len(out[0][0]) > room and not pipe.divide(out, room):
                if size:
                    spool.settle()  # it is asked for by the file's inode
                    self.shelf.rotate(file, source.size)
                    continue
                pipe.divide(out, len(out[0][0].partition(b"\n")[0]) + 1)
            self._put(pipe, *out[0], size)
            out.popleft()
        return spool.settle() if settle else None

    def _put(self, pipe: Pipe, text: bytes, stands_for: int, size: int) -> None:
        """At the end of its file, so that it is known what was on its way. Raises OSError."""
        spool, fd = pipe.own(), pipe.file.fd
        try:
            spool.intend(Taking(stands_for, os.fstat(fd).st_ino, size, size + len(text)))
        except OSError:
            if stands_for:  # a notice is written though its spool cannot be
                raise
        try:
            write_whole(fd, text, size)
        except OSError:
            spool.withdraw()
            raise

    def _move(self, pipe: Pipe, now: float) -> bool:
        """One splice. True at the end of the pipe; raises BlockingIOError when there is nothing in it."""
        file, source = pipe.file, pipe.source
        size = file.ready(now)
        self.shelf.note_age(file, size, now)
        room = file.room(size, source.size)
        if room >= TURN:
            return self._splice(pipe, size, TURN) == 0
        reach = room + min(source.size, LINE_LIMIT)
        window = self._look(pipe.fd, min(max(reach, 1), TURN))
        if not window:
            return True
        take, full = cut(window, room, reach, file.ends_line(size))
        if take and self._splice(pipe, size, take) < take:
            return False
        if full:
            self.shelf.rotate(file, source.size)
        return False

    def _splice(self, pipe: Pipe, offset: int, count: int) -> int:
        moved = os.splice(pipe.fd, pipe.file.fd, count, offset_dst=offset, flags=os.SPLICE_F_NONBLOCK)
        pipe.moved(moved)
        return moved

    def _look(self, fd: int, count: int) -> bytes:
        """A copy of what the pipe holds, at most count bytes, which stay in it. Empty at its end."""
        copied = self._tee(fd, self._look_in, count, os.SPLICE_F_NONBLOCK)
        if copied < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))  # EAGAIN is a BlockingIOError
        window = b""
        try:
            while len(window) < copied:
                window += os.read(self._look_out, copied - len(window))
        except OSError:  # of a page that cannot be read: the rest is nobody else's to see
            os.close(self._look_in)
            os.close(self._look_out)
            self._look_out, self._look_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            grow(self._look_out)
            raise
        return window

    def _park(self, pipe: Pipe, error: OSError, now: float) -> None:
        self._epoll.unregister(pipe.fd)
        self._parked.append(pipe)
        soon = now + (SOON if error.errno == errno.ENOBUFS else RETRY)
        self.wake_at = soon if self.wake_at is None else min(self.wake_at, soon)
        if pipe.why not in self._waiting and error.errno != errno.ENOBUFS:
            self._waiting.add(pipe.why)  # each kind of trouble once, not once a pipe
            self._say(
                f"{pipe.shown} cannot be written: {error.strerror}; its service waits when its pipe is full,"
                " and so does every other with this trouble; tried again each second"
                + ("; then output is dropped" if pipe.how.drop else "")
            )

    def _end(self, pipe: Pipe, now: float) -> None:
        if pipe.losing:
            if pipe.torn:
                pipe.own().lose(0, 0, False)
            with contextlib.suppress(OSError):
                self._own_up(pipe, now)
            if pipe.losing:
                self._report(pipe)
        self._troubled.discard(pipe)
        self._epoll.unregister(pipe.fd)
        os.close(pipe.fd)
        del self._pipes[pipe.fd]
        self._known.discard((pipe.source.run, pipe.source.stream))
        self.shelf.drop(pipe.file, pipe.source)
        if pipe.spool is not None:
            self.shelf.open.pop(pipe.spool, None)
            pipe.spool.remove()
        self._drained(pipe.source)
