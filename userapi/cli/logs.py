"""durward logs: the last lines of services' logs, and with -f what comes.

Terminal escapes are made harmless unless --raw. Of several logs each line says whose it is: also of one service with
several processes. --json: of one log {"service", "stream", "lines"}, and with -f one {"line"} a line; of several one
{"service", "stream", "line"} a line, with "process" where it has several.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from userapi.cli import targets
from userapi.cli.failure import OK, Failure, no_service
from userapi.cli.plain import Stream
from userapi.cli.quick import GROUP, is_plain
from userapi.cli.render import Screen
from userapi.cli.sifting import Sieve

LINES = 100
SEARCHED = 100_000  # lines of each log that --since and --grep look at, unless -n says how many
WAITING = 1_000  # lines of several followed logs that wait to be printed
COLOURS = ("36", "33", "32", "35", "34", "31")
BOTH = ("stdout", "stderr")


class Wanted(NamedTuple):
    service: str
    process: str
    stream: str


def logs(ask: Any, screen: Screen, args: Any) -> int:
    if args.clear or args.reopen:
        return _told(ask, screen, args, "clear-log" if args.clear else "reopen-log")
    if args.lines is not None and args.lines < 0:
        raise Failure("usage", "-n takes a number of lines")
    sifted = args.since is not None or args.grep is not None
    lines = args.lines if args.lines is not None else SEARCHED if sifted else LINES
    Sieve(args.since, args.grep)  # what is wrong with them is said before anything is asked for
    wanted, code = _wanted(ask, screen, args)
    if args.raw and (screen.as_json or sifted or len(wanted) > 1):
        one = f"; of one process: {wanted[0].process}" if wanted[0].process and len(wanted) > 1 else ""
        raise Failure("usage", f"--raw is the bytes of one log: without --json, --since, --grep and other logs{one}")
    if len(wanted) > 1:
        return _several(ask, screen, args, wanted, lines, code)
    service, process, stream = wanted[0]
    pieces = ask.logs(service, stream, process, lines, args.follow)
    if args.raw:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return OK
    texts = _harmless(pieces)
    if not screen.as_json and not sifted:
        some = False
        for text in texts:
            some = some or bool(text)
            sys.stdout.write(text)
            sys.stdout.flush()
        if not some and lines:
            other = "stderr" if stream == "stdout" else "stdout"
            screen.progress(f"nothing on {stream}; for the rest: --stream {other}")
        return code
    found = _sifted(screen, args, wanted[0], texts)
    if screen.as_json and not args.follow:
        screen.json({"service": service, "stream": stream, "lines": list(found)})
        return code
    for line in found:
        if screen.as_json:
            screen.json({"line": line})
        else:
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return code


def _told(ask: Any, screen: Screen, args: Any, do: str) -> int:
    """--clear and --reopen: of services, or of one process."""
    from userapi.cli import operations, several

    asked = (args.follow, args.raw, args.lines, args.since, args.grep, args.process, args.stream != "stdout")
    if any(value not in (False, None, "") for value in asked):
        raise Failure("usage", f"--{do.removesuffix('-log')} is about all of a log: it takes no option of reading")
    word = args.service[0]
    if len(args.service) == 1 and is_plain(word):
        name, colon, _ = word.partition(":")
        if colon and not _can_be(word):
            raise no_service(word)
        return operations.done(screen, ask.command(do, name, process=word if colon else "", reason=args.reason))
    return several.Several(ask, screen, True, lambda name: ask.command(do, name, reason=args.reason)).run(args.service)


def _wanted(ask: Any, screen: Screen, args: Any) -> tuple[list[Wanted], int]:
    """Each log that is meant, and the exit code of words that mean none."""
    processes = {word for word in args.service if ":" in word and not word.startswith(GROUP)}
    for process in [*processes, *filter(None, [args.process])]:
        if not _can_be(process):
            more = "; logs are of services, or of one process of one, such as site:0"
            raise Failure("unknown", no_service(process).text + more)
    words = [word for word in args.service if word not in processes]
    names, missing, known = list[str](), dict[str, Failure](), list[dict[str, Any]]()
    if words:
        alone = len(args.service) == 1 and is_plain(words[0])
        known = ask.status(None) if not alone else [] if args.process else _seen(ask, words[0])
        names, missing = (words, missing) if alone else targets.meant(words, known)
    for failure in missing.values():
        screen.progress(failure.text)
    streams = BOTH if args.stream == "both" else (args.stream,)
    several = {one["name"]: [process["name"] for process in one["processes"]] for one in known}
    several = {name: its for name, its in several.items() if len(its) > 1 and not args.process}
    meant = [(name, process) for name in names for process in several.get(name, [args.process])]
    meant += [(process.partition(":")[0], process) for process in sorted(processes)]
    return [Wanted(*one, stream) for one in meant for stream in streams], targets.gravest(
        [failure.exit for failure in missing.values()]
    )


def _seen(ask: Any, service: str) -> list[dict[str, Any]]:
    """What processes it has; nothing of one that may not be viewed, whose logs may be read all the same."""
    try:
        seen: list[dict[str, Any]] = ask.status(service)
    except Failure as failure:
        if failure.kind not in ("unknown", "forbidden"):
            raise
        return []
    return seen


def _several(ask: Any, screen: Screen, args: Any, wanted: list[Wanted], lines: int, code: int) -> int:
    codes = [code]
    width = max(len(_label(one, args)) for one in wanted)
    for index, found in _all_lines(ask, screen, args, wanted, lines):
        one = wanted[index]
        if isinstance(found, Failure):
            codes.append(found.exit)
            screen.progress(targets.line(_label(one, args), found.text))
            continue
        if screen.as_json:
            process = {"process": one.process} if one.process else {}
            screen.json({"service": one.service, **process, "stream": one.stream, "line": found})
        else:
            label = _label(one, args).ljust(width)
            colour = COLOURS[index % len(COLOURS)]
            label = f"\x1b[{colour}m{label}\x1b[0m" if screen.colour else label
            sys.stdout.write(f"{label} | {found}\n")
        sys.stdout.flush()
    return targets.gravest(codes)


def _label(one: Wanted, args: Any) -> str:
    return (one.process or one.service) + (f" {one.stream}" if args.stream == "both" else "")


def _all_lines(
    ask: Any, screen: Screen, args: Any, wanted: list[Wanted], lines: int
) -> Iterator[tuple[int, str | Failure]]:
    """Lines of all, by their places in `wanted`; one log after the other, or, followed, as they come."""

    def of(one: Wanted) -> Iterator[str]:
        pieces = ask.logs(one.service, one.stream, one.process, lines, args.follow)
        return _sifted(screen, args, one, _harmless(pieces))

    if not args.follow:
        for index, one in enumerate(wanted):
            try:
                for line in of(one):
                    yield index, line
            except Failure as failure:
                yield index, failure
        return
    import queue
    import threading

    waiting: queue.Queue[tuple[int, str | Failure | None]] = queue.Queue(WAITING)

    def follow(index: int, one: Wanted) -> None:
        try:
            for line in of(one):
                waiting.put((index, line))
        except Failure as failure:
            waiting.put((index, failure))
        except OSError as error:
            waiting.put((index, Failure("later", str(error))))
        waiting.put((index, None))

    for index, one in enumerate(wanted):
        threading.Thread(target=follow, args=(index, one), daemon=True).start()
    left = len(wanted)
    while left:
        index, found = waiting.get()
        if found is None:
            left -= 1
        else:
            yield index, found


def _sifted(screen: Screen, args: Any, one: Wanted, texts: Iterator[str]) -> Iterator[str]:
    sieve = Sieve(args.since, args.grep)
    yield from filter(sieve.takes, _lines(texts))
    if sieve.untimed and not sieve.timed:
        screen.progress(f'{_label(one, args)}: its lines have no times: give it log = {{ format = "stamped" }}')


def _can_be(process: str) -> bool:
    import re

    from policy import names

    return re.match(names.PROCESS_PATTERN, process) is not None


def _harmless(pieces: Iterator[bytes]) -> Iterator[str]:
    stream = Stream()
    for piece in pieces:
        yield stream.feed(piece)
    yield stream.feed(b"", final=True)


def _lines(texts: Iterator[str]) -> Iterator[str]:
    held = ""
    for text in texts:
        *whole, held = (held + text).split("\n")
        yield from whole
    if held:
        yield held
