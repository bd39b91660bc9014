"""What a personal token is for: the actions and services that its owner has let it be used for.

Rule 1: a scope gives no right. It is what is left of the owner's rights, which policy decides as if he asked himself.
Rule 2: no token approves, and none ends anybody's sessions: who has stolen it must not be able to.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

import msgspec

from policy.names import GLOBAL_ACTIONS

MOST_ON = 30  # entries of a scope: all tokens of a person fit into a packet
PREFIX = "durward_"  # begins the token itself, so that who looks for secrets in files finds it

Name = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9_.-]{0,62}\Z")]  # of a token, among its owner's
ScopeAction = Literal[
    "view", "logs", "clear", "start", "stop", "restart", "signal", "scale", "enable",
    "reload", "policy", "audit", "shutdown",
]  # fmt: skip
Entry = Annotated[str, msgspec.Meta(pattern=r"\A(?:\*|(?:group:)?[a-z0-9][a-z0-9_.-]{0,62})\Z")]


class Scope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """name: the token's. on: services, groups of services as group:NAME, or *; of no concern to global actions."""

    name: Name
    may: Annotated[tuple[ScopeAction, ...], msgspec.Meta(min_length=1, max_length=13)]
    on: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=MOST_ON)] = ()

    @property
    def text(self) -> str:
        """For people: "view, restart on site"."""
        return ", ".join(self.may) + (f" on {', '.join(self.on)}" if self.on else "")

    def wrong(self) -> str:
        """What makes no sense of it, for the person who wrote it; "" when nothing does."""
        each = [action for action in self.may if action not in GLOBAL_ACTIONS]
        if each and not self.on:
            return f"{each[0]} is about a service: say on which, such as site, group:web or *"
        if self.on and not each:
            return f"{self.may[0]} is about the daemon as a whole: name no service"
        return ""

    def covers(self, action: str, targets: Collection[str]) -> bool:
        """targets: the entries of `on` that are about the service; none where action and service do not fit."""
        if action not in self.may or not targets:
            return False
        return action in GLOBAL_ACTIONS or not frozenset(self.on).isdisjoint(targets)
