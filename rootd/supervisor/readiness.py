"""Which runs have said that they are ready, until the state file says so too: it is said once, and to one supervisor.

Rule 1: it is written down before it is taken from where it was said: killed in between, the next one finds it there.
Rule 2: a run is never again what it was, so one that is named here for too long does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from rootd.supervisor import states

if TYPE_CHECKING:
    from rootd.supervisor.instances import Instance

SAY = ("notify", "fd")  # the kinds of readiness that are said, and not looked for


class Readiness:
    """instances: by the run that they have. said: those runs."""

    def __init__(self, instances: Mapping[int, Instance]) -> None:
        self._instances = instances
        self._write: Callable[[bytes], None] = lambda text: None
        self.said = frozenset[int]()

    def attach(self, write: Callable[[bytes], None]) -> None:
        """write: the file, whole."""
        self._write = write

    def restore(self, data: bytes) -> str:
        """What the last supervisor wrote. Returns what is wrong with it, to be said loudly."""
        try:
            self.said = msgspec.json.decode(data or b"[]", type=frozenset[int])
        except msgspec.DecodeError as error:
            return f"the file of what has said that it is ready is damaged, and some may have to say it again: {error}"
        return ""

    def remember(self, run: int, said: bool) -> None:
        """Before READY=1 is taken from its socket, or anything from its pipe; said is False when it was no newline."""
        known = self.said | {run} if said else self.said - {run}
        if known != self.said and self._is_awaited(run):
            self.said = known
            self._write(msgspec.json.encode(sorted(known)))

    def saved(self) -> None:
        """The state file tells of all that is ready by now."""
        self.said = frozenset(filter(self._is_awaited, self.said))

    def _is_awaited(self, run: int) -> bool:
        """Whether it is to say so, and does not count as started yet."""
        instance = self._instances.get(run)
        starting = (states.Starting, states.Settling)
        return instance is not None and any(
            isinstance(part, starting) and part.process.run == run and part.process.spec.ready_kind in SAY
            for part in states.legs(instance.slot.state)
        )
