"""The one place that drops privileges: how a process becomes an account, with the capabilities that it keeps.

Rule 1: the order is fixed: bounding set, groups, gid, uid, capabilities; then everything is read back.
Rule 2: whatever does not take raises, and the caller ends: there is no way on with more than was asked for.
Rule 3: one thread only: capabilities belong to threads.

Sources: capabilities(7), setresuid(2), PR_CAPBSET_DROP, PR_CAP_AMBIENT and PR_SET_KEEPCAPS of prctl(2).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import prctl

ALL_SETS = (prctl.CAP_EFFECTIVE, prctl.CAP_PERMITTED, prctl.CAP_INHERITABLE)
FIELDS = ("CapInh", "CapPrm", "CapEff", "CapAmb")


def become(uid: int, gid: int, groups: Sequence[int], keep: Sequence[int] = (), *, keep_bounding: bool = False) -> None:
    """Become uid, gid and exactly these groups, with exactly the capabilities `keep` (numbers) and no way to others.

    keep_bounding leaves the bounding set as it is, for processes that may start a service as root.
    Raises OSError or PermissionError when a step fails or does not take.
    """
    if not keep_bounding:
        for number in range(last_capability() + 1):
            if number not in keep:
                drop_bounding(number)
    prctl.set_keepcaps(bool(keep))
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if uid == 0 and not keep and keep_bounding:
        return  # a service that is root on purpose: its exec takes what the bounding set allows
    others = [number for number in prctl.ALL_CAPS if number not in keep]
    prctl.set_caps(
        (list(keep), prctl.CAP_EFFECTIVE, True),
        *((others, kind, False) for kind in ALL_SETS),
        (list(keep), prctl.CAP_INHERITABLE, False),
    )
    prctl.set_keepcaps(False)
    prctl.set_dumpable(False)
    verify(uid, gid, groups, keep, bounding=None if keep_bounding else keep)


def drop_bounding(number: int) -> None:
    """Out of the bounding set, for good. Raises OSError."""
    try:
        if prctl.capbset_read(number):
            prctl.capbset_drop(number)
    except ValueError:  # a capability that python-prctl was not built with
        import ctypes

        if ctypes.CDLL(None, use_errno=True).prctl(24, ctypes.c_ulong(number), 0, 0, 0):  # PR_CAPBSET_DROP
            raise OSError(ctypes.get_errno(), f"capability {number} stays in the bounding set") from None


def last_capability() -> int:
    """Of this kernel: newer ones know capabilities that python-prctl was not built with."""
    with open("/proc/sys/kernel/cap_last_cap") as number:
        return int(number.read())


def verify(
    uid: int, gid: int, groups: Sequence[int], keep: Sequence[int], *, bounding: Sequence[int] | None = None
) -> None:
    """Read back what the kernel says. Raises PermissionError when it is anything else than what was asked for."""
    mask = f"{sum(1 << number for number in keep):016x}"
    wanted = dict(zip(FIELDS, ("0" * 16, mask, mask, "0" * 16), strict=True))
    if bounding is not None:
        wanted["CapBnd"] = f"{sum(1 << number for number in bounding):016x}"
    with open("/proc/thread-self/status") as status:
        found = {name: value.strip() for name, _, value in (line.partition(":") for line in status) if name in wanted}
    ids = os.getresuid() == (uid,) * 3 and os.getresgid() == (gid,) * 3 and sorted(os.getgroups()) == sorted(groups)
    if not ids or found != wanted:
        raise PermissionError(1, f"the drop to uid {uid} did not take: {os.getresuid()}, {os.getgroups()}, {found}")
