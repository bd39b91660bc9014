"""Histories that nobody thought of: people, crashes, timers and kill -9 of privileged and supervisor, in any order."""

from __future__ import annotations

import contextlib
import errno
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from policy.messages import Changed, Ended
from rootd import ipc
from rootd.config.schedules import Schedule
from rootd.config.specs import Probe
from rootd.supervisor import inflight, order, states
from rootd.supervisor.operations import Refusal
from rootd.supervisor.spelled import Spelled, spell

NAMES = ("plain", "web", "once", "front", "deep", "job", "each-minute")
PARTS = (("pre-start", 20), ("post-start", 21), ("stop", 22), ("post-stop", 23), ("ready", 24))
EVERY = (*PARTS[:4], ("live", 24))
ON = ("front", "each-minute")  # those that require plain
names = st.sampled_from(NAMES)
ENDS = ((0, 0), (1, 0), (-9, 0), (127, errno.ENOENT << 8 | ipc.STEPS.index("exec")))


class Histories(RuleBasedStateMachine):
    House: Any
    spec: Any
    spelled: Spelled | None = None
    written: Any = None
    kept = b""

    @initialize()
    def begin(self) -> None:
        self.house = type(self).House(
            self.spec(name="plain", limit_count=3),
            self.spec(name="web", entry=1, processes=2, max_processes=4, shared=True, ready_kind="notify", digest="w"),
            self.spec(name="once", entry=2, restart_policy="never", shared=True, autostart=False),
            self.spec(
                name="front", entry=3, max_processes=3, requires=("plain",), after=("web", "once"),
                restart_with=("plain",),
            ),
            self.spec(
                name="deep", entry=4, shared=True, limit_count=3, ready_kind="probe", ready_probe=Probe("command"),
                parts=PARTS, live_probe=Probe("http", "tcp:127.0.0.1:80", "/"), live_failures=2, watchdog=60.0,
            ),
            self.spec(name="job", entry=5, ready_kind="exit", ready_timeout=20.0, restart_policy="never"),
            self.spec(
                name="each-minute", entry=6, ready_kind="exit", ready_timeout=7.0, restart_policy="on-failure",
                limit_count=2, requires=("plain",), schedule=Schedule("* * * * *", "", "", "once", 0.0),
            ),
        )  # fmt: skip
        self.watch()
        self.house.begin()
        self.version = 1
        self.everything = {one.name: one for one in self.house.specs}

    @rule(name=names, what=st.sampled_from(["start", "stop", "restart"]))
    def ask(self, name: str, what: str) -> None:
        self.attempt(getattr(self.house.services, what), name)

    @rule(name=names)
    def restart_hard(self, name: str) -> None:
        self.attempt(lambda *asked: self.house.services.restart(*asked, hard=True), name)

    @rule(name=names)
    def signal(self, name: str) -> None:
        self.attempt(lambda name, *asked: self.house.services.signal(name, "HUP", *asked), name)

    @rule(name=names, processes=st.integers(1, 5))
    def scale(self, name: str, processes: int) -> None:
        self.attempt(lambda name, *asked: self.house.services.scale(name, processes, *asked), name)

    @rule(which=st.integers(0, 5))
    def cancel(self, which: int) -> None:
        """Whatever is taken back, nothing ends that is wanted, but what waits for its turn, or its hook."""
        services = self.house.services
        going = [one for one in services.operations.all() if not one.ended]
        if not going:
            return
        before = {key: one.slot for key, one in services._slots.instances.items()}
        with contextlib.suppress(Refusal):
            services.cancel(going[which % len(going)], "cancelled by alice", self.house.now)
        for key, slot in before.items():
            now = services._slots.instances.get(key)
            if slot.wanted == "up" and (now is None or now.slot.wanted == "down"):
                assert isinstance(slot.state, states.Waiting | states.Preparing), (key, slot)

    def watch(self) -> None:
        """From now on, see what is spawned before its time: a rolling restart apart, which waits for nothing."""
        slots = self.house.services._slots
        spawn = slots._spawn

        def checked(instance: Any, now: float) -> None:
            if instance.spec.name == "front" and not isinstance(instance.slot.state, states.Replacing):
                before = {name: [one for one in slots.of(name) if not one.removed] for name in ("plain", "web", "once")}
                how = {name: order.standing(found).word for name, found in before.items()}
                assert how["plain"] == "ready"
                assert "coming" not in how.values()
            spawn(instance, now)

        slots._spawn = checked

    @rule()
    def stop_with_dependants(self) -> None:
        before = self.house.services.order.dependants("plain")
        self.attempt(lambda *asked: self.house.services.stop(*asked, before), "plain")

    def attempt(self, ask: Any, name: str) -> None:
        if name not in {one.name for one in self.house.specs}:
            with pytest.raises(Refusal):
                ask(name, self.house.now, "r")
            return
        with contextlib.suppress(Refusal):
            number = ask(name, self.house.now, "r")
            assert self.house.services.operations.find(number) is not None

    @rule(which=st.integers(0, 5), end=st.sampled_from(ENDS))
    def crash(self, which: int, end: tuple[int, int]) -> None:
        mains = self.house.privileged.mains()
        if mains:
            self.house.privileged.exit(mains[which % len(mains)].number, *end)

    @rule(which=st.integers(0, 5))
    def ready(self, which: int) -> None:
        mains = self.house.privileged.mains()
        if mains and self.house.privileged.up:
            self.house.services.notified(mains[which % len(mains)].number, {"READY": "1"}, self.house.now)

    @rule(which=st.integers(0, 5), end=st.sampled_from(ENDS))
    def errand_ends(self, which: int, end: tuple[int, int]) -> None:
        errands = self.house.privileged.errands()
        if errands:
            self.house.privileged.exit(errands[which % len(errands)].number, *end)

    @rule(problem=st.sampled_from(["", "connection refused"]))
    def probe_answers(self, problem: str) -> None:
        asked, self.house.probes = self.house.probes, []
        for number, *_ in asked:
            self.house.services.probed(number, problem, self.house.now)

    @rule(there=st.booleans())
    def probe_process_comes_and_goes(self, there: bool) -> None:
        self.house.probing = there
        self.house.probes.clear()
        self.house.services.probe_away(self.house.now)

    @rule(which=st.integers(0, 5), word=st.sampled_from(["1", "trigger"]))
    def watchdog(self, which: int, word: str) -> None:
        mains = self.house.privileged.mains()
        if mains and self.house.privileged.up:
            self.house.services.notified(mains[which % len(mains)].number, {"WATCHDOG": word}, self.house.now)

    @rule(count=st.integers(1, 4))
    def hear(self, count: int) -> None:
        self.house.deliver(count)

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.5, 12.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.house.later(seconds)

    @rule(seconds=st.sampled_from([-365 * 86_400.0, -5_000.0, -2.0, 50.0, 365 * 86_400.0]))
    def the_wall_clock_is_set(self, seconds: float) -> None:
        self.house.ahead += seconds

    @rule(enabled=st.booleans())
    def schedule_is_enabled_or_disabled(self, enabled: bool) -> None:
        self.take([one._replace(autostart=enabled) if one.schedule else one for one in self.house.specs])

    @rule(seconds=st.sampled_from([0.3, 40.0]))
    def be_late(self, seconds: float) -> None:
        """Time passes and nothing is heard."""
        self.house.now += seconds
        self.house.services.wake(self.house.now)

    @rule(stubborn=st.booleans())
    def ignore_signals(self, stubborn: bool) -> None:
        self.house.privileged.stubborn = stubborn

    @rule(failing=st.sampled_from([None, (errno.EAGAIN, "fork"), (errno.EMFILE, "pipe")]))
    def fail_spawns(self, failing: tuple[int, str] | None) -> None:
        self.house.privileged.failing = failing

    @rule()
    def privileged_dies(self) -> None:
        self.house.lose()

    @rule()
    def privileged_is_back(self) -> None:
        self.house.lose().link()

    @rule(which=st.integers(0, 5))
    def process_dies_unseen(self, which: int) -> None:
        """Together with privileged, and its status is lost."""
        self.house.lose()
        mains = self.house.privileged.mains()
        if mains:
            del self.house.privileged.runs[mains[which % len(mains)].number]

    @rule(which=st.integers(0, 5))
    def errand_dies_unseen(self, which: int) -> None:
        """As above, or it ended, privileged was told to forget it, and could not say so any more."""
        self.house.lose()
        errands = [run for run in self.house.privileged.runs.values() if run.slot // 1024 >= 20]
        if errands:
            del self.house.privileged.runs[errands[which % len(errands)].number]

    @rule(damaged=st.booleans(), late=st.booleans())
    def supervisor_is_killed(self, damaged: bool, late: bool) -> None:
        before = self.house.services
        state = b"{" if damaged else self.kept if late else before.state()
        going = [] if damaged else [one.number for one in before.operations.live()]
        self.house.lose()
        self.house.events = [] if damaged else [one for one in self.house.events if not isinstance(one, Changed)]
        self.house.services = self.house.supervisor()
        self.house.services.restore(state)
        self.house.services.readiness.said = before.readiness.said
        ends = inflight.save_ends(before.operations.over())
        self.house.services.operations.resume(inflight.read_ends(ends)[0])
        self.watch()
        for known, specs in self.configurations.items():
            self.house.services.known(known, specs)
        ran = bool(self.house.privileged.runs)
        self.house.begin()
        if before._slots.live and not damaged and not late and ran:
            assert self.house.services._scaling.save() == before._scaling.save()
        assert [number for number in going if self.house.services.operations.find(number) is None] == []

    @rule(name=names, processes=st.integers(1, 3), most=st.integers(3, 4))
    def reload(self, name: str, processes: int, most: int) -> None:
        """By COMMIT; or, when privileged was replaced for it, between its tables and its facts."""
        self.version += 1
        self.take([
            one._replace(digest=str(self.version), processes=processes, max_processes=most) if one.name == name else one
            for one in reversed(self.house.specs)
        ])  # fmt: skip

    @rule(
        gone=st.sampled_from([(), ("front",), ("deep", "each-minute"), (*ON, "plain"), (*ON, "plain", "web", "deep")])
    )
    def remove_and_put_back(self, gone: tuple[str, ...]) -> None:
        here = {one.name: one for one in self.house.specs}
        self.take([one for name, one in (self.everything | here).items() if name not in gone])

    def take(self, specs: Any) -> None:
        replaced = not self.house.privileged.heard
        self.everything |= {one.name: one for one in specs}
        self.house.reload(*(one._replace(entry=at) for at, one in enumerate(specs)))
        self.configurations[self.house.generation] = self.house.specs
        if replaced:
            self.house.link()

    @property
    def configurations(self) -> dict[int, Any]:
        if not hasattr(self, "_configurations"):
            self._configurations = {1: self.house.specs}
        return self._configurations

    def slot_of(self, run: Any) -> tuple[str, int]:
        entry, index = divmod(run.slot, 1024)
        return self.configurations[run.generation][entry].name, index

    @invariant()
    def what_is_asked_for_is_written_down(self) -> None:
        """At once; anything else may wait for long, where there is no room for it."""
        services = self.house.services
        if self.written != (services, services.asked):
            self.written, self.kept = (services, services.asked), services.state()

    @invariant()
    def two_processes_of_a_slot_are_a_rolling_restart(self) -> None:
        count: dict[tuple[str, int], int] = {}
        for run in self.house.privileged.mains():
            key = self.slot_of(run)
            count[key] = count.get(key, 0) + 1
        for key, number in count.items():
            instance = self.house.services._slots.instances[key]
            replacing = isinstance(instance.slot.state, states.Replacing)
            assert number <= (2 if replacing else 1), (key, number, instance.slot.state)

    @invariant()
    def what_is_spawned_is_asked_of_somebody(self) -> None:
        slots = self.house.services._slots
        asked = {
            key for key, queue in slots._requests._queues.items() for r in queue if isinstance(r.effect, states.Spawn)
        }
        for key, instance in slots.instances.items():
            spawning = any(isinstance(part, states.Spawning) for part in states.legs(instance.slot.state))
            assert spawning == (key in asked or key in slots._strays._held)

    @invariant()
    def there_are_as_many_slots_as_are_configured_or_were_asked_for(self) -> None:
        services = self.house.services
        for spec in self.house.specs if services._slots.live else ():
            count = services._scaling.count(spec)
            assert [one.index for one in services._slots.configured(spec.name)] == list(range(count))
            assert count <= spec.max_processes

    @invariant()
    def what_is_shown_again_because_nothing_has_changed_is_what_would_be_shown_anew(self) -> None:
        services = self.house.services
        if self.spelled is None or self.spelled._services is not services:
            self.spelled = Spelled(services)
        for spec in self.house.specs if services._slots.live else ():
            assert bytes(self.spelled.service(spec.name)) == spell(services.info(spec.name))

    @invariant()
    def what_waits_for_a_hook_has_one(self) -> None:
        slots = self.house.services._slots
        asked = {(id(one.instance), one.part, one.about) for one in slots._errands._asked.values()}
        for one in slots.instances.values():
            for part in states.legs(one.slot.state):
                match part:
                    case states.Preparing():
                        assert (id(one), "pre-start", 0) in asked
                    case states.Settling(process):
                        assert (id(one), "post-start", process.run) in asked
                    case states.Cleaning(run=run):
                        assert (id(one), "post-stop", run) in asked

    def settle(self) -> None:
        for _ in range(40):
            self.house.later(5.0)
            self.probe_answers("")
            for run in self.house.privileged.errands():
                self.house.privileged.exit(run.number, 0)
            for run in self.house.privileged.mains():
                self.house.services.notified(run.number, {"READY": "1", "WATCHDOG": "1"}, self.house.now)
        self.house.deliver()

    def teardown(self) -> None:
        """When nothing more happens, what is wanted comes, and every operation has ended."""
        house = self.house
        house.privileged.failing = None
        house.lose().link()
        self.remove_and_put_back(())
        self.schedule_is_enabled_or_disabled(enabled=False)
        self.probe_process_comes_and_goes(there=True)
        self.settle()
        for (name, _), instance in house.services._slots.instances.items():
            state = instance.slot.state
            if instance.slot.wanted == "up":
                assert isinstance(state, states.Running | states.Exited | states.Fatal), (name, instance.slot)
            else:
                assert isinstance(state, states.Stopped | states.Exited), (name, instance.slot)
        shown = {pid for name in self.everything for pid in house.pids(name) if pid}
        assert shown == {run.pid for run in house.privileged.runs.values()}
        begun = [event.operation for event in house.events if not isinstance(event, Changed)]
        ended = [event.operation for event in house.events if isinstance(event, Ended)]
        assert sorted(set(begun)) == sorted(ended)
        operation = house.services.stop_all(house.now, "r")
        self.settle()
        assert house.services.operations.find(operation).ended
        assert house.privileged.shut_down
        assert not house.privileged.runs


class HistoriesOfHooks(Histories):
    """Two services with every hook, of which one requires the other, and little else that could happen."""

    @initialize()
    def begin(self) -> None:
        alike = {"shared": True, "limit_count": 3, "ready_after": 0.0, "live_probe": Probe("command")}
        before, more = ([(part, at + offset) for offset, (part, _) in enumerate(EVERY)] for at in (20, 30))
        self.house = type(self).House(
            self.spec(name="plain", parts=tuple(before), max_processes=2, digest="p", **alike),
            self.spec(name="front", entry=1, parts=tuple(more), requires=("plain",), digest="f", **alike),
        )
        self.house.begin()
        self.version = 1
        self.everything = {one.name: one for one in self.house.specs}

    def watch(self) -> None:
        pass

    @rule(which=st.integers(0, 5))
    def hook_ends_well_and_privileged_dies(self, which: int) -> None:
        """After it was told to forget the hook, before it could say that nothing is left."""
        self.errand_ends(which, (0, 0))
        self.house.deliver(1)
        self.house.lose().link()


@pytest.mark.parametrize("machine", [Histories, HistoriesOfHooks])
def test_no_history_doubles_loses_or_hangs_anything(House: Any, spec: Any, machine: type[Histories]) -> None:
    machine.House, machine.spec = House, staticmethod(spec)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=80,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
