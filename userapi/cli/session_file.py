"""Where the session ids of one person are kept: a file of mode 0600, replaced as a whole.

~/.config/durward/session, or below $XDG_CONFIG_HOME; DURWARD_SESSION names another. One line an address,
"ADDRESS TOKEN", so that a token is only ever sent to the address that gave it. A file that others can read, or that
is not ours, is refused.

A personal token comes from the file that --token-file names, or from DURWARD_TOKEN, and is sent to whatever is asked.
"""

from __future__ import annotations

import contextlib
import os
import stat

from userapi.cli.failure import Failure

PREFIX = "durward_"  # as policy/scope.py has it


def path() -> str:
    named = os.environ.get("DURWARD_SESSION")
    if named:
        return named
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "durward", "session")


def _read() -> dict[str, str]:
    name = path()
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Failure("failed", f"the session file {name} cannot be opened: {error.strerror}") from None
    with open(descriptor, encoding="ascii", errors="replace") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise Failure(
                "no-session",
                f"the session file {name} is not yours alone (mode {status.st_mode & 0o777:04o}, uid {status.st_uid}):"
                " chmod 600 it if it is yours, or name another with DURWARD_SESSION, then log in",
            )
        found = {}
        for line in file.read(65536).splitlines():
            address, _, token = line.partition(" ")
            if len(token) == 64 and not set(token) - set("0123456789abcdef"):
                found[address] = token
        return found


def given(name: str) -> str:
    """The personal token in that file, "" names none; else that of the environment, or "". Raises Failure."""
    if not name:
        where, text = "DURWARD_TOKEN", os.environ.get("DURWARD_TOKEN", "")
    else:
        where = name
        try:
            with open(name, encoding="ascii", errors="replace") as file:
                status, text = os.fstat(file.fileno()), file.read(4096)
        except OSError as error:
            raise Failure("usage", f"the token file {name} cannot be read: {error.strerror}") from None
        if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
            raise Failure("usage", f"others can read the token file {name} (mode {status.st_mode & 0o777:04o}):"
                          " chmod 600 it, and make another token if they may have")  # fmt: skip
    token = text.strip()
    digits = token.removeprefix(PREFIX)
    if (name or token) and (digits == token or len(digits) != 64 or set(digits) - set("0123456789abcdef")):
        raise Failure("usage", f"in {where} there is no personal token: {PREFIX} and 64 digits, as token create tells")
    return token


def load(address: str) -> str:
    """The token for that address, or "". Raises Failure."""
    return _read().get(address, "")


def save(address: str, token: str) -> None:
    """Keep it; an empty token forgets it. Raises Failure."""
    kept = _read()
    kept.pop(address, None)
    if token:
        kept[address] = token
    name = path()
    folder = os.path.dirname(os.path.abspath(name))
    temporary = f"{name}.{os.getpid()}"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        with open(os.open(temporary, flags, 0o600), "w", encoding="ascii") as file:
            file.writelines(f"{address} {token}\n" for address, token in kept.items())
        os.replace(temporary, name)
    except OSError as error:
        raise Failure("failed", f"the session cannot be kept in {name}: {error.strerror}") from None
