"""The one place that drops privileges: how a process becomes an account, with the capabilities that it keeps.

Rule 1: the order is fixed: bounding set, groups, gid, uid, capabilities; everything is read back.
Rule 2: whatever does not take raises, and the caller ends: there is no way on with more than was asked for.
Rule 3: one thread only: capabilities belong to threads.

Sources: capabilities(7), capset(2), setresuid(2), PR_CAPBSET_DROP, PR_CAP_AMBIENT and PR_SET_KEEPCAPS of prctl(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Sequence

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")  # in the order of proc(5)
CAPBSET_READ, CAPBSET_DROP, SET_DUMPABLE, SET_KEEPCAPS, SET_NO_NEW_PRIVS = 23, 24, 4, 8, 38  # of linux/prctl.h
CAP_AMBIENT, AMBIENT_IS_SET, AMBIENT_RAISE = 47, 1, 2
_HEADER = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread; two sets of 12 bytes follow
_libc = ctypes.PyDLL(None, use_errno=True)
_prctl, _capset, _capget = _libc.prctl, _libc.capset, _libc.capget  # made once: a child pays for what it makes
_found = ctypes.create_string_buffer(b"\xff" * 24, 24)
_prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
_capset.argtypes = _capget.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
# a call on the way to less privilege: of which step it is, the function, its arguments, and what it has to answer
Call = tuple[str, Callable[..., object], tuple[object, ...], object]
STATUS_LIMIT = 1 << 20  # bytes; the line of a process in 65,536 groups is the longest


def become(uid: int, gid: int, groups: Sequence[int], keep: Sequence[int] = (), *, keep_bounding: bool = False) -> None:
    """Become uid, gid and exactly these groups, with exactly the capabilities `keep` (numbers) and no way to others.

    keep_bounding leaves the bounding set as it is, for processes that may start a service as root.
    Raises OSError or PermissionError when a step fails or does not take.
    """
    for step, function, arguments, answer in way_to(
        uid, gid, groups, () if keep_bounding else held(), keep, handed_on=False
    ):
        if function(*arguments) != answer:
            raise PermissionError(ctypes.get_errno() or errno.EPERM, f"the drop to uid {uid} did not take: {step}")


def forget() -> None:
    """All capabilities, of a process that is not root and executes nothing. Raises OSError."""
    if _capset(_HEADER, capability_sets((), ())):
        raise OSError(ctypes.get_errno(), "its capabilities cannot be set")


def way_to(
    uid: int, gid: int, groups: Sequence[int], held: Sequence[int], keep: Sequence[int] = (), *, handed_on: bool = True
) -> list[Call]:
    """The calls by which a process becomes that. What can be known before a fork is not found out in the child.

    held: what held() has said of the process; the others are in no set, and those that are not kept leave the bounding
    set, too. handed_on: what it executes has those that it keeps: then they are in all sets. The ambient set needs no
    look for others: it is always within the inheritable one. Each call raises OSError, or does not answer what it has
    to.
    """
    others, ambient = [number for number in held if number not in keep], keep if handed_on else ()
    kept = capability_sets(keep, ambient)
    return [
        *(("capabilities", _prctl, (CAPBSET_DROP, number, 0, 0, 0), 0) for number in others),
        *(("verify", _prctl, (CAPBSET_READ, number, 0, 0, 0), 0) for number in others),
        *([("capabilities", _prctl, (SET_KEEPCAPS, 1, 0, 0, 0), 0)] if keep else []),
        *ids(uid, gid, groups),
        *([("capabilities", _prctl, (SET_KEEPCAPS, 0, 0, 0, 0), 0)] if keep else []),
        ("capabilities", _capset, (_HEADER, kept), 0),
        *(("capabilities", _prctl, (CAP_AMBIENT, AMBIENT_RAISE, number, 0, 0), 0) for number in ambient),
        *(("verify", _prctl, (CAP_AMBIENT, AMBIENT_IS_SET, number, 0, 0), 1) for number in ambient),
        dumpable(False),
        ("verify", _capget, (_HEADER, _found), 0),
        ("verify", bytes, (_found,), kept),
    ]


def ids(uid: int, gid: int, groups: Sequence[int]) -> list[Call]:
    """Its groups and ids. That alone is the way of a service that is root on purpose: its exec takes what the bounding
    set allows."""
    return [
        ("groups", os.setgroups, (groups,), None),
        ("gid", os.setresgid, (gid, gid, gid), None),
        ("uid", os.setresuid, (uid, uid, uid), None),
        ("verify", os.getresuid, (), (uid, uid, uid)),
        ("verify", os.getresgid, (), (gid, gid, gid)),
        ("verify", _sorted_groups, (), sorted(groups)),
    ]


def capability_sets(keep: Sequence[int], inheritable: Sequence[int]) -> bytes:
    """What capset(2) takes: the effective, the permitted (the same) and the inheritable ones, in two words each."""
    three = mask(keep), mask(keep), mask(inheritable)
    return struct.pack("=6I", *(word & 0xFFFFFFFF for word in three), *(word >> 32 for word in three))


def dumpable(is_so: bool) -> Call:
    """Whether those of its uid may look into it; then it owns what is in its /proc, too."""
    return "capabilities", _prctl, (SET_DUMPABLE, int(is_so), 0, 0, 0), 0


def no_new_privileges() -> Call:
    """For the process and all that it executes."""
    return "no-new-privileges", _prctl, (SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0


def _sorted_groups() -> list[int]:
    return sorted(os.getgroups())


def sets() -> dict[str, int]:
    """The five capability sets of this thread, each as a mask."""
    status = os.open("/proc/thread-self/status", os.O_RDONLY | os.O_CLOEXEC)
    lines = os.read(status, STATUS_LIMIT).partition(b"\nCapInh:")[2].split(b"\n", len(SETS))
    os.close(status)
    return {name: int(line.rpartition(b"\t")[2], 16) for name, line in zip(SETS, lines, strict=False)}


def mask(numbers: Sequence[int]) -> int:
    return sum(1 << number for number in set(numbers))


def held() -> tuple[int, ...]:
    """The capabilities that are in any set of this thread."""
    every = 0
    for one in sets().values():
        every |= one
    return tuple(number for number in range(every.bit_length()) if every >> number & 1)
