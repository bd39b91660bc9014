"""Who has a TCP port that could not be bound: asked of /proc, to tell people.

Rule 1: it runs in root's throw-away children; what holds privilege for long never asks.
Rule 2: what others call themselves may be any bytes: it is shown, and moves no cursor.

Sources: proc(5) net/tcp, comm.
"""

from __future__ import annotations

import errno
import os
import re

LISTEN_STATE = "0A"
TAKEN = re.compile(rf"\btcp:[^ ]*:([0-9]+): {re.escape(os.strerror(errno.EADDRINUSE))}\Z")


def named(sentence: str) -> str:
    """Why privileged cannot have a socket (listen.failure), and who has it where that is the reason and can be told."""
    found = TAKEN.search(sentence)
    who = holder(int(found[1])) if found else ""
    return f"{sentence}; {who} has it" if who else sentence


def holder(port: int) -> str:
    """Who listens on this TCP port, as far as root can tell: "nginx (pid 812)", or nothing."""
    inodes = set()
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(name) as table:
                rows = [line.split() for line in table.readlines()[1:]]
        except OSError:
            continue
        ending = f":{port:04X}"
        inodes |= {f"socket:[{row[9]}]" for row in rows if row[3] == LISTEN_STATE and row[1].endswith(ending)}
    for pid in filter(str.isdigit, os.listdir("/proc") if inodes else ()):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in inodes:
                    with open(f"/proc/{pid}/comm", "rb") as comm:
                        return f"{repr(comm.read().strip())[2:-1]} (pid {pid})"  # any bytes, as it likes
        except OSError:
            continue
    return ""
