"""The end of the daemon: every service in its order, our own api last, then privileged is told.

Rule 1: a service is told to end when all that comes after it has ended, or will not end.
Rule 2: our own api ends when nothing else is left, so that whoever asked sees it happen.
Rule 3: it is never refused, however much is under way.
Rule 4: it begins by itself when a service has ended that exit_on names; then the daemon ends with that one's status.
"""

from __future__ import annotations

from collections.abc import Iterable

from policy.names import RESERVED
from rootd.supervisor import exits, mentions, states
from rootd.supervisor.instances import Instance
from rootd.supervisor.operations import Operation, Operations, verdict
from rootd.supervisor.order import Order
from rootd.supervisor.slots import Slots

FAILED = f"{mentions.COUNT} failed"


class Ending:
    """operation is None until the shutdown is asked for."""

    def __init__(self, slots: Slots, operations: Operations, order: Order) -> None:
        self.operation: Operation | None = None
        self.status = 0  # the exit status of the daemon
        self._slots, self._operations, self._order = slots, operations, order
        self._untold: set[str] = set()  # services that wait with their end for others
        self._left: list[Instance] = []  # those that had not ended at the last look at all of them

    def begin(self, request: str, names: Iterable[str], now: float) -> Operation:
        """names: the services that are to end, those that are to end first first."""
        self.operation = self._operations.begin("shutdown", "", request, now)
        left = [name for name in names if not name.startswith(RESERVED)]
        self._untold = set(left)
        for name in left:
            self._tell_in_turn(self.operation, name, now)
        self.look(now)
        return self.operation

    def recovered(self, status: int, now: float) -> None:
        """The last supervisor was at it: recovery has told every slot."""
        self.status = status
        if self.operation is None:
            going = (one for one in self._operations.live() if one.kind == "shutdown")
            self.operation = next(going, None) or self._operations.begin("shutdown", "", "", now)

    def loaded(self, now: float) -> None:
        """Another configuration counts: who waits for whom may be otherwise now."""
        if self.operation is not None:
            for name in list(self._untold):
                self._tell_in_turn(self.operation, name, now)

    def happened(self, instance: Instance, now: float) -> None:
        """Something has happened to this slot."""
        if self.operation is None:
            return
        if self._untold and verdict(self.operation, instance.slot, now) is not None:
            for name in self._order.earlier(instance.spec.name):
                if name in self._untold:
                    self._tell_in_turn(self.operation, name, now)
        self.look(now)

    def last_words(self, instance: Instance) -> str:
        """Why the daemon is to end, when this slot's service has ended for good; else "". The status is noted."""
        there = self._slots.configured(instance.spec.name)
        over = (states.Exited, states.Fatal)
        if self.operation is not None or not instance.spec.exit_on or not self._slots.live:
            return ""
        if not there or not all(isinstance(one.slot.state, over) for one in there):
            return ""
        codes = [exits.status_of(one.end, isinstance(one.slot.state, states.Fatal)) for one in there]
        self.status = next((code for code in codes if code), 0)
        how = instance.last_exit or states.reason(states.shown(instance.slot.state))
        return f"{instance.spec.name} has ended ({how}), and exit_on says that all ends then: exit status {self.status}"

    def look(self, now: float) -> None:
        """How far it is."""
        operation = self.operation
        if operation is None or operation.ended or not self._slots.live:
            return
        while self._left and verdict(operation, self._left[-1].slot, now) is not None:
            self._left.pop()
        if self._left:
            return  # one has not ended: there is no need to look at a thousand for each event of a thousand
        left = [one for one in self._slots.instances.values() if verdict(operation, one.slot, now) is None]
        self._left = [one for one in left if not one.spec.name.startswith(RESERVED)]
        if left and not self._left and all(one.slot.wanted == "up" for one in left):
            for instance in left:
                self._slots.apply(instance, states.StopAsked(), now)
        elif not left:
            for one in self._slots.instances.values():
                if why := verdict(operation, one.slot, now):
                    operation.failures.append(mentions.mark(one.spec.name, f"{one.label}: {why}", FAILED))
            failed = "; ".join(operation.failures)
            self._slots.shut_down(self.status)
            self._operations.end(operation, not failed, failed or "all services stopped", now)

    def _tell_in_turn(self, operation: Operation, name: str, now: float) -> None:
        later = [one for other in self._order.later(name) for one in self._slots.of(other)]
        if name in self._untold and all(verdict(operation, one.slot, now) is not None for one in later):
            self._untold.discard(name)
            for instance in self._slots.of(name):
                self._slots.apply(instance, states.StopAsked(), now)
