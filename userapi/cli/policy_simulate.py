"""durward policy simulate LOG NEW: which decisions of an audit log would be others by a new policy.

LOG: a file or folder of the log, or - for the running one, which takes the right `audit`.
--json: {"decided", "same", "changes": [{"user", "action", "service", "was", "now", "times", "n", "time", "text"}],
"unknown", "left_out", "place"}; "was" and "now" are allow, deny and approval (of somebody else, which is wanted).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from userapi.cli import audit, sources
from userapi.cli.failure import FAILED, OK, Failure
from userapi.cli.render import Screen

if TYPE_CHECKING:
    from policy.replay import Report

SHOWN = 20  # kinds of changes that are shown to people
WORDS = {"allow": "allowed", "deny": "denied", "approval": "once somebody approves"}
LIMITS = "limits are counted from the beginning of the log, by its times; people are taken to ask the same again"


def simulate(ask: Any, screen: Screen, args: Any) -> int:
    """Exit 0; with --exit-code 1 when a decision would change."""
    from policy.replay import Replay
    from userapi.audit import search

    policy, found = sources.load(ask, screen, args.new)
    replay = Replay(policy, found.services, _groups_of if args.local_groups else lambda user: None, found.whole)
    span = audit.span_of(args)
    try:
        replay.feed(search.records(audit.lines(ask, [] if args.log == sources.RUNNING else [args.log], span)))
    except OSError as error:
        if error.filename is None:
            raise
        raise audit.unreadable(error) from None
    except ValueError as error:
        raise Failure("usage", str(error)) from None
    report = replay.report()
    if screen.as_json:
        screen.json({**report._asdict(), "changes": [one._asdict() for one in report.changes], "place": found.place})
    else:
        _show(screen, report, found.place)
    return FAILED if report.changes and args.exit_code else OK


def _groups_of(user: str) -> Collection[str] | None:
    from userapi.cli import accounts

    try:
        return accounts.groups_of(user)
    except Failure:
        return None


def _show(screen: Screen, report: Report, place: str) -> None:
    changed = sum(one.times for one in report.changes)
    many = {0: "no decision", 1: "1 decision"}.get(report.decided, f"{report.decided} decisions")
    screen.say(f"{many} by {place}: {report.same} the same, {changed} {'other' if changed == 1 else 'others'}")
    for one in report.changes[:SHOWN]:
        what = f"{one.user} {one.action} {one.service}".rstrip()
        times = f"{one.times} times, first" if one.times > 1 else "once,"
        screen.say(f"  {what}: {WORDS[one.was]}, now {WORDS[one.now]}; {times} record {one.n}, {one.time}")
        screen.say(f"    {one.text}")
    if len(report.changes) > SHOWN:
        screen.say(f"  and {len(report.changes) - SHOWN} more kinds: --json tells all")
    for why, count in report.unknown.items():
        screen.say(f"not known: {count} {why}")
    for why, count in report.left_out.items():
        screen.say(f"left out: {count} {why}")
    screen.progress(LIMITS)
