"""durward logs: the last lines of a service's log, and with -f what comes.

Terminal escapes are made harmless unless --raw. --json: {"service", "stream", "lines"}; with -f one {"line"} a line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from userapi.cli.failure import OK, Failure, no_service
from userapi.cli.plain import Stream
from userapi.cli.render import Screen


def logs(ask: Any, screen: Screen, args: Any) -> int:
    service, colon, _ = args.service.partition(":")
    process = args.process or (args.service if colon else "")
    if process and not _can_be(process):
        more = "; logs are of one service, or of one process of it, such as site:0"
        raise Failure("unknown", no_service(args.service).text + more)
    if args.lines < 0:
        raise Failure("usage", "-n takes a number of lines")
    pieces = ask.logs(service, args.stream, process, args.lines, args.follow)
    if args.raw:
        if screen.as_json:
            raise Failure("usage", "--raw is bytes, --json is not: take one of them")
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return OK
    texts = _harmless(pieces)
    if not screen.as_json:
        some = False
        for text in texts:
            some = some or bool(text)
            sys.stdout.write(text)
            sys.stdout.flush()
        if not some and args.lines:
            other = "stderr" if args.stream == "stdout" else "stdout"
            screen.progress(f"nothing on {args.stream}; for the rest: --stream {other}")
        return OK
    lines = _lines(texts)
    if args.follow:
        for line in lines:
            screen.json({"line": line})
            sys.stdout.flush()
    else:
        screen.json({"service": service, "stream": args.stream, "lines": list(lines)})
    return OK


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
