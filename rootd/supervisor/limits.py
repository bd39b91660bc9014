"""How often people have used the rules that may be used so often only: "6 in 10m", for each person and service.

Rule 1: counted before something begins, and taken back when it is refused, so nothing is done uncounted. Kept in a
        file: a supervisor that is started again goes on counting.
Rule 2: every doubt denies: where the file is damaged or too much is counted, a limit counts as used up until its time
        has gone by.
Rule 3: times are seconds of CLOCK_BOOTTIME. Nobody sets them back, and no time zone moves them.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from policy.conditions import Limit
from rootd.supervisor.files import UNREADABLE

MOST = 20_000  # uses that are counted at once


class Used(msgspec.Struct, forbid_unknown_fields=True):
    """By one person, of one rule, on one service ("" for the daemon as a whole). seconds: of the limit."""

    rule: str
    uid: int
    service: str
    seconds: float
    times: list[float]


_decode = msgspec.json.Decoder(list[Used]).decode


class Limits:
    def __init__(self, clock: Callable[[], float], keep: Callable[[bytes], None]) -> None:
        """keep: writes what the next supervisor is to know."""
        self._clock, self._keep = clock, keep
        self._used: dict[tuple[str, int, str], Used] = {}
        self._count = 0
        self._unknown_until = float("-inf")  # what was used up to then is not known

    def wait(self, rule: str, limit: Limit, uid: int, service: str) -> float:
        """Seconds until this person may use this rule on this service again; 0: now."""
        now = self._clock()
        if now < self._unknown_until + limit.seconds:
            return self._unknown_until + limit.seconds - now
        used = self._used.get((rule, uid, service))
        recent = [] if used is None else [at for at in used.times if now - at < limit.seconds]
        if len(recent) >= limit.times:
            return recent[-limit.times] + limit.seconds - now
        return limit.seconds if self._count >= MOST and not self._forget(now) else 0.0

    def charge(self, rule: str, limit: Limit, uid: int, service: str) -> None:
        now = self._clock()
        self._forget(now)
        used = self._used.setdefault((rule, uid, service), Used(rule, uid, service, limit.seconds, []))
        used.seconds = limit.seconds
        used.times.append(now)
        self._count += 1
        self._save()

    def take_back(self, rule: str, uid: int, service: str) -> None:
        """The last that was charged: nothing has begun after all."""
        self._used[rule, uid, service].times.pop()
        self._forget(self._clock())
        self._save()

    def _save(self) -> None:
        self._keep(msgspec.json.encode(list(self._used.values())))

    def _forget(self, now: float) -> bool:
        """What is too long ago to matter. Whether there is room now."""
        for key, used in list(self._used.items()):
            used.times = [at for at in used.times if now - at < used.seconds]
            if not used.times:
                del self._used[key]
        self._count = sum(len(used.times) for used in self._used.values())
        return self._count < MOST

    def restore(self, kept: bytes) -> str:
        """What the last supervisor kept. What is wrong with it, or ""."""
        now = self._clock()
        try:
            found = _decode(kept or b"[]")
        except UNREADABLE as error:
            self._unknown_until = now
            return f"what limits were used is damaged, they count as used up: {error}"
        for used in found:
            used.times = [at for at in used.times if at <= now]  # else it is of another boot
        self._used = {(used.rule, used.uid, used.service): used for used in found}
        self._forget(now)
        return ""
