"""The rules of a policy as values, and the index by which a decision finds them.

Rule 1: what is in here was parsed: a rule that exists is well-formed, and everything it names could be named.
Rule 2: a policy never changes; a new one replaces it whole.

A condition that a rule makes besides (when it counts, until when) is a further field, read by conditions.py and weighed
in decide.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, Literal, TypeVar

import msgspec

from policy.conditions import Approval, Asking, Expiry, Limit, Sources
from policy.identity import Identity
from policy.names import CHANGING, Action, RuleId, ServiceName, UserName
from policy.windows import Window

EVERY_SERVICE = "*"  # every configured service, never one of our own
GROUP = "group:"  # begins an entry of `on` that is a group of services


class _Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Who (users or members of groups), what, where; and where it is written.

    order: its place among all rules of its kind, files by name, then from top to bottom. A rule counts when its window
    holds, and before it expires.
    """

    id: RuleId
    users: tuple[UserName, ...]
    groups: tuple[UserName, ...]
    may: frozenset[Action]
    on: tuple[str, ...]  # services, GROUP + groups of services, or EVERY_SERVICE (always, for global actions)
    file: str
    line: int
    order: int
    when: Window | None = None
    expires: Expiry | None = None

    @property
    def rank(self) -> tuple[float, ...]:
        return ()

    @property
    def timed(self) -> bool:
        return self.when is not None or self.expires is not None

    def counts(self, asking: Asking) -> bool:
        """A time that is not known is in no window, and after every expiry."""
        if self.expires is not None and (asking.at is None or asking.at >= self.expires.at):
            return False
        return self.when is None or (asking.at is not None and self.when.holds(asking.at))


class Grant(_Rule, frozen=True, kw_only=True):
    """Lets somebody do something, if he asks from where it says; and, to change something, gives what it demands."""

    sources: Sources | None = None
    reason: bool = False  # the asker must say why
    limit: Limit | None = None
    approval: Approval | None = None

    @property
    def rank(self) -> tuple[float, ...]:
        """How much it demands: of several grants the least demanding applies. () is nothing, a reason is less than a
        limit, of limits the one that lets more through is the least, and an approval is most."""
        limit = self.limit
        if not (self.reason or limit or self.approval):
            return ()
        limited = (1, -limit.times / limit.seconds) if limit else (0, 0)
        return (int(self.approval is not None), *limited, int(self.reason))

    @property
    def demands(self) -> str:
        """In words."""
        words = ["with a reason"] if self.reason else []
        words += [f"at most {self.limit.text}"] if self.limit else []
        words += [f"once {self.approval.text} approves"] if self.approval else []
        return ", ".join(words)

    def terms(self, action: str) -> str:
        """What it demands of who does that, and when and from where it counts."""
        words = [self.demands] if self.demands and action in CHANGING else []
        words += [self.when.text] if self.when else []
        words += [f"until {self.expires.text}"] if self.expires else []
        words += [f"from {self.sources.text}"] if self.sources else []
        return ", ".join(words)

    def counts(self, asking: Asking) -> bool:
        return super().counts(asking) and (self.sources is None or self.sources.hold(asking.source))


class Deny(_Rule, frozen=True, kw_only=True):
    """Forbids it, whatever any grant says. At a time that is not known, it does. Not by where somebody asks from: that
    is the api's word, and who has taken that over must not be able to lift it."""

    def counts(self, asking: Asking) -> bool:
        return asking.at is None or super().counts(asking)


class PolicyTest(msgspec.Struct, frozen=True, kw_only=True):
    """What must be decided for a person; service is None for a global action."""

    user: UserName
    groups: frozenset[str]
    may: Action
    on: ServiceName | None
    expect: Literal["allow", "deny", "approval"]
    at: float | None  # seconds since 1970
    source: str
    reason: str
    file: str
    line: int
    number: int  # its place among the tests of its file, from 0


R = TypeVar("R", Grant, Deny)
Rows = dict[str, list[R]]  # by entry of `on`, each in order


class Index(Generic[R]):
    """Rules by the person or group they are for, then by what they are on."""

    __slots__ = ("_groups", "_users")

    def __init__(self, rules: Iterable[R]) -> None:
        self._users: dict[str, Rows[R]] = {}
        self._groups: dict[str, Rows[R]] = {}
        for rule in rules:
            for names, table in ((rule.users, self._users), (rule.groups, self._groups)):
                for name in names:
                    rows = table.setdefault(name, {})
                    for target in rule.on:
                        rows.setdefault(target, []).append(rule)

    def rows(self, identity: Identity) -> list[Rows[R]]:
        """The rules for this person and for members of his groups."""
        found = [self._groups[group] for group in identity.groups if group in self._groups]
        if identity.user in self._users:
            found.append(self._users[identity.user])
        return found

    def named(self, kind: str, name: str) -> Rows[R]:
        """The rules for this person ("user") or for members of this group ("group")."""
        return (self._users if kind == "user" else self._groups).get(name, {})

    def forbids(self, group: str, action: str, targets: Sequence[str], asking: Asking) -> bool:
        """Whether a rule is for members of this group, this action and one of these targets, at this time."""
        rows = self._groups.get(group, {})
        return any(action in rule.may and rule.counts(asking) for target in targets for rule in rows.get(target, ()))


def matching(found: Iterable[Rows[R]], action: str, targets: Sequence[str]) -> Iterator[R]:
    """Of these rows, the rules for this action and one of these targets, at whatever time; some may come twice."""
    return (rule for rows in found for target in targets for rule in rows.get(target, ()) if action in rule.may)


def first(found: Iterable[Rows[R]], action: str, targets: Sequence[str], asking: Asking) -> R | None:
    """Of these rows, the least demanding rule that is for this action and one of these targets, and counts now; of
    several, the first in order."""
    best: R | None = None
    for rows in found:
        for target in targets:
            for rule in rows.get(target, ()):
                if action in rule.may and rule.counts(asking):
                    if best is None or (rule.rank, rule.order) < (best.rank, best.order):
                        best = rule
                    if not rule.rank:
                        break
    return best


def entries_of(found: Iterable[Rows[R]], action: str, asking: Asking) -> frozenset[str]:
    """Of these rows, the entries of `on` for which first would find a rule for this action."""
    return frozenset(
        target
        for rows in found
        for target, rules in rows.items()
        if any(action in rule.may and rule.counts(asking) for rule in rules)
    )


class Policy(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All rules of all files. `hash` is the SHA-256 (hex) of the files' paths and texts."""

    grants: tuple[Grant, ...]
    denies: tuple[Deny, ...]
    tests: tuple[PolicyTest, ...]
    hash: str
    granted: Index[Grant]
    denied: Index[Deny]
    approved: dict[str, Grant]  # by id, those that want an approval
    through_groups: dict[tuple[str, str], list[Grant]]  # grants that a group gives, by action and entry of `on`


def build(grants: Sequence[Grant], denies: Sequence[Deny], tests: Sequence[PolicyTest] = (), hash_: str = "") -> Policy:
    """A policy with its index."""
    through_groups: dict[tuple[str, str], list[Grant]] = {}
    for grant in grants:
        if grant.groups:
            for action in grant.may:
                for target in grant.on:
                    through_groups.setdefault((action, target), []).append(grant)
    return Policy(
        grants=tuple(grants),
        denies=tuple(denies),
        tests=tuple(tests),
        hash=hash_,
        granted=Index(grants),
        denied=Index(denies),
        approved={grant.id: grant for grant in grants if grant.approval},
        through_groups=through_groups,
    )
