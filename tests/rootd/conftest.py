"""What tests of the supervisor's engine share: a service, one slot's history, and a privileged played by the test."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from rootd import ipc
from rootd.config.specs import ServiceSpec
from rootd.supervisor import lifecycle, mentions, states
from rootd.supervisor.perform import Adopt, Request, Resume, Shutdown
from rootd.supervisor.services import Services
from rootd.supervisor.states import Effect, Event, Signal, Slot, Spawn

SIGKILL = 9
SECOND = 1_000_000_000


def spec(**changes: Any) -> ServiceSpec:
    return ServiceSpec(
        name="site", entry=0, processes=1, max_processes=changes.get("processes", 1),
        groups=(), autostart=True, ready_kind="after", ready_after=1.0, ready_timeout=30.0,
        restart_policy="always", expected=(0,), backoff_first=0.1, backoff_cap=2.0, limit_count=5,
        limit_window=60.0, stop_signal=15, stop_timeout=10.0, signals=("HUP", "USR1"), sockets=(), shared=False,
        stop_then=(), max_unavailable=1, user="www",
        requires=(), after=(), priority=999, restart_with=(),
        settings=(("command", '["/srv/x", "-v"]'), ("directory", "/srv")), digest="1",
    )._replace(**changes)  # fmt: skip


class History:
    """One slot, and what was done about it. Time passes only by `at` and `later`."""

    def __init__(self, slot: Slot | None = None, **changes: Any) -> None:
        self.spec, self.slot, self.now = spec(**changes), slot or Slot(), 100.0
        self.effects: list[Effect] = []
        self.run = 0

    def __call__(self, *events: Event) -> History:
        for event in events:
            self.slot, effects = lifecycle.step(self.spec, self.slot, event, self.now)
            self.effects += effects
        return self

    def at(self, now: float) -> History:
        self.now = now
        return self(states.TimeUp())

    def later(self, seconds: float) -> History:
        return self.at(self.now + seconds)

    def spawned(self) -> History:
        self.run += 1
        return self(states.Spawned(self.run, 1000 + self.run, self.now))

    def running(self) -> History:
        self(states.StartAsked()).spawned()
        return self(states.BecameReady(self.run)) if self.spec.ready_kind != "after" else self.later(1.0)

    def rolling(self) -> History:
        self.running().done()
        return self(states.RestartAsked())

    def done(self) -> list[Effect]:
        """What was asked of privileged since the last look."""
        asked = [effect for effect in self.effects if isinstance(effect, Spawn | Signal)]
        self.effects.clear()
        return asked

    def said(self) -> list[str]:
        """What was said since the last look."""
        said = [getattr(e, "text", None) or getattr(e, "reason", "") for e in self.effects]
        self.effects.clear()
        return [text for text in said if text]

    @property
    def state(self) -> Any:
        return self.slot.state


class SimulatedRun:
    def __init__(self, number: int, request: Request, started: int) -> None:
        self.number, self.slot, self.generation, self.started = number, request.slot, request.generation, started
        self.pid = 1000 + number
        self.exited: ipc.Message | None = None
        self.acknowledged = False


class SimulatedPrivileged:
    """As rootd/privileged answers, message by message; `said` waits until the test delivers it.

    stubborn: processes ignore their stop signal. lingering: runs whose trees SIGKILL does not end.
    failing: (errno, step) that every spawn fails with.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.runs: dict[int, SimulatedRun] = {}
        self.said: deque[ipc.Message] = deque()
        self.asked: list[Request] = []
        self.up = self.heard = False
        self.last = 0
        self.stubborn = False
        self.lingering: set[int] = set()
        self.refusing = 0  # the errno of each ADOPT
        self.failing: tuple[int, str] | None = None
        self.shut_down, self.status = False, 0
        self.parts: set[int] = set()  # entries that are hooks and the like

    def perform(self, request: Request) -> None:
        """What Performer does, and what privileged then does."""
        if isinstance(request.effect, Resume):
            self.heard = self.up
            return
        if not self.heard:
            return
        self.asked.append(request)
        match request.effect:
            case Spawn():
                self.spawn(request)
            case Signal(run, signo, tree):
                self.signal(request.seq, run, signo, tree)
            case Adopt(run, pid):
                self.adopt(request.seq, run, pid)
            case Shutdown():
                self.shut_down, self.status = True, request.effect.status
                self.said.append(ipc.Message(ipc.DONE, seq=request.seq))

    def spawn(self, request: Request) -> None:
        same = [run for run in self.runs.values() if (run.slot, run.generation) == (request.slot, request.generation)]
        if len(same) >= 2:
            self.said.append(ipc.Message(ipc.DONE, seq=request.seq, arg=errno.EBUSY))
        elif self.failing is not None:
            number, step = self.failing
            self.said.append(ipc.Message(ipc.DONE, seq=request.seq, arg=number, extra=ipc.STEPS.index(step)))
        else:
            self.last += 1
            run = SimulatedRun(self.last, request, int(self.clock() * SECOND))
            self.runs[run.number] = run
            self.said.append(
                ipc.Message(
                    ipc.SPAWNED, seq=request.seq, run=run.number, slot=run.slot, generation=run.generation,
                    arg=run.pid, extra=run.started,
                )
            )  # fmt: skip

    def signal(self, seq: int, number: int, signo: int, tree: bool) -> None:
        run = self.runs.get(number)
        gone = run is None or (run.exited is not None and not tree)
        self.said.append(ipc.Message(ipc.DONE, seq=seq, arg=errno.ESRCH if gone else 0))
        if run is None:
            return
        if run.exited is not None and tree and number in self.lingering:
            run.acknowledged = True
        elif run.exited is not None and tree:
            del self.runs[number]
            self.said.append(ipc.Message(ipc.EMPTY, run=number, slot=run.slot))
        elif signo == SIGKILL or (signo == 15 and not self.stubborn):
            self.exit(number, -signo)

    def adopt(self, seq: int, number: int, pid: int) -> None:
        run = self.runs.get(number)
        refused = errno.ESRCH if run is None else self.refusing
        if run is not None and not refused:
            run.pid, run.exited = pid, None
        self.said.append(ipc.Message(ipc.DONE, seq=seq, run=number, arg=refused))

    def exit(self, number: int, status: int, failure: int = 0) -> None:
        run = self.runs[number]
        if run.exited is None:
            run.exited = ipc.Message(ipc.EXITED, run=number, slot=run.slot, arg=status, flags=ipc.KNOWN, extra=failure)
            self.said.append(run.exited)

    def mains(self) -> list[SimulatedRun]:
        return [run for run in self.runs.values() if run.exited is None and run.slot // 1024 not in self.parts]

    def errands(self) -> list[SimulatedRun]:
        return [run for run in self.runs.values() if run.exited is None and run.slot // 1024 in self.parts]


class House:
    """Services above a simulated privileged."""

    def __init__(self, *specs: ServiceSpec) -> None:
        self.now = 100.0
        self.life = 1
        self.events: list[Any] = []
        self.generation = 1
        self.ahead = 1_700_000_000.0  # by how much the wall clock is ahead of now
        self.probing = True
        self.probes: list[tuple[int, str, str | None, float]] = []
        self.specs = specs or (spec(),)
        self.privileged = SimulatedPrivileged(lambda: self.now)
        self.privileged.parts |= {entry for one in self.specs for _, entry in one.parts}
        self.services = self.supervisor()

    def supervisor(self) -> Services:
        self.probes = []
        perform, publish, wall = self.privileged.perform, self.events.append, lambda: f"T{self.now:g}"
        clock = lambda: self.now + self.ahead  # noqa: E731
        services = Services(perform, publish, wall, self, "/run/x/probe", clock=clock, life=self.life)
        heard = services.notified

        def notified(run: int, payload: dict[str, str], now: float) -> None:
            if payload.get("READY") == "1":
                services.readiness.remember(run, True)  # as Notify does
            heard(run, payload, now)

        services.notified = notified  # type: ignore[method-assign]
        return services

    def ask(self, number: int, address: str, target: str | None, limit: float) -> bool:
        """What is asked of the probe process, while there is one."""
        self.probes += [(number, address, target, limit)] if self.probing else []
        return self.probing

    def disconnect(self) -> None:
        """The probe process is ended, and started again."""
        self.probing = False
        self.services.probe_away(self.now)

    def begin(self) -> House:
        self.services.load(self.specs, self.generation, self.now)
        return self.link()

    def lose(self) -> House:
        """privileged is gone: what it had not said is lost, and what is asked of it too."""
        self.privileged.up = self.privileged.heard = False
        self.privileged.said.clear()
        return self

    def link(self) -> House:
        """A privileged tells what there is, and the exits that nobody acknowledged."""
        self.privileged.up = True
        for run in self.privileged.runs.values():
            fact = ipc.Message(ipc.FACT, run=run.number, slot=run.slot, generation=run.generation)
            left = ipc.LEFT if run.acknowledged else 0
            fact = fact._replace(arg=run.pid, extra=run.started, flags=left)
            self.services.fact(fact, self.now)
        self.privileged.said.extend(run.exited for run in self.privileged.runs.values() if run.exited is not None)
        self.services.facts_done(self.now)
        return self

    def stray(self, number: int, slot: int, generation: int = 1) -> None:
        """A run that the supervisor has never asked for."""
        request = Request(0, slot, generation, Spawn())
        self.privileged.runs[number] = SimulatedRun(number, request, number)
        self.privileged.last = max(self.privileged.last, number)

    def reborn(self, state: bytes | None = None) -> House:
        """The supervisor was killed: another one, with what the last one wrote."""
        said = self.services.readiness.said
        if state is None:
            state = self.services.state()
        self.lose()
        self.services = self.supervisor()
        self.services.restore(state)
        self.services.readiness.said = said
        return self.begin()

    def deliver(self, count: int = 1_000) -> House:
        """Messages that privileged has said, in their order."""
        while self.privileged.said and count:
            count -= 1
            self.services.event(self.privileged.said.popleft(), self.now)
        return self

    def later(self, seconds: float) -> House:
        """Time passes, timer by timer, with every message delivered."""
        until = self.now + seconds
        self.deliver()
        while (at := self.services.wake_at()) is not None and at <= until:
            self.now = max(self.now, at)
            self.services.wake(self.now)
            self.deliver()
        self.now = until
        return self

    def reload(self, *specs: ServiceSpec) -> Any:
        self.specs, self.generation = specs, self.generation + 1
        self.privileged.parts |= {entry for one in self.specs for _, entry in one.parts}
        return self.services.load(specs, self.generation, self.now)

    def states(self, name: str = "site") -> list[str]:
        return [process.state for process in self.services.info(name).processes]

    def pids(self, name: str = "site") -> list[int]:
        return [process.pid for process in self.services.info(name).processes]

    def said(self, operation: int) -> list[str]:
        """The steps of an operation, and at its end whether it went well and its text."""
        found: list[str] = []
        for event in self.services.operation_events(operation):
            text = mentions.plain(event.text)
            found.append(text if not hasattr(event, "ok") else f"{'ok' if event.ok else 'failed'}: {text}")
        return found


@pytest.fixture(scope="session", name="spec")
def make_spec() -> Callable[..., ServiceSpec]:
    return spec


@pytest.fixture(scope="session", name="History")
def new_history() -> type[History]:
    return History


@pytest.fixture(scope="session", name="House")
def new_house() -> type[House]:
    return House
