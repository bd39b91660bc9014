"""What waits for a second person: commands that a rule lets somebody give once somebody else agrees.

Rule 1: what was asked for is kept whole, and is what runs: who approves says a number and nothing else.
Rule 2: an approval is used once, and only while its time lasts (CLOCK_BOOTTIME) and the asker's session does.
Rule 3: kept in a file on tmpfs for the next supervisor. Where that is damaged nothing waits any more: ask again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from policy.messages import ApprovalInfo, Command
from rootd.supervisor.files import UNREADABLE
from rootd.supervisor.operations import Refusal

LIMIT, EACH = 200, 10  # that wait at once: of all, and of one person


class Waiting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """also: further services that the command was to act on. request: the id by which the audit log has it."""

    number: int
    request: str
    command: Command
    also: tuple[str, ...]
    session: str  # the hash
    user: str
    uid: int
    source: str
    reason: str
    rule: str
    until: float
    info: ApprovalInfo  # as it is told


class Kept(msgspec.Struct, forbid_unknown_fields=True):
    last: int = 0
    waiting: list[Waiting] = []


_decode = msgspec.json.Decoder(Kept).decode


class Approvals:
    def __init__(self, clock: Callable[[], float], keep: Callable[[bytes], None]) -> None:
        """keep: writes what the next supervisor is to know."""
        self._clock, self._keep = clock, keep
        self.expired: Callable[[Waiting], object] = lambda waiting: None  # called once for each whose time is over
        self._last = 0
        self._waiting: dict[int, Waiting] = {}

    def add(self, make: Callable[[int], Waiting]) -> Waiting:
        """One more; or the same person's that asks for the same already. Raises Refusal."""
        asked = make(self._last + 1)
        mine = [one for one in self.all() if one.uid == asked.uid]
        for one in mine:
            if one.session == asked.session and (one.command, one.reason, one.also, one.rule) == (
                asked.command, asked.reason, asked.also, asked.rule,
            ):  # fmt: skip
                return one
        if len(mine) >= EACH or len(self._waiting) >= LIMIT:
            raise Refusal("later", "too much waits for approval already: durward approve lists it")
        self._last = asked.number
        self._waiting[asked.number] = asked
        self._save()
        return asked

    def find(self, number: int) -> Waiting | None:
        return next((one for one in self.all() if one.number == number), None)

    def all(self) -> Iterator[Waiting]:
        """Those whose time lasts, the oldest first."""
        now = self._clock()
        return iter([one for one in self._waiting.values() if now < one.until])

    def wake_at(self) -> float | None:
        return min((one.until for one in self._waiting.values()), default=None)

    def wake(self, now: float) -> None:
        over = [one for one in self._waiting.values() if one.until <= now]
        for one in over:
            del self._waiting[one.number]
        if over:
            self._save()  # first: it is told once
        for one in over:
            self.expired(one)

    def take(self, number: int) -> Waiting:
        """It is approved, or taken back: nobody can take it again. Raises Refusal."""
        waiting = self.find(number)
        if waiting is None:
            raise Refusal("conflict", f"{number} does not wait any more")
        del self._waiting[number]
        self._save()
        return waiting

    def _save(self) -> None:
        self._keep(msgspec.json.encode(Kept(self._last, list(self._waiting.values()))))

    def restore(self, kept: bytes) -> str:
        """What the last supervisor kept. What is wrong with it, or ""."""
        try:
            found = _decode(kept or b"{}")
        except UNREADABLE as error:
            return f"what waited for approval is damaged, and must be asked for again: {error}"
        self._last = found.last
        self._waiting = {one.number: one for one in found.waiting}
        return ""
