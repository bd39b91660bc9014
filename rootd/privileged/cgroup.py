"""One cgroup for each run, where a cgroup2 tree can be written (hybrid mounts too).

Rule 1: the tree is made by root once and given to our account; from then on no capability is needed.
Rule 2: every path is built from the mount point and run numbers of our own.
Rule 3: what others have named (mounts, groups, programs) may be any bytes: it is compared, and ends nobody.

Sources: cgroups(7), Documentation/admin-guide/cgroup-v2.rst (delegation, cgroup.kill, cgroup.events).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from collections.abc import Iterable

from rootd import ipc

KILL_WAIT = 5.0  # seconds that processes of a dead instance have to go, at start


def mount() -> str:
    """Where cgroup2 is mounted, with our own group beneath it; empty when there is none."""
    point = ""
    with open("/proc/self/mountinfo", errors="surrogateescape", newline="\n") as table:  # others mount, too
        for line in table:
            left, _, right = line.partition(" - ")
            if right.startswith("cgroup2 "):
                point = left.split()[4]
    mine = group_of("self")
    return point + mine.rstrip("/") if point and mine and not mine.startswith("/..") else ""


def group_of(pid: int | str) -> str:
    """Of a process, as /proc shows it to this one; empty where there is no cgroup2. Raises OSError when it is gone."""
    with open(f"/proc/{pid}/cgroup", errors="surrogateescape", newline="\n") as table:
        return next((line[3:-1] for line in table if line.startswith("0::")), "")


def holds(name: str, pid: int) -> bool:
    """Whether that process is in this group of ours, or beneath it. Raises OSError when it is gone."""
    group = f"{group_of('self').removesuffix('/self')}/{name}"
    return f"{group_of(pid)}/".startswith(f"{group}/")


def name_of(run: str) -> str:
    """The name of an instance's group: another one for each run directory."""
    return "durward" + run.replace("%", "%25").replace("-", "%2D").replace("/", "-")


def make(name: str, uid: int, *pids: int) -> str:
    """As root: our subtree, given to uid, with this process and those in it.

    The path, or "" where there is no cgroup2, or one that cannot kill (before Linux 5.14): there groups are killed.
    """
    parent = mount().removesuffix(f"/{name}/self")  # there we are when the keeper had to be moved (lend)
    if not parent:
        return ""
    base = f"{parent}/{name}"
    try:
        for path in (base, f"{base}/self"):
            os.makedirs(path, exist_ok=True)
            for file in ("", "/cgroup.procs", "/cgroup.subtree_control"):
                os.chown(path + file, uid, -1)
        for pid in (os.getpid(), *pids):
            attach(f"{base}/self", pid)
    except OSError:
        return ""
    return base if os.path.exists(f"{base}/self/cgroup.kill") else ""


def lend(base: str, wanted: Iterable[str]) -> set[str]:
    """As root: have these controllers in the groups of runs; those that are not to be had ("" is no tree: none is).

    A group with processes in it hands no controller on: then ours, which are the keeper and its children, go to
    base/self. Where others are left beside them there is none.
    """
    parent, lacking = base.rpartition("/")[0], set[str]()
    for name in sorted(wanted):
        try:
            if not base or name not in controllers(parent):
                raise FileNotFoundError
            with contextlib.suppress(OSError):
                write(f"{parent}/cgroup.subtree_control", f"+{name}")
            if name not in controllers(base):
                gather(parent, f"{base}/self", os.getppid())
                write(f"{parent}/cgroup.subtree_control", f"+{name}")
            write(f"{base}/cgroup.subtree_control", f"+{name}")
        except OSError:
            lacking.add(name)
    return lacking


def controllers(path: str) -> list[str]:
    """That a group may hand on, or limit itself by; none where it is not there."""
    with contextlib.suppress(OSError), open(f"{path}/cgroup.controllers") as file:
        return file.read().split()
    return []


def gather(parent: str, path: str, keeper: int) -> None:
    """Move the keeper and its children from one group to another. Raises OSError."""
    with open(f"{parent}/cgroup.procs") as file:
        for pid in map(int, file):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/stat", "rb") as stat:
                if keeper in (pid, int(stat.read().rpartition(b")")[2].split()[1])):
                    attach(path, pid)


def limit(path: str, limits: Iterable[tuple[str, str]], optional: bool) -> None:
    """Write to files of a group what root has configured. Raises OSError; EOPNOTSUPP where there is no such file."""
    for name, text in limits:
        try:
            write(f"{path}/{name}", text)
        except FileNotFoundError:
            if not optional:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP)) from None


def attach(path: str, pid: int) -> None:
    write(f"{path}/cgroup.procs", str(pid))


def kill(path: str) -> None:
    """SIGKILL to everything in it, forks in flight included (Linux 5.14)."""
    write(f"{path}/cgroup.kill", "1")


def write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def open_events(path: str) -> int:
    """The descriptor of cgroup.events: EPOLLPRI tells of a change."""
    return os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def populated(events: int) -> bool:
    return b"populated 1" in os.pread(events, 256, 0)


def remove(path: str) -> bool:
    """Whether it could be, which takes no descriptor: it is there as long as anything lives in it."""
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True


def sweep(base: str, known: set[int]) -> None:
    """Kill and remove the groups of runs that nobody knows any more: of a dead instance, or of a crash.

    It waits KILL_WAIT in all. What does not die until then, the next start tries again.
    """
    until = time.monotonic() + KILL_WAIT
    runs = [name for name in os.listdir(base) if name.startswith("run-")] if base else []
    paths = [f"{base}/{name}" for name in runs if int(name[4:]) not in known]
    for path in paths:
        kill(path)
    for path in paths:
        events = open_events(path)
        while populated(events) and (left := until - time.monotonic()) > 0:
            ipc.wait(events, select.POLLPRI, left)
        os.close(events)
        with contextlib.suppress(OSError):
            os.rmdir(path)
