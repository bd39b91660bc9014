"""durward login, logout. The password is typed without echo, or is the first line of stdin.

With [auth] local = "peer" a local user needs no password: auth's second socket, beside the api's, tells who asks by
the kernel. --json: {"user", "expires"}; logout {"text"}.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

from userapi.cli import session_file
from userapi.cli.failure import OK, Failure
from userapi.cli.render import Screen


def login(ask: Any, screen: Screen, args: Any) -> int:
    told = None
    if args.user is None and not args.password_stdin:
        told = _as_peer(ask.url)
    if told is None:
        user = args.user or _own_name()
        told = ask.login(user, _password(user, args.password_stdin))
    session_file.save(ask.url, told["token"])
    if screen.as_json:
        screen.json({"user": told["user"], "expires": told["expires"]})
    else:
        screen.say(f"logged in as {told['user']} until {told['expires']}")
    return OK


def logout(ask: Any, screen: Screen, args: Any) -> int:
    """A session that is over already is forgotten all the same."""
    text = "logged out"
    try:
        ask.logout()
    except Failure as failure:
        if failure.kind != "no-session":
            raise
        text = "there was no session"
    session_file.save(ask.url, "")
    if screen.as_json:
        screen.json({"text": text})
    else:
        screen.say(text)
    return OK


def _own_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise Failure("usage", "say who you are: durward login -u USER") from None


def _password(user: str, from_stdin: bool) -> str:
    if from_stdin:
        line = sys.stdin.readline()
        if not line:
            raise Failure("usage", "--password-stdin: there is no line on stdin")
        return line.removesuffix("\n")
    import getpass
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # getpass would read with echo, and only warn
        try:
            return getpass.getpass(f"Password of {user}: ")
        except (getpass.GetPassWarning, EOFError):
            raise Failure("usage", "there is no terminal to type a password: use --password-stdin") from None


def _as_peer(url: str) -> dict[str, Any] | None:
    """What auth grants to this process's own user, or None where passwords are asked for."""
    if not url.startswith("unix:"):
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.settimeout(30)
        try:
            line.connect(os.path.join(os.path.dirname(url.removeprefix("unix:")), "peer.sock"))
            line.send(b'{"do":"peer-login"}')
            told: dict[str, Any] = json.loads(line.recv(65536) or b"null") or {}
        except (OSError, ValueError):
            return None
    if told.get("is") == "granted":
        return told
    if told.get("is") == "denied":
        raise Failure("later" if told.get("retry_after") else "forbidden", str(told.get("text")))
    return None
