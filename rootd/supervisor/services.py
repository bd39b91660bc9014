"""All services: what is configured, what people want of it, and how it goes.

Rule 1: what happens to a slot is slots' and lifecycle's business; here an operation is begun, followed and ended.
Rule 2: one start, stop or restart is under way a service: a second one joins it, ends it, or is refused with words. A
        restart that is asked when one has started a process already waits for that, and those after it join it.
Rule 3: no clock, no I/O: time is an argument, effects go out by `perform`, events by `publish`.

Times are seconds of CLOCK_BOOTTIME. A service of several processes has its slots named site:0, site:1, …
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from policy.messages import Changed, Description, Ended, ServiceInfo, Step
from policy.names import RESERVED
from rootd import ipc
from rootd.config.specs import ServiceSpec
from rootd.supervisor import recover, signalling, states
from rootd.supervisor.ending import Ending
from rootd.supervisor.instances import Instance, service_info
from rootd.supervisor.monitor import Prober
from rootd.supervisor.operations import Already, Kind, Operation, Operations, Refusal, verdict
from rootd.supervisor.order import Order
from rootd.supervisor.perform import Request
from rootd.supervisor.slots import Slots

__all__ = ["Already", "LoadReport", "Refusal", "Services"]

_PAST: dict[Kind, str] = {"start": "started", "stop": "stopped", "restart": "restarted"}


class LoadReport(NamedTuple):
    """What a configuration changed. operations: the starts, stops and restarts that it began, by service."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    operations: dict[str, int]


class Services:
    """perform: Performer.perform. publish: events for watchers and the audit log. wall: the time for people."""

    def __init__(
        self,
        perform: Callable[[Request], None],
        publish: Callable[[Changed | Step | Ended], None],
        wall: Callable[[], str],
        prober: Prober,
        place: str,
    ) -> None:
        self.operations = Operations(publish, wall)
        self._slots = Slots(perform, self._told, self.operations.changed, wall, prober, place)
        self.order = Order(self._configured, self._slots.apply, partial(self._begin_if_possible, "start"))
        self._specs: dict[str, ServiceSpec] = {}
        self._busy: dict[str, Operation] = {}  # the start, stop or restart of a service
        self._saved = recover.Saved()
        self._waiting: dict[str, Operation] = {}  # the restart of a service that begins when the one under way is over
        self._ending = Ending(self._slots, self.operations, self.order)

    # -- what is configured ----------------------------------------------------------------------------------

    def known(self, generation: int, specs: Iterable[ServiceSpec]) -> None:
        """An older configuration of which processes may still run: told before facts_done."""
        self._slots.known(generation, specs)

    def load(self, specs: Iterable[ServiceSpec], generation: int, now: float) -> LoadReport:
        """From now on this is the configuration. What did not change is not touched; what changed and is wanted is
        restarted, rolling where that can be. Before the first facts nothing is done."""
        stamped = (spec._replace(generation=generation) for spec in sorted(specs, key=lambda spec: spec.priority))
        old, self._specs = self._specs, {spec.name: spec for spec in stamped}
        new, self._slots.generation = self._specs, generation
        self._slots.known(generation, new.values())
        if not self._slots.live:
            self.order.load(new, now)
            return LoadReport((), (), (), {})
        added = tuple(name for name in new if name not in old)
        removed = tuple(name for name in old if name not in new)
        changed = tuple(name for name in new if name in old and new[name].digest != old[name].digest)
        begin: dict[str, Kind] = dict.fromkeys(removed, "stop")
        begin |= dict.fromkeys((name for name in added if new[name].autostart), "start")
        begin |= dict.fromkeys(filter(self._to_restart, changed), "restart")
        surplus = self._adopt(new)
        self.order.load(new, now)
        if self._ending.operation is not None:
            begin.clear()
        begun = {name: self._begin_if_possible(kind, name, now) for name, kind in begin.items()}
        for instance in surplus:
            self._slots.apply(instance, states.StopAsked(), now)
        return LoadReport(added, removed, changed, {name: number for name, number in begun.items() if number})

    def _to_restart(self, name: str) -> bool:
        """Of what changed: what is wanted, and has not done its work and ended."""
        slots = [instance.slot for instance in self._slots.of(name)]
        return any(slot.wanted == "up" and not isinstance(slot.state, states.Exited) for slot in slots)

    def _adopt(self, specs: dict[str, ServiceSpec]) -> list[Instance]:
        """Give each slot its new configuration. Returns those that are too many now, of services that stay."""
        surplus = []
        for instance in self._slots.instances.values():
            spec = specs.get(instance.spec.name)
            instance.removed = spec is None or instance.index >= spec.processes
            if spec is not None:
                instance.spec = spec
                surplus += [instance] if instance.removed else []
        for spec in specs.values():
            for index in range(spec.processes):
                if (spec.name, index) not in self._slots.instances:
                    self._slots.add(spec, index)
        return surplus

    def _begin_if_possible(self, kind: Kind, name: str, now: float, before: Iterable[str] = ()) -> int:
        """What follows from something else: 0 where it is refused, which the service then shows by what it is.

        What is no longer configured is stopped without an operation then: nobody could stop it any more.
        """
        is_removed = kind == "stop" and name not in self._specs
        instances = [one for one in self._slots.of(name) if one.removed == is_removed]
        try:
            return self._begin(kind, name, instances, now, "", before=before)
        except Refusal:
            if is_removed:
                self._leave(name, now, "it is no longer configured")
                for instance in instances:
                    self._slots.apply(instance, states.StopAsked(), now)
            return 0

    # -- recovery --------------------------------------------------------------------------------------------

    def restore(self, data: bytes) -> str:
        """What the last supervisor wrote. Returns what is wrong with it, to be said loudly; then facts count alone."""
        self._saved, problem = recover.read(data)
        self.operations.last, self.operations.events = self._saved.operation, self._saved.event
        return problem

    @property
    def revision(self) -> int:
        """Another number whenever state() may say something else."""
        return self._slots.revision + self.operations.events

    def state(self) -> bytes:
        """What the next supervisor will not learn from facts."""
        if not self._slots.live:
            return recover.write(replace(self._saved, event=self.operations.events))
        slots = {f"{name}:{index}": one.save() for (name, index), one in self._slots.instances.items()}
        numbers = self.operations.last, self.operations.events
        return recover.write(recover.Saved(recover.VERSION, self._ending.operation is not None, *numbers, slots))

    def fact(self, message: ipc.Message, now: float) -> None:
        """A run that is not over; nothing follows from it before facts_done."""
        self._slots.fact(message)

    def facts_done(self, now: float) -> None:
        """All facts of a privileged that was linked have been told, and load has said what is configured."""
        saved, self._saved = self._saved, recover.Saved()
        if saved.ending and self._slots.no_facts():
            saved = recover.Saved()  # of a daemon that was shut down
        if saved.ending:
            self._ending.recovered(now)
        with self.order.at_once(now):
            self._slots.facts_done(self._specs.values(), saved, self._ending.operation is not None, now)
        self._ending.look(now)

    # -- what is shown ---------------------------------------------------------------------------------------

    def names(self) -> tuple[str, ...]:
        """The configured services, without our own."""
        return tuple(name for name in self._specs if not name.startswith(RESERVED))

    def wanted(self, name: str) -> bool:
        return any(one.slot.wanted == "up" for one in self._configured(name))

    def groups_of(self, name: str) -> tuple[str, ...]:
        """Raises KeyError."""
        return self._specs[name].groups

    def info(self, name: str) -> ServiceInfo:
        """Raises KeyError."""
        return service_info(self._specs[name], self._configured(name))

    def description(self, name: str) -> Description:
        """Raises KeyError."""
        spec = self._specs[name]
        exits = sorted((end for instance in self._configured(name) for end in instance.exits), reverse=True)
        return Description(self.info(name), dict(spec.settings), list(spec.sockets), exits)

    def operation_events(self, operation: int) -> list[Step | Ended]:
        """Everything that an operation has said; empty when it is unknown."""
        found = self.operations.find(operation)
        return list(found.events) if found else []

    # -- what is asked ---------------------------------------------------------------------------------------

    def start(self, name: str, now: float, request: str) -> int:
        """The number of the operation. Raises Refusal; Already when it runs."""
        instances = self._asked(name)
        serving = (states.Running, states.Replacing)
        if name not in self._busy and all(isinstance(one.slot.state, serving) for one in instances):
            raise Already(f"{name} is already running")
        for other in self.order.failed(name):
            self._begin_if_possible("start", other, now)
        return self._begin("start", name, instances, now, request)

    def stop(self, name: str, now: float, request: str, before: Iterable[str] = ()) -> int:
        """The number of the operation. before: services that are stopped too, and have to be stopped first.

        Raises Refusal; Already when nothing of it runs or is to run again.
        """
        instances = self._asked(name, even_ending=True)
        ended = (states.Stopped, states.Exited)
        if name not in self._busy and all(isinstance(one.slot.state, ended) for one in instances):
            for instance in instances:
                self._slots.apply(instance, states.StopAsked(), now)
            raise Already(f"{name} is not running")
        for other in [other for other in before if not self._is_stopping(other)]:
            self._begin_if_possible("stop", other, now, self.order.dependants(other))
        return self._begin("stop", name, instances, now, request, before=before)

    def restart(self, name: str, now: float, request: str, hard: bool = False) -> int:
        """The number of the operation. What does not run is started. Raises Refusal."""
        return self._begin("restart", name, self._asked(name), now, request, hard)

    def signal(self, name: str, signame: str, now: float, request: str) -> int:
        """signame is without SIG. The number of the operation. Raises Refusal."""
        return signalling.begin(self._slots, self.operations, self._asked(name), signame, now, request)

    def stop_all(self, now: float, request: str) -> int:
        """Stop everything, our own api last, then end the daemon."""
        if self._ending.operation is not None:
            return self._ending.operation.join(request)
        for name in list(self._busy):
            self._leave(name, now, "the daemon is being shut down")
        names = dict.fromkeys((*self._specs, *(one.spec.name for one in self._slots.instances.values())))
        return self._ending.begin(request, reversed(names), now).number

    # -- what happens ----------------------------------------------------------------------------------------

    def event(self, message: ipc.Message, now: float) -> None:
        """SPAWNED, EXITED, EMPTY or DONE of privileged; a DONE of others' requests is ignored."""
        self._slots.event(message, now)

    def notified(self, run: int, payload: dict[str, str], now: float) -> None:
        """What a service said by sd_notify(3)."""
        self._slots.notified(run, payload, now)

    def probed(self, number: int, problem: str, now: float) -> None:
        """The probe process has looked: problem is "" when all was well."""
        self._slots.monitor.answered(number, problem, now)

    def probe_away(self, now: float) -> None:
        """The probe process is started again."""
        self._slots.monitor.away(now)

    def main_pid(self, run: int) -> int:
        """0 when there is no such run."""
        return self._slots.main_pid(run)

    def wake_at(self) -> float | None:
        return self._slots.wake_at()

    def wake(self, now: float) -> None:
        self._slots.wake(now)

    # -- operations ------------------------------------------------------------------------------------------

    def _configured(self, name: str) -> list[Instance]:
        """Found by its names, not among all: somebody asks this about each of a thousand services."""
        slots, count = self._slots.instances, self._specs[name].processes if name in self._specs else 0
        return [slots[name, index] for index in range(count) if (name, index) in slots]

    def _asked(self, name: str, even_ending: bool = False) -> list[Instance]:
        if self._ending.operation is not None and not even_ending:
            raise Refusal("conflict", "durward is shutting down")
        instances = self._configured(name)
        if not instances:
            raise Refusal("unknown", f"there is no service '{name}'")
        return instances

    def _begin(
        self, kind: Kind, name: str, instances: list[Instance], now: float, request: str, hard: bool = False,
        before: Iterable[str] = (),
    ) -> int:  # fmt: skip
        """Join what goes on already, wait for it, or end it; then begin."""
        current = self._waiting.get(name) or self._busy.get(name)
        if current is not None:
            if hard and current.kind == "restart" and not current.hard:
                going = f"a rolling restart of {name} is under way: operation {current.number}"
                raise Refusal("conflict", f"{going}; wait for it, or stop {name} first")
            late = kind == "restart" and current.spawned
            if (current.kind == kind and not late) or (kind == "start" and current.kind == "restart"):
                return current.join(request)
        operation = self.operations.begin(kind, name, request, now)
        operation.hard = hard
        if current is not None and current.kind == kind:
            self._waiting[name] = operation
            self.operations.step(operation, f"waits for operation {current.number}")
            return operation.number
        self._leave(name, now, f"{kind} was asked for meanwhile")
        self._busy[name] = operation
        if kind == "restart":
            return self._restart(operation, instances, now)
        operation.active = {instance.index for instance in instances}
        operation.before = {other for other in before if self._is_stopping(other)}
        if operation.before:
            self.operations.step(operation, f"waits until {', '.join(sorted(operation.before))} has stopped")
        else:
            self._tell(operation, instances, now)
        return operation.number

    def _is_stopping(self, name: str) -> bool:
        return name in self._busy and self._busy[name].kind == "stop"

    def _tell(self, operation: Operation, instances: list[Instance], now: float) -> None:
        """A start or stop goes to its slots."""
        event = states.StartAsked() if operation.kind == "start" else states.StopAsked()
        for instance in instances:
            instance.operation = operation
        for instance in instances:
            self._slots.apply(instance, event, now)

    def _stopped_first(self, name: str, failed: bool, now: float) -> None:
        """A stop is over, well or not: those that have waited for it."""
        for operation in [one for one in self._busy.values() if name in one.before]:
            operation.before.discard(name)
            if failed:
                self._finish(operation, now, f"{name} was not stopped")
            elif not operation.before:
                self._tell(operation, [one for one in self._slots.of(operation.service) if not one.removed], now)

    def _restart(self, operation: Operation, instances: list[Instance], now: float) -> int:
        operation.pending = [instance.index for instance in instances]
        self._next(operation, now)
        return operation.number

    def _leave(self, name: str, now: float, why: str) -> None:
        """End what is under way, and what waits for that."""
        for operation in (self._waiting.pop(name, None), self._busy.get(name)):
            if operation is not None:
                self._finish(operation, now, why)

    def _next(self, operation: Operation, now: float) -> None:
        """The next slot of a restart, or its end."""
        most = self._specs[operation.service].max_unavailable if operation.service in self._specs else 1
        while operation.pending and len(operation.active) < most:
            instance = self._slots.instances.get((operation.service, operation.pending.pop(0)))
            if instance is not None and not instance.removed:
                operation.active.add(instance.index)
                instance.operation = operation
                self._slots.apply(instance, states.RestartAsked(operation.hard), now)
        if not operation.active and not operation.pending:
            self._finish(operation, now)

    def _told(self, instance: Instance, effects: tuple[states.Effect, ...], now: float) -> None:
        """After each event of a slot."""
        if any(isinstance(effect, states.Await) for effect in effects):
            self.order.awaits(instance, now)
        if instance.operation is not None:
            self._follow(instance.operation, instance, effects, now)
        self.order.changed(instance.spec.name, now)
        self._ending.happened(instance, now)

    def _follow(self, operation: Operation, instance: Instance, effects: tuple[states.Effect, ...], now: float) -> None:
        for effect in effects:
            if isinstance(effect, states.RollFailed):
                why = f"the new process: {effect.reason}; the old one keeps serving"
                operation.rolled_back[instance.index] = why
                self.operations.step(operation, self._of(instance, why))
            elif isinstance(effect, states.Say | states.Ended):
                self.operations.step(operation, self._of(instance, effect.text))
            operation.spawned |= isinstance(effect, states.Spawn) or (
                isinstance(effect, states.RunHook) and not effect.run
            )
        found = verdict(operation, instance.slot, now, instance.index)
        if found is None:
            return
        instance.operation = None
        operation.active.discard(instance.index)
        if found:
            operation.failures.append(self._of(instance, found))
            operation.pending.clear()
        self._next(operation, now)

    def _of(self, instance: Instance, text: str) -> str:
        return text if instance.spec.processes == 1 else f"{instance.label}: {text}"

    def _finish(self, operation: Operation, now: float, why: str = "") -> None:
        """End a start, stop or restart: well, or with what failed."""
        if operation.ended:
            return
        if self._busy.get(operation.service) is operation:
            del self._busy[operation.service]
        for instance in self._slots.of(operation.service):
            if instance.operation is operation:
                instance.operation = None
        operation.active.clear()
        operation.pending.clear()
        failed = [why] if why else operation.failures
        name, past = operation.service, _PAST[operation.kind]
        text = f"{name} was not {past}: {'; '.join(failed)}" if failed else f"{name} {past}"
        self.operations.end(operation, not failed, text, now)
        if operation.kind == "stop":
            self._stopped_first(name, bool(failed), now)
        if operation.kind == "restart" and not failed:
            for other in [spec.name for spec in self._specs.values() if name in spec.restart_with]:
                if self._to_restart(other):
                    self._begin_if_possible("restart", other, now)
        waiting = self._waiting.pop(name, None)
        if waiting is not None:
            self._busy[name], waiting.began = waiting, now
            self._restart(waiting, self._configured(name), now)
