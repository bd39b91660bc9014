"""The names of the machine's users and groups, to numbers.

Rule 1: it may wait for a directory service: call it in a throw-away process, or where waiting is fine.
Rule 2: a name is only found as it is spelled: what a directory service takes for an alias of it, is nobody.
Rule 3: a number that system calls read as "leave it as it is" (-1) belongs to nobody.

Sources: getpwnam(3), getgrnam(3), getgrouplist(3), setresuid(2), setgroups(2).
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from rootd.config.settings import User

HIGHEST = (1 << 32) - 2  # of uids and gids; one more is -1


def find_user(name: str) -> User | None:
    import pwd  # and grp below: not in a process that never resolves

    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        return None
    groups = os.getgrouplist(name, entry.pw_gid)
    if entry.pw_name != name or not all(0 <= number <= HIGHEST for number in (entry.pw_uid, *groups)):
        return None
    return User(entry.pw_uid, entry.pw_gid, tuple(sorted(set(groups))), entry.pw_dir, entry.pw_shell)


def find_group(name: str) -> int | None:
    import grp

    try:
        entry = grp.getgrnam(name)
    except (KeyError, ValueError):
        return None
    return entry.gr_gid if entry.gr_name == name and 0 <= entry.gr_gid <= HIGHEST else None


def resolve(users: Iterable[str], groups: Iterable[str]) -> tuple[dict[str, User | None], dict[str, int | None]]:
    """Facts about each name; None for a name that is nobody's, and then also about local names much like it."""
    found_users = {name: find_user(name) for name in sorted(users)}
    found_groups = {name: find_group(name) for name in sorted(groups)}
    for name in similar("/etc/passwd", [name for name, user in found_users.items() if user is None]):
        found_users[name] = find_user(name)
    for name in similar("/etc/group", [name for name, gid in found_groups.items() if gid is None]):
        found_groups[name] = find_group(name)
    return found_users, found_groups


def similar(path: str, missing: list[str]) -> list[str]:
    """Names of a local file that somebody may have meant; nothing when the file cannot be read."""
    import difflib

    try:
        with open(path, encoding="utf-8", errors="replace") as table:
            local = [line.partition(":")[0] for line in table] if missing else []
    except OSError:
        return []
    return [near for name in missing for near in difflib.get_close_matches(name, local, n=1, cutoff=0.75)]
