"""The [[test]] blocks of a policy: what each expects, and what came.

Rule: a test that leaves out the time must not depend on it, or it would come out otherwise at another time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import msgspec

from policy.conditions import Asking
from policy.decide import Allow, Unapproved, decide, timed
from policy.identity import Identity
from policy.names import UID_MAX
from policy.rules import Policy, PolicyTest

AT = "at = 2026-11-23T12:00:00+01:00"


class Trial(msgspec.Struct, frozen=True):
    """came: "" when it cannot be said. why: in words, who or what decided. rule, file, line: of what decided, "" and 0
    where no rule did."""

    test: PolicyTest
    came: Literal["allow", "deny", "approval", ""]
    why: str
    rule: str = ""
    file: str = ""
    line: int = 0

    @property
    def passed(self) -> bool:
        return self.came == self.test.expect

    @property
    def wrong(self) -> str:
        """What to say of one that has not passed."""
        return f"this test expects {self.test.expect}, and came to: {self.why}" if self.came else self.why


def trial(test: PolicyTest, policy: Policy, services: Mapping[str, Collection[str]]) -> Trial:
    """services: each with its groups."""
    person = Identity(test.user, UID_MAX, test.groups)  # no rule is about uids
    groups = services[test.on] if test.on else ()
    when = timed(policy, person, test.may, test.on, groups) if test.at is None else None
    if when is not None:
        text = f"the rule '{when.id}' ({when.file}:{when.line}) depends on the time: say {AT}"
        return Trial(test, "", text, when.id, when.file, when.line)
    asking = Asking(test.at, test.source, test.reason)
    decision = decide(policy, person, test.may, test.on, groups, asking)
    if isinstance(decision, Allow):
        why = f"allowed by the rule '{decision.rule}' ({decision.file}:{decision.line})"
        return Trial(test, "allow", why, decision.rule, decision.file, decision.line)
    came: Literal["deny", "approval"] = "approval" if isinstance(decision, Unapproved) else "deny"
    return Trial(test, came, decision.text, decision.rule, decision.file, decision.line)
