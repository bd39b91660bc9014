"""When a rule counts: on which days, at which hours, in which time zone.

Rule 1: pure. The time is an argument, in seconds since 1970, and all that is known of a zone is in its tzinfo, which
        was read when the policy was.
Rule 2: hours are those of the clock there: one that a change of the clock skips does not come, one that it repeats
        comes twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo

import msgspec

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MIDNIGHT = 24 * 60  # in minutes
AHEAD = 16  # days that are looked through for an opening: a zone may leave one out

Zones = Callable[[str], tzinfo | None]  # by name; None: there is no such zone. Raises ValueError with a sentence

HOURS = re.compile(r"\A([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})\Z")


class Window(msgspec.Struct, frozen=True):
    """start, end: minutes of the day; an end before the start is one of the day after. days: 0 is Monday, of the start.

    text: as people read it.
    """

    days: frozenset[int]
    start: int
    end: int
    zone: tzinfo
    text: str

    def holds(self, at: float) -> bool:
        local = datetime.fromtimestamp(at, self.zone)
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.end)

    def opens(self, at: float) -> float | None:
        """When its hours begin next, for one that does not hold now; None when that is too far off to look for."""
        today = datetime.fromtimestamp(at, self.zone).date()
        for day in (today + timedelta(days=ahead) for ahead in range(AHEAD)):
            if day.weekday() in self.days:
                start = datetime(day.year, day.month, day.day, self.start // 60, self.start % 60, tzinfo=self.zone)
                # the clock may show it twice, or step over it: then the hours begin where it stops
                first, last = sorted(start.replace(fold=fold).timestamp() for fold in (0, 1))
                times = (first + 60 * minute for minute in range(int(last - first) // 60 + 1))
                found = next((time for time in times if time > at and self.holds(time)), None)
                if found is not None:
                    return found
        return None

    def opening(self, at: float) -> str:
        """In words: "it next opens Mon 08:00", in the window's own zone."""
        opens = self.opens(at)
        if opens is None:
            return "it does not open soon"
        local = datetime.fromtimestamp(opens, self.zone)
        date = f" {local.date().isoformat()}" if opens - at > timedelta(days=6).total_seconds() else ""
        return f"it next opens {DAYS[local.weekday()]}{date} {local.hour:02}:{local.minute:02}"


def days(text: str) -> frozenset[int]:
    """Of "Mon-Fri", "Mon,Wed,Sat-Sun" or "Fri-Mon". Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f"{part.strip()[:60]!r} is no day: Mon, Tue, Wed, Thu, Fri, Sat, Sun, or Mon-Fri, Sat,Sun")
        begin, end = DAYS.index(first), DAYS.index(last if dash else first)
        found.update(day % 7 for day in range(begin, end + 1 + (7 if end < begin else 0)))
    return frozenset(found)


def hours(text: str) -> tuple[int, int]:
    """Minutes of the day, of "08:00-18:00", "18:00-24:00" or "22:00-06:00". Raises ValueError."""
    match = HOURS.match(text)
    if match:
        begin, begin_minute, end, end_minute = (int(part) for part in match.groups())
        start, stop = begin * 60 + begin_minute, end * 60 + end_minute
        if begin_minute < 60 and end_minute < 60 and start < MIDNIGHT and stop <= MIDNIGHT and start != stop:
            return start, stop
    raise ValueError(f"{text[:60]!r} are no hours: write 08:00-18:00, or 22:00-06:00 for a night; 24:00 is midnight")
