"""One stream of one run, and what is on its way out of it: lines that are held, and output that is lost.

Rule: what is read here is a copy, or is in the spool (spool.py): the pipe itself is only ever spliced. `held` and `out`
      are what the spool holds from its start on: lines that have not ended, and before them records for who takes them.
      What is lost is counted: bytes of the service's, and ends of lines among them.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections import deque
from collections.abc import Callable

from rootd.config import logs
from rootd.log import lines
from rootd.log.files import LogFile
from rootd.log.forward import Record
from rootd.log.source import Source
from rootd.log.spool import Spool

TURN = 1024 * 1024  # bytes of one pipe in one go; also the size to which a busy pipe grows
READ = 64 * 1024  # bytes of lines that are sent on, or of output that is lost, in one go
CHUNK = 48 * 1024  # bytes of lines that are stamped in one go: with stamps, below what malloc takes from the kernel
KILLED = "log was killed while it was on its way"
_NOTHING: deque[Record] = deque()  # of all that have nothing on its way: there are thousands of them


class Pipe:
    """The read end, which this owns, and where it goes."""

    __slots__ = (
        "_spools", "_whose", "capacity", "fd", "file", "form", "grown", "held", "how", "out", "since", "source",
        "spliced", "spool", "target", "try_at", "why",
    )  # fmt: skip

    def __init__(self, source: Source, fd: int, file: LogFile, spools: int) -> None:
        self.source, self.fd, self.file, self._spools = source, fd, file, spools
        self.how = logs.unpack(source.keep)
        self.target, self.form = logs.TARGETS[self.how.target], logs.FORMATS[self.how.form]
        self.spliced = (self.target, self.form) == ("file", "plain")
        self.capacity = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
        self.grown = self.capacity >= TURN
        self.spool: Spool | None = None
        self.held = b""  # the line that has not ended
        self.out = _NOTHING
        self._whose: lines.Whose | None = None
        self.since: float | None = None  # when trouble began
        self.try_at = 0.0  # when what takes it is tried again, while output is lost
        self.why = ""

    @property
    def shown(self) -> str:
        return self.file.shown if self.target == "file" else f"{self.file.shown} ({self.target})"

    @property
    def whose(self) -> lines.Whose:
        if self._whose is None:
            source = self.source
            number = "" if self.how.alone else f".{source.slot % 1024}"
            service = source.process.removesuffix(number) or source.process
            self._whose = lines.Whose(service, source.process, source.stream, source.run)
        return self._whose

    @property
    def losing(self) -> bool:
        return self.spool is not None and self.spool.lost_bytes > self.spool.told_bytes

    @property
    def torn(self) -> bool:
        return self.spool is not None and self.spool.torn

    def own(self) -> Spool:
        """Its spool, from now on."""
        self.spool = self.spool or Spool(self._spools, self.source)
        return self.spool

    def moved(self, count: int) -> None:
        """A pipe that was full is made larger, where the kernel's limit for its owner allows."""
        if not self.grown and count >= self.capacity:
            self.grown = True
            grow(self.fd)

    def record(self, line: bytes, time: str, stands_for: int) -> Record:
        if self.target == "journald":
            return lines.for_journald(line, self.whose), stands_for
        if self.target == "syslog":
            return lines.for_syslog(line, time, self.whose), stands_for
        if self.form == "json":
            return lines.as_json(line, time, self.whose), stands_for
        text = lines.stamped(line, time) if self.form == "stamped" else line + b"\n"
        return (lines.prefixed(text, self.whose) if self.target == "inherit" else text), stands_for

    def take(self, look: Callable[[int, int], bytes], time: Callable[[], str]) -> bool:
        """Into the spool, and make records of it. True at the end of the pipe. Raises BlockingIOError, OSError.

        Whole lines first, so that the spool is empty when they are on their way; what has not ended when it is alone.
        """
        window = look(self.fd, CHUNK if self.target == "file" else READ)
        if not window:
            self.release(time(), ended=True)
            return True
        end = lines.whole(window) if b"\n" in window else max(lines.whole(self.held + window) - len(self.held), 0)
        moved = self.own().take(self.fd, end or len(window))
        self.moved(len(window))
        self.held += window[:moved]
        self.release(time())
        return False

    def release(self, time: str, *, ended: bool = False) -> None:
        """Make records of what is held, as far as its lines have ended."""
        end = len(self.held) if ended else lines.whole(self.held)
        data, self.held = self.held[:end], self.held[end:]
        if not data:
            return
        if self.out is _NOTHING:
            self.out = deque()
        if self.target == "file" and lines.short(data):
            self.out.append((self.record(data[:-1], time, 0)[0], len(data)))
            return
        limit = lines.LINE // 4 if self.target == "syslog" and b"\0" in data else lines.LINE  # each NUL takes four
        self.out.extend(self.record(line, time, stands_for) for line, stands_for in lines.split(data, limit))

    def rest(self, time: str) -> deque[Record]:
        """What is held, as a record though its line has not ended; it is still held."""
        return deque([self.record(self.held, time, len(self.held))])

    def divide(self, out: deque[Record], room: int) -> bool:
        """Make two of the first record, at the last line that room allows. False when not even one line fits."""
        text, stands_for = out[0]
        end = text.rfind(b"\n", 0, max(room, 0)) + 1
        if not end or end == len(text) or self.spool is None:
            return end == len(text)
        data, place = self.spool.peek(stands_for, self.spool.taking.size), 0
        for _ in range(text.count(b"\n", 0, end)):  # or none is left: vmsplice(2) lets it change what was looked at
            place = data.find(b"\n", place) + 1 or stands_for
        out[0] = text[end:], stands_for - place
        out.appendleft((text[:end], place))
        return True

    def discard(self) -> bool:
        """Lose what is here, counted. True at the end of the pipe; raises BlockingIOError when it holds nothing."""
        spool = self.own()
        gone = sum(stands_for for _, stands_for in self.out) + len(self.held)
        if gone:
            count = sum(text.count(b"\n") if self.target == "file" else 1 for text, _ in self.out)
            held, self.held = self.held, b""
            self.out.clear()
            spool.lose(gone, count, bool(held))
        try:
            size = spool.take(self.fd, READ)
            data = spool.peek(size)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE):
                raise
            data = os.read(self.fd, READ)
            size = 0
        if data:
            spool.lose(len(data), data.count(b"\n"), not data.endswith(b"\n"), spooled=bool(size))
        return not data

    def refuse(self) -> None:
        """Lose the first record: it is too long for who is to take it."""
        _, stands_for = self.out.popleft()
        self.own().lose(stands_for, 1, False)

    def skip(self, window: bytes) -> bool:
        """Lose the rest of a line that is torn; window: what is in the pipe. False when more of it is to come."""
        spool = self.own()
        end = window.find(b"\n") + 1
        gone = spool.take(self.fd, end or len(window)) if window else 0
        spool.lose(gone, int(bool(end)), bool(window) and not end)
        return not spool.torn

    @property
    def untold(self) -> tuple[int, int]:
        """Bytes and lines that are lost and were not reported."""
        spool = self.own()
        return spool.lost_bytes - spool.told_bytes, spool.lost_lines - spool.told_lines

    def notice(self) -> bytes:
        """What stands in the log where output is missing."""
        stream = "stdout" if self.source.stream == 1 else "stderr"
        lost = "{} bytes, {} lines".format(*self.untold)
        return f"[durward: lost here, of {stream}: {lost}: {self.why}]".encode()

    def resume(self, time: str, in_total: Callable[[Source, int], bool]) -> bool:
        """What a log before this one has left of it. Whether its notice of what is lost stands there already, and is
        only to be reported and settled. Raises OSError."""
        spool, noticed = self.own(), False
        spool.load()
        if in_total(self.source, spool.lost_bytes):
            spool.told()
        taking = spool.taking
        if taking.size or taking.end:
            # a notice that was sent counts as taken: nobody is told of a loss twice
            sent = None if taking.size else True
            there = self.file.took(taking.inode, taking.base, taking.end) if taking.inode else sent
            if there is None and taking.size:
                spool.lose(taking.size, max(spool.peek(taking.size).count(b"\n"), 1), spool.torn)
                spool.errno = 0
            elif there:
                noticed = self.losing and not taking.size
                if not noticed:
                    spool.settle()
            else:
                spool.withdraw()
        data = spool.peek(spool.end - spool.start)
        if self.spliced or spool.torn:  # it was to be lost, and not counted yet: all of it, or the rest of a line
            data = data if self.spliced else data[: data.find(b"\n") + 1 or len(data)]
            if data:
                spool.lose(len(data), data.count(b"\n"), not data.endswith(b"\n"))
        if self.losing:
            self.why = os.strerror(spool.errno) if spool.errno else KILLED
        self.held = spool.peek(spool.end - spool.start)
        self.release(time)
        return noticed


def grow(fd: int) -> None:
    """To TURN bytes, where the kernel's limit for the pipe's owner allows; EPERM is normal (pipe(7))."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, TURN)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EBUSY, errno.ENOMEM):
            raise
