"""durward: the command that people type. Standard library only; each command imports what it alone needs.

One way in (HTTP to the api) or the other (root.sock); the commands do not know which.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys

from userapi.cli.failure import FAILED, INTERRUPTED, Failure
from userapi.cli.quick import parse as quickly
from userapi.cli.render import Screen

TYPE_CHECKING = False  # as typing says it: importing that takes longer than asking
if TYPE_CHECKING:
    from typing import Any


COLLECT = 50_000  # things made until garbage is looked for: most commands are over before


def main(argv: list[str] | None = None) -> int:
    """The exit code."""
    gc.set_threshold(COLLECT)
    args = _parsed(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    screen = Screen(args.json, args.color)
    try:
        code = _run(args, screen)
        sys.stdout.flush()
    except Failure as failure:
        screen.failure(failure)
        return failure.exit
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains at its end
        if not isinstance(error, BrokenPipeError):
            screen.progress(f"cannot go on: {error.strerror or error}")
        return FAILED
    return code


def _parsed(argv: list[str]) -> Any:
    quick = quickly(argv)
    if quick is not None:
        return quick
    from userapi.cli import parser

    return parser.parse(argv)


def _function(command: str) -> Any:
    """What carries it out."""
    if command == "status":
        from userapi.cli import queries

        return queries.status
    from importlib import import_module

    from userapi.cli.parser import COMMANDS

    module, function, _, _ = COMMANDS[command]
    return getattr(import_module(f"userapi.cli.{module}"), function)  # both are of our own table


def _run(args: Any, screen: Screen) -> int:
    carry_out = _function(args.command)
    ask = _transport(args, screen)
    try:
        return int(carry_out(ask, screen, args))
    except Failure as failure:
        if failure.kind == "unknown" and getattr(args, "service", None):
            failure.text += _meant(ask, args.service)
        raise


def _meant(ask: Any, service: str) -> str:
    """Of the services that the person may view, the one whose name is most like that."""
    from difflib import get_close_matches

    with contextlib.suppress(Failure):
        for name in get_close_matches(service, [known["name"] for known in ask.status(None)], 1):
            return f"; did you mean '{name}'?" if name != service else ""
    return ""


def _transport(args: Any, screen: Screen) -> Any:
    if args.root:
        from userapi.cli.transport_root import Root

        return Root(args.root, screen.progress)
    from userapi.cli.transport_http import Http

    return Http(args.url, args.cacert, screen.progress, args.token_file)


if __name__ == "__main__":
    sys.exit(main())
