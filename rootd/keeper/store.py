"""Descriptors by name: the whole memory of privileged, held by a process that does nothing else.

Rule 1: a name is set once; it must be dropped before it can be set again.
Rule 2: names are opaque here. Who may be handed which is the keeper's table.
Rule 3: where a service manager keeps it all once more, that one is told of every change (backup.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from rootd import closing, ipc
from rootd.keeper import backup
from rootd.keeper.backup import Backup

LIMIT = 25_900  # descriptors: those of the keeper beside them are kept by a service manager too


class Store:
    """Owns every descriptor put into it. Close-on-exec is the giver's business (recvmsg sets it)."""

    def __init__(self, held: dict[str, int] | None = None) -> None:
        """held: what it begins with; with what a service manager has handed over, it is kept there too."""
        self.held = dict(held or {})  # the oldest first
        self.backup = Backup(self.held) if backup.SOCKET in self.held else None

    def everything(self) -> dict[str, int]:
        """What the next program needs to go on: what is held, and what it takes to have it kept."""
        return self.held | (self.backup.fds() if self.backup else {})

    def put(self, name: str, fd: int) -> bool:
        """Keep fd under name. False, and fd is closed, when the name is empty, taken, not one line, or not what
        hands it on again can carry, or the store is full."""
        wrong = {"\n", "\0"} & {*name} or not 0 < len(name.encode()) <= ipc.NAME_LIMIT
        if wrong or name in self.held or len(self.held) >= LIMIT:
            os.close(fd)
            return False
        self.held[name] = fd
        if self.backup:
            self.backup.put(name, fd)
        return True

    def drop(self, name: str) -> None:
        """Close and forget, where there is such a name."""
        if name in self.held:
            if self.backup:
                self.backup.drop(name)
            closing.close(self.held.pop(name))

    def beneath(self, prefixes: tuple[str, ...]) -> Iterator[tuple[str, int]]:
        """Names that equal a prefix, or begin with one that ends in "/" (or is empty), oldest first."""
        for name, fd in self.held.items():
            if any(name == p or ((p.endswith("/") or not p) and name.startswith(p)) for p in prefixes):
                yield name, fd
