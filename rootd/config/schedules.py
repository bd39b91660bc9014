"""When a scheduled service is due: a line of a crontab, in a time zone. Pure; who knows cron (cronsim) is asked here.

Rule 1: the clock and the machine's files of time zones are arguments: the latter are in the Bundle.
Rule 2: what is wrong, and what never comes, is refused when it is read; of what is due, nothing is ever listed whole.

Times are seconds since 1970 of the wall clock. Sources: crontab(5) of Debian, with its ways at the beginning and end of
daylight saving time; RFC 8536 (TZif).
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

ALIASES = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
FIELDS = {
    "second": "0 to 59", "minute": "0 to 59", "hour": "0 to 23", "day-of-month": "1 to 31, and a day of these months",
    "month": "1 to 12 or jan to dec", "day-of-week": "0 to 7 or sun to sat",
}  # fmt: skip
KEYS = ("schedule", "timezone", "missed", "random_delay")
START = datetime(2001, 1, 1, tzinfo=UTC)  # from which it is seen whether it ever comes
ZONES, LOCAL = "/usr/share/zoneinfo", "/etc/localtime"
ZONE_LIMIT = 1 << 16  # bytes of a time zone's file


class Schedule(NamedTuple):
    line: str
    timezone: str  # "": the machine's own
    zone: str  # the file of it, TZif in base64; "": UTC
    missed: str  # skip, once
    random_delay: float  # seconds

    def times(self, after: float) -> Iterator[float]:
        """All times after that one, until none comes in fifty years."""
        try:
            for found in CronSim(fields(self.line), datetime.fromtimestamp(after, zone_of(self.zone))):
                if found.timestamp() > after:  # in the hour that comes twice, cron's times are those of the first one
                    yield found.timestamp()
        except (OSError, OverflowError, ValueError):  # the end of the calendar
            return

    def after(self, at: float) -> float | None:
        return next(self.times(at), None)

    def spelled(self, at: float) -> str:
        """RFC 3339, by the clock of its zone."""
        return datetime.fromtimestamp(at, zone_of(self.zone)).isoformat(timespec="seconds")

    def delay(self, seed: str) -> float:
        """By how much all of its times are later: always the same for one seed."""
        return int(self.random_delay * zlib.crc32(seed.encode()) / 0xFFFFFFFF)


def fields(line: str) -> str:
    return ALIASES.get(line, line)


def problem(line: str) -> str:
    """What is wrong with it; "" when nothing is."""
    if line == "@reboot":
        return 'once with the daemon is kind = "oneshot", without a schedule'
    if line[0] == "@" and line not in ALIASES:
        return f"must be one of {', '.join(ALIASES)}, or five fields"
    try:
        next(CronSim(fields(line), START))
    except StopIteration:
        return "no such day comes in fifty years: it would never run"
    except CronSimError as error:
        name = str(error).removeprefix("Bad ")
        value = fields(line).split()[list(FIELDS).index(name) - len(FIELDS)]
        return f"bad {name} '{value}': it is {FIELDS[name]}; see crontab(5)"
    return ""


@lru_cache(maxsize=32)
def zone_of(data: str) -> tzinfo:
    """Raises ValueError for what is no time zone's file."""
    return ZoneInfo.from_file(io.BytesIO(base64.b64decode(data, validate=True))) if data else UTC


def read_zone(name: str) -> str | None:
    """The file of a time zone ("": of the machine's own); None when there is none. It is believed."""
    try:
        with open(f"{ZONES}/{name}" if name else LOCAL, "rb") as file:
            data = base64.b64encode(file.read(ZONE_LIMIT)).decode()
        zone_of(data)
    except (OSError, ValueError):
        return "" if name in ("", "UTC") else None
    return data


def of(values: dict[str, Any], zones: dict[str, str | None]) -> Schedule | None:
    """The schedule of a service whose values have no problem."""
    name = values["timezone"] or ""
    more = values["missed"], values["random_delay"] or 0.0
    return Schedule(values["schedule"], name, zones.get(name) or "", *more) if values["schedule"] else None
