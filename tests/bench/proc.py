"""What the kernel tells of processes: whose child each is, its memory, its wake-ups, its time on the CPU.

A process that ends while it is looked at counts for nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

GONE = (FileNotFoundError, ProcessLookupError)


class Usage(NamedTuple):
    """Of some processes since they began: time on the CPU in ns, and how often one of their threads was switched."""

    cpu: int
    switches: int

    def since(self, before: Usage) -> Usage:
        return Usage(self.cpu - before.cpu, self.switches - before.switches)


def everybody() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(ancestor: int) -> set[int]:
    """The living ones; the ancestor is not among them."""
    children: dict[int, list[int]] = {}
    for pid in everybody():
        with contextlib.suppress(*GONE):
            state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                children.setdefault(int(parent), []).append(pid)
    found: set[int] = set()
    todo = [ancestor]
    while todo:
        for pid in children.get(todo.pop(), ()):
            found.add(pid)
            todo.append(pid)
    return found


def running(program: Path, pids: Iterable[int]) -> set[int]:
    """Those of the pids that run this very program: the file counts, for in another view of the files (s6 is given
    one) it may have another path."""
    found, file = set(), program.stat()
    for pid in pids:
        with contextlib.suppress(*GONE):
            if os.path.samestat(os.stat(f"/proc/{pid}/exe"), file):
                found.add(pid)
    return found


def uid(pid: int) -> int:
    """The real one."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nUid:\t")[2].split("\t", 1)[0])


def name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def pss(pid: int) -> int:
    """KiB: its private memory, and its part of what it shares. 0 when it is gone."""
    with contextlib.suppress(*GONE):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def usage(pids: Iterable[int]) -> Usage:
    cpu = switches = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            cpu += int((task / "schedstat").read_text().split()[0])
            for line in (task / "status").read_text().splitlines():
                if "ctxt_switches:" in line:
                    switches += int(line.split()[1])
    return Usage(cpu, switches)


def bears(pid: int, mark: bytes) -> bool:
    """Whether its arguments or its environment speak of it."""
    with contextlib.suppress(*GONE, PermissionError):
        return any(mark in Path(f"/proc/{pid}/{file}").read_bytes() for file in ("cmdline", "environ"))
    return False


def end_all(mark: bytes) -> None:
    """SIGKILL to every process that bears the mark, by its pidfd, until there is none; and wait until they are gone."""
    found = True
    while found:
        with ExitStack() as stack:
            fds = []
            for pid in everybody():
                with contextlib.suppress(ProcessLookupError):
                    fd = os.pidfd_open(pid)
                    if not bears(pid, mark):  # one that is dead and not reaped among them: there may be thousands
                        os.close(fd)
                        continue
                    stack.callback(os.close, fd)
                    fds.append(fd)
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            for fd in fds:
                gone = select.poll()
                gone.register(fd, select.POLLIN)
                gone.poll(5000)
            found = bool(fds)
