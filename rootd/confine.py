"""The one place that drops privileges: how a process becomes an account, with the capabilities that it keeps.

Rule 1: the order is fixed: bounding set, groups, gid, uid, capabilities; then everything is read back.
Rule 2: whatever does not take raises, and the caller ends: there is no way on with more than was asked for.
Rule 3: one thread only: capabilities belong to threads.

Sources: capabilities(7), capset(2), setresuid(2), PR_CAPBSET_DROP, PR_CAP_AMBIENT and PR_SET_KEEPCAPS of prctl(2).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Sequence

import prctl

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
    for number in set() if keep_bounding else {*range(last_capability() + 1)} - {*keep}:
        drop_bounding(number)
    prctl.set_keepcaps(bool(keep))
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if uid == 0 and not keep and keep_bounding:
        return  # a service that is root on purpose: its exec takes what the bounding set allows
    forget(keep)
    prctl.set_keepcaps(False)
    prctl.set_dumpable(False)
    verify(uid, gid, groups, keep, bounding=None if keep_bounding else keep)


def forget(keep: Sequence[int] = ()) -> None:
    """All capabilities but these, of a process that is not root and executes nothing. Raises OSError."""
    if _capset(_HEADER, capability_sets(keep, ())):
        raise OSError(ctypes.get_errno(), "its capabilities cannot be set")


def way_to(uid: int, gid: int, groups: Sequence[int], held: Sequence[int], keep: Sequence[int] = ()) -> list[Call]:
    """As become, for a child to be: what can be known before its fork is not found out in it.

    held: what held() has said of the process; the others are in no set. keep: those that what it executes has, too:
    then they are in all sets. The ambient set needs no look for others: it is always within the inheritable one.
    Each call raises OSError, or does not answer what it has to.
    """
    others, kept = [number for number in held if number not in keep], capability_sets(keep, keep)
    return [
        *(("capabilities", _prctl, (CAPBSET_DROP, number, 0, 0, 0), 0) for number in others),
        *(("verify", _prctl, (CAPBSET_READ, number, 0, 0, 0), 0) for number in others),
        *([("capabilities", _prctl, (SET_KEEPCAPS, 1, 0, 0, 0), 0)] if keep else []),
        ("groups", os.setgroups, (groups,), None),
        ("gid", os.setresgid, (gid, gid, gid), None),
        ("uid", os.setresuid, (uid, uid, uid), None),
        ("capabilities", _capset, (_HEADER, kept), 0),
        *(("capabilities", _prctl, (CAP_AMBIENT, AMBIENT_RAISE, number, 0, 0), 0) for number in keep),
        *(("verify", _prctl, (CAP_AMBIENT, AMBIENT_IS_SET, number, 0, 0), 1) for number in keep),
        dumpable(False),
        ("verify", _capget, (_HEADER, _found), 0),
        ("verify", bytes, (_found,), kept),
        ("verify", os.getresuid, (), (uid, uid, uid)),
        ("verify", os.getresgid, (), (gid, gid, gid)),
        ("verify", _sorted_groups, (), sorted(groups)),
    ]


def way_to_root(uid: int, gid: int, groups: Sequence[int]) -> list[Call]:
    """The same for a service that is root on purpose: its exec takes what the bounding set allows."""
    return [("uid", lambda: become(uid, gid, groups, keep_bounding=True), (), None)]


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


def is_account(uid: int, gid: int, groups: Sequence[int]) -> bool:
    """Whether this process is that, in all its ids."""
    return os.getresuid() == (uid,) * 3 and os.getresgid() == (gid,) * 3 and sorted(os.getgroups()) == sorted(groups)


def drop_bounding(number: int) -> None:
    """Out of the bounding set, for good. Raises OSError."""
    if _prctl(CAPBSET_READ, number, 0, 0, 0) == 1 and _prctl(CAPBSET_DROP, number, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"capability {number} stays in the bounding set")


def last_capability() -> int:
    """Of this kernel: newer ones know capabilities that python-prctl was not built with."""
    with open("/proc/sys/kernel/cap_last_cap") as number:
        return int(number.read())


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


def verify(
    uid: int, gid: int, groups: Sequence[int], keep: Sequence[int], *, bounding: Sequence[int] | None = None
) -> None:
    """Read back what the kernel says. Raises PermissionError when it is anything else than what was asked for."""
    kept = mask(keep)
    wanted = {"CapInh": 0, "CapPrm": kept, "CapEff": kept, "CapAmb": 0}
    if bounding is not None:
        wanted["CapBnd"] = mask(bounding)
    found = {name: value for name, value in sets().items() if name in wanted}
    if not is_account(uid, gid, groups) or found != wanted:
        raise PermissionError(1, f"the drop to uid {uid} did not take: {os.getresuid()}, {os.getgroups()}, {found}")
