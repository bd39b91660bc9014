"""What the supervisor tells those who watch: part of the contract (policy/messages), a packet each.

Rule 1: an event that is about a service goes to nobody who may not view it.
Rule 2: number counts all events, also those that are not for everybody: who watches resumes by it.
"""

from __future__ import annotations

import msgspec

from policy.shown import Problem


class _Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is"):
    pass


class Changed(_Event, frozen=True, tag="changed"):
    """A process changed its state."""

    number: int  # the event's sequence number
    time: str
    service: str
    process: str
    state: str
    pid: int
    text: str = ""


class Step(_Event, frozen=True, tag="step"):
    """An operation went on: starting, ready, old stopped, …"""

    number: int
    time: str
    operation: int
    service: str
    text: str


class Ended(_Event, frozen=True, tag="ended"):
    """An operation is over."""

    number: int
    time: str
    operation: int
    service: str
    ok: bool
    text: str  # "site restarted", or why not
    seconds: float
    problems: list[Problem] = []
    mark: str = ""  # of a reload that has only shown what would change: of exactly that


class Lapsed(_Event, frozen=True, tag="lapsed"):
    """What waited for a second person waits no more: nobody agreed in time, or the asker took it back."""

    number: int
    time: str
    approval: int
    service: str
    text: str  # "approval 3 expired: nobody approved in time: stop site"


class Watching(_Event, frozen=True, tag="watching"):
    """The watch has begun: of what has this number or a lower one, there is nothing more to tell."""

    number: int


class Missed(_Event, frozen=True, tag="missed"):
    """Events since `after` that cannot be told any more. The number is that of the last one; what follows is whole."""

    number: int
    text: str  # "event 40 is too old: only later ones than event 96 are kept. …"


class Dropped(_Event, frozen=True, tag="dropped"):
    """This watcher did not read and lost events; the connection ends. Watch again after the number."""

    text: str
    number: int  # of the last event that was sent to it
