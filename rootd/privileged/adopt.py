"""ADOPT: another process of a run becomes its main process, since the service says so (MAINPID).

Rule 1: only a process in the run's own cgroup, which nobody but us puts there; without cgroups there is no proof.
Rule 2: its pidfd is open before it is looked at, and it lives after that: what was looked at is what is adopted.
Rule 3: the store has the new one before it forgets the old one: a crash in between leaves both, and the later counts.
Rule 4: it is no child of ours. Its pidfd says that it has ended, and the keeper how, if it is the keeper's to reap.

Sources: DESIGN §14, sd_notify(3), pidfd_open(2), cgroups(7) /proc/PID/cgroup, wait(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING

from rootd import ipc
from rootd.privileged import cgroup, orphans, signals
from rootd.privileged.spawn import Run

if TYPE_CHECKING:
    from rootd.privileged.main import Privileged

PID_LIMIT = 1 << 22  # of Linux
TO_BE_TOLD = 1.0  # seconds that the keeper has to say how one ended that it has reaped


def check(house: Privileged, asked: ipc.Message) -> int:
    """The errno for what is refused before the process is looked at, 0 for what is not."""
    run = house.runs.get(asked.run)
    if run is None or run.acknowledged:
        return errno.ESRCH
    if not house.tree:
        return errno.ENOTSUP
    if any(other.pid == asked.arg for other in house.runs.values()):  # one that has ended, too: the store has its name
        return errno.EEXIST
    if house.unrecorded():
        return errno.EAGAIN
    return 0 if 2 <= asked.arg <= PID_LIMIT else errno.EINVAL


def take(house: Privileged, run: Run, pid: int) -> None:
    """Make this process the run's main one. Raises OSError, and nothing has changed."""
    pidfd, name, old = os.pidfd_open(pid), run.name, (run.pid, run.pidfd)
    try:
        if not cgroup.holds(f"run-{run.run}", pid):
            raise PermissionError(errno.EPERM, "a process of somebody else")
        if ipc.wait(pidfd, seconds=0):
            raise ProcessLookupError(errno.ESRCH, "it has ended")
        run.pid = pid
        house.store(run.name, pidfd)
    except OSError:
        run.pid = old[0]
        os.close(pidfd)
        raise
    house.drop(name)
    house.loop.forget(old[1])
    if run.ours:
        house.loop.watch(old[1], lambda _: bury(house, old[1]))
    else:
        house.adopted.pop(old[0], None)
        os.close(old[1])
    run.pidfd, run.ours, run.exited = pidfd, False, None
    watch(house, run)


def take_back(house: Privileged, run: Run) -> None:
    """One that the store had. Of two of a run, the end came in the middle of an ADOPT: the later one counts."""
    before = house.runs.get(run.run)
    if before is not None:
        house.drop(before.name)
        os.close(before.pidfd)
    house.runs[run.run] = run


def grant(house: Privileged) -> set[int]:
    """As root: what the tables ask for, as generations.grant says. What runs has its limits again, which are lost where
    its cgroup could not be limited for a moment: while a service manager started another keeper above it."""
    more = house.generations.grant(house.tree)
    for run in house.runs.values():
        entry = house.generations.entry(run.generation, run.slot)
        if house.tree and entry and entry.extra and entry.extra.cgroup:
            with contextlib.suppress(OSError):  # its group is gone, or a limit is too low by now
                cgroup.limit(f"{house.tree}/run-{run.run}", entry.extra.cgroup, optional=True)
    return more


def bury(house: Privileged, pidfd: int) -> None:
    """A child of ours that was a main process once has ended: that is nobody's business any more."""
    house.loop.forget(pidfd)
    with contextlib.suppress(ChildProcessError):  # strangers has done it
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    os.close(pidfd)


def watch(house: Privileged, run: Run) -> None:
    """A main process that is no child of ours."""
    house.adopted[run.pid] = run
    house.loop.watch(run.pidfd, lambda _: gone(house, run))


def gone(house: Privileged, run: Run) -> None:
    house.loop.forget(run.pidfd)
    house.look = min(house.look, time.monotonic() + TO_BE_TOLD)


def unseen(house: Privileged) -> list[Run]:
    """Those that have ended and are not the keeper's to reap, or were reaped so long ago that it would have told."""
    found = []
    for run in [run for run in house.adopted.values() if signals.dead(run)]:
        zombie = None if signals.reaped(run) else orphans.look_at(run.pid)
        if zombie is None or zombie.parent != house.parent:
            found.append(run)
    return found
