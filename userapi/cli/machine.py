"""What this machine and its kernel give: looked at or tried, and never changed. Standard library only.

Rule 1: a feature is tried by the call itself, where that has no effect; what a container's filter forbids is not there.
Rule 2: what only root may see is said to be unknown, and is neither good nor bad.

Sources: pidfd_open(2), clone3 of clone(2), landlock_create_ruleset(2), prctl(2) PR_SET_SECCOMP, memfd_create(2),
proc(5), cgroups(7), pipe(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

OK, WARNING, PROBLEM, UNKNOWN = "ok", "warning", "problem", "unknown"
KERNEL, PYTHON = (5, 14), (3, 11)
CLONE3, LANDLOCK_CREATE_RULESET = 435, 444  # the same on every architecture
PR_SET_SECCOMP, MODE_FILTER = 22, 2
CAPABILITIES = {  # that a start takes, and the last five of them privileged keeps
    "CHOWN": 0, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8, "NET_BIND_SERVICE": 10
}  # fmt: skip
PIPE_PAGES, FULL_PIPE_PAGES = 16, 256  # of a pipe as it is made, and of one that has grown to 1 MiB
DESCRIPTORS, DESCRIPTORS_EACH = 256, 12  # of the keeper: its own, and for each process, of which services use half
LISTEN_STATE = "0A"
ZONE = "Europe/Zurich"
LITTLE = 0.05  # of a file system that is left


class Finding(NamedTuple):
    group: str
    level: str  # ok, warning, problem, unknown
    text: str
    todo: str = ""


def kernel() -> Iterator[Finding]:
    release = os.uname().release
    parts = release.split("-")[0].split(".")
    if tuple(int(part) for part in parts[:2] if part.isdigit()) < KERNEL:
        yield Finding("kernel", PROBLEM, f"Linux {release} is older than 5.14", "run a newer kernel")
    else:
        yield Finding("kernel", OK, f"Linux {release}")
    yield tried("pidfd", pidfd(), "no process can be signalled safely", PROBLEM)
    yield tried("sealed memfds", memfd(), "the configuration cannot be kept", PROBLEM)
    yield tried("seccomp filters", seccomp(), "no part of Durward can wall itself in, and none goes on", PROBLEM)
    yield tried("clone3", clone3(), "a process is moved to its control group after its birth, which takes milliseconds")
    abi = landlock()
    if abi < 1:
        text = "no Landlock: the files of Durward's parts are guarded by their modes alone"
        yield Finding("kernel", WARNING, text, "boot with lsm=landlock,…, or let the container's filter allow it")
    else:
        yield Finding("kernel", OK, f"Landlock, ABI {abi}")


def tried(what: str, number: int, without: str, level: str = WARNING) -> Finding:
    if number == 0:
        return Finding("kernel", OK, what)
    todo = "in a container: allow it in the engine's seccomp profile; else: run a newer kernel"
    return Finding("kernel", level, f"no {what} ({os.strerror(number)}): {without}", todo)


def pidfd() -> int:
    """0, or the errno."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def memfd() -> int:
    try:
        os.close(os.memfd_create("durward-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def seccomp() -> int:
    """A filter at no address is refused with EFAULT where filters are known, and nothing has changed."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(MODE_FILTER), None, ctypes.c_ulong(0), ctypes.c_ulong(0))
    number = ctypes.get_errno()
    return 0 if number in (errno.EFAULT, errno.EACCES) else number


def clone3() -> int:
    """Arguments of no size are refused with EINVAL where the call is known."""
    number = failing(CLONE3, None, ctypes.c_size_t(0))
    return 0 if number == errno.EINVAL else number


def landlock() -> int:
    """The ABI; 0 where there is none."""
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    return max(0, int(syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def failing(number: int, *arguments: object) -> int:
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    return ctypes.get_errno() if syscall(number, *arguments) < 0 else 0


def capabilities() -> Finding:
    """Those that a start takes must be in the bounding set that the daemon will have, which is taken to be ours."""
    with open("/proc/self/status") as status:
        bounding = next(int(line.split()[1], 16) for line in status if line.startswith("CapBnd:"))
    missing = [name for name, number in CAPABILITIES.items() if not bounding >> number & 1]
    if missing:
        text = f"the bounding set is without {', '.join(missing)}: the daemon cannot be started"
        return Finding("kernel", PROBLEM, text, f"let it have them, as by --cap-add {','.join(missing)}")
    return Finding("kernel", OK, "the capabilities that a start takes can be had")


def cgroups() -> Iterator[Finding]:
    """The cgroup2 tree with our own group: whether it is there, can be written, and which controllers it has."""
    with open("/proc/self/mountinfo", errors="surrogateescape", newline="\n") as table:  # others mount, too
        mounts = [(line.split(" ")[4], line.partition(" - ")[2].split(" ")[0], line.split(" ")[5]) for line in table]
    points = [(point, options) for point, kind, options in mounts if kind == "cgroup2"]
    with open("/proc/self/cgroup", errors="surrogateescape") as own:
        group = next((line[3:].strip().rstrip("/") for line in own if line.startswith("0::")), "")
    without = (
        "what services leave is looked for in /proc, which may miss what forks fast, and no other process can become"
        " their main one"
    )
    if not points or group.startswith("/.."):
        todo = "mount -t cgroup2 cgroup2 /sys/fs/cgroup; in a container: give it a cgroup namespace of its own"
        return (yield Finding("cgroups", WARNING, f"there is no cgroup2 tree: {without}", todo))
    point, options = points[-1]
    hybrid = " (hybrid: version 1 is there too)" if any(kind == "cgroup" for _, kind, _ in mounts) else ""
    path = point + group
    if "ro" in options.split(",") or (os.geteuid() == 0 and not os.access(path, os.W_OK)):
        todo = "mount it writable; in a container: a cgroup namespace of its own and a writable /sys/fs/cgroup"
        return (yield Finding("cgroups", WARNING, f"{path} cannot be written{hybrid}: {without}", todo))
    yield Finding("cgroups", OK, f"cgroup2 at {point}{hybrid}, our group is {group or '/'}")
    try:
        with open(f"{path}/cgroup.controllers") as file:
            found = file.read().split()
    except OSError as error:
        return (yield Finding("cgroups", UNKNOWN, f"{path}/cgroup.controllers: {error.strerror}"))
    missing = [name for name in ("cpu", "memory", "pids") if name not in found]
    if missing:
        todo = "enable them in cgroup.subtree_control of the group above, if limits by cgroup are wanted"
        yield Finding("cgroups", WARNING, f"without the controllers {', '.join(missing)} there", todo)
    else:
        yield Finding("cgroups", OK, f"controllers: {' '.join(found)}")


def limits(processes: int, backlog: int) -> Iterator[Finding]:
    """processes: of services, at most; backlog: the longest that a socket wants."""
    soft = number("/proc/sys/fs/pipe-user-pages-soft")
    need = processes * 2 * PIPE_PAGES
    if soft and need > soft:
        todo = f"sysctl fs.pipe-user-pages-soft={processes * 2 * FULL_PIPE_PAGES}"
        text = f"fs.pipe-user-pages-soft = {soft}: the pipes of {processes} processes want {need} pages, and get fewer"
        yield Finding("limits", WARNING, text, todo)
    elif soft is not None:
        grown = f"{soft // FULL_PIPE_PAGES} pipes may grow to 1 MiB at once" if soft else "pipes may grow freely"
        yield Finding("limits", OK, f"fs.pipe-user-pages-soft = {soft}: {grown}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = DESCRIPTORS + DESCRIPTORS_EACH * processes
    if hard != resource.RLIM_INFINITY and hard < wanted:
        text = f"{hard} open files at most: {processes} processes want about {wanted}"
        yield Finding("limits", PROBLEM, text, f"start the daemon with a hard limit (ulimit -Hn) of {wanted} or more")
    else:
        yield Finding("limits", OK, f"open files: {'no limit' if hard == resource.RLIM_INFINITY else hard}")
    most = number("/proc/sys/net/core/somaxconn")
    if most is not None and backlog > most:
        text = f"net.core.somaxconn = {most} cuts the backlog of {backlog} that a socket wants"
        yield Finding("limits", WARNING, text, f"sysctl net.core.somaxconn={backlog}")


def number(path: str) -> int | None:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def python(needs_zones: bool) -> Iterator[Finding]:
    """needs_zones: whether a rule of the policy names one."""
    found = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info[:2] < PYTHON
    yield Finding("python", PROBLEM if old else OK, f"Python {found}", "use 3.11 or newer" if old else "")
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(ZONE)
    except (OSError, KeyError):
        text = "there is no time zone data: rules with a timezone are refused"
        yield Finding("python", PROBLEM if needs_zones else WARNING, text, "install the package tzdata")
    else:
        yield Finding("python", OK, "time zone data is there")


def space(paths: Iterable[str]) -> Iterator[Finding]:
    for path in paths:
        try:
            disk = os.statvfs(path)
        except OSError as error:
            if error.errno != errno.ENOENT:
                yield Finding("directories", UNKNOWN, f"{path}: {error.strerror}")
            continue
        if disk.f_blocks and disk.f_bavail < disk.f_blocks * LITTLE:
            text = f"{path}: {disk.f_bavail * disk.f_frsize >> 20} MiB are left, under 5 % of its file system"
            todo = "make room: what cannot be written is refused by the audit log, and lost or held up in others"
            yield Finding("directories", WARNING, text, todo)


def listeners() -> dict[int, list[str]]:
    """The TCP ports that are listened on here, each with its sockets' inodes."""
    found: dict[int, list[str]] = {}
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(name) as table:
                rows = [line.split() for line in table.readlines()[1:]]
        except OSError:
            continue
        for row in rows:
            if row[3] == LISTEN_STATE:
                found.setdefault(int(row[1].rpartition(":")[2], 16), []).append(f"socket:[{row[9]}]")
    return found


def holders(inodes: Iterable[str]) -> list[str]:
    """Who has these sockets open, as far as we may see: "nginx (pid 812)"."""
    wanted, found = set(inodes), []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if any(leads_to(f"/proc/{pid}/fd/{fd}", wanted) for fd in os.listdir(f"/proc/{pid}/fd")):
                with open(f"/proc/{pid}/comm", "rb") as comm:
                    found.append(f"{repr(comm.read().strip())[2:-1]} (pid {pid})")
        except OSError:
            continue
    return found


def leads_to(path: str, wanted: set[str]) -> bool:
    try:
        return os.readlink(path) in wanted
    except OSError:  # closed meanwhile
        return False
