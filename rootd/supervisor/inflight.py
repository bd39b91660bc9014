"""What is under way, and what has ended just now, as the next supervisor is to find it.

Rule 1: who was told a number learns what became of it, whichever supervisor is asked: what goes on is in the state file
        with the slots that it is about, what has ended in a file of its own, which is written first.
Rule 2: what was written and cannot be read is nothing: then a number is unknown, and no operation is invented.
Rule 3: nothing is decided here: how each goes on is undertakings' business, reload's and ending's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from policy.messages import Ended
from rootd.supervisor.files import UNREADABLE
from rootd.supervisor.operations import JOINED_LIMIT, Asker, Kind, Operation, Operations

ENDS = 256  # operations of which the end outlives a supervisor: more than one command asks for ahead
ROOM = 256 << 10  # bytes of them: a bad reload has many problems


class SavedOperation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One that is under way. What is about a slot is by its index; of a reload, active are numbers of operations."""

    number: int
    kind: Kind
    service: str
    requests: tuple[str, ...]
    began: float
    since: str
    born: int  # the number of the last event before it
    user: str = ""
    askers: tuple[Asker, ...] = ()
    down: bool = False
    processes: int = 0
    hard: bool = False
    spawned: bool = False
    active: tuple[int, ...] = ()
    pending: tuple[int, ...] = ()
    before: tuple[str, ...] = ()
    idle: tuple[int, ...] = ()
    taken_back: tuple[int, ...] = ()
    well: int = 0
    rolled_back: dict[int, str] = {}
    failures: tuple[str, ...] = ()
    cancelled: str = ""
    former: dict[int, tuple[int, ...]] = {}
    generation: int = 0
    result: str = ""


class SavedEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One that has ended."""

    kind: Kind
    since: str
    born: int
    end: Ended
    user: str = ""
    joined: int = 0
    askers: tuple[Asker, ...] = ()  # those for whom the outcome is not in the audit log yet


def save(operation: Operation) -> SavedOperation:
    """The state of one that is under way."""
    return SavedOperation(
        operation.number, operation.kind, operation.service, tuple(operation.requests), operation.began,
        operation.since, operation.born, operation.user, tuple(operation.askers), operation.down, operation.processes,
        operation.hard, operation.spawned, _sorted(operation.active), tuple(operation.pending),
        tuple(sorted(operation.before)), _sorted(operation.idle), _sorted(operation.taken_back), operation.well,
        operation.rolled_back, tuple(operation.failures), operation.cancelled, operation.former, operation.generation,
        operation.result,
    )  # fmt: skip


def _sorted(numbers: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(numbers))


def restored(saved: SavedOperation) -> Operation:
    operation = Operation(saved.number, saved.kind, saved.service, "", saved.began)
    operation.requests = list(saved.requests) or [""]
    operation.since, operation.born, operation.user = saved.since, saved.born, saved.user
    operation.askers, operation.down, operation.processes = list(saved.askers), saved.down, saved.processes
    operation.hard, operation.spawned, operation.well = saved.hard, saved.spawned, saved.well
    operation.active, operation.pending = set(saved.active), list(saved.pending)
    operation.before, operation.idle, operation.taken_back = set(saved.before), set(saved.idle), set(saved.taken_back)
    operation.rolled_back, operation.failures = dict(saved.rolled_back), list(saved.failures)
    operation.cancelled, operation.former = saved.cancelled, dict(saved.former)
    operation.generation, operation.result = saved.generation, saved.result
    return operation


class Ends:
    """The file of those that have ended. write: whole or not at all."""

    def __init__(self, operations: Operations, write: Callable[[bytes], None]) -> None:
        self._operations, self._write = operations, write
        self._kept = 0  # as many have ended as it tells of

    def restore(self, data: bytes) -> str:
        """What is wrong with it, "" when nothing is."""
        ended, problem = read_ends(data)
        self._operations.resume(ended)
        return problem

    def keep(self) -> None:
        """Before each state file: what is under way no more has ended."""
        if self._kept != self._operations.ends:
            self._kept = self._operations.ends
            self._write(save_ends(self._operations.over()))


def save_ends(ended: Iterable[Operation]) -> bytes:
    """The newest of them, as many as have room; ended: the oldest first."""
    lines, room = list[bytes](), ROOM
    for operation in list(ended)[: -ENDS - 1 : -1]:
        end = operation.events[-1]
        assert isinstance(end, Ended)
        joined = len(operation.requests) - 1
        line = msgspec.json.encode(
            SavedEnd(
                operation.kind, operation.since, operation.born, end, operation.user, joined, tuple(operation.askers)
            )
        )
        room -= len(line)
        if room < 0:
            break
        lines.append(line)
    return b"[" + b",".join(reversed(lines)) + b"]"


def read_ends(data: bytes) -> tuple[list[Operation], str]:
    """Those that were written, and a sentence on what is wrong with it ("" when nothing is)."""
    try:
        saved = msgspec.json.decode(data or b"[]", type=list[SavedEnd])
    except UNREADABLE as error:
        return [], f"the file of what has ended is damaged, and how operations ended is not known: {error}"
    found = []
    for one in saved:
        operation = Operation(one.end.operation, one.kind, one.end.service, "", 0.0)
        operation.requests *= 1 + min(max(one.joined, 0), JOINED_LIMIT)
        operation.since, operation.born, operation.user, operation.events = one.since, one.born, one.user, [one.end]
        operation.askers = list(one.askers)
        found.append(operation)
    return found, ""
