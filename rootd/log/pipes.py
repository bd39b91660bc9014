"""One stream of one run, and what is on its way out of it: lines that are held, and output that is lost.

Rule: what is read here has left the pipe. It is for lines that are stamped or sent on, which is at most once, and for
output that nobody can take any more, which is counted: bytes of the service's, and ends of lines among them.
"""

from __future__ import annotations

import fcntl
import os
from collections import deque

from rootd.config import logs
from rootd.log import lines
from rootd.log.files import LogFile
from rootd.log.forward import Record
from rootd.log.source import Source

READ = 64 * 1024  # bytes read at once
_NOTHING: deque[Record] = deque()  # of all that have nothing on its way: there are thousands of them


class Pipe:
    """The read end, which this owns, and where it goes."""

    __slots__ = (
        "_whose", "capacity", "fd", "file", "form", "grown", "held", "how", "lost_bytes", "lost_lines", "out",
        "since", "source", "spliced", "target", "torn", "try_at", "why",
    )  # fmt: skip

    def __init__(self, source: Source, fd: int, file: LogFile, grown: int) -> None:
        self.source, self.fd, self.file = source, fd, file
        self.how = logs.unpack(source.keep)
        self.target, self.form = logs.TARGETS[self.how.target], logs.FORMATS[self.how.form]
        self.spliced = (self.target, self.form) == ("file", "plain")
        self.capacity = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
        self.grown = self.capacity >= grown
        self.held = b""  # the line that has not ended
        self.out = _NOTHING
        self._whose: lines.Whose | None = None
        self.since: float | None = None  # when trouble began
        self.try_at = 0.0  # when what takes it is tried again, while output is lost
        self.why = ""
        self.lost_bytes = self.lost_lines = 0  # of this trouble
        self.torn = False  # the rest of a line whose beginning was lost is still to come

    @property
    def shown(self) -> str:
        return self.file.shown if self.target == "file" else f"{self.file.shown} ({self.target})"

    @property
    def whose(self) -> lines.Whose:
        if self._whose is None:
            source = self.source
            service = source.process.removesuffix(f".{source.slot % 1024}") or source.process
            self._whose = lines.Whose(service, source.process, source.stream, source.run)
        return self._whose

    @property
    def losing(self) -> bool:
        return self.lost_bytes > 0

    def record(self, line: bytes, time: str, stands_for: int) -> Record:
        if self.target == "journald":
            return lines.for_journald(line, self.whose), stands_for
        if self.target == "syslog":
            return lines.for_syslog(line, time, self.whose), stands_for
        if self.form == "json":
            return lines.as_json(line, time, self.whose), stands_for
        text = lines.stamped(line, time) if self.form == "stamped" else line + b"\n"
        return (lines.prefixed(text, self.whose) if self.target == "inherit" else text), stands_for

    def queue(self, record: Record) -> None:
        if self.out is _NOTHING:
            self.out = deque()
        self.out.append(record)

    def fill(self, time: str) -> bool:
        """Read, and make records of it. True at the end of the pipe. Raises BlockingIOError when nothing is there."""
        before = len(self.held)
        data = os.read(self.fd, READ)
        whole, self.held = lines.split(self.held, data)
        if not data and self.held:
            whole, self.held = [self.held], b""
        total = before + len(data) - len(self.held)  # with the newlines
        for index, line in enumerate(whole):
            stands_for = len(line) + 1 if index < len(whole) - 1 else total
            stands_for = min(stands_for, total)
            total -= stands_for
            self.queue(self.record(line, time, stands_for))
        return not data and not self.out

    def discard(self) -> bool:
        """Lose what is here, counted. True at the end of the pipe; raises BlockingIOError when it holds nothing."""
        self.lost_lines += len(self.out)
        self.lost_bytes += sum(stands_for for _, stands_for in self.out) + len(self.held)
        self.torn = self.torn or bool(self.held)
        self.out.clear()
        self.held = b""
        data = os.read(self.fd, READ)
        self.lost_bytes += len(data)
        self.lost_lines += data.count(b"\n")
        if data:
            self.torn = not data.endswith(b"\n")
        return not data

    def skip(self, window: bytes) -> bool:
        """Lose the rest of a line that is torn; window: what is in the pipe. False when more of it is to come."""
        end = window.find(b"\n") + 1
        gone = len(os.read(self.fd, end or len(window))) if window else 0
        self.lost_bytes += gone
        self.lost_lines += bool(end)
        self.torn = bool(window) and not end
        return not self.torn

    def notice(self) -> bytes:
        """What stands in the log where output is missing."""
        stream = "stdout" if self.source.stream == 1 else "stderr"
        lost = f"{self.lost_bytes} bytes, {self.lost_lines} lines"
        return f"[durward: lost here, of {stream}: {lost}: {self.why}]".encode()
