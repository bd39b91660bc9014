"""durward token create, list, revoke: personal tokens, by which scripts do a part of what you may.

A token is told once, on stdout and alone there, so that `durward token create … > FILE` keeps it. It is used by
DURWARD_TOKEN or --token-file. --json: create {"token", "name", "expires"}; list {"tokens": [{"name", "may", "on",
"made", "expires", "used", "trouble"}]}; revoke {"text"}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from userapi.cli.failure import OK, Failure
from userapi.cli.quick import ALL
from userapi.cli.render import Screen

if TYPE_CHECKING:
    import argparse


def options(parser: argparse.ArgumentParser, common: Callable[[argparse.ArgumentParser], None]) -> None:
    """common adds the options that every command has."""
    asked = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    create = asked.add_parser("create", help="make one: it is shown once", allow_abbrev=False)
    create.add_argument("name", metavar="NAME", help="what you call it: deploy")
    create.add_argument("--may", required=True, metavar="ACTIONS", help="view,restart: what it may be used for")
    create.add_argument("--on", default="", metavar="SERVICES", help="site,group:web: on which; * is all that you may")
    create.add_argument("--expires", required=True, metavar="TIME", help="after which it does not work: 12h, 90d")
    common(create)
    common(asked.add_parser("list", help="yours, and when each was used last", allow_abbrev=False))
    revoke = asked.add_parser("revoke", help="end one", allow_abbrev=False)
    revoke.add_argument("name", metavar="NAME", help="as durward token list has it")
    common(revoke)


def token(ask: Any, screen: Screen, args: Any) -> int:
    if args.what == "create":
        return create(ask, screen, args)
    return revoke(ask, screen, args.name) if args.what == "revoke" else listed(ask, screen)


def create(ask: Any, screen: Screen, args: Any) -> int:
    from policy.names import GLOBAL_ACTIONS

    may, on = words(args.may), words(args.on)
    told = ask.make_token(args.name, may, on, args.expires)
    if screen.as_json:
        screen.json(told)
        return OK
    if "view" not in may and not set(may) <= GLOBAL_ACTIONS:
        screen.progress("without view it is not told how what it begins ends: scripts that wait for it will not know")
    if ALL in on:
        screen.progress("'all' is a service of that name here: '*' is all that you may")
    screen.progress(f"the token {told['name']}, until {told['expires']}; it is not shown again:")
    screen.say(told["token"])
    return OK


def words(text: str) -> list[str]:
    """Of a list with commas. Raises Failure."""
    found = [word.strip() for word in text.split(",")] if text else []
    if "" in found:
        raise Failure("usage", f"'{text}' must be words with commas between them")
    return found


def listed(ask: Any, screen: Screen) -> int:
    found = ask.tokens()
    if screen.as_json:
        screen.json({"tokens": found})
        return OK
    if not found:
        screen.progress("you have no token: durward token create")
    for one in found:
        scope = ", ".join(one["may"]) + (f" on {', '.join(one['on'])}" if one["on"] else "")
        used = f"last used {one['used']}" if one["used"] else "never used"
        trouble = f"; does not work: {one['trouble']}" if one["trouble"] else ""
        screen.say(f"{one['name']}  {scope}; made {one['made']}, expires {one['expires']}, {used}{trouble}")
    return OK


def revoke(ask: Any, screen: Screen, name: str) -> int:
    from userapi.cli.spelled import is_name

    if not is_name(name):
        raise Failure("unknown", "you have no such token")
    ask.revoke_token(name)
    text = f"the token {name} is revoked"
    if screen.as_json:
        screen.json({"text": text})
    else:
        screen.say(text)
    return OK
