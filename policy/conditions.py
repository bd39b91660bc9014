"""What a rule asks besides who, what and where: its keys `when`, `expires`, `from`, `reason`, …, read from its table.

Rule 1: what cannot be understood is a mistake; a condition that is not understood is never one that holds.
Rule 2: a date has a zone: that of `when`, else UTC. Nothing is taken from the machine's own settings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton  # how addresses are spelled; the module ipaddress is large

import msgspec

from policy.names import UserName
from policy.reading import Table, show
from policy.windows import MIDNIGHT, Window, Zones, days, hours

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # in seconds
MOST_TIMES, LONGEST = 1000, 31 * 86400  # of a limit; seconds
LIMIT = re.compile(r"\A([0-9]{1,4}) +in +([0-9]{1,7})([smhd])\Z")
DURATION = re.compile(r"\A([0-9]{1,5})([smhd])\Z")
Person = tuple[str, UserName]  # "user" or "group", and the name
_BITS = re.compile(r"\A[0-9]{1,3}\Z")
Network = tuple[int, int, int]  # bytes of an address, the first one as a number, and the mask
LOCAL = "unix"  # begins what the api says of who comes by its Unix socket
YEARS = range(1970, 9000)  # in which a time can be: beyond, a computation with it could fail


class Limit(msgspec.Struct, frozen=True):
    """So many times in so many seconds, for each person and service. text: as it was written."""

    times: int
    seconds: float
    text: str


class Approval(msgspec.Struct, frozen=True):
    """Somebody of these, who is not the asker, must agree within so many seconds. text: who, as people read it."""

    users: tuple[UserName, ...]
    groups: tuple[UserName, ...]
    within: float
    text: str


def _never_used(rule: str, limit: Limit) -> float:
    return 0.0


class Asking(msgspec.Struct, frozen=True):
    """The circumstances in which it is asked, as far as they are known.

    at: seconds since 1970 by the wall clock; None: not known. source: an address, or LOCAL and a uid, as the api told.
    reason: why, in the asker's words. demands: whether what rules demand besides matters; not to who only looks, or
    takes back. wait: of a rule and its limit, the seconds until the asker may use it on this service again. approved:
    rules for which somebody else has agreed to this very command.
    """

    at: float | None = None
    source: str = ""
    reason: str = ""
    demands: bool = True
    wait: Callable[[str, Limit], float] = _never_used
    approved: frozenset[str] = frozenset()


class Sources(msgspec.Struct, frozen=True):
    """Networks, and whether the machine's own sockets count. text: as people read it."""

    networks: tuple[Network, ...]
    local: bool
    text: str

    def hold(self, source: str) -> bool:
        address = packed(source)
        if address is None:
            return self.local and source.partition(":")[0] == LOCAL
        number = int.from_bytes(address)
        return any(len(address) == size and number & mask == first for size, first, mask in self.networks)


class Expiry(msgspec.Struct, frozen=True):
    """at: seconds since 1970, from which on the rule does not count. text: as it was written."""

    at: float
    text: str


def zones_of_utc(name: str) -> tzinfo | None:
    """For who has no data of zones."""
    return UTC if name == "UTC" else None


def read_when(table: Table, zones: Zones) -> Window | None:
    values = table.values.get("when")
    if values is None:
        return None
    if not isinstance(values, dict):
        table.wrong("when", f'write when = {{ days = "Mon-Fri", hours = "08:00-18:00", timezone = "UTC" }}, not'
                    f" {show(values)}")  # fmt: skip
        return None
    inner = Table(table.file, (*table.path, "when"), values, table.suggest)
    inner.check_keys(("days", "hours", "timezone"))
    on = inner.one("days", days) if "days" in values else frozenset(range(7))
    at = inner.one("hours", hours) if "hours" in values else (0, MIDNIGHT)
    if "days" not in values and "hours" not in values:
        table.wrong("when", "'when' is always, as it is: say days, hours or both")

    def zone_of(name: str) -> tzinfo:
        zone = zones(name)
        if zone is None:
            raise ValueError(f"there is no time zone {show(name)} on this machine: UTC, or a name like Europe/Zurich")
        return zone

    zone = inner.one("timezone", zone_of)
    if on is None or at is None or zone is None:
        return None
    text = " ".join(values[key] for key in ("days", "hours", "timezone") if key in values)
    return Window(on, *at, zone, text)


def read_expires(table: Table, window: Window | None) -> Expiry | None:
    """A date counts to the end of that day."""
    value = table.values.get("expires")
    if value is None:
        return None
    moment = moment_of(value)
    if moment is not None:
        return Expiry(moment, str(value))
    if type(value) is date and value.year in YEARS:
        zone = UTC if window is None else window.zone
        end = datetime.combine(value + timedelta(days=1), datetime.min.time(), zone)
        return Expiry(end.timestamp(), str(value))
    table.wrong("expires", "'expires' must be a date, as 2027-01-31 (to its end), or a date and a time with its offset,"
                " as 2027-01-31T18:00:00+01:00")  # fmt: skip
    return None


def moment_of(value: object) -> float | None:
    """Of a date and a time with its offset, seconds since 1970; of anything else, None."""
    if isinstance(value, datetime) and value.tzinfo and value.year in YEARS:
        return value.timestamp()
    return None


def read_from(table: Table) -> Sources | None:
    if "from" not in table.values:
        return None
    found = table.many("from", network)
    if found is None:
        return None
    networks = tuple(one for one in found if one is not None)
    return Sources(networks, None in found, ", ".join(table.values["from"]))


def read_limit(table: Table) -> Limit | None:
    return table.one("limit", _limit) if "limit" in table.values else None


def _limit(text: str) -> Limit:
    match = LIMIT.match(text)
    times, seconds = (int(match[1]), int(match[2]) * UNITS[match[3]]) if match else (0, 0)
    if not (1 <= times <= MOST_TIMES and 0 < seconds <= LONGEST):
        raise ValueError(f"{show(text)} is no limit: write 6 in 10m; 1 to {MOST_TIMES} times in 1s to 31d (s, m, h, d)")
    return Limit(times, float(seconds), text)


def read_approval(
    table: Table, who: Callable[[str], Person], members: Callable[[str], Iterable[Person]]
) -> Approval | None:
    values = table.values.get("approval")
    if values is None:
        return None
    if not isinstance(values, dict):
        table.wrong("approval", f'write approval = {{ by = ["group:leads"], within = "10m" }}, not {show(values)}')
        return None
    inner = Table(table.file, (*table.path, "approval"), values, table.suggest)
    inner.check_keys(("by", "within"))
    by, within = inner.many("by", who, members=members), inner.one("within", _within)
    if by is None or within is None:
        return None
    users, groups = (tuple(name for kind, name in by if kind == wanted) for wanted in ("user", "group"))
    return Approval(users, groups, within, " or ".join(values["by"]))


def _within(text: str) -> float:
    match = DURATION.match(text)
    seconds = int(match[1]) * UNITS[match[2]] if match else 0
    if not 0 < seconds <= UNITS["d"]:
        raise ValueError(f"{show(text)} is no time to wait: 30s, 10m or 2h, at most 1d")
    return float(seconds)


def read_flag(table: Table, key: str) -> bool:
    value = table.values.get(key, False)
    if not isinstance(value, bool):
        table.wrong(key, f"'{key}' must be true or false, not {show(value)}")
    return value is True


def network(text: str) -> Network | None:
    """None is "local". Raises ValueError."""
    if text == "local":
        return None
    address, slash, bits = text.partition("/")
    first = packed(address)
    longest = 0 if first is None else 8 * len(first)
    length = (int(bits) if _BITS.match(bits) else -1) if slash else longest
    if first is None or not 0 <= length <= longest:
        raise ValueError(f"{show(text)} is no network: 10.0.0.0/8, 2001:db8::/32, 192.0.2.7, or local")
    mask = (1 << longest) - (1 << longest - length)
    number = int.from_bytes(first)
    if number & ~mask:
        family = AF_INET if longest == 32 else AF_INET6
        meant = inet_ntop(family, (number & mask).to_bytes(len(first)))
        raise ValueError(f"{show(text)} has bits beyond its prefix: write {meant}/{length}")
    return len(first), number, mask


@lru_cache(1024)
def packed(address: str) -> bytes | None:
    """The 4 or 16 bytes of an address; None for what is none."""
    for family in (AF_INET, AF_INET6):
        try:
            return inet_pton(family, address)
        except (OSError, ValueError):
            continue
    return None
