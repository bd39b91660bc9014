"""durward audit verify: whether the audit log is as it was written; offline, by whoever may read its files.

Exit 0: nothing was changed, 1: something was (the first bad record is named first), 2 usage.
--json: {"ok", "records", "first", "next_n", "head", "macs", "anchors", "problems": [{"file", "line", "record",
"damage", "text"}], …}.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from userapi.cli.failure import FAILED, OK, Failure
from userapi.cli.render import Screen

if TYPE_CHECKING:
    import argparse

    from userapi.audit import verify as verifying

SHOWN = 20  # problems that are shown to people
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


def audit(ask: Any, screen: Screen, args: Any) -> int:
    return verify(screen, args)


def span_of(args: Any) -> Any:
    from userapi.audit import files

    try:
        return files.Span(*(files.bound(word) if word else "" for word in (args.since, args.until)))
    except ValueError as error:
        raise Failure("usage", str(error)) from None


def verify(screen: Screen, args: Any) -> int:
    from userapi.audit import files
    from userapi.audit import verify as verifying

    span = span_of(args)
    anchors = _anchors(args.anchors)
    keys = _keys(args.key)
    try:
        named = files.paths(args.files or [files.PLACE])
        report = _pass(screen, named, keys, anchors, span)
    except OSError as error:
        raise _unreadable(error) from None
    except ValueError as error:
        raise Failure("usage", str(error)) from None
    if screen.as_json:
        sys.stdout.write(verifying.as_json(report) + "\n")
    else:
        _show(screen, report, args, anchors)
    return FAILED if report.problems else OK


def _unreadable(error: OSError) -> Failure:
    if isinstance(error, PermissionError):
        return Failure("forbidden", f"{error.filename} may not be read by you: verify a copy, or run it as root")
    return Failure("usage", f"{error.filename} cannot be read: {error.strerror or error}")


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise _unreadable(error) from None


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
    from rootd.log import chain

    keys = chain.parse_keys(_text(path).encode())
    if not keys:
        raise Failure("usage", f"{path} has no key of an audit log: it is the file audit.initial that log has made")
    return keys


def _pass(
    screen: Screen, named: list[str], keys: dict[int, bytes] | None, anchors: list[verifying.Anchor], span: Any
) -> verifying.Report:
    """All files, one after the other. Raises OSError, ValueError."""
    import itertools
    import os

    from rootd.log import chain
    from userapi.audit import files
    from userapi.audit import verify as verifying

    whole, before = sum(os.path.getsize(path) for path in named), 0
    shows = sys.stderr.isatty() and whole > LONG and not screen.as_json
    begins = int(span.since) if span.since.isdigit() else 0
    previous: tuple[int, bytes | None] = (begins, None) if span.since else (0, chain.NO_HEAD)
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
