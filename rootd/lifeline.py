"""What a part of ours owes to the keeper and to its supervisor: when it ends, and why.

Rule 1: the keeper links two parts when one of them starts. So a part whose link to a supervisor that lives on has
        ended would never be linked again: it ends, and the next one is linked anew.
Rule 2: a supervisor that dies takes its link with it: it has a moment to do so, and its successor is linked.
Rule 3: it imports little: probe is in the memory of every machine.

Times are seconds of whatever clock the part has.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from rootd import ipc

ALIVE = 1.0  # seconds after the end of its link in which a supervisor that dies has died
UNLINKED = 75  # EX_TEMPFAIL

Connect = Callable[[str, int, int], None]  # the peer's role, the link and the pidfd of the peer, which it owns then
Say = Callable[[str], None]


class Lifeline:
    """Of one part: `role`, for people."""

    def __init__(self, role: str, say: Say) -> None:
        self._role, self._say = role, say
        self._supervisor = -1  # the pidfd of the one that was linked last
        self._at: float | None = None  # when a supervisor that is not linked must have died

    def linked(self, pidfd: int) -> None:
        """Owns the pidfd from now on."""
        if self._supervisor >= 0:
            os.close(self._supervisor)
        self._supervisor, self._at = pidfd, None

    def lost(self, now: float) -> None:
        """The link has ended, by the supervisor's death or by its will."""
        self._at = now + ALIVE

    def wake_at(self) -> float | None:
        return self._at

    def is_cut(self, now: float) -> bool:
        """Whether to end: the supervisor lives, and is not linked."""
        if self._at is None or now < self._at:
            return False
        self._at = None
        if ipc.wait(self._supervisor, seconds=0):
            return False
        self._say(f"the supervisor lives and is not linked: {self._role} ends, to be started again and linked anew")
        return True

    def is_over(self, keeper: ipc.Link, connect: Connect) -> bool:
        """Hear one message of the keeper. Whether to end: it is gone, or wants that."""
        try:
            received = keeper.receive()
        except BlockingIOError:
            return False
        if received is None or received[0].op == ipc.END:
            return True
        message, fds = received
        if message.op == ipc.LINK and len(fds) == 2:
            connect(message.name, *fds)
        else:
            ipc.close_all(fds)
            self._say(f"the keeper sent {message!r}, which {self._role} does not know")
        return False
