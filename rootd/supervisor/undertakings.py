"""What is under way: the starts, stops, restarts and scalings of services, how each begins, is followed, and ends.

Rule 1: one is under way a service: a second one joins it, ends it, or is refused with words. A restart that is asked
        when one has started a process already waits for that, and those after it join it. A scaling waits for nobody.
Rule 2: every one that has begun ends: with what its slots came to, or by what was asked meanwhile. Who cancels one gets
        no more by it than by asking for it: nothing that serves ends, but what it has itself begun.
Rule 3: who may ask, and whether it makes sense, is said before: by the desk, and by services.

Times are seconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rootd.config.specs import ServiceSpec
from rootd.supervisor import states
from rootd.supervisor.instances import Instance, counted
from rootd.supervisor.operations import Kind, Operation, Operations, Refusal, verdict
from rootd.supervisor.slots import Slots

_PAST: dict[Kind, str] = {"start": "started", "stop": "stopped", "restart": "restarted", "scale": "scaled"}


class Undertakings:
    """specs: what is configured, by name; services says it at each load."""

    def __init__(self, operations: Operations, slots: Slots) -> None:
        self.specs: Mapping[str, ServiceSpec] = {}
        self._operations, self._slots = operations, slots
        self._busy: dict[str, Operation] = {}  # what is under way of a service
        self._waiting: dict[str, Operation] = {}  # the restart of a service that begins when the one under way is over

    def is_busy(self, name: str) -> bool:
        return name in self._busy

    def is_stopping(self, name: str) -> bool:
        return name in self._busy and self._busy[name].kind == "stop"

    # -- how it begins ---------------------------------------------------------------------------------------

    def begin(
        self, kind: Kind, name: str, instances: list[Instance], now: float, request: str, hard: bool = False,
        before: Iterable[str] = (),
    ) -> int:  # fmt: skip
        """Join what goes on already, wait for it, or end it; then begin."""
        current = self._waiting.get(name) or self._busy.get(name)
        if current is not None:
            if hard and current.kind == "restart" and not current.hard:
                going = f"a rolling restart of {name} is under way: operation {current.number}"
                raise Refusal("conflict", f"{going}; wait for it, or stop {name} first")
            late = (kind == "restart" and current.spawned) or current.cancelled
            if not late and (current.kind == kind or (kind == "start" and current.kind == "restart")):
                return current.join(request)
        operation = self._operations.begin(kind, name, request, now)
        operation.hard = hard
        if current is not None and current.kind == kind == "restart":
            self._waiting[name] = operation
            self._operations.step(operation, f"waits for operation {current.number}")
            return operation.number
        self.leave(name, now, f"{kind} was asked for meanwhile")
        self._busy[name] = operation
        if kind == "restart":
            return self._restart(operation, instances, now)
        operation.before = {other for other in before if self.is_stopping(other)}
        if operation.before:
            count = len(operation.before)  # their names are for who may view them: those see it of each
            many = f"the {count} services that require it have" if count > 1 else "the service that requires it has"
            self._operations.step(operation, f"waits until {many} stopped")
        else:
            self.tell(operation, instances, now)
        return operation.number

    def begin_scaling(self, name: str, processes: int, down: bool, now: float, request: str) -> Operation:
        """Nothing is told yet: `tell` says which slots it is about. Raises Refusal while something is under way."""
        current = self._waiting.get(name) or self._busy.get(name)
        if current is not None:
            raise Refusal("conflict", f"a {current.kind} of {name} is under way: operation {current.number}")
        operation = self._busy[name] = self._operations.begin("scale", name, request, now)
        operation.processes, operation.down = processes, down
        return operation

    def joined(self, name: str, processes: int, request: str) -> int:
        """The number of the scaling to just so many that is under way, which it joins; 0 when there is none."""
        current = self._busy.get(name)
        if current is None or current.processes != processes or current.cancelled:
            return 0
        return current.join(request)

    def begin_if_possible(self, kind: Kind, name: str, now: float, before: Iterable[str] = ()) -> int:
        """What follows from something else: 0 where it is refused, which the service then shows by what it is.

        What is no longer configured is stopped without an operation then: nobody could stop it any more.
        """
        is_removed = kind == "stop" and name not in self.specs
        instances = [one for one in self._slots.of(name) if one.removed == is_removed]
        try:
            return self.begin(kind, name, instances, now, "", before=before)
        except Refusal:
            if is_removed:
                self.leave(name, now, "it is no longer configured")
                for instance in instances:
                    self._slots.apply(instance, states.StopAsked(), now)
            return 0

    def to_restart(self, name: str) -> bool:
        """Of what changed: what is wanted, but for what has done its work, is at it, or has its times."""
        if name in self.specs and self.specs[name].schedule is not None:
            return False
        slots = [instance.slot for instance in self._slots.of(name)]
        return any(slot.wanted == "up" and not isinstance(slot.state, states.Exited | states.Working) for slot in slots)

    def tell(self, operation: Operation, instances: list[Instance], now: float) -> None:
        """A start, stop or scaling goes to its slots."""
        event = states.StopAsked() if operation.down else states.StartAsked()
        operation.active = {instance.index for instance in instances}
        for instance in instances:
            self._join(operation, instance)
        if not instances:
            self._finish(operation, now)
        for instance in instances:
            self._slots.apply(instance, event, now)

    def _join(self, operation: Operation, instance: Instance) -> None:
        instance.operation = operation
        if isinstance(instance.slot.state, states.Stopped | states.Exited | states.Fatal):
            operation.idle.add(instance.index)

    def _restart(self, operation: Operation, instances: list[Instance], now: float) -> int:
        operation.pending = [instance.index for instance in instances]
        self._next(operation, now)
        return operation.number

    # -- how it goes on --------------------------------------------------------------------------------------

    def _next(self, operation: Operation, now: float) -> None:
        """The next slot of a restart, or its end."""
        most = self.specs[operation.service].max_unavailable if operation.service in self.specs else 1
        while operation.pending and len(operation.active) < most:
            instance = self._slots.instances.get((operation.service, operation.pending.pop(0)))
            if instance is not None and not instance.removed:
                operation.active.add(instance.index)
                operation.former[instance.index] = tuple(states.runs(instance.slot.state))
                self._join(operation, instance)
                self._slots.apply(instance, states.RestartAsked(operation.hard), now)
        if not operation.active and not operation.pending:
            self._finish(operation, now)

    def follow(self, instance: Instance, effects: tuple[states.Effect, ...], now: float) -> None:
        """After each event of a slot."""
        operation = instance.operation
        if operation is None:
            return
        for effect in effects:
            if isinstance(effect, states.RollFailed):
                why = f"the new process: {effect.reason}; the old one keeps serving"
                operation.rolled_back.setdefault(instance.index, why)
                self._operations.step(operation, instance.says(why))
            elif isinstance(effect, states.Say | states.Ended):
                self._operations.step(operation, instance.says(effect.text))
            operation.spawned |= isinstance(effect, states.Spawn)
            operation.spawned |= isinstance(effect, states.RunHook) and effect.hook == "pre-start"
        found = verdict(operation, instance.slot, now, instance.index, instance.spec.ready_kind == "exit")
        if found is None:
            return
        instance.operation = None
        operation.active.discard(instance.index)
        operation.well += not found
        if found:
            operation.failures += [] if instance.index in operation.taken_back else [instance.says(found)]
            operation.pending.clear()
        self._next(operation, now)

    # -- how it is taken up by another supervisor ------------------------------------------------------------

    def resume(self, same: bool, now: float) -> None:
        """What the last supervisor had under way goes on, with the slots as they were found. same: of this daemon."""
        going = []
        for operation in self._operations.live():
            if not same:
                self._operations.end(operation, False, "the daemon was started anew meanwhile: see the status", now)
            elif operation.kind == "signal":
                lost = "the supervisor was started again before it was told whether the signal was sent"
                self._operations.end(operation, False, f"{lost}: look at the deeds in the audit log", now)
            elif operation.kind in _PAST:
                self._operations.step(operation, "the supervisor was started again: this goes on")
                waits = operation.kind == "restart" and not operation.active and not operation.pending
                (self._waiting if waits else self._busy)[operation.service] = operation
                going.append(operation)
        for operation in going:
            if self._busy.setdefault(operation.service, operation) is operation and not operation.ended:
                self._take_up(operation, now)

    def _take_up(self, operation: Operation, now: float) -> None:
        name = operation.service
        if self._waiting.get(name) is operation:  # what it has waited for is over
            del self._waiting[name]
            self._restart(operation, self._slots.configured(name), now)
            return None
        there = {instance.index: instance for instance in self._slots.of(name)}
        if name not in self.specs and not operation.down:
            return self._finish(operation, now, "it is no longer configured")
        if operation.before:
            operation.before = {other for other in operation.before if self.is_stopping(other)}
            return None if operation.before else self.tell(operation, list(there.values()), now)
        gone = operation.active - there.keys()
        operation.active -= gone
        operation.well += len(gone)
        found = [there[index] for index in sorted(operation.active)]
        for instance in found:
            instance.operation = operation
        for instance in found:
            if operation.kind == "restart" and _is_untouched(operation, instance):
                self._slots.apply(instance, states.RestartAsked(operation.hard), now)
            else:
                self.follow(instance, (), now)
        if not operation.ended and not operation.active:
            self._next(operation, now)
        return None

    # -- how it is taken back --------------------------------------------------------------------------------

    def reversible(self, operation: Operation) -> list[Instance]:
        """Those of its slots that can be as they were before, the highest first, without ending what serves.

        Who may start or restart gets no stop by it: of what was to run before anyhow, nothing is taken back.
        """
        slots = [one for one in reversed(self._slots.of(operation.service)) if one.operation is operation]
        able = [one for one in slots if _is_reversible(operation, one)]
        if operation.kind == "scale":  # those that stay are numbered without a gap
            able = [one for at, one in enumerate(able) if one.index == operation.processes - 1 - at]
        return able

    def cancel(self, operation: Operation, slots: list[Instance], why: str, now: float) -> None:
        """slots: the reversible ones. What has begun and cannot be undone goes on, and the operation ends after it.

        Raises Refusal when all of it is so.
        """
        name = operation.service
        if operation is self._waiting.get(name) or operation.before:
            if operation is self._waiting.get(name):
                del self._waiting[name]
            return self._finish(operation, now, why)
        if not slots and not operation.pending:
            raise Refusal("conflict", _too_late(operation))
        operation.cancelled = why
        operation.taken_back |= {instance.index for instance in slots}
        operation.pending.clear()
        for instance in slots:
            self._slots.apply(instance, states.Cancelled(), now)
        return None

    # -- how it ends -----------------------------------------------------------------------------------------

    def leave(self, name: str, now: float, why: str) -> None:
        """End what is under way, and what waits for that."""
        for operation in (self._waiting.pop(name, None), self._busy.get(name)):
            if operation is not None:
                self._finish(operation, now, why)

    def leave_all(self, now: float, why: str) -> None:
        for name in list(self._busy):
            self.leave(name, now, why)

    def _finish(self, operation: Operation, now: float, why: str = "") -> None:
        """End a start, stop, restart or scaling: well, or with what failed."""
        if operation.ended:
            return
        if self._busy.get(operation.service) is operation:
            del self._busy[operation.service]
        for instance in self._slots.of(operation.service):
            if instance.operation is operation:
                instance.operation = None
        operation.active.clear()
        operation.pending.clear()
        failed = [why] if why else [*_left(operation), *operation.failures]
        name, past = operation.service, _PAST[operation.kind]
        no = f"was not {past}"
        if name in self.specs and self.specs[name].ready_kind == "exit" and not operation.down:
            past, no = "done", "failed"  # its end is what was waited for
        well = f"{name}: {counted(operation.processes)}" if operation.kind == "scale" else f"{name} {past}"
        text = f"{name} {no}: {'; '.join(failed)}" if failed else well
        self._operations.end(operation, not failed, text, now)
        if operation.kind == "stop":
            self._stopped_first(name, bool(failed), now)
        if operation.kind == "restart" and not failed:
            for other in [spec.name for spec in self.specs.values() if name in spec.restart_with]:
                if self.to_restart(other):
                    self.begin_if_possible("restart", other, now)
        waiting = self._waiting.pop(name, None)
        if waiting is not None:
            self._busy[name], waiting.began = waiting, now
            self._restart(waiting, self._slots.configured(name), now)

    def _stopped_first(self, name: str, failed: bool, now: float) -> None:
        """A stop is over, well or not: those that have waited for it."""
        for operation in [one for one in self._busy.values() if name in one.before]:
            operation.before.discard(name)
            if failed:
                self._finish(operation, now, "a service that requires it was not stopped")
            elif not operation.before:
                self.tell(operation, self._slots.of(operation.service), now)


def _is_untouched(operation: Operation, instance: Instance) -> bool:
    """Whether nothing of its restart is to be seen: it was not asked of privileged any more, or has left nothing."""
    state, former = instance.slot.state, operation.former.get(instance.index, ())
    serves = isinstance(state, states.Starting | states.Working | states.Settling | states.Running)
    return serves and instance.index not in operation.rolled_back and states.runs(state).keys() <= {*former}


def _is_reversible(operation: Operation, instance: Instance) -> bool:
    match instance.slot.state:
        case states.Waiting() | states.Preparing(next=None):
            return instance.index in operation.idle
        case states.Replacing(
            states.Running(),
            states.Preparing(next=None) | states.Spawning(cancelled=False) | states.Starting() | states.Settling(),
        ):
            return operation.kind == "restart"
        case _:
            return False


def _too_late(operation: Operation) -> str:
    name = operation.service
    if operation.kind == "restart":
        return f"{name} is being restarted already, and nothing of that can be taken back: it goes on to its end"
    if operation.kind == "scale":
        return (
            f"the processes of {name} are told to {'end' if operation.down else 'start'} already: scale it again then"
        )
    if operation.kind == "stop":
        return f"{name} is told to end already: it can be started"
    return f"{name} is starting already: it can be stopped"


def _left(operation: Operation) -> list[str]:
    """Of what was cancelled: by whom, and what there is now."""
    if not operation.cancelled:
        return []
    said = [operation.cancelled]
    if operation.taken_back & operation.rolled_back.keys():
        said.append("the old process keeps serving" if len(operation.taken_back) == 1 else "the old ones keep serving")
    if operation.kind == "scale":
        said.append(f"it is to have {counted(operation.processes)}")
    elif operation.well:
        said.append(f"{counted(operation.well)} {'was' if operation.well == 1 else 'were'} {_PAST[operation.kind]}")
    return said
