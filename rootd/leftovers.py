"""What a keeper that was killed has left of its parts: ended before the next one forks any.

A part ends with its keeper, and what it has forked ends with it. One that was taken over, beside a keeper that was
killed, does not: it could go on to write that part's state. So a start looks for such processes first.

Rule 1: it is one of those if it runs as the account of a part, behind a filter of system calls, in our namespaces, and
        no keeper is above it: not somebody's `sudo -u`, no container's process that has the same uid by chance, and no
        part of another instance that has the same accounts. No wall lets a part out of any of that.
Rule 2: none is killed by its number: its pidfd is open, then it is looked at again, and still is one of those. Its
        group, a part's alone (keeper/reap.py), is killed with it where the kernel can do that: Linux 6.9.
Rule 3: it runs as root, in a child that is thrown away, before there is anything of ours. It imports nothing of ours.

Sources: proc(5) status, namespaces(7), pidfd_send_signal(2) PIDFD_SIGNAL_PROCESS_GROUP.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Container
from typing import NamedTuple

KEEPER = "durward-rootd"  # the name of every keeper's process, and root's
ROUNDS = 64  # looks in a row, as long as there is one: each may have forked before it was killed
PATIENCE = 5_000  # milliseconds that each has to end
PROCESS_GROUP = 1 << 2  # of pidfd_send_signal(2)
FILTERED = "2"  # Seccomp: in status


class Seen(NamedTuple):
    name: str
    parent: int
    uids: frozenset[int]
    filtered: bool
    ended: bool


def look_at(pid: int) -> Seen | None:
    """None when it is gone, or hidden from us."""
    try:
        with open(f"/proc/{pid}/status", errors="replace") as status:
            said = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
        uids = frozenset(int(word) for word in said["Uid"].split())
        ended = said["State"][0] in "ZX"
        return Seen(said["Name"], int(said["PPid"]), uids, said.get("Seccomp") == FILTERED, ended)
    except (OSError, KeyError, ValueError):
        return None


def is_here(pid: int) -> bool:
    """In our namespaces; what cannot be seen is not."""
    try:
        return all(os.path.samefile(f"/proc/{pid}/ns/{kind}", f"/proc/self/ns/{kind}") for kind in ("pid", "mnt"))
    except OSError:
        return False


def is_left(pid: int, accounts: Container[int]) -> bool:
    one = above = look_at(pid)
    if one is None or one.ended or not one.filtered or not all(uid in accounts for uid in one.uids) or not is_here(pid):
        return False
    while above is not None and above.parent:
        above = look_at(above.parent)
        if above is None or (above.name == KEEPER and above.uids == {0}):
            return False  # above is one that lives, or one that cannot be seen
    return True


def end(accounts: Container[int]) -> int:
    """SIGKILL to all of it, and wait for that. accounts: uids of parts. How many there were, of what was seen."""
    count = 0
    for _ in range(ROUNDS):
        found = [int(name) for name in os.listdir("/proc") if name.isdigit() and is_left(int(name), accounts)]
        for pid in found:
            count += kill(pid, accounts)
        if not found:
            break
    return count


def kill(pid: int, accounts: Container[int]) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_left(pid, accounts):
            return False
        for flags in (PROCESS_GROUP, 0):
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL, None, flags)
        end = select.poll()
        end.register(pidfd, select.POLLIN)
        end.poll(PATIENCE)
        return True
    finally:
        os.close(pidfd)
