"""The frozen table: all that may run and every socket that is held. It is what privileged knows of the configuration.

Rule: names of people have become numbers here, and addresses have one spelling; nothing is looked up again.
"""

from __future__ import annotations

from typing import NamedTuple

from rootd.config import shape
from rootd.config.extras import Extra

INSTANCES = 1024  # slot = index of the entry * INSTANCES + instance
LEAVE = -2  # a hard limit that stays what privileged has


class Entry(NamedTuple):
    """One service, in what the system calls take."""

    service: str
    count: int  # type: ignore[assignment]  # of processes at most; it hides tuple.count, which nobody misses
    path: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    umask: int
    limits: tuple[tuple[int, int, int], ...]  # RLIMIT_…, soft, hard or LEAVE; -1 is unlimited
    sockets: tuple[tuple[str, str], ...]  # name, key of a Socket; in the order of the descriptors from 3
    signals: tuple[int, ...]  # that may be sent: its stop signal and SIGKILL too
    notify: bool
    ready_fd: int  # where it writes a newline when it is ready; 0: nowhere
    probe: bool  # whether each process gets a socket of its own, as the last of its sockets
    nnp: bool
    root: bool
    log: tuple[int, int]  # bytes of a file, and how it is kept (logs.py)
    streams: tuple[str, ...] = ("stdout", "stderr")  # that have a pipe: stdout alone takes both, none: /dev/null
    stdin: str = ""  # key of a Socket that is its descriptor 0; "": /dev/null
    extra: Extra | None = None  # what most services do not ask for

    def held(self) -> tuple[str, ...]:
        """The keys of all sockets that it gets."""
        return (*(key for _, key in self.sockets), *([self.stdin] if self.stdin else []))


class Socket(NamedTuple):
    """One address, by its key. `users` are the uids of the services on it."""

    key: str
    family: str  # inet, inet6, unix
    kind: str  # stream, dgram
    host: str
    port: int
    path: str
    name: str = ""
    backlog: int = 0
    mode: int = 0
    gid: int = 0
    v6only: bool = True
    freebind: bool = False
    users: tuple[int, ...] = ()


class Table(NamedTuple):
    entries: tuple[Entry, ...]
    sockets: tuple[Socket, ...]
    root: bool  # whether an entry runs as root


def load_table(line: bytes) -> Table:
    """The table that shape.to_json wrote. Raises ValueError when anything in it has another type."""
    return shape.from_json(Table, line)
