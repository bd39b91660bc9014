"""One cgroup for each run, where a cgroup2 tree can be written (hybrid mounts too).

Rule 1: the tree is made by root once and given to our account; from then on no capability is needed.
Rule 2: every path is built from the mount point and run numbers of our own.

Sources: cgroups(7), Documentation/admin-guide/cgroup-v2.rst (delegation, cgroup.kill, cgroup.events).
"""

from __future__ import annotations

import os
import select

KILL_WAIT = 5_000  # milliseconds that processes of a dead instance have to go, at start


def mount() -> str:
    """Where cgroup2 is mounted, with our own group beneath it; empty when there is none."""
    point = ""
    with open("/proc/self/mountinfo") as table:
        for line in table:
            left, _, right = line.partition(" - ")
            if right.startswith("cgroup2 "):
                point = left.split()[4]
    with open("/proc/self/cgroup") as own:
        mine = [line[3:].strip() for line in own if line.startswith("0::")]
    return point + mine[0].rstrip("/") if point and mine and not mine[0].startswith("/..") else ""


def make(name: str, uid: int) -> str:
    """As root: our subtree, given to uid, with this process in it. The path, or "" where there is no cgroup2."""
    parent = mount()
    if not parent:
        return ""
    base = f"{parent}/{name}"
    try:
        for path in (base, f"{base}/self"):
            os.makedirs(path, exist_ok=True)
            for file in ("", "/cgroup.procs", "/cgroup.subtree_control"):
                os.chown(path + file, uid, -1)
        attach(f"{base}/self", os.getpid())
    except OSError:
        return ""
    return base


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


def sweep(base: str, known: set[int]) -> None:
    """Kill and remove the groups of runs that nobody knows any more: of a dead instance, or of a crash."""
    for name in os.listdir(base):
        if not name.startswith("run-") or int(name[4:]) in known:
            continue
        path = f"{base}/{name}"
        kill(path)
        events = open_events(path)
        try:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            while populated(events) and poll.poll(KILL_WAIT):
                pass
        finally:
            os.close(events)
        try:
            os.rmdir(path)
        except OSError:
            continue  # something in it does not die: the next start tries again
