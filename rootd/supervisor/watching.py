"""Who watches, and what each of them gets to see.

Rule 1: every single event is shown by what its watcher may view now: the policy and the session of this moment.
Rule 2: events are handed to connections, which drop a peer that does not read; nobody is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from policy import messages
from rootd.supervisor.control import Connection

LIMIT = 128  # watchers
EACH = 16  # of one user

Happened = messages.Changed | messages.Step | messages.Ended


class Watching(Protocol):
    """The call of somebody who watches."""

    @property
    def connection(self) -> Connection: ...
    @property
    def user(self) -> str: ...


class Watcher:
    __slots__ = ("call", "operation", "service")

    def __init__(self, call: Watching, service: str | None, operation: int) -> None:
        self.call = call
        self.service = service
        self.operation = operation

    def wants(self, event: Happened) -> bool:
        if self.operation:
            return not isinstance(event, messages.Changed) and event.operation == self.operation
        return self.service is None or event.service == self.service


class Watchers:
    """`may_see` says whether this call may see what is about this service; None: its session is over."""

    def __init__(self, may_see: Callable[[Watching, str], bool | None]) -> None:
        self._may_see = may_see
        self._watchers: list[Watcher] = []

    def add(self, watcher: Watcher, history: Iterable[Happened]) -> bool:
        """Show what has been, then what comes. False when there are too many."""
        self._watchers = [other for other in self._watchers if not other.call.connection.closed]
        mine = sum(other.call.user == watcher.call.user for other in self._watchers)
        if len(self._watchers) >= LIMIT or mine >= EACH:
            return False
        if all(self._show(watcher, event) for event in history):
            self._watchers.append(watcher)
        return True

    def publish(self, event: Happened) -> None:
        self._watchers = [watcher for watcher in self._watchers if self._show(watcher, event)]

    def _show(self, watcher: Watcher, event: Happened) -> bool:
        """Hand it over, if it may be seen. False when there is nothing more to show to this one."""
        connection = watcher.call.connection
        if connection.closed or not watcher.wants(event):
            return not connection.closed
        seen = self._may_see(watcher.call, event.service)
        if seen is None:
            connection.answer(messages.Refused("no-session", "the session is over: log in again"))
            return False
        if seen and watcher.operation and isinstance(event, messages.Ended):
            connection.answer(event)
            return False
        if seen:
            connection.event(event)
        return not connection.closed
