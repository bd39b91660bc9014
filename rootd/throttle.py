"""How long somebody must wait who has been wrong before, with a password or a personal token: pure bookkeeping.

Rule 1: time is an argument, in seconds of CLOCK_BOOTTIME.
Rule 2: what is being tried counts as wrong until it is known: many attempts at once are no way around.
Rule 3: nobody can lock somebody else out for ever: the delay of a user and source is theirs alone; that of a source
        or of a user does not hold for those who have logged in from there before, and it is never longer than STEPS.
Rule 4: memory is bounded; what was used longest ago is forgotten first.

A user at a source waits 2, 4, 8, 15, 15, … seconds after each wrong attempt; a source (an IPv4 address, an IPv6 /64)
after its tenth; so does a uid of this machine, which the kernel names ("unix:1001"). Loopback, and what is no address,
is shared by everybody on the machine, and a user name by everybody in the world: there the delay begins late and stays
short, and what others did to a name does not hold for a uid that has not been wrong with it.

The module ipaddress is large, and the supervisor does without it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import NamedTuple

STEPS = (2.0, 4.0, 8.0, 15.0)  # seconds
FORGIVE = 60.0  # seconds
MOST = 60.0  # wrong attempts that are remembered of one user or source
LIMIT = 20_000  # entries
AT_ONCE = 3  # attempts that may be under way while none was wrong
PREFIX = 8  # bytes of an IPv6 address that one customer has
MAPPED = bytes(10) + b"\xff\xff"  # before an IPv4 address that is written as an IPv6 one


class Patience(NamedTuple):
    """How many wrong attempts cost nothing, and the delays after them."""

    free: int
    steps: tuple[float, ...]


PAIR = Patience(1, STEPS)
REMOTE = Patience(10, STEPS)
SHARED = Patience(50, STEPS[:1])
USER = Patience(20, STEPS[:1])
PEER = Patience(10, STEPS[:1])  # a user at this machine, known by uid: all attempts count, none can be wrong


class Entry:
    """A bucket that leaks: each wrong attempt is forgiven after FORGIVE seconds."""

    __slots__ = ("good", "last", "level", "pending")

    def __init__(self) -> None:
        self.level = 0.0  # wrong attempts at `last`
        self.last = 0.0  # when one was wrong
        self.pending = 0
        self.good = False  # somebody has logged in with it

    def failures(self, now: float) -> float:
        return max(self.level - (now - self.last) / FORGIVE, 0.0)

    def wrong(self, now: float) -> None:
        self.level, self.last = min(self.failures(now) + 1.0, MOST), now

    def wait(self, patience: Patience, now: float) -> float:
        """Seconds until the next attempt may begin; 0 is now."""
        failures = math.ceil(self.failures(now))
        if failures < patience.free and failures + self.pending < max(patience.free, AT_ONCE):
            return 0.0
        step = patience.steps[min(max(failures - patience.free, 0), len(patience.steps) - 1)]
        return step if self.pending else max(self.last + step - now, 0.0)


Key = tuple[str, str]  # user and source; one of them "" for the other alone


class Ticket(NamedTuple):
    """An attempt that may be made: hand it back by `wrong`, `right` or `untried`."""

    pair: Key
    source: Key
    user: Key


def network(source: str) -> tuple[str, Patience]:
    """What counts as one source, and how much it may do."""
    if source.startswith("unix:"):
        return source, REMOTE
    address = packed(source)
    if address is None:
        return f"({source})", SHARED
    if len(address) == 4:
        return inet_ntop(AF_INET, address), SHARED if address[0] == 127 else REMOTE
    whole = inet_ntop(AF_INET6, address[:PREFIX].ljust(16, b"\0"))
    return f"{whole}/{8 * PREFIX}", SHARED if address == b"\1".rjust(16, b"\0") else REMOTE


def packed(source: str) -> bytes | None:
    """The 4 or 16 bytes of an address, an IPv4 one however it is written; None for what is none."""
    for family in (AF_INET, AF_INET6):
        try:
            found = inet_pton(family, source.partition("%")[0])  # without the link that it is of
        except (OSError, ValueError):
            continue
        return found.removeprefix(MAPPED) if family == AF_INET6 else found
    return None


class Throttle:
    def __init__(self) -> None:
        self._entries: OrderedDict[Key, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, user: str, source: str, now: float, own: Patience = PAIR) -> Ticket | float:
        """own: with this user at this source. A ticket for one attempt, or the seconds after which one may be had."""
        where, patience = network(source)
        ticket = Ticket((user, where), ("", where), (user, ""))
        known = self._entries.get(ticket.pair)
        waits = [self._wait(ticket.pair, own, now)]
        if known is None or not known.good:
            waits.append(self._wait(ticket.source, patience, now))
            if not where.startswith("unix:") or (known is not None and known.failures(now) + known.pending > 0):
                waits.append(self._wait(ticket.user, USER, now))
        if max(waits) > 0:
            return max(waits)
        for key in ticket:
            self._entry(key).pending += 1
        return ticket

    def wrong(self, ticket: Ticket, now: float) -> None:
        for key in ticket:
            self._ended(key).wrong(now)

    def right(self, ticket: Ticket) -> None:
        """Forgives the user at this source, and nobody else: one good account must not clear a source."""
        for key in ticket:
            self._ended(key)
        pair = self._entries[ticket.pair]
        pair.level, pair.good = 0.0, True

    def untried(self, ticket: Ticket) -> None:
        """Nothing was learnt by it: there was no room for it."""
        for key in ticket:
            self._ended(key)

    def _wait(self, key: Key, patience: Patience, now: float) -> float:
        entry = self._entries.get(key)
        return 0.0 if entry is None else entry.wait(patience, now)

    def _ended(self, key: Key) -> Entry:
        entry = self._entry(key)
        entry.pending = max(entry.pending - 1, 0)
        return entry

    def _entry(self, key: Key) -> Entry:
        entry = self._entries.setdefault(key, Entry())
        self._entries.move_to_end(key)
        while len(self._entries) > LIMIT:
            self._entries.popitem(last=False)
        return entry
