"""Which lines of a log are wanted, by their times and by a pattern. Pure, but for what time it is now.

Rule 1: a line's time is what it begins with (format = "stamped", or JSON lines with "time"); a line without one has
        that of the line before. Lines before the first time are not shown with --since: nobody knows when they came.
Rule 2: a pattern sees at most REACH characters of a line.
"""

from __future__ import annotations

import re
import time
from datetime import datetime

from userapi.cli.failure import Failure

REACH = 65_536
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TIME = re.compile(r'(?:\{"time":")?(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d))', re.ASCII)


def since_of(text: str) -> float:
    """Seconds of the wall clock, from a span back from now ("10m") or a time. Raises Failure."""
    span = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if span:
        return time.clock_gettime(time.CLOCK_REALTIME) - int(span[1]) * UNITS[span[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        how = 'a span such as "10m" or "2h", or a time such as "2026-11-27T08:00" or "2026-11-27T08:00:00Z"'
        raise Failure("usage", f"--since takes {how}") from None


class Sieve:
    """The lines of one log."""

    def __init__(self, since: str | None, grep: str | None) -> None:
        """Raises Failure."""
        self._since = None if since is None else since_of(since)
        try:
            self._grep = None if grep is None else re.compile(grep)
        except re.error as error:
            raise Failure("usage", f"--grep takes a regular expression of Python's: {error}") from None
        self._recent = self._since is None
        self.timed = False  # a line had a time
        self.untimed = 0  # lines that were left out because nobody knows when they came

    def takes(self, line: str) -> bool:
        if self._since is not None and (found := _TIME.match(line)):
            try:
                self._recent = datetime.fromisoformat(found[1]).timestamp() >= self._since
                self.timed = True
            except ValueError:  # the 31st of February
                pass
        if not self._recent:
            self.untimed += not self.timed
            return False
        return self._grep is None or self._grep.search(line[:REACH]) is not None
