"""Every slot as it is: events go in, lifecycle says what follows, requests go out, timers are kept.

Rule 1: a transition is lifecycle's, recovery is recover's; here is only who is meant, and what has been asked.
Rule 2: nothing is spawned before the facts are known, nor in a slot where a run is left that nobody accounts for.
Rule 3: what people want is services' business: it is told of everything that happens to a slot.
"""

from __future__ import annotations

import errno
import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, cast

from msgspec.structs import replace

from rootd import ipc
from rootd.config.specs import ServiceSpec
from rootd.supervisor import exits, lifecycle, recover, states
from rootd.supervisor.errands import Errand, Errands
from rootd.supervisor.instances import Instance, Key
from rootd.supervisor.monitor import Kind, Monitor, Prober
from rootd.supervisor.perform import Adopt, Asked, Request, Requests, Resume, Shutdown
from rootd.supervisor.readiness import Readiness
from rootd.supervisor.sayings import Sayings
from rootd.supervisor.strays import Strays
from rootd.supervisor.tables import Tables, Whose

Told = Callable[[Instance, tuple[states.Effect, ...], float], None]
Sent = Callable[[int, float], None]  # errno of a signal, 0 when it was sent


class Say(Protocol):
    """Operations.changed."""

    def __call__(self, service: str, process: str, state: str, pid: int, text: str) -> None: ...


class Slots:
    """told: called after each event of a slot, with its effects. say: what watchers see. wall: time for people."""

    def __init__(
        self,
        perform: Callable[[Request], None],
        told: Told,
        say: Say,
        wall: Callable[[], str],
        prober: Prober,
        place: str,
    ) -> None:
        self.instances: dict[Key, Instance] = {}
        self.live = False  # whether the first facts have been taken
        self.generation = 0
        self.revision = 0  # grows with every change of a slot
        self.once = 0  # grows with what must not be forgotten once it is asked for: spawns and ends of one-shots
        self._perform, self._told, self._say, self._wall = perform, told, say, wall
        self._requests = Requests(perform)
        self._errands = Errands(self._requests, self._errand_ended)
        self.monitor = Monitor(prober, place, self._errands.begin, self.apply, self._show_problem)
        self._sayings = Sayings(self._requests, self.monitor, self.apply, self.show, self.event)
        self._of: dict[str, dict[int, Instance]] = {}
        self._tables = Tables()
        self._runs: dict[int, Instance] = {}
        self.readiness = Readiness(self._runs)
        self._strays = Strays(self._requests, self.apply)
        self._sent: dict[int, Sent] = {}  # by the request's number
        self._timers: list[tuple[float, int, Instance]] = []
        self._pushed = 0
        self._facts: list[ipc.Message] = []

    # -- what there is -----------------------------------------------------------------------------------------

    def known(self, generation: int, specs: Iterable[ServiceSpec]) -> None:
        """A configuration of which processes may run."""
        self._tables.add(generation, specs)

    def of(self, service: str) -> list[Instance]:
        """The slots of a service, the first one first."""
        return [one for _, one in sorted(self._of.get(service, {}).items())]

    def configured(self, service: str) -> list[Instance]:
        """Those of it that are to be there. Found by its name: somebody asks this about each of a thousand services."""
        return [one for one in self.of(service) if not one.removed]

    def add(self, spec: ServiceSpec, index: int) -> Instance:
        instance = self.instances[spec.name, index] = Instance(spec, index, states.Slot(), self._wall())
        self._of.setdefault(spec.name, {})[index] = instance
        instance.told = instance.shown()
        return instance

    def _forget(self, instance: Instance) -> None:
        if self.instances.get(instance.key) is instance:
            del self.instances[instance.key], self._of[instance.spec.name][instance.index]

    # -- what happens --------------------------------------------------------------------------------------------

    def apply(self, instance: Instance, event: states.Event, now: float) -> None:
        """One event of one slot, with all that follows from it."""
        before = instance.slot
        instance.note_end(event, before.state, self._wall)
        slot, effects = lifecycle.step(instance.spec, before, event, now)
        self._become(instance, slot)
        for effect in effects:
            self.once += instance.spec.ready_kind == "exit"
            if isinstance(effect, states.Spawn):
                self._spawn(instance, now)
            elif isinstance(effect, states.Signal):
                self._requests.ask(instance.key, effect)
            elif isinstance(effect, states.RunHook):
                limit = effect.spec.stop_timeout if effect.hook == "stop" else effect.spec.hook_timeout
                self._errands.begin(instance, effect.hook, effect.run, effect.spec, limit)
            elif isinstance(effect, states.EndHook):
                self._errands.end(instance, effect.hook, effect.run, now)
        self.monitor.look(instance, now)
        if instance.removed and instance.at_rest():
            self._forget(instance)
        self._told(instance, effects, now)

    def event(self, message: ipc.Message, now: float) -> None:
        """SPAWNED, EXITED, EMPTY or DONE of privileged."""
        match message.op:
            case ipc.SPAWNED:
                asked = self._requests.answered(message.seq)
                if asked is None:
                    return self._strays.kill(message.run)
                errand = self._errands.asked(asked.key)
                if errand is not None:
                    return self._errands.spawned(errand, message.run, now)
                started = states.Spawned(message.run, message.arg, message.extra / 1e9)
                self.apply(self.instances[asked.key], started, now)
            case ipc.EXITED if not self._sayings.holds(message):
                if self._errands.has(message.run):
                    return self._errands.exited(message.run, exits.exit_of(message), now)
                instance = self._runs.get(message.run)
                if instance is None:
                    return self._strays.kill(message.run)
                self.apply(instance, states.Died(message.run, exits.exit_of(message)), now)
            case ipc.EMPTY:
                self._over(message.run, now)
            case ipc.DONE:
                asked = self._requests.answered(message.seq)
                if asked is not None:
                    self._answered(asked, message, now)

    def notified(self, run: int, payload: dict[str, str], now: float) -> None:
        """What a service said on its notify socket; the texts are harmless and short already."""
        instance = self._runs.get(run)
        if instance is not None:
            self._sayings.heard(instance, run, payload, now)

    def main_pid(self, run: int) -> int:
        """0 when there is no such run."""
        instance = self._runs.get(run)
        return states.runs(instance.slot.state)[run].pid if instance else 0

    def _show_problem(self, instance: Instance, run: int, problem: str) -> None:
        """What its probes have found, in place of its own words; its state goes on saying the rest."""
        instance.status[run] = problem
        self.show(instance)

    def _errand_ended(self, instance: Instance, part: str, about: int, problem: str, ran: bool, now: float) -> None:
        if part in ("ready", "live"):
            self.monitor.ran(cast(Kind, part), about, problem, ran, now)
        else:
            self.apply(instance, states.HookEnded(cast(states.Hook, part), about, problem), now)

    def send(self, instance: Instance, run: int, signo: int, sent: Sent) -> None:
        """A signal that somebody asked for."""
        seq = self._requests.ask(instance.key, states.Signal(run, signo))
        self._sent[seq] = sent

    def full(self, instance: Instance) -> bool:
        """Whether too much waits for privileged already."""
        return self._requests.full(instance.key)

    def shut_down(self, status: int) -> None:
        self._requests.ask(("", 0), Shutdown(status))

    def wake_at(self) -> float | None:
        while self._timers and self._timers[0][2].due != self._timers[0][0]:
            heapq.heappop(self._timers)
        others = (self.monitor.wake_at(), self._errands.wake_at(), self._strays.wake_at())
        due = (self._timers[0][0] if self._timers else None, *others)
        return min((at for at in due if at is not None), default=None)

    def wake(self, now: float) -> None:
        self._errands.wake(now)
        self._strays.wake(now)
        self.monitor.wake(now)
        while self.wake_at() is not None and self._timers and self._timers[0][0] <= now:
            instance = heapq.heappop(self._timers)[2]
            instance.due = None
            self.apply(instance, states.TimeUp(self.monitor.finding(instance)), now)

    def _become(self, instance: Instance, slot: states.Slot) -> None:
        before, instance.slot = instance.slot, slot
        self.revision += slot is not before
        if slot.state is before.state:
            return self._schedule(instance)
        running = states.runs(slot.state).keys() - {0}  # 0: only its hook has told of it, and it is over
        for run in states.runs(before.state).keys() - running - {0}:
            del self._runs[run]
            instance.status.pop(run, None)
        for run in running:
            self._runs[run] = instance
        self._schedule(instance)
        self.show(instance)

    def _schedule(self, instance: Instance) -> None:
        due = states.wake_at(instance.slot.state)
        if due != instance.due:
            instance.due = due
            if due is not None:
                self._pushed += 1
                heapq.heappush(self._timers, (due, self._pushed, instance))

    def show(self, instance: Instance) -> None:
        """Tell watchers, when there is something to see."""
        state, pid, text = shown = instance.shown()
        if shown != instance.told:
            if (state, pid) != instance.told[:2]:
                instance.since = self._wall()
            instance.told = shown
            self._say(instance.spec.name, instance.label, state, pid, text)

    def _spawn(self, instance: Instance, now: float) -> None:
        if not self._strays.hold(instance, now):
            # by its own configuration: in the current one, what is removed may have the number of another service
            self._requests.ask(instance.key, states.Spawn(), instance.number, instance.spec.generation)

    def _answered(self, asked: Asked, message: ipc.Message, now: float) -> None:
        effect = asked.request.effect
        errand = self._errands.asked(asked.key)
        if isinstance(effect, states.Spawn) and errand is not None:
            return self._errands.failed(errand, exits.failure_of(message), now)
        if isinstance(effect, states.Spawn):
            return self.apply(self.instances[asked.key], states.SpawnFailed(exits.failure_of(message)), now)
        if isinstance(effect, Adopt):
            return self._sayings.adopted(self.instances.get(asked.key), effect, message.arg, now)
        sent = self._sent.pop(asked.request.seq, None)
        if sent is not None:
            sent(message.arg, now)
        elif isinstance(effect, states.Signal) and effect.tree and message.arg == errno.ESRCH:
            self._over(effect.run, now)  # it was over, and we did not know
        return None

    def _over(self, run: int, now: float) -> None:
        if self._errands.has(run):
            return self._errands.empty(run, now)
        instance = self._runs.get(run)
        if instance is not None:
            return self.apply(instance, states.TreeEmpty(run), now)
        return self._strays.over(run, now)

    # -- what is found -------------------------------------------------------------------------------------------

    def fact(self, message: ipc.Message) -> None:
        """A run that is not over. Kept until facts_done."""
        self._facts.append(message)

    def no_facts(self) -> bool:
        return not self._facts

    def highest(self, saved: recover.Saved) -> dict[str, int]:
        """By service: how many slots it has to have for all the processes that the facts tell of."""
        found: dict[str, int] = {}
        for (name, index), _, _ in filter(None, (self._whose(fact, saved) for fact in self._facts)):
            found[name] = max(found.get(name, 0), index + 1)
        return found

    def facts_done(self, specs: Mapping[ServiceSpec, int], saved: recover.Saved, ending: bool, now: float) -> None:
        """Everything that privileged knows is known; from here on it can be asked. saved counts the first time.

        specs: what is configured, in the order of its priority, with how many slots each is to have.
        """
        facts, self._facts = sorted(self._facts, key=lambda fact: fact.extra), []
        asked = self._requests.forget()
        self._perform(Request(0, 0, 0, Resume()))
        self._strays.forget()
        self._sayings.forget()
        found: dict[Key, list[states.Process]] = {}
        errands: dict[Key, list[tuple[str, states.Process]]] = {}
        for fact in facts:
            whose = self._whose(fact, saved)
            if whose is None:
                self._strays.kill(fact.run)
                continue
            key, spec, part = whose
            process = states.Process(fact.run, fact.arg, fact.extra / 1e9, spec)
            if part:
                errands.setdefault(key, []).append((part, process))
            else:
                found.setdefault(key, []).append(process)
        over = list[int]()
        if self.live:
            over = self._reconcile_errands(errands, {fact.run for fact in facts}, now)
            rebuilt = self._reconcile(found, now)
        else:
            left = {fact.run for fact in facts if fact.flags & ipc.LEFT}
            rebuilt = self._rebuild(specs, found, errands, saved, ending, left, now)
        self.once += not self.live  # written down before anything is spawned: whatever is not in it then is not ready
        self.live = True
        for instance, what in rebuilt:
            for run in what.strays:
                self._strays.kill(run, instance)
            self._become(instance, what.slot)
        for instance, what in rebuilt:
            for event in (*what.events, states.TimeUp()):
                self.apply(instance, event, now)
        for run in over:  # not before: what follows from a hook's end must not be taken for what was asked and is lost
            self._over(run, now)
        self._ask_again(asked, {fact.run for fact in facts}, now)

    def _whose(self, fact: ipc.Message, saved: recover.Saved) -> Whose | None:
        """The slot that a run is in, the configuration that it was spawned with, and what it is for."""
        mine = self._runs.get(fact.run)
        if mine is not None:
            return mine.key, states.runs(mine.slot.state)[fact.run].spec, ""
        return self._tables.whose(fact, saved, self.generation)

    def _rebuild(
        self, specs: Mapping[ServiceSpec, int], found: dict[Key, list[states.Process]],
        errands: dict[Key, list[tuple[str, states.Process]]], saved: recover.Saved, ending: bool, left: set[int],
        now: float,
    ) -> list[tuple[Instance, recover.Rebuilt]]:  # fmt: skip
        """The first facts of this supervisor: every slot from them, and from what the last one wrote."""
        for spec, count in specs.items():
            for index in range(count):
                self.add(spec, index)
        for (name, index), processes in found.items():
            if (name, index) not in self.instances:
                self.add(processes[-1].spec, index).removed = True
        for (name, index), running in errands.items():
            if (name, index) not in self.instances:
                self.add(running[-1][1].spec, index).removed = True
        rebuilt = []
        for key, instance in self.instances.items():
            was = saved.slots.get(f"{key[0]}:{key[1]}")
            if was is not None:
                instance.remember(was)
            if ending or instance.removed:
                was = recover.SavedSlot("down", *((was.runs, was.left) if was else ()))
            alone, said = not errands.get(key), self.readiness.said
            what = recover.rebuild(instance.spec, was, found.get(key, []), now, left, alone, said)
            for part, process in errands.get(key, []):
                slot, about = recover.with_errand(what.slot, part, process.spec)
                what = replace(what, slot=slot)
                if about is None:
                    self._strays.kill(process.run)
                else:
                    limit = process.spec.stop_timeout if part == "stop" else process.spec.hook_timeout
                    errand = Errand(instance, part, about, process.spec, limit)
                    self._errands.adopt(errand, process.run, process.started)
            rebuilt.append((instance, what))
        return rebuilt

    def _reconcile_errands(
        self, errands: dict[Key, list[tuple[str, states.Process]]], found: set[int], now: float
    ) -> list[int]:
        """privileged was started again: what was asked for and is not answered may have been spawned.

        Returns the runs that are over, of which nobody has been told yet.
        """
        for key, running in errands.items():
            for part, process in [one for one in running if not self._errands.has(one[1].run)]:
                mine = self._errands.unspawned(self.instances[key], part) if key in self.instances else None
                if mine is None:
                    self._strays.kill(process.run)
                else:
                    self._errands.spawned(mine, process.run, now)
        return self._errands.reconcile(found)

    def _reconcile(self, found: dict[Key, list[states.Process]], now: float) -> list[tuple[Instance, recover.Rebuilt]]:
        """privileged was started again: every slot against what it found."""
        for key in found.keys() - self.instances.keys():
            for process in found[key]:
                self._strays.kill(process.run)
        return [(one, recover.reconcile(one.slot, found.get(key, []), now)) for key, one in self.instances.items()]

    def _ask_again(self, asked: list[Asked], runs: set[int], now: float) -> None:
        """Signals that privileged did not answer, while their run lives; spawns have been dealt with."""
        for key, request in asked:
            sent = self._sent.pop(request.seq, None)
            effect = request.effect
            if isinstance(effect, Shutdown) or (isinstance(effect, states.Signal | Adopt) and effect.run in runs):
                seq = self._requests.ask(key, effect)
                if isinstance(effect, Adopt):
                    self._sayings.asked_again(effect.run)
                if sent is not None:
                    self._sent[seq] = sent
            elif sent is not None:
                sent(errno.ESRCH, now)
