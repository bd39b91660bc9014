"""durward policy why USER ACTION [SERVICE]: may that person, and by which rules; every rule that is about it is shown.

For auditors: it tells all of the policy. `durward why` is what people ask about themselves.
A limit is taken as not used up: only the daemon counts. Exit 0: allowed (also with a reason, or once somebody else
approves, which it says), 1: denied.
--json: {"allowed", "text", "rule", "file", "line", "would_help", "seen", "looked": [{"rule", "kind", "where",
"verdict", "why"}], "others", "at", "groups", "place"}.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from userapi.cli import sources
from userapi.cli.failure import FAILED, OK, Failure
from userapi.cli.render import Screen

if TYPE_CHECKING:
    from policy.examine import Looked

TOLD = {"decides": "this decides", "counts": "counts", "does not count": "does not count"}


def why(ask: Any, screen: Screen, args: Any) -> int:
    from policy import decide, explain
    from policy.conditions import Asking
    from policy.examine import examine
    from policy.identity import ROOT, Identity
    from policy.names import UID_MAX
    from userapi.cli.policy_rights import asked, groups_of

    policy, found = sources.load(ask, screen, args.place)
    action, place = asked(policy, found, args.action, args.on)
    service, groups = place.service or None, groups_of(args)
    try:
        person = ROOT if args.user == ROOT.user else Identity(args.user, UID_MAX, frozenset(groups or ()))
    except ValueError as error:
        raise Failure("usage", str(error)) from None
    asking = Asking(at := moment(args.at), address(args.source), "…" if args.reason is None else args.reason)
    inside = found.services.get(service or "", [])
    seen = examine(policy, person, action, service, inside, asking)
    told = explain.told(person, action, service, seen.decision)
    helps = seen.decision.would_help if isinstance(seen.decision, decide.Deny) else ()
    views = service is None or decide.visible(policy, person, service, inside, asking)
    if screen.as_json:
        body = {"allowed": told.allowed, "text": told.text, "rule": told.rule, "file": told.file, "line": told.line}
        looked = [one._asdict() for one in seen.looked]
        more = {"would_help": list(helps), "seen": views, "looked": looked, "others": seen.others, "groups": groups}
        screen.json({**body, **more, "at": f"{datetime.fromtimestamp(at, UTC).isoformat()}", "place": found.place})
        return OK if told.allowed else FAILED
    screen.paragraph(told.text)
    if person.root:
        screen.progress("root asks on root.sock, by durward --root: no rule is looked at")
        return OK
    for one in seen.looked:
        screen.say(f"  {_line(one)}")
    others = f"{seen.others} other {'rule is' if seen.others == 1 else 'rules are'} about other actions or services"
    screen.progress(others if seen.others else "the policy has no other rule")
    if groups is None:
        screen.progress(f"{args.user} is taken to be in no group: --groups or --local-groups says in which")
    if not views:
        screen.progress(f"{args.user} may not view {service}: to {args.user} it is as if it did not exist")
    if not found.whole:
        screen.progress("these are policy files alone: no service is taken to be in a group")
    return OK if told.allowed else FAILED


def _line(one: Looked) -> str:
    return f"{one.kind} '{one.rule}' ({one.where}) {TOLD[one.verdict]}: {one.why}"


def moment(text: str | None) -> float:
    """Seconds since 1970; of nothing, now. Raises Failure."""
    from policy.conditions import moment_of

    if text is None:
        return datetime.now(UTC).timestamp()
    try:
        at = moment_of(datetime.fromisoformat(text))
    except ValueError:
        at = None
    if at is None:
        example = "2026-11-23T12:00:00+01:00"
        raise Failure("usage", f"'{text}' is no time with its offset, as {example}, or …Z for UTC")
    return at


def address(text: str | None) -> str:
    """As the api tells it. Raises Failure."""
    from policy.conditions import LOCAL, packed

    if not text:
        return ""
    if text == "local":
        return LOCAL
    if packed(text) is None:
        raise Failure("usage", f"'{text}' is no address: 192.0.2.7, 2001:db8::7 or local")
    return text
