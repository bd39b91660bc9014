"""Who asks: a person that auth vouched for, or root on root.sock.

Rule 1: an Identity that exists is possible: its name and uid could be an account's (never uid -1, never "1001").
Rule 2: nobody but the supervisor makes one, out of what auth pushed or of the kernel's word on root.sock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from policy.names import UID_MAX, unix_group, user_name
from policy.scope import Scope

SESSION_SHOWN = 12  # hex digits of a session's hash that go into records

_SESSION = re.compile(rf"\A(?:[0-9a-f]{{{SESSION_SHOWN}}})?\Z")


class Identity(msgspec.Struct, frozen=True):
    """groups: names of Unix groups; session: the first SESSION_SHOWN digits of the session's hash, "" for root.
    token: the scope of the personal token by which this person asks; None: he asks himself.

    Raises ValueError when no account can be like this.
    """

    user: str
    uid: int
    groups: frozenset[str] = frozenset()
    session: str = ""
    root: bool = False  # only for uid 0 on root.sock: always allowed, whatever the policy says
    token: Scope | None = None

    def __post_init__(self) -> None:
        user_name(self.user)
        if type(self.uid) is not int or not 0 <= self.uid <= UID_MAX:
            raise ValueError(f"{self.uid!r} is not a uid: 0 to {UID_MAX}")
        for group in self.groups:
            unix_group(group)
        if not _SESSION.match(self.session):
            raise ValueError(f"{self.session!r} is not the beginning of a session's hash")
        if self.root and (self.user, self.uid, self.groups, self.session, self.token) != (
            "root",
            0,
            frozenset(),
            "",
            None,
        ):
            raise ValueError("only uid 0 without a session is root")


ROOT = Identity("root", 0, root=True)


def person(user: str, uid: int, groups: Iterable[str], session_hash: str, token: Scope | None = None) -> Identity:
    """The identity behind a session. Groups whose names no policy can spell are left out: they match no rule.

    Raises ValueError for a user or uid that cannot be.
    """
    return Identity(user, uid, frozenset(filter(_nameable, groups)), session_hash[:SESSION_SHOWN], token=token)


def _nameable(group: str) -> bool:
    try:
        unix_group(group)
    except ValueError:
        return False
    return True
