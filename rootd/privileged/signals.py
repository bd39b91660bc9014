"""Signals and ends: who may be signalled, how an exit is told, when a run is over.

Rule 1: a process is signalled by its pidfd, or as the leader of a group that it still leads; never by a number alone.
Rule 2: an exit is told until the supervisor has acknowledged it (SIGNAL KILL TREE), and a child is reaped and forgotten
        by the store when its run is over, so that a crash at any moment loses neither an exit nor what a run has left.
Rule 3: a run is over (EMPTY) when its cgroup is; without cgroups, when orphans finds nothing more of it.

Sources: pidfd_send_signal(2), waitid(2) WNOWAIT, proc(5) fdinfo, cgroups(7).
"""

from __future__ import annotations

import errno
import os
import signal

from rootd import ipc
from rootd.privileged import cgroup
from rootd.privileged.spawn import Run


def reaped(run: Run) -> bool:
    """Whether the kernel has forgotten the process: its exit was taken by the keeper before we came."""
    with open(f"/proc/self/fdinfo/{run.pidfd}") as info:
        return any(line.split() == ["Pid:", "-1"] for line in info)


def dead(run: Run) -> bool:
    """Whether the main process has ended, whoever reaps it."""
    return ipc.wait(run.pidfd, seconds=0)


def peek(run: Run) -> tuple[int, int] | None:
    """Status (exit code, or minus the signal) and flags of a dead child, which stays unreaped; None while it lives."""
    found = os.waitid(os.P_PIDFD, run.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    if found.si_code == os.CLD_EXITED:
        return found.si_status, ipc.KNOWN
    return -found.si_status, ipc.KNOWN | (ipc.CORE if found.si_code == os.CLD_DUMPED else 0)


def reap(run: Run) -> None:
    """The zombie goes. Only for our own children, after the supervisor knows."""
    os.waitid(os.P_PIDFD, run.pidfd, os.WEXITED | os.WNOHANG)


def send(run: Run, number: int, tree: bool, tree_path: str) -> int:
    """Signal the main process, or (SIGKILL only) everything that the run left. Returns an errno, 0 when sent."""
    try:
        if not tree:
            if run.exited is not None:
                return errno.ESRCH
            signal.pidfd_send_signal(run.pidfd, number)
        elif tree_path:
            cgroup.kill(f"{tree_path}/run-{run.run}")
        elif run.ours or not dead(run):  # its number cannot have been given to another yet
            signal.pidfd_send_signal(run.pidfd, signal.SIGKILL)
            os.killpg(run.pid, signal.SIGKILL)
    except ProcessLookupError:
        return 0 if tree else errno.ESRCH
    except OSError as error:
        return error.errno or errno.EIO
    return 0
