"""What a reload would change, for the second person who is to agree to it: looked at without an operation.

Rule 1: one look at a time, and who asks meanwhile for how it is from now on gets one that begins afterwards.
Rule 2: each who asks is told once: what was seen, or in words why it is not known.
Rule 3: a reload goes before a look, which is given up for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from policy.messages import Problem
    from rootd.supervisor.reload import Loaded

LIMIT = 8.0  # seconds for one, less than a client waits for an answer
RECENT = 2.0  # seconds for which what was seen is good enough for a list: a look takes as long as a reload's checks


class Seen(NamedTuple):
    """mark: of exactly that change; what: in words (mentions). unread: why that is not known. wrong: what is wrong."""

    mark: str
    what: str
    unread: str
    wrong: str


class Would(NamedTuple):
    """The same, as it is known to who takes it."""

    found: Loaded
    mark: str
    problems: list[Problem]
    what: str
    unread: str = ""

    def seen(self) -> Seen:
        return Seen(self.mark, self.what, self.unread, wrong(self.problems))


Then = Callable[[Seen | str], None]


class Looks:
    """begin: has privileged read the files, and says why it does not, or ""."""

    def __init__(self, begin: Callable[[], str]) -> None:
        self._begin = begin
        self._asked: list[Then] = []  # of the look that is under way
        self._next: list[Then] = []
        self._last: tuple[float, Seen] | None = None
        self.until: float | None = None  # CLOCK_BOOTTIME; None: no look is under way

    def ask(self, then: Then, now: float, *, afresh: bool) -> None:
        """afresh: as the files are from now on, not as they were a moment ago."""
        if self.until is not None:
            (self._next if afresh else self._asked).append(then)
        elif self._last is not None and not afresh and now < self._last[0] + RECENT:
            then(self._last[1])
        else:
            self._asked.append(then)
            self.until = now + LIMIT
            if why := self._begin():
                self.told(why, now)

    def told(self, seen: Seen | str, now: float) -> None:
        """It is over. Where none is under way, this means nothing."""
        if self.until is None:
            return
        asked, self._asked, self.until = self._asked, [], None
        after, self._next = self._next, []
        self._last = None if isinstance(seen, str) else (now, seen)
        for then in asked:
            then(seen)
        for then in after:
            self.ask(then, now, afresh=True)

    def forget(self) -> None:
        """Another configuration counts: what was seen would change something else."""
        self._last = None


def wrong(problems: list[Problem]) -> str:
    """The first of them and how many there are, in one line."""
    if not problems:
        return ""
    one, more = problems[0], len(problems) - 1
    place = f"{one.file}:{one.line}: " if one.line else f"{one.file}: " if one.file else ""
    key = f"{one.key}: " if one.key else ""
    return f"{place}{key}{one.text}" + (f" (and {more} more)" if more else "")
