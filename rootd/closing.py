"""Letting go of what others have had in their hands, so that it keeps nobody.

Whoever closes the last descriptor of a socket that is to linger (SO_LINGER) waits until its peer has read all, for as
long as its owner has said, which may be hours. So does who reads a message with such a descriptor and has no room for
it, and who closes a socket in which such a message, or a connection with one, still waits. A signal ends that wait.

Rule 1: whatever a service may have sent, or shares with us, is read and closed by these.
Rule 2: they use the one timer of the process: not in a child that has a time limit, nor beside another thread.

Sources: socket(7) SO_LINGER, unix(7) SCM_RIGHTS, setitimer(2); sk_stream_wait_close of Linux's net/core/stream.c.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 0.001  # seconds


def at_once(act: Callable[[], T]) -> T:
    """What `act` gives; what it closes keeps us no longer than PATIENCE."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE, PATIENCE)  # again: it may come before the wait has begun
    try:
        return act()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # none is pending when this returns
        signal.signal(signal.SIGALRM, before)


def close(*fds: int) -> None:
    at_once(lambda: deque(map(os.close, fds), maxlen=0))
