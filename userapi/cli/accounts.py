"""The machine's own people and groups, where they are asked for: a policy itself does not know who is in which group.

Rule: what is said of them is said of this machine, now. Where a directory service keeps its people to itself, not all
of them are listed; it still tells of one who is named.

Sources: getpwent(3), getgrouplist(3).
"""

from __future__ import annotations

import grp
import os
import pwd

from userapi.cli.failure import Failure


def groups_of(user: str) -> list[str]:
    """The names of the groups that this machine has the user in. Raises Failure when it does not know him."""
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise Failure("usage", f"this machine knows no user '{user}': say --groups instead") from None
    return _names(found)


def everybody() -> dict[str, list[str]]:
    """Each user whom this machine lists, and his groups."""
    return {found.pw_name: _names(found) for found in pwd.getpwall()}


def _names(found: pwd.struct_passwd) -> list[str]:
    names = []
    for gid in os.getgrouplist(found.pw_name, found.pw_gid):
        try:
            names.append(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue  # a number without a name is in no policy
    return names
