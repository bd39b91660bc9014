"""Who has ended, and the end of all that a part of ours has forked: none of it goes on beside the part that follows.

Rule 1: a part is a session and a process group of its own (again.clean), and its walls let nothing of it into another
        (sandbox.FORKING). So the kernel kills all of it at once, however fast it forks.
Rule 2: a group is named by a number only before its leader was waited for, so that the number is its own.
Rule 3: of privileged nothing is killed but itself: what it has forked are services.

Sources: waitid(2) WNOWAIT, killpg(3), pidfd_send_signal(2) PIDFD_SIGNAL_PROCESS_GROUP (Linux 6.9).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable

from rootd import ipc

PATIENCE = 5.0  # seconds that parts of a keeper that is gone have to end
PROCESS_GROUP = 1 << 2  # of pidfd_send_signal(2): also of a leader that has ended


def ended(leaders: Iterable[int]) -> tuple[int, int] | None:
    """A child that has ended, and its exit status (a signal's number, negative); None when there is none. leaders: the
    pids of those whose groups end with them."""
    child = None
    with contextlib.suppress(ChildProcessError):
        child = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if child is None:
        return None
    if child.si_pid in leaders:
        with contextlib.suppress(OSError):  # none: it has ended before it had a group
            os.killpg(child.si_pid, signal.SIGKILL)
    return child.si_pid, os.waitstatus_to_exitcode(os.waitpid(child.si_pid, 0)[1])


def end(pidfd: int, *, group: bool) -> None:
    """A part of the keeper that is gone must not do anything beside the one that follows it; neither must its group,
    where the kernel can tell which that is. Closes pidfd."""
    for flags in (PROCESS_GROUP, 0) if group else (0,):
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL, None, flags)
    ipc.wait(pidfd, seconds=PATIENCE)
    os.close(pidfd)
