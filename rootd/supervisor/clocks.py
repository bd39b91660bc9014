"""The wall clock, for the two things that it is for; all else goes by CLOCK_BOOTTIME."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


def wall() -> str:
    """The wall clock, for records and people only."""
    return spell(datetime.now(UTC))


def scheduled() -> float:
    """The wall clock, for what is due by it and for nothing else: seconds since 1970."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def expires(left: float) -> str:
    """So many seconds from now, for people: until when something is good."""
    return spell(datetime.now(UTC) + timedelta(seconds=min(max(left, 0.0), 1e9)))


def spell(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
