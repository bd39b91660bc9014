"""version: of this command, and of the daemon that answers; --json {"command", "daemon"}, "daemon" "" when none does.

They differ when a new version was installed and the daemon was not upgraded yet. Exit 69 when no daemon answers.
"""

from __future__ import annotations

from typing import Any

from userapi.cli.failure import OK, Failure
from userapi.cli.render import Screen


def command() -> str:
    from rootd.version import spelled

    return f"durward {spelled()}"


def version(ask: Any, screen: Screen, args: Any) -> int:
    from rootd.version import spelled

    failure = None
    try:
        ask.status(None)
    except Failure as why:
        failure = why
    if screen.as_json:
        screen.json({"command": spelled(), "daemon": ask.version})
    else:
        screen.say(command())
    if failure is not None:
        raise failure
    if not screen.as_json:
        screen.say(f"daemon {ask.version}")
        if ask.version != spelled():
            screen.progress("the daemon runs another version than this; root replaces it: durward --root upgrade")
    return OK
