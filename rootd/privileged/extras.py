"""What a child does for what its service is given besides: priorities, processors, and the files that it may reach.

Rule 1: all of it is done before the exec or nothing is started, and what can be read back is.
Rule 2: what takes a capability is done while the child has those of the spawner; which these are, `needed` says.
Rule 3: files are opened as the service's user, after everything else.

Sources: setpriority(2), ioprio_set(2), proc(5), sched_setaffinity(2), capabilities(7), landlock(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rootd import confine, landlock
from rootd.confine import Call
from rootd.privileged import cgroup

if TYPE_CHECKING:
    from rootd.config.extras import Extra
    from rootd.config.table import Table

SYS_NICE, SYS_RESOURCE = 23, 24  # of linux/capability.h
IO_CALLS = {"x86_64": (251, 252)}  # ioprio_set and ioprio_get; on all others:
IO_CALLS_ELSEWHERE, IO_PROCESS = (30, 31), 1

_syscall = ctypes.PyDLL(None, use_errno=True).syscall  # made once: a child pays for what it makes
_syscall.restype = ctypes.c_long


def spell(extra: Extra | None, credentials: str) -> str:
    """For a Birth: lines of a word and its value. credentials: the directory that the child may read; "" for none."""
    if extra is None:
        return ""
    lines = [
        *([("nice", extra.nice)] if extra.nice is not None else []),
        *([("io", extra.io)] if extra.io else []),
        *([("oom", extra.oom)] if extra.oom is not None else []),
        *(("cpu", number) for number in extra.cpus),
        *(("keep", number) for number in extra.capabilities),
        *(("read", path) for path in (*extra.read, *([credentials] if extra.read and credentials else []))),
        *(("write", path) for path in extra.write),
        *([("optional", 1)] if extra.optional[0] else []),
    ]
    return "\n".join(f"{word} {value}" for word, value in lines)


class Extras:
    """What spell has written, read before the fork."""

    def __init__(self, text: bytes) -> None:
        self.found: dict[bytes, list[bytes]] = {}
        for line in text.split(b"\n") if text else ():
            word, _, value = line.partition(b" ")
            self.found.setdefault(word, []).append(value)
        self.keep = [int(number) for number in self.found.get(b"keep", ())]

    def calls(self) -> list[Call]:
        """While it may still do what its service may not."""
        calls: list[Call] = []
        for nice in map(int, self.found.get(b"nice", ())):
            calls += [
                ("nice", os.setpriority, (os.PRIO_PROCESS, 0, nice), None),
                ("nice", os.getpriority, (os.PRIO_PROCESS, 0), nice),
            ]
        for io in map(int, self.found.get(b"io", ())):
            setter, getter = IO_CALLS.get(os.uname().machine, IO_CALLS_ELSEWHERE)
            calls += [
                ("I/O priority", _syscall, (setter, IO_PROCESS, 0, io), 0),
                ("I/O priority", _syscall, (getter, IO_PROCESS, 0), io),
            ]
        for oom in self.found.get(b"oom", ()):  # who is not dumpable does not own what is in its /proc
            calls += [confine.dumpable(True), ("OOM score", write_score, (oom,), None), confine.dumpable(False)]
        if cpus := {int(number) for number in self.found.get(b"cpu", ())}:
            calls += [
                ("CPU affinity", os.sched_setaffinity, (0, cpus), None),
                ("CPU affinity", os.sched_getaffinity, (0,), cpus),
            ]
        return calls

    def last_calls(self) -> list[Call]:
        """As the service's user, without what it had."""
        read, write = self.found.get(b"read", []), self.found.get(b"write", [])
        optional = b"optional" in self.found
        return [("files", restrict, (read, write, optional), None)] if read or write else []


def write_score(text: bytes) -> None:
    with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(text)


def restrict(read: Sequence[bytes], write: Sequence[bytes], optional: bool) -> None:
    """From now on these paths, and what is beneath them, are all the files that this process and its children reach.

    Everybody may read and write /dev/null. Raises OSError; ENOSYS where the kernel has no Landlock, unless optional.
    """
    abi = landlock.version()
    if abi < 1 and optional:
        return
    if abi < 1:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    to_write = landlock.rights(abi) & ~(landlock.EXECUTE | landlock.DEVICES)
    to_read = landlock.READ_FILE | landlock.READ_DIR | landlock.EXECUTE
    granted = [*((path, to_read) for path in read), *((path, to_write) for path in (*write, b"/dev/null"))]
    landlock.restrict(abi, granted)


def needed(tables: Iterable[Table]) -> dict[int | str, list[str]]:
    """What root has to give for these tables, and the services that need each: capabilities of the spawner beyond its
    own (numbers), and controllers of the tree of cgroups (names).

    What is no more than this process has itself needs none: its children begin with that.
    """
    nice, limits = os.getpriority(os.PRIO_PROCESS, 0), {n: resource.getrlimit(n)[1] for n in range(16)}
    with open("/proc/self/oom_score_adj") as file:
        score = int(file.read())
    found: dict[int | str, list[str]] = {}
    for entry in [entry for table in tables for entry in table.entries]:
        wanted = set[int | str]()
        if any(limits[kind] != -1 and (hard == -1 or hard > limits[kind]) for kind, _, hard in entry.limits):
            wanted.add(SYS_RESOURCE)
        if extra := entry.extra:
            wanted |= {name.partition(".")[0] for name, _ in extra.cgroup}
            wanted |= set(extra.capabilities) if not entry.root else set()
            wanted |= {SYS_NICE} if (extra.nice is not None and extra.nice < nice) or extra.io >> 13 == 1 else set()
            wanted |= {SYS_RESOURCE} if extra.oom is not None and extra.oom < score else set()
        for number in wanted:
            if entry.service not in found.setdefault(number, []):
                found[number].append(entry.service)
    return found


def grant(wanted: dict[int | str, list[str]], tree: str, note: Callable[[str], None]) -> set[int]:
    """As root: those of these capabilities that there are; controllers are lent at once. What is missing is said."""
    have = confine.sets()["CapPrm"]
    lent = wanted.keys() - cgroup.lend(tree, {name for name in wanted if isinstance(name, str)})
    for text in missing(wanted, have, lent):
        note(text)
    return {number for number in wanted if isinstance(number, int) and have >> number & 1}


def missing(wanted: dict[int | str, list[str]], have: int, controllers: Container[int | str]) -> Iterator[str]:
    """What there is not, and whom it concerns. have: capabilities, as a mask."""
    from rootd.config.extras import CAPABILITIES

    for what, services in wanted.items():
        who = ", ".join(services)
        if isinstance(what, int) and not have >> what & 1:
            yield f"there is no CAP_{CAPABILITIES[what]} here, without which these do not start: {who}"
        if isinstance(what, str) and what not in controllers:
            yield f"there is no {what} controller for cgroups here, without which these start only if optional: {who}"
