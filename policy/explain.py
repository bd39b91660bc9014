"""Decisions in words for the person who asked, without a word about what he may not view.

Rule: whoever may not view a service gets, about it, exactly the answer that he gets about one that does not exist.
"""

from __future__ import annotations

from collections.abc import Collection
from posixpath import basename

from msgspec import structs

from policy.conditions import Asking
from policy.decide import UNKNOWN, Allow, Beyond, Decision, Deny, Unapproved, decide, deed, unknown_text, visible
from policy.identity import Identity
from policy.messages import ActionName, Decided, Refused
from policy.names import GLOBAL_ACTIONS
from policy.rules import Policy


def refuse(
    policy: Policy,
    identity: Identity,
    denied: Deny,
    service: str | None,
    groups_of_service: Collection[str] | None,
    asking: Asking = UNKNOWN,
) -> Refused:
    """The reply to somebody whom decide denied something.

    groups_of_service is None when there is no such service; it does not matter when service is None.
    """
    if (
        not (isinstance(denied, Beyond) and denied.told)
        and service is not None
        and not (groups_of_service is not None and visible(policy, identity, service, groups_of_service, asking))
    ):
        return unknown(service)
    return Refused("forbidden", denied.text, denied.rule, denied.file, denied.line, list(denied.would_help))


def unknown(service: str) -> Refused:
    return Refused("unknown", unknown_text(service))


def explain(
    policy: Policy,
    identity: Identity,
    action: ActionName,
    service: str | None,
    groups_of_service: Collection[str] | None,
    asking: Asking = UNKNOWN,
) -> Decided | Refused:
    """The answer to WhatMayI with an action: what would be decided, or that there is no such service.

    groups_of_service is None when there is none; it does not matter when service is None.
    """
    if service is None and action not in GLOBAL_ACTIONS:
        return Decided(False, f"{action} is about a service: name one")
    if service is not None and action in GLOBAL_ACTIONS:
        return Decided(False, f"{action} is about the daemon as a whole: name no service")
    groups = groups_of_service or ()
    given = structs.replace(asking, reason=asking.reason or "…")
    decision = decide(policy, identity, action, service, groups, given)
    if isinstance(decision, Beyond) and decision.told:
        return Decided(False, decision.text)
    if service is not None and groups_of_service is None:
        return unknown(service)
    if (
        not isinstance(decision, Allow)
        and service is not None
        and not visible(policy, identity, service, groups, asking)
    ):
        return unknown(service)
    return told(identity, action, service, decision)


def told(identity: Identity, action: str, service: str | None, decision: Decision) -> Decided:
    """A decision in words, for who may know all of it: what somebody else must approve is a yes, which says so."""
    if isinstance(decision, Allow):
        return Decided(
            True, _allowed_text(identity, action, service, decision), decision.rule, decision.file, decision.line
        )
    if isinstance(decision, Unapproved):
        by = Allow(decision.rule, decision.file, decision.line, decision.demands)
        return Decided(True, _allowed_text(identity, action, service, by), by.rule, by.file, by.line)
    return Decided(False, decision.text, decision.rule, decision.file, decision.line)


def _allowed_text(identity: Identity, action: str, service: str | None, by: Allow) -> str:
    if identity.root:
        return f"allowed: root may {deed(action, service)}"
    where = f"{basename(by.file)}:{by.line}"
    demands = f", {by.demands}" if by.demands else ""
    return f"allowed: the rule '{by.rule}' ({where}) lets {identity.user} {deed(action, service)}{demands}"
