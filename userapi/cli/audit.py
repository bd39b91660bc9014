"""durward audit: verify, whether the log is as it was written; search and tail, what is in it.

verify works offline, by whoever may read the files, and so does search, with files. Without, the daemon is asked for
them, which takes the right `audit`.

verify exits 0: nothing was changed, 1: something was (the first bad record is named first), 2 usage.
--json: {"ok", "records", "first", "next_n", "head", "macs", "anchors", "problems": [{"file", "line", "record",
"damage", "text"}], …}. Of search and tail: a record a line, as it is in the log.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from userapi.cli.failure import FAILED, OK, Failure
from userapi.cli.render import Screen

if TYPE_CHECKING:
    import argparse

    from userapi.audit import verify as verifying

LINED_UP = 500  # rows of a table
CALCULATED = ("=", "+", "-", "@")  # a spreadsheet would take such a cell for a formula
SHOWN = 20  # problems that are shown to people
SOUGHT = {
    "user": "who asked",
    "action": "an action, a command or a deed: restart, cancel, spawn",
    "target": "a service",
    "kind": "decision, outcome, step, deed, login, token, load, …; a wrong one is told all",
    "token": "the name of the personal token by which it was asked",
    "request": "all of one request's story, by its id",
    "grep": "records in which this regular expression is found",
}  # * and ? stand for anything, as in a shell; not in the last two
LONG = 8 << 20  # bytes of a log of which it is said how far it is read


def options(parser: argparse.ArgumentParser, common: Callable[[argparse.ArgumentParser], None]) -> None:
    """common adds the options that every command has."""
    asked = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    verify = asked.add_parser("verify", help="was the log changed?", allow_abbrev=False)
    verify.add_argument("files", metavar="FILE", nargs="*", help="files or folders of it (/var/log/durward/audit)")
    verify.add_argument("--key", metavar="FILE", help="the first key: audit.initial, moved off the machine")
    verify.add_argument("--anchors", metavar="FILE", help="lines of the journal or of syslog with anchors")
    verify.add_argument("--from", dest="since", metavar="N|TIME", default="", help="from this record, or UTC time, on")
    verify.add_argument("--to", dest="until", metavar="N|TIME", default="", help="up to this record, or UTC time")
    common(verify)
    search = asked.add_parser("search", help="records of it", allow_abbrev=False)
    search.add_argument("files", metavar="FILE", nargs="*", help="files or folders, instead of asking the daemon")
    for option, text in SOUGHT.items():
        search.add_argument(f"--{option}", metavar=option.upper(), default="", help=text)
    search.add_argument("--outcome", choices=("allowed", "denied", "ok", "failed"), default="", help="decided, or done")
    search.add_argument("--from", dest="since", metavar="N|TIME", default="", help="from this record, or UTC time, on")
    search.add_argument("--to", dest="until", metavar="N|TIME", default="", help="up to this record, or UTC time")
    search.add_argument("--csv", action="store_true", help="comma separated, with a line of titles")
    common(search)
    tail = asked.add_parser("tail", help="its last records", allow_abbrev=False)
    tail.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    tail.add_argument("-n", "--lines", type=int, default=10, metavar="N", help="the last N records (10)")
    common(tail)


def audit(ask: Any, screen: Screen, args: Any) -> int:
    if args.what == "verify":
        return verify(screen, args)
    return search(ask, screen, args) if args.what == "search" else tail(ask, screen, args)


def span_of(args: Any) -> Any:
    from userapi.audit import files

    try:
        span = files.Span(*(files.bound(word) if word else "" for word in (args.since, args.until)))
        span.check()
        return span
    except ValueError as error:
        raise Failure("usage", str(error)) from None


def verify(screen: Screen, args: Any) -> int:
    from userapi.audit import files, verify as verifying

    span = span_of(args)
    anchors = _anchors(args.anchors)
    keys = _keys(args.key)
    try:
        named = files.paths(args.files or [files.PLACE])
        report = _pass(screen, named, keys, anchors, span)
    except OSError as error:
        raise unreadable(error) from None
    except ValueError as error:
        raise Failure("usage", str(error)) from None
    if not report.records and not report.problems:
        raise Failure("usage", f"there is no record of an audit log in {', '.join(named)}: nothing was verified")
    if screen.as_json:
        sys.stdout.write(verifying.as_json(report) + "\n")
    else:
        _show(screen, report, args, anchors)
    return FAILED if report.problems else OK


def unreadable(error: OSError) -> Failure:
    if isinstance(error, PermissionError):
        return Failure("forbidden", f"{error.filename} may not be read by you: verify a copy, or run it as root")
    return Failure("usage", f"{error.filename} cannot be read: {error.strerror or error}")


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise unreadable(error) from None


def _anchors(path: str | None) -> list[verifying.Anchor]:
    if path is None:
        return []
    from userapi.audit import verify as verifying

    try:
        return verifying.parse_anchors(_text(path))
    except ValueError as error:
        raise Failure("usage", f"{path}: {error}") from None


def _keys(path: str | None) -> dict[int, bytes] | None:
    if path is None:
        return None
    from userapi.audit import verify as verifying

    keys = verifying.parse_keys(_text(path).encode())
    if not keys:
        raise Failure("usage", f"{path} has no key of an audit log: it is the file audit.initial that log has made")
    return keys


def _pass(
    screen: Screen, named: list[str], keys: dict[int, bytes] | None, anchors: list[verifying.Anchor], span: Any
) -> verifying.Report:
    """All files, one after the other. Raises OSError, ValueError."""
    import itertools
    import os

    from userapi.audit import files, verify as verifying

    whole, before = sum(os.path.getsize(path) for path in named), 0
    shows = sys.stderr.isatty() and whole > LONG and not screen.as_json
    begins = int(span.since) if span.since.isdigit() else 0
    previous = (begins, None) if span.since else verifying.BEGIN
    verifier: verifying.Verifier | None = None

    def went(size: int) -> None:
        if shows:
            sys.stderr.write(f"\r{min(99, (before + size) * 100 // whole)} %")
            sys.stderr.flush()

    for path in named:
        with files.open_plain(path) as file:
            source, skipped = files.lines(file, went), 0
            if verifier is None:
                first, skipped = files.skip(span, source)
                source = itertools.chain(first, source)
                if first:
                    start = verifying.number_of(first[0]) if span.since and not span.since.isdigit() else None
                    verifier = verifying.Verifier(keys, (start, None) if start is not None else previous, anchors)
            if verifier is not None:
                verifier.feed(files.until(span, source), path, skipped)
        before += os.path.getsize(path)
    if shows:
        sys.stderr.write("\r     \r")
    if verifier is None:
        if span.since and not span.since.isdigit():
            raise ValueError(f"no record is of {span.since} or later")
        verifier = verifying.Verifier(keys, previous, anchors)
    return verifier.end(int(span.until) if span.until.isdigit() else begins if span.since else None)


def _show(screen: Screen, report: verifying.Report, args: Any, anchors: list[verifying.Anchor]) -> None:
    for problem in report.problems[:SHOWN]:
        place = f"{problem.file}:{problem.line}: " if problem.line else ""
        screen.say(f"{place}{problem.damage}: {problem.text}")
    rest = len(report.problems) - SHOWN + report.more
    if rest > 0:
        screen.say(f"and {rest} more")
    span = f", {report.first} to {report.next_n - 1}" if report.records else ""
    many = f"{report.records} {'record' if report.records == 1 else 'records'}{span}"
    if report.problems:
        screen.say(f"{many}: NOT as written; the first bad record is {report.problems[0].record}")
    else:
        how = "with the first key" if report.macs else "as a chain"
        compared = f", {report.anchors} of {len(anchors)} anchors compared" if anchors else ""
        screen.say(f"{many}: unchanged {how}{compared}; it ends with {report.head.hex()}")
    if not report.macs:
        screen.progress("without --key this proves less: whoever could write the file could make all of it anew")
    if not anchors:
        screen.progress("without --anchors nothing shows whether records were cut off at the end")


def search(ask: Any, screen: Screen, args: Any) -> int:
    """Exit 0, also when nothing was found: that is said."""
    from userapi.audit import search as searching

    query = searching.Query(
        args.user, args.action, args.target, args.outcome, args.kind, args.request, args.grep, args.token
    )  # as its fields stand
    span = span_of(args)
    if args.csv and screen.as_json:
        raise Failure("usage", "--csv or --json, not both")
    try:
        query.check()
        found = searching.found(query, lines(ask, args.files, span))
        if screen.as_json:
            count = 0
            for index, record in enumerate(found):
                screen.json(record)
                count = index + 1
        else:
            count = (_csv if args.csv else _table)(found)
    except OSError as error:
        if error.filename is None:
            raise
        raise unreadable(error) from None
    except ValueError as error:
        raise Failure("usage", str(error)) from None
    if not count:
        screen.progress("no record is like that")
    return OK


def lines(ask: Any, named: list[str], span: Any) -> Iterator[bytes]:
    """Of these files and folders, or of the running log. Raises OSError, ValueError, Failure."""
    from userapi.audit import files

    if not named:
        yield from _whole(ask.audit(span))
        return
    begun = False
    for path in files.paths(named):
        with files.open_plain(path) as file:
            for line in files.until(span, file):
                begun = begun or not span.skips(line)
                if begun:
                    yield line


def _whole(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Lines out of pieces."""
    held = b""
    for piece in pieces:
        *lines, held = (held + piece).split(b"\n")
        yield from lines


def _csv(found: Iterator[dict[str, Any]]) -> int:
    import csv

    from userapi.audit import search as searching
    from userapi.cli import plain

    writer, count = csv.writer(sys.stdout, lineterminator="\n"), 0
    writer.writerow(searching.COLUMNS)
    for record in found:
        count += 1
        cells = [plain.line(cell) for cell in searching.row(record)]
        writer.writerow(["'" + cell if cell[:1] in CALCULATED else cell for cell in cells])
    return count


def _table(found: Iterator[dict[str, Any]]) -> int:
    """So many are lined up at once: a table of a whole log need not be in memory."""
    import itertools

    from userapi.audit import search as searching
    from userapi.cli import plain

    title: list[list[str]] = [[column.upper() for column in searching.COLUMNS]]
    count, widths = 0, [0] * len(searching.COLUMNS)
    while rows := [[plain.line(cell) for cell in searching.row(one)] for one in itertools.islice(found, LINED_UP)]:
        count += len(rows)
        rows, title = title + rows, []
        widths = [max(width, *(len(row[at]) for row in rows)) for at, width in enumerate(widths)]
        for row in rows:
            sys.stdout.write("  ".join(map(str.ljust, row, widths)).rstrip() + "\n")
    return count


def tail(ask: Any, screen: Screen, args: Any) -> int:
    from userapi.audit import search as searching
    from userapi.cli import plain

    if args.lines < 0:
        raise Failure("usage", "-n takes a number of records")
    for record in searching.records(_whole(ask.audit_tail(args.lines, args.follow))):
        if screen.as_json:
            screen.json(record)
        else:
            number, *cells = (plain.line(cell) for cell in searching.row(record))
            sys.stdout.write("  ".join([number.rjust(6), *filter(None, cells)]) + "\n")
        sys.stdout.flush()
    return OK
