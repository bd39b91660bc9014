"""takeover.py ROLE[,HOW] --config DIR: the daemon itself, with something of one part of it replaced.

The keeper forks every part from this image, so what is replaced here is replaced inside the real process: its account,
its walls, its links and its state are those of a real start. HOW is:

hostage (the default)  the part starts up and works as always, until a packet comes on standard input. From then on it
                       runs the code that comes, in place of its loop; an empty answer of `resume` lets it go on.
                       The api is a program of its own: for it, HOW is the program that is started in its place.
no-filter              the part's seccomp filter is not installed
no-walls               the part's Landlock rules are not applied
"""

from __future__ import annotations

import contextlib
import ctypes  # noqa: F401  # what hostile code may want to import, while files can still be opened
import importlib
import os
import random  # noqa: F401
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rootd import __main__ as program, sandbox

sys.path.insert(0, str(Path(__file__).parent / "services"))
from hostile import session

CLASSES = {"supervisor": "Supervisor", "log": "Log", "auth": "Auth", "probe": "Probe"}


def hostage(role: str) -> None:
    """In the process of the role: from its real start-up on, it listens to the test as well."""
    module = importlib.import_module(f"rootd.{role}.main")
    kind = getattr(module, CLASSES[role])
    run = kind.run
    scope: dict[str, Any] = {}

    def listening(part: Any) -> int:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=0)

        def taken(_events: int) -> None:
            if not session(part, sock, scope):
                part.loop.forget(0)

        part.loop.watch(0, taken)
        return int(run(part))

    kind.run = listening


def no_filter(_role: str) -> None:
    sandbox.install = lambda filters: None


def no_walls(_role: str) -> None:
    sandbox.restrict_files = lambda *_paths: True


HOWS = {"hostage": hostage, "no-filter": no_filter, "no-walls": no_walls}


def main() -> int:
    role, _, how = sys.argv.pop(1).partition(",")
    if role == "api":
        program.PYTHON = how
        return program.main()
    replace = HOWS[how or "hostage"]
    roles = program.roles

    def replaced(config: str) -> dict[str, Callable[[int], int]]:
        found = roles(config)
        real = found[role]

        def begin(link: int) -> int:
            replace(role)
            return real(link)

        return {**found, role: begin}

    program.roles = replaced
    return program.main()


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        os.set_inheritable(0, True)
    sys.exit(main())
