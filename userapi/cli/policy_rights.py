"""durward policy who-can, what-can, matrix, diff: a policy in rights, complete.

Rights are people's and groups'. Who is in which group the files do not say: --groups says it of one person, and
--local-groups asks this machine.

--json: {"rows": [{"who", "actions", "services", "inside", "if", "unless", "rules"}], "people", "complete", "place"};
diff {"changes": [{"change", …, "still", "but"}], "complete"}. "services": "" is the daemon, "*" any not configured,
if it is in the groups of "inside". --csv: a line of titles, then a line for each service and action.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from userapi.cli import plain, sources
from userapi.cli.counting import Counting
from userapi.cli.failure import FAILED, OK, Failure
from userapi.cli.render import Screen

if TYPE_CHECKING:
    from policy.listing import Row
    from policy.rights import Book, Place
    from policy.rules import Policy
    from policy.source import Source

WIDEST = 60  # letters of a column that later ones are lined up behind
CALCULATED = ("=", "+", "-", "@")  # a spreadsheet would take such a cell for a formula
OPEN = (
    "these are policy files alone: which service is in which group is not known, so that a rule on group:NAME counts"
    " for each service that may be in it"
)


def who_can(ask: Any, screen: Screen, args: Any) -> int:
    from policy import listing
    from policy.rights import Book

    policy, found = sources.load(ask, screen, args.place)
    action, place = asked(policy, found, args.action, args.on)
    book = Book(policy)
    rows = listing.who_can(book, action, place)
    people = _people(book, action, place) if args.local_groups else None
    if screen.as_json:
        more = {} if people is None else {"people": people}
        screen.json(_document(rows, found, more))
        return OK
    what = f"{action} {place.service}".rstrip()
    _told(screen, rows, found, f"nobody but root may {what}", without=("may", "on"))
    if action == "approve":
        screen.progress("this right lets somebody see all that waits; who may agree is said by 'by' of each rule")
    for one in people or ():
        screen.say(f"on this machine: {one['user']} ({one['if']})")
    if people is not None:
        screen.progress("of the people that this machine lists; a directory service may not list all of its own")
    return OK


def what_can(ask: Any, screen: Screen, args: Any) -> int:
    from policy import listing
    from policy.identity import ROOT
    from policy.names import user_name
    from policy.rights import Book, groups_named

    try:
        user_name(args.user)
    except ValueError as error:
        raise Failure("usage", str(error)) from None
    policy, found = sources.load(ask, screen, args.place)
    groups = groups_of(args)
    known = _places(found, groups_named(policy))
    with Counting("services") as tell:
        rows = listing.what_can_gathered(Book(policy), known.values(), args.user, groups, tell)
    if screen.as_json:
        screen.json(_document(rows, found, {"user": args.user, "groups": groups}))
        return OK
    if args.user == ROOT.user:
        screen.say("root may do everything, by durward --root: no rule is looked at")
        return OK
    known_groups = f", in {', '.join(groups) or 'no group'}," if groups is not None else ""
    _told(
        screen, rows, found, f"{args.user}{known_groups} may do nothing", without=("who",) if groups is not None else ()
    )
    if groups is None:
        screen.progress(f"through a group: if {args.user} is in it; --groups or --local-groups says in which")
    return OK


def matrix(ask: Any, screen: Screen, args: Any) -> int:
    from policy import listing, wording
    from policy.rights import Book, groups_named

    if args.csv and screen.as_json:
        raise Failure("usage", "--csv or --json, not both")
    policy, found = sources.load(ask, screen, args.place)
    with Counting("services") as tell:
        rows = listing.matrix(Book(policy), _places(found, groups_named(policy)).values(), tell)
    if screen.as_json:
        screen.json(_document(rows, found, {}))
    elif args.csv:
        _csv([wording.COLUMNS, *(wording.cells(row, found.services) for row in rows)])
    else:
        _told(screen, listing.gathered(rows), found, "nobody but root may do anything")
    return OK


def diff(ask: Any, screen: Screen, args: Any) -> int:
    from policy import wording
    from policy.diff import diff as compare
    from policy.rights import Book, groups_named

    (before, old), (after, new) = sources.load(ask, screen, args.old), sources.load(ask, screen, args.new)
    groups = groups_named(before) | groups_named(after)
    lends = new if new.whole else old
    places = [_places(one if one.whole else lends, groups) for one in (old, new)]
    with Counting("services") as tell:
        changes = compare(Book(before), places[0], Book(after), places[1], tell)
    if screen.as_json:
        told = [wording.change_document(change) for change in changes]
        screen.json({"changes": told, "complete": wording.COMPLETE, "old": old.place, "new": new.place})
    else:
        cells = wording.change_cells(changes, lends.services)
        if cells:
            _table(screen, ("", *wording.COLUMNS[:-1], "other"), cells)
        many = "rights are gained or lost" if cells else "no right is gained or lost"
        screen.say(f"from {old.place} to {new.place}: {many}")
        _notes(screen, lends)
    return FAILED if changes and args.exit_code else OK


def asked(policy: Policy, found: Source, action: str, service: str | None) -> tuple[str, Place]:
    """What of whom. Raises Failure."""
    from policy.names import GLOBAL_ACTIONS, Action
    from policy.rights import DAEMON, groups_named

    if action not in list(Action):
        raise Failure("usage", f"action must be one of the policy's: {', '.join(Action)}")
    if action in GLOBAL_ACTIONS:
        if service is not None:
            raise Failure("usage", f"{action} is about the daemon as a whole: name no service")
        return action, DAEMON
    if service is None:
        raise Failure("usage", f"{action} is about a service: name one, or '*' for any that is not configured")
    known = _places(found, groups_named(policy))
    if service not in known:
        from difflib import get_close_matches

        close = get_close_matches(service, known, 1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise Failure("unknown", f"no service '{service}' is configured in {found.place}{hint}")
    return action, known[service]


def groups_of(args: Any) -> list[str] | None:
    """What the options say of somebody's groups; None: nothing. Raises Failure."""
    from policy.names import unix_group

    if args.local_groups:
        from userapi.cli import accounts

        return accounts.groups_of(args.user)
    if args.groups is None:
        return None
    names = [word.strip() for word in args.groups.split(",") if word.strip()]
    try:
        return [unix_group(name) for name in names]
    except ValueError as error:
        raise Failure("usage", str(error)) from None


def _places(found: Source, groups: Iterable[str]) -> dict[str, Place]:
    from policy.rights import places

    return places(found.services, {*groups}, found.whole)


def _people(book: Book, action: str, place: Place) -> list[dict[str, str]]:
    from policy import listing, wording
    from policy.rights import restricted
    from userapi.cli import accounts

    found = []
    for user, groups in accounts.everybody().items():
        held = listing.principals(user, groups)
        ways = restricted(book.formula(action, place), held)
        if ways.grants:
            text = " or ".join(map(wording.if_words, ways.grants))
            text += f", but not {wording.unless_words(ways.denies)}" if ways.denies else ""
            found.append({"user": user, "if": text})
    return found


def _document(rows: Sequence[Row], found: Source, more: Mapping[str, Any]) -> dict[str, Any]:
    from policy import wording

    told = [wording.document(row) for row in rows]
    return {"rows": told, **more, "complete": wording.COMPLETE, "place": found.place, "whole": found.whole}


def _told(screen: Screen, rows: Sequence[Row], found: Source, nothing: str, without: tuple[str, ...] = ()) -> None:
    from policy import wording

    wanted = [index for index, title in enumerate(wording.COLUMNS) if title not in without]
    cells = [wording.cells(row, found.services) for row in wording.folded(rows, found.services)]
    if cells:
        _table(screen, [wording.COLUMNS[n] for n in wanted], [[row[n] for n in wanted] for row in cells])
    else:
        screen.say(nothing)
    _notes(screen, found)


def _notes(screen: Screen, found: Source) -> None:
    from policy import wording

    screen.progress(wording.COMPLETE if found.whole else f"{OPEN}. {wording.COMPLETE[0].upper()}{wording.COMPLETE[1:]}")


def _table(screen: Screen, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns that are empty everywhere are left out."""
    wanted = [n for n in range(len(titles)) if any(row[n] for row in rows)]
    lines = [[titles[n].upper() for n in wanted], *([plain.line(row[n]) for n in wanted] for row in rows)]
    widths = [min(WIDEST, max(len(line[n]) for line in lines)) for n in range(len(wanted))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def _csv(rows: Iterable[Sequence[str]]) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    for row in rows:
        cells = [plain.line(cell) for cell in row]
        writer.writerow([f"'{cell}" if cell.startswith(CALCULATED) else cell for cell in cells])
