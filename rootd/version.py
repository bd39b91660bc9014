"""Which version this program is, and which versions of what it writes it can read.

Rule 1: who changes a form so that the last version could not read it counts its number up; who stops reading an old
        one counts OLDEST up. Nothing else compares versions.
Rule 2: a program takes over from a running one only if it can read all that that one writes (rootd/trial).
"""

from __future__ import annotations

VERSION = "0.1.0"
BUILD = ""  # the installer writes here what it has installed: the beginning of a hash over the files

# what outlives a part: its version, and the oldest that is read. Each number is its owner's (tests/rootd/test_version).
FORMATS: dict[str, tuple[int, int]] = {
    "keeper": (1, 1),  # keeper/manifest: what one keeper tells the next
    "store": (1, 1),  # names and contents of the descriptors: processes, pipes, sockets, tables, settings
    "state": (1, 1),  # supervisor/recover: what was asked for
    "sessions": (1, 1),  # auth/table
    "audit": (1, 1),  # log/chain
    "spool": (1, 1),  # log/spool: what was on its way
}


def spelled() -> str:
    """For people."""
    return f"{VERSION}+{BUILD}" if BUILD else VERSION


def written() -> dict[str, int]:
    return {name: number for name, (number, _) in FORMATS.items()}
