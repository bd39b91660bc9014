"""durward policy: what a policy allows, to whom and why; of a directory, without root, or of the running daemon.

Without --dir the running policy is asked for, which takes the right `policy`. With it nothing is asked: a directory is
a configuration (policy.d beside services.d), or one of policy files alone.

Exit codes: 0 done or allowed, 1 denied (why), 2 usage, 65 the policy has mistakes, 69, 75, 77 as everywhere.
--json of show: {"policy", "services", "configuration", "place", "whole", "groups"}, as GET /api/v1/policy has it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from userapi.cli import plain, sources
from userapi.cli.failure import OK
from userapi.cli.offline import linting, schema
from userapi.cli.render import Screen

if TYPE_CHECKING:
    import argparse

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]
    Common = Callable[[argparse.ArgumentParser], None]


def options(parser: argparse.ArgumentParser, common: Common) -> None:
    """common adds the options that every command has."""
    asked = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, (text, more) in WHAT.items():
        one = asked.add_parser(name, help=text, description=text, allow_abbrev=False)
        more(one)
        common(one)


def _place(parser: argparse.ArgumentParser) -> None:
    text = "a configuration directory, or policy files alone; else the running policy"
    parser.add_argument("--dir", dest="place", type=sources.word, metavar="DIR", help=text)


def _question(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="ACTION", help="view, restart, reload, …")
    parser.add_argument("on", metavar="SERVICE", nargs="?", help="'*': any that is not configured")


def _groups(parser: argparse.ArgumentParser) -> None:
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--groups", metavar="A,B", help="all groups that the user is in")
    either.add_argument("--local-groups", action="store_true", help="those that this machine has the user in")


def _why(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", type=sources.word, metavar="USER", help="whose right it is")
    _question(parser)
    _groups(parser)
    parser.add_argument("--at", metavar="TIME", help="when, as 2026-11-23T12:00:00+01:00; else now")
    parser.add_argument("--from", dest="source", metavar="ADDR", help="from which address, or local")
    parser.add_argument("--reason", metavar="TEXT", help="the reason that is given; '' is none; else there is one")
    _place(parser)


def _who_can(parser: argparse.ArgumentParser) -> None:
    _question(parser)
    parser.add_argument("--local-groups", action="store_true", help="also which people of this machine that are")
    _place(parser)


def _what_can(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", type=sources.word, metavar="USER", help="whose rights")
    _groups(parser)
    _place(parser)


def _matrix(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--csv", action="store_true", help="comma separated, with a line of titles")
    parser.epilog = (
        "A limit is counted by rule: lines with the same rule share its counter, for who is in several of them."
    )
    _place(parser)


def _diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", type=sources.word, metavar="OLD", help="a directory, or - for the running policy")
    parser.add_argument("new", type=sources.word, metavar="NEW", help="as OLD")
    parser.add_argument("--exit-code", action="store_true", help="exit 1 when a right is gained or lost")
    parser.epilog = (
        "A limit is counted by rule: who is two of the names of a rule has one counter of it, and two where each name"
        " has a rule of its own. A change of that is told as 'at most N in T (by another rule)'; who is three or more"
        " of the names at once is looked at by twos."
    )


def _simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "log", type=sources.word, metavar="LOG", help="a file or folder of the audit log, or - for the running one"
    )
    parser.add_argument("new", type=sources.word, metavar="NEW", help="a directory, or - for the running policy")
    text = "for people of whom the log does not say it, the groups that this machine has them in"
    parser.add_argument("--local-groups", action="store_true", help=text)
    parser.add_argument("--from", dest="since", metavar="N|TIME", default="", help="from this record, or UTC time, on")
    parser.add_argument("--to", dest="until", metavar="N|TIME", default="", help="up to this record, or UTC time")
    parser.add_argument("--exit-code", action="store_true", help="exit 1 when a decision would change")


WHAT: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "show": ("its files, and the configuration without its secrets", _place),
    "why": ("may somebody do that, and by which rules", _why),
    "who-can": ("everybody who may do that", _who_can),
    "what-can": ("all that somebody may do", _what_can),
    "matrix": ("who may do what on which service", _matrix),
    "diff": ("the rights that are gained and lost between two policies", _diff),
    "simulate": ("which decisions of an audit log would be others by a new policy", _simulate),
    **linting.WHAT,
    **schema.WHAT,
}


def policy(ask: Any, screen: Screen, args: Any) -> int:
    from userapi.cli import policy_rights, policy_simulate, policy_why

    carry_out = {
        "show": show, "why": policy_why.why, "who-can": policy_rights.who_can, "what-can": policy_rights.what_can,
        "matrix": policy_rights.matrix, "diff": policy_rights.diff, "simulate": policy_simulate.simulate,
        "check": linting.check, "test": linting.test, "lint": linting.lint, "schema": schema.schema,
    }  # fmt: skip
    gc.disable()  # it ends soon, and looking again and again through all rules takes a third of its time
    return carry_out[args.what](ask, screen, args)


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
