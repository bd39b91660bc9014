"""first.py ROOT PROGRAM [ARGUMENT…]: the program as the first process of a container of the tests' own.

It has a new pid namespace with its own /proc, ROOT as its root directory (all of this machine's, seen from there), no
cgroup that it may write, and the capabilities that container engines leave. Signals are passed on to it, and its status
is passed back: 128 + signal when it was killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 0x20, 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24
KEPT = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)  # what Docker and Podman leave, by linux/capability.h
PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")


def cgroups() -> list[str]:
    with open("/proc/self/mountinfo") as table:
        return [line.split()[4] for line in table if " - cgroup2 " in line]


def enter(root: str) -> None:
    points = cgroups()
    check(libc.mount(b"/", root.encode(), None, MS_BIND | MS_REC, None), root)
    check(libc.mount(b"proc", f"{root}/proc".encode(), b"proc", 0, None), "proc")
    for point in points:
        flags = MS_REMOUNT | MS_BIND | MS_RDONLY
        check(libc.mount(None, (root + point).encode(), None, flags, None), point)
    os.chroot(root)
    os.chdir("/")
    with open("/proc/sys/kernel/cap_last_cap") as last:
        for number in range(int(last.read()) + 1):
            if number not in KEPT:
                check(libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), f"capability {number}")


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, (*PASSED, signal.SIGCHLD))
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWPID), "unshare")
    check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount")
    pid = os.fork()
    if pid == 0:
        check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*PASSED, signal.SIGCHLD))
        enter(sys.argv[1])
        os.execv(sys.argv[2], sys.argv[2:])
    while (number := signal.sigwait((*PASSED, signal.SIGCHLD))) != signal.SIGCHLD:
        os.kill(pid, number)
    _, raw = os.waitpid(pid, 0)
    status = os.waitstatus_to_exitcode(raw)
    sys.exit(status if status >= 0 else 128 - status)
