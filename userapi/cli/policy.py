"""durward policy: what a policy allows, to whom and why; of a directory, without root, or of the running daemon.

Without --dir the running policy is asked for, which takes the right `policy`. With it nothing is asked: a directory is
a configuration (policy.d beside services.d), or one of policy files alone.

Exit codes: 0 done or allowed, 1 denied (why), 2 usage, 65 the policy has mistakes, 69, 75, 77 as everywhere.
--json of show: {"policy", "services", "configuration", "place", "whole", "groups"}, as GET /api/v1/policy has it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from userapi.cli import linting, plain, schema, sources
from userapi.cli.failure import OK
from userapi.cli.render import Screen

if TYPE_CHECKING:
    import argparse

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]
    Common = Callable[[argparse.ArgumentParser], None]


def options(parser: argparse.ArgumentParser, common: Common) -> None:
    """common adds the options that every command has."""
    asked = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    show = asked.add_parser("show", help="its files, and the configuration without its secrets", allow_abbrev=False)
    place(show)
    common(show)
    linting.options(asked, common)
    schema.options(asked, common)


def place(parser: argparse.ArgumentParser) -> None:
    text = "a configuration directory, or policy files alone; else the running policy"
    parser.add_argument("--dir", dest="place", metavar="DIR", help=text)


def policy(ask: Any, screen: Screen, args: Any) -> int:
    if args.what in linting.RUN:
        return linting.RUN[args.what](ask, screen, args)
    match args.what:
        case "show":
            return show(ask, screen, args)
        case "schema":
            return schema.schema(ask, screen, args)
    raise AssertionError(args.what)


def show(ask: Any, screen: Screen, args: Any) -> int:
    found = sources.source(ask, args.place)
    if screen.as_json:
        from policy import source

        sys.stdout.write(source.encode(found).decode() + "\n")
        return OK
    for file in found.policy:
        screen.say(f"# {file.name}, SHA-256 {file.hash}")
        screen.paragraph(file.text)
        screen.say("")
    for section in found.configuration:
        screen.say(f"# {section.file}")
        screen.say(f"[{section.name}]")
        for key, value in section.values.items():
            screen.say(f"{plain.line(key)} = {_spelled(value)}")
        screen.say("")
    return OK


def _spelled(value: Any) -> str:
    """As TOML has it."""
    import json

    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_spelled(inner)}" for key, inner in value.items()) + " }" if value else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_spelled, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
