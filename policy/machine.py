"""What lint has to know of a machine besides its rules: its services, who may write what they run, who is in a group.

Rule: these are facts, gathered in userapi/cli/offline/ground.py and handed in; nothing is looked up or decided here.
"""

from __future__ import annotations

import msgspec

NOBODY: frozenset[str] = frozenset()


class Place(msgspec.Struct, frozen=True):
    """Something that a service runs, reads or serves, and somebody besides root may change.

    at: what can be written: the path itself, a directory above it, or a link on the way. grave: who writes it decides
    what the service does; else what people believe of it.
    """

    what: str  # "its program", "its directory", …
    path: str  # as the service is given it
    at: str
    grave: bool = True
    users: frozenset[str] = NOBODY
    groups: frozenset[str] = NOBODY
    everybody: bool = False


class Service(msgspec.Struct, frozen=True):
    """groups: of services. root: in words, why it is as good as root; "" when it is not. brings: services that are
    started with it: those that it requires, and those that restart with it."""

    groups: tuple[str, ...] = ()
    user: str = ""
    root: str = ""
    places: tuple[Place, ...] = ()
    brings: tuple[str, ...] = ()


class Machine(msgspec.Struct, frozen=True):
    """users: all that are known by name, with their Unix groups; groups: with their members, as far as known.

    accounts: whether they were looked up at all: else a name that is not here may exist. own: Durward's accounts, with
    what each is for. peer: whether a local account may log in without a password. unseen: a service ("": none), and
    what could not be looked at, as a sentence; untold: the same of what its configuration does not say, to root either.
    """

    services: dict[str, Service]
    accounts: bool = False
    users: dict[str, frozenset[str]] = {}
    groups: dict[str, frozenset[str]] = {}
    own: dict[str, str] = {}
    peer: bool = False
    unseen: tuple[tuple[str, str], ...] = ()
    untold: tuple[tuple[str, str], ...] = ()
