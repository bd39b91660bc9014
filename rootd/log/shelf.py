"""All files that pipes end in: which are open, which grow old, which are begun anew.

Rule: nothing here moves a byte of a service's; it says where the next one goes.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EIO

from rootd.log.files import LogFile
from rootd.log.pack import Packer
from rootd.log.pipes import Pipe
from rootd.log.source import Source
from rootd.log.spool import Spool

FILES_LIMIT = 512  # files kept open
RETRY = 1.0  # seconds until a file that could not be looked at is looked at again


class Shelf:
    """`root` is the log directory, the caller's. wall: nanoseconds of the wall clock."""

    def __init__(self, root: int, say: Callable[[str], None], wall: Callable[[], int]) -> None:
        self._root, self._say, self.wall = root, say, wall
        self.files: dict[tuple[str, int], LogFile] = {}
        self.open: dict[LogFile | Spool, None] = {}
        self.aging: dict[LogFile, None] = {}  # with something in them that will be too old
        self.age_due: float | None = None  # when one of those is, or earlier
        self.packer = Packer(root, say)

    def take(self, source: Source) -> LogFile:
        """The file of a pipe; drop is to be called when that has ended."""
        file = self.files.setdefault(
            (source.process, source.stream), LogFile(self._root, source.process, source.stream)
        )
        file.users += 1
        return file

    def drop(self, file: LogFile, source: Source) -> None:
        file.users -= 1
        if file.users == 0:
            file.close()
            self.open.pop(file, None)
            self.aging.pop(file, None)
            del self.files[(source.process, source.stream)]

    def use(self, pipe: Pipe) -> None:
        """Keep the files open that were used last."""
        file = pipe.file
        file.how, file.limit = pipe.how, pipe.source.size
        for used in (file, *(() if pipe.spool is None else (pipe.spool,))):
            self.open.pop(used, None)
            self.open[used] = None
        while len(self.open) > FILES_LIMIT:
            oldest = next(iter(self.open))
            del self.open[oldest]
            oldest.close()

    def rotate(self, file: LogFile, more: int) -> None:
        self.aging.pop(file, None)
        try:
            file.rotate(file.how.keep)
        except OSError as error:
            file.allow(more)
            self._say(f"{file.shown} cannot be rotated and grows on: {error.strerror}")
        if file.how.compress:
            self.packer.want(file.process, file.name)

    def clear(self, process: str, *, reopen: bool) -> int:
        """Both streams of a process: empty, or only open anew. The errno of what could not be done, 0 for none."""
        number = 0
        for stream in (1, 2):
            file = self.files.get((process, stream)) or LogFile(self._root, process, stream)
            try:
                if reopen:
                    file.reopen()
                else:
                    self.aging.pop(file, None)
                    file.clear()
            except OSError as error:
                number = number or error.errno or EIO
            if not file.users:
                file.close()
        return number

    def next(self) -> float | None:
        """When to call tend; None: no file grows old, and none is to be compressed."""
        due = (self.age_due, self.packer.due if self.packer.busy else None)
        return min((when for when in due if when is not None), default=None)

    def tend(self, now: float, busy: Callable[[], bool]) -> None:
        """Files that are too old; a slice of what is to be compressed. busy: whether pipes have something to say."""
        if self.age_due is not None and now >= self.age_due:
            for file in [file for file in self.aging if file.due is None or now >= file.due]:
                self._grown_old(file, now)
            self.age_due = min((file.due for file in self.aging if file.due is not None), default=None)
        if self.packer.busy and now >= self.packer.due:
            self.packer.step(now, busy=busy())

    def note_age(self, file: LogFile, size: int, now: float) -> None:
        """size: before what is written now."""
        if file.how.age and not file.overdue:
            before = file.due
            file.age(size, now, self.wall() / 1e9)
            self.aging[file] = None
            if file.due is not None and file.due != before:
                self.age_due = file.due if self.age_due is None else min(self.age_due, file.due)

    def _grown_old(self, file: LogFile, now: float) -> None:
        """At the end of a line; where it is in the middle of one, when that ends."""
        if file.due is None:
            del self.aging[file]
            return
        try:
            size = file.ready(now)
            if size and file.ends_line(size):
                self.rotate(file, file.limit)
            elif file.due is not None:
                file.overdue = size > 0
                file.due = None if not size else file.due
        except OSError:
            file.due = now + RETRY
        if file.overdue or file.due is None:
            self.aging.pop(file, None)

    def close(self) -> None:
        for file in self.files.values():
            file.close()
        self.packer.close()
