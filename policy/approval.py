"""Who may agree to what somebody else has asked for: those whom its rule names, and never the asker.

Rule: who may agree is said by each rule's `by`. A deny of the action `approve` wins over that; a grant of it lets
somebody see all that waits, and agree to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from policy.conditions import Asking
from policy.decide import Allow, Decision, Deny, beyond, decide, place
from policy.identity import Identity
from policy.names import CHANGING, Action
from policy.rules import EVERY_SERVICE, Grant, Policy


def may_approve(
    policy: Policy, identity: Identity, rule: str, user: str, uid: int, number: int, asking: Asking
) -> Decision:
    """May this person agree to what user (uid) asked for by this rule, as number?"""
    if identity.root:
        return Allow("root")
    if identity.token is not None:
        return beyond(identity.token, Action.APPROVE, None)
    nothing = Deny(f"denied: nothing of the number {number} waits for {identity.user} to approve")
    grant = policy.approved.get(rule)
    approval = grant.approval if grant else None
    if grant is None or approval is None:
        return nothing
    if identity.uid == uid or identity.user == user:
        return Deny("denied: nobody approves what he has asked for himself", grant.id, grant.file, grant.line)
    forbidden = decide(policy, identity, Action.APPROVE, None, (), asking)
    if isinstance(forbidden, Deny) and forbidden.rule:
        return forbidden
    if identity.user in approval.users or not identity.groups.isdisjoint(approval.groups):
        return Allow(grant.id, grant.file, grant.line)
    return nothing


def alone(policy: Policy, grant: Grant) -> Iterator[str]:
    """Why the approval that this grant wants would be none, as far as that can be seen from the rules."""
    approval = grant.approval
    if approval is None:
        return
    if not grant.groups and not approval.groups and len(grant.users) == 1 and grant.users == approval.users:
        yield f"nobody could approve it but {grant.users[0]}, who asks: name somebody else in 'by'"
    for kind, names in (("user", grant.users), ("group", grant.groups)):
        for name in names:
            rows = policy.granted.named(kind, name)
            for target in dict.fromkeys((*grant.on, EVERY_SERVICE)):
                for other in rows.get(target, ()):
                    both = sorted(grant.may & other.may & CHANGING)
                    if both and not (other.approval or other.timed or other.sources):
                        what = f"{', '.join(both)} on {target}"
                        yield (
                            f"{kind}:{name} needs no approval: the rule '{other.id}' ({place(other)}) grants {what}"
                            " without one"
                        )
