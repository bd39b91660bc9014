"""What became of what was asked for, to the audit log: the steps of an operation, and an outcome for each who asked.

Rule 1: each who asked or joined gets an outcome of his own, with the id of his request; it is due until it is on disk.
Rule 2: who asked is the operation's own (operations.Asker), so what is due outlives a supervisor.
"""

from __future__ import annotations

from functools import partial

from policy.messages import Ended, Step
from rootd.supervisor.auditing import Audit, Then
from rootd.supervisor.control import Connection
from rootd.supervisor.operations import Asker, Operation, Operations

JOINED = 100  # requests that a record of a step names


class Outcomes:
    """Between the operations and the audit log."""

    def __init__(self, operations: Operations, audit: Audit) -> None:
        self._operations, self._audit = operations, audit
        self._hearing: dict[int, list[Connection]] = {}  # who has asked for an operation that goes on

    def accept(self, operation: Operation, asker: Asker, connection: Connection) -> None:
        """Somebody has asked for it; it may have ended at once."""
        self._operations.asked(operation, asker)
        self._hearing.setdefault(operation.number, []).append(connection)
        if operation.ended:
            self._tell(operation, asker)

    def tell(self, operation: Operation | None) -> None:
        """It has ended: also when another supervisor was there, which log may not have heard."""
        if operation is not None:
            self._heard(operation)
            for asker in [*operation.askers]:
                self._tell(operation, asker)

    def step(self, step: Step) -> None:
        """Of what somebody has asked for; where the log does not keep up, steps are left out before anything else."""
        operation = self._operations.find(step.operation)
        ids = [one for one in operation.requests if one] if operation is not None else []
        if not ids or self._audit.is_crowded:
            return
        body = {"kind": "step", "id": ids[0], "operation": step.operation, "service": step.service, "text": step.text}
        self._audit.record(body if len(ids) == 1 else {**body, "ids": ids[:JOINED]})

    def record(
        self, asker: Asker, operation: int, ok: bool, result: str, took: float, then: Then | None = None, **more: str
    ) -> None:
        body = {
            "kind": "outcome", "id": asker.id, "operation": operation, "action": asker.action,
            "target": asker.service or "", "ok": ok, "result": result, "seconds": took, **more,
        }  # fmt: skip
        self._audit.record(body, then)

    def _tell(self, operation: Operation, asker: Asker) -> None:
        end = self._heard(operation)
        on_disk = partial(self._operations.recorded, operation, asker)
        more = {"command": "upgrade"} if operation.kind == "upgrade" else {}  # whose right is that to something else
        self.record(asker, operation.number, end.ok, end.text, end.seconds, on_disk, **more)

    def _heard(self, operation: Operation) -> Ended:
        """Its end, which who has asked over a connection that listens for it is told."""
        end = operation.events[-1]
        assert isinstance(end, Ended)
        for connection in self._hearing.pop(operation.number, ()):
            connection.over(end)
        return end
