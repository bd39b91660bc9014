"""What is told by several connections, one after the other: after which event the next one begins, and how often it is
tried.

Rule 1: every event is told once, whatever the other end sends again; but who follows an operation always hears its end.
Rule 2: tries are counted from the last sign of life, and people hear once that something broke.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from userapi.cli.failure import Failure


class Resumed:
    def __init__(self, after: int, say: Callable[[str], None], attempts: int, until_ended: bool = False) -> None:
        """after: the number of the last event that was seen, 0 when there is none. say: what people hear of it.

        until_ended: it is one operation, and its end is the last that is told.
        """
        self.after = after
        self._until_ended = until_ended
        self.begun = False  # something was told
        self._say, self._attempts, self._left = say, attempts, attempts
        self._said = False

    def may_try(self) -> bool:
        self._left -= 1
        return self._left >= 0

    def is_news(self, event: dict[str, Any]) -> bool:
        """Remembers it. False for what was told before, and for what only says up to where all was told."""
        self.begun, self._left, self._said = True, self._attempts, False
        number, kind = int(event.get("number", 0)), str(event["is"])
        if kind in ("watching", "missed"):  # of another daemon the numbers may be lower
            self.after = number
            return kind == "missed"
        if kind == "dropped":
            return True
        is_new = number > self.after or (self._until_ended and kind == "ended")
        self.after = max(number, self.after)
        return is_new

    def broke(self, why: Exception) -> None:
        """Say that it is tried again. Raises Failure when that would not help, or has not helped."""
        if isinstance(why, Failure) and (why.kind not in ("later", "unreachable") or not self._left):
            raise why
        if not self._said:
            self._say(f"{why.text if isinstance(why, Failure) else 'the connection broke off'}; asking again")
            self._said = True

    def given_up(self) -> Failure:
        return Failure("later", "the daemon stopped telling: try again")
