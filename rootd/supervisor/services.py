"""All services: what is configured, what people want of it, and how it goes.

Rule 1: what happens to a slot is slots' and lifecycle's business, what goes on with an operation undertakings'.
Rule 2: who asks for what is so already is told so; who asks for what cannot be is refused with words.
Rule 3: no clock, no I/O: time is an argument, effects go out by `perform`, events by `publish`.

Times are seconds of CLOCK_BOOTTIME. A service of several processes has its slots named site:0, site:1, …
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from policy.messages import Changed, Description, Ended, Lapsed, ServiceInfo, Step
from policy.names import RESERVED
from rootd import ipc
from rootd.config.specs import ServiceSpec
from rootd.supervisor import inflight, recover, signalling, states
from rootd.supervisor.ending import Ending
from rootd.supervisor.instances import Instance, counted, service_info
from rootd.supervisor.monitor import Prober
from rootd.supervisor.operations import Already, Kind, Operation, Operations, Refusal
from rootd.supervisor.order import Order
from rootd.supervisor.perform import Request
from rootd.supervisor.scaling import Scaling
from rootd.supervisor.scheduled import Scheduled
from rootd.supervisor.slots import Slots
from rootd.supervisor.tables import stamped
from rootd.supervisor.undertakings import Undertakings

__all__ = ["Already", "LoadReport", "Refusal", "Services"]

LOSSES_LIMIT = 4_096  # streams of which is remembered what log has lost of them


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
        publish: Callable[[Changed | Step | Ended | Lapsed], None],
        wall: Callable[[], str],
        prober: Prober,
        place: str,
        say: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = lambda: 0.0,
        life: int = 0,
    ) -> None:
        """say: to whoever looks after the daemon as a whole. clock: the wall clock, for schedules alone. life: the
        same number as long as this daemon lives.
        """
        self.operations = Operations(publish, wall)
        self.losses: dict[tuple[str, int], str] = {}  # by process, as its log is called, and number of the stream
        self._slots = Slots(perform, self._told, self.operations.changed, wall, prober, place)
        self.readiness = self._slots.readiness
        self._under = Undertakings(self.operations, self._slots)
        self.order = Order(self._slots.configured, self._slots.apply, partial(self._under.begin_if_possible, "start"))
        self._specs: dict[str, ServiceSpec] = {}
        self._saved = recover.Saved()
        self._scaling = Scaling()
        self._ending = Ending(self._slots, self.operations, self.order)
        self._say, self._life = say, life
        self.scheduled = Scheduled(self._slots, self.operations, clock, say)

    # -- what is configured ----------------------------------------------------------------------------------

    def known(self, generation: int, specs: Iterable[ServiceSpec]) -> None:
        """An older configuration of which processes may still run: told before facts_done."""
        self._slots.known(generation, specs)

    def load(self, specs: Iterable[ServiceSpec], generation: int, now: float) -> LoadReport:
        """From now on this is the configuration. What did not change is not touched; what changed and is wanted is
        restarted, rolling where that can be. Before the first facts nothing is done."""
        ordered = sorted(specs, key=lambda spec: spec.priority)
        old, self._specs = self._specs, {spec.name: stamped(spec, generation) for spec in ordered}
        new, self._slots.generation = self._specs, generation
        self._under.specs = new
        self._scaling.load(new)
        self._slots.known(generation, new.values())
        if not self._slots.live:
            self.order.load(new, now)
            return LoadReport((), (), (), {})
        added = tuple(name for name in new if name not in old)
        removed = tuple(name for name in old if name not in new)
        changed = tuple(name for name in new if name in old and new[name].digest != old[name].digest)
        ends = self.order.ends(removed)
        begin: dict[str, Kind] = dict.fromkeys(ends, "stop")
        begin |= dict.fromkeys((name for name in added if new[name].autostart and not new[name].schedule), "start")
        begin |= dict.fromkeys(filter(self._under.to_restart, changed), "restart")
        begin |= self.scheduled.turned(old, new, changed)
        running = {name for name in new if self._under.to_restart(name)}
        further, surplus = self._adopt(new)
        self.scheduled.load(new, now)
        self.order.load(new, now)
        if self._ending.operation is not None:
            begin.clear()
            self._ending.loaded(now)
        begun = {
            name: self._under.begin_if_possible(kind, name, now, ends.get(name, ())) for name, kind in begin.items()
        }
        for instance in surplus:
            self._slots.apply(instance, states.StopAsked(), now)
        for instance in further if self._ending.operation is None else ():
            if instance.spec.name in running - begin.keys():
                self._slots.apply(instance, states.StartAsked(), now)
        return LoadReport(added, removed, changed, {name: number for name, number in begun.items() if number})

    def _adopt(self, specs: dict[str, ServiceSpec]) -> tuple[list[Instance], list[Instance]]:
        """Give each slot its new configuration. Returns, of services that stay, those that are new and too many now."""
        for instance in self._slots.instances.values():
            instance.spec = specs.get(instance.spec.name, instance.spec)
            instance.removed |= instance.spec.name not in specs
        fitted = [self._fit(spec) for spec in specs.values()]
        return [one for new, _ in fitted for one in new], [one for _, surplus in fitted for one in surplus]

    def _fit(self, spec: ServiceSpec) -> tuple[list[Instance], list[Instance]]:
        """As many slots as there are to be. Returns the new ones, and those that are too many, the highest first."""
        count, there = self._scaling.count(spec), self._slots.of(spec.name)
        new = [one for one in there if one.removed and one.index < count]
        surplus = [one for one in reversed(there) if one.index >= count]
        for instance in (*new, *surplus):
            instance.removed = instance.index >= count
        known = {instance.index for instance in there}
        return [*new, *(self._slots.add(spec, index) for index in range(count) if index not in known)], surplus

    # -- recovery --------------------------------------------------------------------------------------------

    def restore(self, data: bytes) -> str:
        """What the last supervisor wrote. Returns what is wrong with it, to be said loudly; then facts count alone."""
        self._saved, problem = recover.read(data)
        self.going = self._saved.operations if self._saved.life == self._life else ()
        self.operations.last, self.operations.events = self._saved.operation, self._saved.event
        self.scheduled.timetable.restore(self._saved.jobs)
        return problem

    @property
    def revision(self) -> int:
        """Another number whenever state() may say something else."""
        of_jobs = self.scheduled.timetable.revision
        return self._slots.revision + self.operations.events + self._scaling.revision + of_jobs

    @property
    def asked(self) -> int:
        """Another number whenever state() must be written before anything else is done: asked for, or done once."""
        return self.operations.revision + self._slots.once + self.scheduled.timetable.begun

    @property
    def size(self) -> int:
        """How many slots there are."""
        return len(self._slots.instances)

    def state(self) -> bytes:
        """What the next supervisor will not learn from facts."""
        if not self._slots.live:
            return recover.write(replace(self._saved, event=self.operations.events))
        slots = {f"{name}:{index}": one.save() for (name, index), one in self._slots.instances.items()}
        numbers = self.operations.last, self.operations.events
        ending, scaled = self._ending.operation is not None, self._scaling.save()
        end, jobs = (ending, self._ending.status), self.scheduled.timetable.save()
        going = tuple(inflight.save(one) for one in self.operations.live())
        return recover.write(recover.Saved(recover.VERSION, self._life, *end, *numbers, slots, scaled, jobs, going))

    def fact(self, message: ipc.Message, now: float) -> None:
        """A run that is not over; nothing follows from it before facts_done."""
        self._slots.fact(message)

    def facts_done(self, now: float) -> None:
        """All facts of a privileged that was linked have been told, and load has said what is configured."""
        saved, self._saved = self._saved, recover.Saved()
        if saved.ending and saved.life != self._life:
            saved = recover.Saved()  # of a daemon that was shut down; what runs has been started by this one
        elif saved.life != self._life:
            saved = recover.of_another_daemon(saved, [name for name, spec in self._specs.items() if spec.schedule])
        first = not self._slots.live
        if first and not self._slots.no_facts():  # else it is another daemon: what is configured counts
            self._scaling.recovered(self._specs, saved, self._slots.highest(saved))
        self.operations.resume(map(inflight.restored, saved.operations if first else ()))
        if saved.ending:
            self._ending.recovered(saved.status, now)
        with self.order.at_once(now):
            specs = {spec: self._scaling.count(spec) for spec in self._specs.values()}
            self._slots.facts_done(specs, saved, self._ending.operation is not None, now)
            if first:
                self._under.resume(saved.life == self._life, now)
        self.scheduled.load(self._specs, now)
        self._ending.look(now)

    def catch_up(self, now: float) -> dict[str, int]:
        """Restart what is wanted and runs with an older configuration. The operations that it has begun, by service."""
        old = [name for name in self._specs if any(one.outdated() for one in self._slots.configured(name))]
        going = [name for name in old if self._under.to_restart(name) and not self._under.is_busy(name)]
        begun = {name: self._under.begin_if_possible("restart", name, now) for name in going}
        return {name: number for name, number in begun.items() if number}

    # -- what is shown ---------------------------------------------------------------------------------------

    def names(self) -> tuple[str, ...]:
        """The configured services, without our own."""
        return tuple(name for name in self._specs if not name.startswith(RESERVED))

    def wanted(self, name: str) -> bool:
        return any(one.slot.wanted == "up" for one in self._slots.configured(name))

    def groups_of(self, name: str) -> tuple[str, ...]:
        """Raises KeyError."""
        return self._specs[name].groups

    def info(self, name: str) -> ServiceInfo:
        """Raises KeyError."""
        return self.scheduled.info(service_info(self._specs[name], self._slots.configured(name)))

    def made_of(self, name: str) -> list[object]:
        """All that info depends on: as long as this is equal, so is that. Raises KeyError."""
        parts: list[object] = [self._specs[name], self.scheduled.timetable.job(name)]
        for one in self._slots.of(name):
            parts += one.slot, one.told, one.since, one.last_exit, one.spec, one.removed
        return parts

    def description(self, name: str) -> Description:
        """Raises KeyError."""
        spec = self._specs[name]
        exits = sorted((end for instance in self._slots.configured(name) for end in instance.exits), reverse=True)
        info = self.info(name)
        lost = [
            f"{process.name} {stream}: {said}"
            for process in info.processes
            for number, stream in ((1, "stdout"), (2, "stderr"))
            if (said := self.losses.get((process.name.replace(":", "."), number)))
        ]
        return Description(info, dict(spec.settings), list(spec.sockets), exits, lost=lost)

    def lost(self, process: str, stream: int, size: int, lines: int) -> None:
        """What log says it could not write of a process since the machine was started: all of it, each time."""
        self.losses.pop((process, stream), None)
        if len(self.losses) >= LOSSES_LIMIT:
            del self.losses[next(iter(self.losses))]
        self.losses[process, stream] = f"{size} bytes, {lines} lines"

    def operation_events(self, operation: int) -> list[Step | Ended]:
        """Everything that an operation has said; empty when it is unknown."""
        found = self.operations.find(operation)
        return list(found.events) if found else []

    def ends_all(self) -> tuple[str, ...]:
        """The services of exit_on: signals that are sent to the daemon and mean nothing to it are meant for them."""
        return tuple(name for name, spec in self._specs.items() if spec.exit_on)

    # -- what is asked ---------------------------------------------------------------------------------------

    def start(self, name: str, now: float, request: str) -> int:
        """The number of the operation. Raises Refusal; Already when it runs."""
        instances = self._asked(name)
        serving = (states.Running, states.Replacing)
        if not self._under.is_busy(name) and all(isinstance(one.slot.state, serving) for one in instances):
            raise Already(f"{name} is already running")
        for other in self.order.failed(name):
            self._under.begin_if_possible("start", other, now)
        return self._under.begin("start", name, instances, now, request)

    def stop(self, name: str, now: float, request: str, before: Iterable[str] = ()) -> int:
        """The number of the operation. before: services that are stopped too, and have to be stopped first.

        Raises Refusal; Already when nothing of it runs or is to run again.
        """
        self._asked(name, even_ending=True)
        instances = self._slots.of(name)  # those too that are ending because there are too many
        ended = (states.Stopped, states.Exited)
        if not self._under.is_busy(name) and all(isinstance(one.slot.state, ended) for one in instances):
            for instance in instances:
                self._slots.apply(instance, states.StopAsked(), now)
            raise Already(f"{name} is not running")
        for other in [other for other in before if not self._under.is_stopping(other)]:
            self._under.begin_if_possible("stop", other, now, self.order.dependants(other))
        return self._under.begin("stop", name, instances, now, request, before=before)

    def restart(self, name: str, now: float, request: str, hard: bool = False) -> int:
        """The number of the operation. What does not run is started. Raises Refusal."""
        return self._under.begin("restart", name, self._asked(name), now, request, hard)

    def scale(self, name: str, processes: int, now: float, request: str) -> int:
        """The number of the operation. What does not run is not started: it will have so many then.

        Raises Refusal; Already when it has so many, or has been made to have so many without an operation.
        """
        instances, spec = self._asked(name), self._specs[name]
        if processes > spec.max_processes and spec.schedule is not None:
            raise Refusal("invalid", f"{name} is scheduled: it has one process, and that for one run after the other")
        if processes > spec.max_processes and "pid_file" in dict(spec.settings):
            raise Refusal("invalid", f"{name} forks itself: it has the one process that its pid file names")
        if processes > spec.max_processes:
            most = f"{counted(spec.max_processes)} at most: more takes a greater max_processes in its configuration"
            raise Refusal("invalid", f"{name} may have {most}")
        if number := self._under.joined(name, processes, request):
            return number
        has, runs = len(instances), self._under.to_restart(name)
        operation = None
        if (runs and has != processes) or self._under.is_busy(name):
            operation = self._under.begin_scaling(name, processes, processes < has, now, request)
        self._scaling.say(spec, processes)
        new, surplus = self._fit(spec)
        if operation is not None:
            self._under.tell(operation, surplus if processes < has else new, now)
            return operation.number
        for instance in surplus:
            self._slots.apply(instance, states.StopAsked(), now)
        if runs or has == processes:
            raise Already(f"{name} has {counted(processes)} already")
        raise Already(f"{name} is not running: it will have {counted(processes)} when it is started")

    def signal(self, name: str, signame: str, now: float, request: str) -> int:
        """signame is without SIG. The number of the operation. Raises Refusal."""
        return signalling.begin(self._slots, self.operations, self._asked(name), signame, now, request)

    def cancel(self, operation: Operation, why: str, now: float) -> None:
        """One that is under way, as far as it can be taken back; why: by whom. Raises Refusal."""
        if operation.kind not in ("start", "stop", "restart", "scale"):
            raise Refusal("conflict", f"a {operation.kind} cannot be cancelled")
        slots = self._under.reversible(operation)
        if operation.kind == "scale" and slots:
            operation.processes -= len(slots)
            self._scaling.say(self._specs[operation.service], operation.processes)
            self._fit(self._specs[operation.service])
        self._under.cancel(operation, slots, why, now)

    def stop_all(self, now: float, request: str) -> int:
        """Stop everything, our own api last, then end the daemon."""
        if self._ending.operation is not None:
            return self._ending.operation.join(request)
        self._under.leave_all(now, "the daemon is being shut down")
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
        due = self._slots.wake_at(), self.scheduled.wake_at() if self._keeps_time() else None
        return min((at for at in due if at is not None), default=None)

    def wake(self, now: float) -> None:
        self._slots.wake(now)
        if self._keeps_time():
            self.scheduled.wake(now)

    def _keeps_time(self) -> bool:
        return self._slots.live and self._ending.operation is None

    # -- who is meant ----------------------------------------------------------------------------------------

    def _asked(self, name: str, even_ending: bool = False) -> list[Instance]:
        if self._ending.operation is not None and not even_ending:
            raise Refusal("conflict", "durward is shutting down")
        instances = self._slots.configured(name)
        if not instances:
            raise Refusal("unknown", f"there is no service '{name}'")
        return instances

    def _told(self, instance: Instance, effects: tuple[states.Effect, ...], now: float) -> None:
        """After each event of a slot."""
        if any(isinstance(effect, states.Await) for effect in effects):
            self.order.awaits(instance, now)
        self._under.follow(instance, effects, now)
        self.order.changed(instance.spec.name, now)
        if why := self._ending.last_words(instance):
            self._say(why)
            self.stop_all(now, "")
        self._ending.happened(instance, now)
