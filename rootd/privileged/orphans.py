"""What a run has left, where no cgroup tree can tell: found in /proc, and killed by pidfd.

Rule 1: a process is the run's if it is in the run's session, descends from its main process, or is an orphan of its
        user, or a child of ours (strangers.py), that nobody else can have left; all that descends from those is too.
Rule 2: none is killed by its number: its pidfd is open, then it is looked at again, and still the same, and it lives.
Rule 3: what may be another's is left alone and counted. A user's other main processes and their sessions, our own
        parts, and orphans of root are never touched.

What forks and ends faster than it can be looked for may escape: only a cgroup holds everything.
Sources: proc(5) stat and status, setsid(2), prctl(2) PR_SET_CHILD_SUBREAPER (orphans become children of the keeper).
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rootd import ipc
from rootd.privileged import signals
from rootd.privileged.spawn import Run

ROUNDS = 8  # looks in a row, as long as each may have missed one


class Seen(NamedTuple):
    """One process. uid is the real one, looked up for children of the keeper, and our own."""

    pid: int
    parent: int
    group: int
    session: int
    start: int  # clock ticks of CLOCK_BOOTTIME
    uid: int = -1


def look_at(pid: int) -> Seen | None:
    """None when it is gone, or is hidden from us."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
        return Seen(pid, *map(int, (fields[1], fields[2], fields[3], fields[19])))
    except (OSError, IndexError):
        return None


def real_uid(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            return next((int(line.split()[1]) for line in status if line.startswith(b"Uid:")), -1)
    except OSError:
        return -1


def look(keeper: int) -> tuple[dict[int, Seen], bool]:
    """Every process there is, and whether one has ended meanwhile: it may have left another, that is not among them."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    found = {pid: one for pid in pids if (one := look_at(pid))}
    missed = len(found) < len(pids)
    parents = keeper, os.getpid()
    return {p: one._replace(uid=real_uid(p)) if one.parent in parents else one for p, one in found.items()}, missed


def beneath(found: dict[int, Seen], roots: Iterable[int], never: Iterable[int] = ()) -> set[int]:
    """The roots and what descends from them."""
    children = defaultdict[int, list[int]](list)
    for one in found.values():
        children[one.parent].append(one.pid)
    reached, todo = set(never), list(roots)
    while todo:
        pid = todo.pop()
        if pid not in reached:
            reached.add(pid)
            todo += children[pid]
    return reached - set(never)


def left(
    run: Run,
    uid: int,
    others: Sequence[tuple[Run, int]],
    keeper: int,
    found: dict[int, Seen],
    own_number: bool,
    own: int,
) -> tuple[set[int], set[int]]:
    """What is the run's but its main process, and what may be another's. others: runs that are not over, and uids.

    own_number: the main process has not been reaped, so that no other process or session can have its number. keeper:
    its number; when it is gone nobody has left it orphans: those of init's children could be anybody's. own: ours; a
    main process may have made us other children (CLONE_PARENT).
    """
    ours, mains = beneath(found, [keeper]), {other.pid for other, _ in others}
    never = {1, keeper, own, *mains}
    roots = set[int]()
    if own_number:
        roots.add(run.pid)
    if own_number or run.pid not in found:  # else the session of that number is another's
        roots |= {one.pid for one in found.values() if one.session == run.pid and (own_number or one.pid in ours)}
    maybe = set[int]()
    for one in found.values() if uid else ():
        is_new = one.start >= ticks(run.started) and one.pid not in roots
        if one.parent in (keeper, own) and one.uid == uid and is_new and not {one.pid, one.session, one.group} & mains:
            could = [other for other, whose in others if whose == uid and other.exited is None]
            (maybe if any(ticks(other.started) <= one.start for other in could) else roots).add(one.pid)
    return beneath(found, roots, never) - {run.pid}, maybe


def ticks(nanoseconds: int) -> int:
    return nanoseconds * os.sysconf("SC_CLK_TCK") // 10**9


def kill(run: Run, uid: int, others: Sequence[tuple[Run, int]], keeper: int) -> tuple[int, int]:
    """SIGKILL to all that the run has left, its main process apart.

    Returns a pidfd of one that has been killed (-1: there was none), and how many were left as they may be another's.
    """
    last, maybe, killed = -1, set[int](), set[Seen]()
    for _ in range(ROUNDS):
        found, missed = look(keeper)
        mine, maybe = left(run, uid, others, keeper, found, not signals.reaped(run), os.getpid())
        fresh = {found[pid] for pid in mine & found.keys()} - killed
        for one in fresh:
            pidfd = kill_one(one)
            if pidfd >= 0:
                ipc.close_all([last] if last >= 0 else [])
                last = pidfd
        killed |= fresh
        if not fresh and not missed:
            break
    return last, len(maybe)


def kill_one(one: Seen) -> int:
    """The pidfd of what was killed; -1 for what has ended already."""
    try:
        pidfd = os.pidfd_open(one.pid)
    except OSError:
        return -1
    again = look_at(one.pid)
    if again is not None and again.start == one.start and not ipc.wait(pidfd, seconds=0):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return pidfd
    os.close(pidfd)
    return -1
