"""A signal that somebody asked for: to each main process of a service, as far as its configuration allows."""

from __future__ import annotations

import os
import signal
from functools import partial

from rootd.supervisor import states
from rootd.supervisor.instances import Instance
from rootd.supervisor.operations import Operation, Operations, Refusal
from rootd.supervisor.slots import Slots


def begin(
    slots: Slots, operations: Operations, instances: list[Instance], signame: str, now: float, request: str
) -> int:
    """signame is without SIG. The number of the operation. Raises Refusal."""
    spec = instances[0].spec
    if signame not in spec.signals:
        allowed = ", ".join(spec.signals) or "no signal"
        raise Refusal("invalid", f"{spec.name} may not be sent {signame}: its configuration allows {allowed}")
    targets = [(one, process.run) for one in instances for process in states.alive(one.slot.state)]
    if not targets:
        raise Refusal("not-running", f"{spec.name} is not running")
    if any(slots.full(instance) for instance, _ in targets):
        raise Refusal("later", f"too much waits to be done to {spec.name}; try again later")
    operation = operations.begin("signal", spec.name, request, now)
    operation.active |= {run for _, run in targets}
    number = signal.Signals[f"SIG{signame}"].value
    for instance, run in targets:
        slots.send(instance, run, number, partial(_sent, operations, operation, signame, instance.label, run))
    return operation.number


def _sent(
    operations: Operations, operation: Operation, signame: str, label: str, run: int, number: int, now: float
) -> None:
    """number: the errno, 0 when it was sent."""
    operation.active.discard(run)
    if number:
        operation.failures.append(f"{label}: {os.strerror(number)}")
    if not operation.active:
        failed = "; ".join(operation.failures)
        text = f"{signame} was not sent: {failed}" if failed else f"{signame} sent to {operation.service}"
        operations.end(operation, not failed, text, now)
