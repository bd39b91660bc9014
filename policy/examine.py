"""Why a decision is what it is: every rule that is about this action on this service, and why it counts or does not.

For auditors, who may know all of the policy. People ask policy/explain.py, which says nothing of what they may not
view; both have their verdict from policy/decide.py.

Rule 1: pure; a circumstance that is not known (where somebody asks from, say) is told as such.
Rule 2: nothing is decided here: what is said of a rule is what decide saw in it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

from policy.conditions import Asking
from policy.decide import Decision, Deny, decide, place, targets_of
from policy.identity import Identity
from policy.names import CHANGING
from policy.rules import Deny as Forbid, Grant, Policy

Verdict = Literal["decides", "counts", "does not count"]


class Looked(NamedTuple):
    """At one rule. where: "10-web.toml:14"; why: a sentence without its beginning and end."""

    rule: str
    kind: Literal["grant", "deny"]
    where: str
    verdict: Verdict
    why: str


class Examined(NamedTuple):
    """looked: denies first, in their order; others: how many rules are about other actions or services."""

    decision: Decision
    looked: list[Looked]
    others: int


def examine(
    policy: Policy,
    identity: Identity,
    action: str,
    service: str | None,
    groups_of_service: Collection[str] = (),
    asking: Asking | None = None,
) -> Examined:
    """The decision and every rule that is about it.

    Parameters as decide has them; None: nothing of the circumstances is known. Of a limit it is assumed that it is not
    used up, unless asking says so. Raises nothing.
    """
    asking = Asking() if asking is None else asking
    decision = decide(policy, identity, action, service, groups_of_service, asking)
    targets = frozenset(targets_of(action, service, groups_of_service))
    looked, others = [], 0
    rules: tuple[Grant | Forbid, ...] = (*policy.denies, *policy.grants)
    for rule in rules:
        if action not in rule.may or targets.isdisjoint(rule.on):
            others += 1
            continue
        kind: Literal["grant", "deny"] = "grant" if isinstance(rule, Grant) else "deny"
        lacks = [*_lacks(rule, identity, action, asking)]
        verdict: Verdict = "does not count" if lacks else "counts"
        if rule.id == decision.rule:
            verdict = "decides"
        why = "; ".join(lacks) or _has(rule, identity, action, decision, verdict)
        looked.append(Looked(rule.id, kind, place(rule), verdict, why))
    return Examined(decision, looked, others)


def _lacks(rule: Grant | Forbid, identity: Identity, action: str, asking: Asking) -> list[str]:
    """What keeps it from counting, all of it."""
    found = []
    if identity.user not in rule.users and identity.groups.isdisjoint(rule.groups):
        names = [*(f"user:{name}" for name in rule.users), *(f"group:{name}" for name in rule.groups)]
        found.append(f"is for {', '.join(names)}")
    at = asking.at
    if rule.timed and at is None and isinstance(rule, Grant):
        found.append("depends on the time, which is not known")
    if rule.expires is not None and at is not None and at >= rule.expires.at:
        found.append(f"is over since {rule.expires.text}")
    elif rule.when is not None and at is not None and not rule.when.holds(at):
        found.append(f"counts {rule.when.text}; {rule.when.opening(at)}")
    if isinstance(rule, Grant):
        if rule.sources is not None and not rule.sources.hold(asking.source):
            known = f", not from {asking.source}" if asking.source else "; where it is asked from is not known"
            found.append(f"counts from {rule.sources.text}{known}")
        if action in CHANGING and asking.demands and not found:
            found += _unmet(rule, asking)
    return found


def _unmet(rule: Grant, asking: Asking) -> list[str]:
    found = []
    if rule.limit and asking.wait(rule.id, rule.limit) > 0:
        found.append(f"its limit, {rule.limit.text}, is used up")
    if rule.reason and not asking.reason:
        found.append("wants a reason")
    if rule.approval and rule.id not in asking.approved:
        found.append(f"wants the approval of {rule.approval.text}")
    return found


def _has(rule: Grant | Forbid, identity: Identity, action: str, decision: Decision, verdict: Verdict) -> str:
    """Why it counts, and what came of that."""
    through = [f"user:{identity.user}"] if identity.user in rule.users else []
    through += [f"group:{name}" for name in rule.groups if name in identity.groups]
    text = f"through {' and '.join(through)}" + (f", {rule.when.text}" if rule.when else "")
    text += f", {rule.demands}" if isinstance(rule, Grant) and rule.demands and action in CHANGING else ""
    if verdict == "decides":
        return text
    if isinstance(rule, Forbid):
        return f"{text}; '{decision.rule}' stands before it"
    if isinstance(decision, Deny):
        return f"{text}; but '{decision.rule}' forbids it, and a deny wins"
    return f"{text}; '{decision.rule}' demands no more"
