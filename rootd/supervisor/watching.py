"""Who watches, and what each of them gets to see: what happens now, and what has happened since an event he has seen.

Rule 1: every single event is shown by what its watcher may view now: the policy and the session of this moment.
Rule 2: events are handed to connections, which drop a peer that does not read; nobody is waited for.
Rule 3: who resumes sees each event once and in order, or is told up to which number some are missing to him.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from policy import messages
from rootd.supervisor.control import Connection

LIMIT = 128  # watchers
EACH = 16  # of one user
KEPT = 1_024  # events of the past
SHARE = 128  # of one service: one that has more loses its own first, so that a noisy one costs the others nothing
GONE = 16_384  # services of which it is known which event was the last that is not kept any more
THEN = "Look at the status for how things are; what follows here is complete"
OVER = "the session is over: log in again"
AHEAD = 1 << 20  # more numbers than a supervisor can give to events between one state file and the next

Happened = messages.Changed | messages.Step | messages.Ended | messages.Lapsed
Sees = Callable[[str], bool | None]


def first(saved: int) -> int:
    """The number after which this supervisor begins. saved: the last one in the state file; 0 when there is none.

    Watchers have seen more than the state file knows when its writer was killed: no number is given out twice. Where
    there is no file, on a machine that was started again, it is none that somebody has from before, but for a chance
    of one in four thousand million.
    """
    return saved + AHEAD if saved else (1 + int.from_bytes(os.urandom(4), "big")) * AHEAD


class Watching(Protocol):
    """The call of somebody who watches."""

    @property
    def connection(self) -> Connection: ...
    @property
    def user(self) -> str: ...


class Watcher:
    __slots__ = ("after", "call", "operation", "service")

    def __init__(self, call: Watching, service: str | None, operation: int, after: int = 0) -> None:
        self.call = call
        self.service = service
        self.operation = operation
        self.after = after

    def wants(self, event: Happened) -> bool:
        if self.operation:
            return isinstance(event, messages.Step | messages.Ended) and event.operation == self.operation
        return self.service is None or event.service == self.service

    def begins_with(self, event: Happened, seen: int) -> bool:
        """Of the past. The end of an operation is told again: nothing more would ever come."""
        return event.number > seen or (bool(self.operation) and isinstance(event, messages.Ended))


class Watchers:
    """`may_see` says whether this call may see what is about this service; None: its session is over."""

    def __init__(self, may_see: Callable[[Watching, str], bool | None]) -> None:
        self._may_see = may_see
        self._watchers: list[Watcher] = []
        self._kept: dict[int, Happened] = {}  # ascending
        self._of: dict[str, deque[int]] = {}  # by service, the numbers of its events that are kept
        self._gone: dict[str, int] = {}  # by service, the number of its last event that is not kept
        self._lost = 0  # up to this number, nobody knows what there was for whom
        self._last = 0

    def begin(self, number: int) -> None:
        """Events are numbered from here on; those before were another supervisor's."""
        self._last = self._lost = number

    def knows(self, number: int) -> bool:
        """Whether it may have been given out by now, or is none (0)."""
        return number <= self._last

    def add(self, watcher: Watcher, operation: Sequence[Happened] = ()) -> bool:
        """Show what has been, then what comes; of an operation: its events. False when there are too many."""
        self._watchers = [other for other in self._watchers if not other.call.connection.closed]
        mine = sum(other.call.user == watcher.call.user for other in self._watchers)
        if len(self._watchers) >= LIMIT or mine >= EACH:
            return False
        connection, seen = watcher.call.connection, watcher.after
        connection.watched(seen or self._last)
        sees = functools.cache(functools.partial(self._may_see, watcher.call))  # it is one moment
        missed = self._missed(watcher, sees) if seen and not watcher.operation else None
        if missed is not None:
            seen = missed.number
            connection.event(missed, kept=True)
        past = operation if watcher.operation else list(self._kept.values()) if seen else ()
        if not all(self._show(watcher, event, sees, kept=True) for event in past if watcher.begins_with(event, seen)):
            return True
        if not watcher.operation:
            connection.event(messages.Watching(self._last))
        self._watchers.append(watcher)
        return True

    def publish(self, event: Happened) -> None:
        self._last = event.number
        self._kept[event.number] = event
        numbers = self._of.setdefault(event.service, deque())
        numbers.append(event.number)
        if len(self._kept) > KEPT:
            self._forget(numbers[0] if len(numbers) > SHARE else next(iter(self._kept)))
        self._watchers = [
            watcher
            for watcher in self._watchers
            if self._show(watcher, event, functools.partial(self._may_see, watcher.call))
        ]

    def look(self) -> None:
        """Sessions have ended: who watches by one of them is told at once, and nothing more."""
        self._watchers = [watcher for watcher in self._watchers if not self._is_over(watcher)]

    def _is_over(self, watcher: Watcher) -> bool:
        connection = watcher.call.connection
        over = not connection.closed and self._may_see(watcher.call, "") is None
        if over:
            connection.answer(messages.Refused("no-session", OVER))
        return over or connection.closed

    def _forget(self, number: int) -> None:
        """The oldest of its service."""
        service = self._kept.pop(number).service
        self._of[service].popleft()
        if not self._of[service]:
            del self._of[service]
        self._gone.pop(service, None)
        self._gone[service] = number
        if len(self._gone) > GONE:
            self._lost = max(self._lost, self._gone.pop(next(iter(self._gone))))

    def _missed(self, watcher: Watcher, sees: Sees) -> messages.Missed | None:
        """What he would have been shown, and is not kept. Of what he may not view, nothing is missing to him."""
        after = watcher.after
        if after > self._last:
            text = (
                f"there is no event {after} yet, the last one is {self._last}: the number is of another start, or wrong"
            )
            return messages.Missed(self._last, f"{text}. {THEN}")
        last = self._lost
        for service, number in self._gone.items():
            if number > max(after, last) and watcher.service in (None, service) and sees(service):
                last = number
        if last <= after:
            return None
        return messages.Missed(last, f"event {after} is too old: only later ones than event {last} are kept. {THEN}")

    def _show(self, watcher: Watcher, event: Happened, sees: Sees, kept: bool = False) -> bool:
        """Hand it over, if it may be seen. False when there is nothing more to show to this one."""
        connection = watcher.call.connection
        if connection.closed or not watcher.wants(event):
            return not connection.closed
        seen = sees(event.service)
        if seen is None:
            connection.answer(messages.Refused("no-session", OVER))
            return False
        if watcher.operation and not seen:  # he has lost the right, and waits for an end
            connection.answer(messages.Refused("unknown", f"no operation {watcher.operation} that you may view"))
            return False
        if watcher.operation and isinstance(event, messages.Ended):
            connection.answer(event)
            return False
        if seen:
            connection.event(event, kept)
        return not connection.closed
