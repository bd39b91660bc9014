"""Who is to be looked after while it runs: probes until it is ready, probes that it is alive, and its watchdog.

Rule 1: what a probe finds becomes an event; lifecycle says what follows.
Rule 2: an answer that did not come because a part of ours was away counts for nothing: it is asked again.
Rule 3: each look at a process is about that run and ends with it: an answer that comes later is about nobody.

Times are seconds of CLOCK_BOOTTIME. Source: sd_notify(3) WATCHDOG=1, DESIGN §4.
"""

from __future__ import annotations

import heapq
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

from rootd.supervisor import states
from rootd.supervisor.instances import Instance

if TYPE_CHECKING:
    from rootd.config.specs import Probe, ServiceSpec

ATTEMPT = 5.0  # seconds of one probe while it is not ready
NUMBERS = (1 << 31) - 1  # of questions, before they begin anew
AT_ONCE = 1_000  # questions that wait for an answer: the probe process has a limit too, and it is not a service's fault
GRACE = 5.0  # seconds after its limit in which an answer of the probe process must have come

Kind = Literal["ready", "live", "watchdog"]

Run = Callable[[Instance, str, int, "ServiceSpec", float], None]  # Errands.begin
Tell = Callable[[Instance, states.Event, float], None]
Show = Callable[[Instance, int, str], None]  # run, problem


class Prober(Protocol):
    """The link to the probe process."""

    def ask(self, seq: int, address: str, target: str | None, timeout: float, /) -> bool:
        """target: of HTTP. False: there is none now."""

    def disconnect(self) -> None:
        """It does not answer, and is to be started again."""


class Check:
    """One thing that is looked after. due: when it is looked at next, or what was asked is given up."""

    def __init__(self, instance: Instance, process: states.Process, kind: Kind) -> None:
        self.instance, self.run, self.spec, self.kind = instance, process.run, process.spec, kind
        self.due = 0.0
        self.number = 0  # of the question that is not answered
        self.failures = 0
        self.heard = 0.0  # when the watchdog was told last
        self.problem = ""  # that people have been shown
        self.found = ""  # by the last probe

    @property
    def probe(self) -> Probe | None:
        return self.spec.ready_probe if self.kind == "ready" else self.spec.live_probe

    @property
    def interval(self) -> float:
        return self.spec.ready_interval if self.kind == "ready" else self.spec.live_interval

    @property
    def limit(self) -> float:
        return ATTEMPT if self.kind == "ready" else self.spec.live_timeout


class Monitor:
    """place: the directory of the processes' own sockets. run: a command. tell: an event of a slot.

    show: a text about a process.
    """

    def __init__(self, prober: Prober, place: str, run: Run, tell: Tell, show: Show) -> None:
        self._prober, self._place, self._run, self._tell, self._show = prober, place, run, tell, show
        self._checks: dict[tuple[int, Kind], Check] = {}
        self._of: dict[int, list[Check]] = {}  # by the id of an instance
        self._asked: dict[int, Check] = {}
        self._timers: list[tuple[float, int, Check]] = []
        self._last = self._number = 0

    def look(self, instance: Instance, now: float) -> None:
        """Its state has changed: who is to be looked after now."""
        wanted = {(process.run, kind): process for process, kind in _wanted(instance.slot.state)}
        mine = self._of.get(id(instance), [])
        if not wanted and not mine:
            return
        for check in [check for check in mine if (check.run, check.kind) not in wanted]:
            self._drop(check)
        for (run, kind), process in wanted.items():
            if (run, kind) not in self._checks:
                check = self._checks[run, kind] = Check(instance, process, kind)
                self._of.setdefault(id(instance), []).append(check)
                check.heard = now
                first = {"ready": now, "live": now + check.interval, "watchdog": now + check.spec.watchdog}
                self._at(check, first[kind])

    def _drop(self, check: Check) -> None:
        del self._checks[check.run, check.kind]
        self._asked.pop(check.number, None)
        left = self._of[id(check.instance)]
        left.remove(check)
        if not left:
            del self._of[id(check.instance)]

    # -- what is said and answered -----------------------------------------------------------------------------------

    def alive(self, run: int, now: float) -> None:
        """WATCHDOG=1."""
        check = self._checks.get((run, "watchdog"))
        if check is not None:
            check.heard = now

    def tripped(self, run: int, now: float) -> None:
        """WATCHDOG=trigger: it says of itself that it is not well."""
        check = self._checks.get((run, "watchdog"))
        if check is not None:
            self._fail(check, "it said WATCHDOG=trigger", now)

    def stopping(self, run: int) -> None:
        """STOPPING=1: it ends, and has no time to say that it is well."""
        kinds: tuple[Kind, ...] = ("live", "watchdog")
        for kind in kinds:
            check = self._checks.get((run, kind))
            if check is not None:
                self._drop(check)

    def answered(self, number: int, problem: str, now: float) -> None:
        """The probe process has looked."""
        check = self._asked.pop(number, None)
        if check is not None:
            self._found(check, problem, now)

    def ran(self, part: Kind, run: int, problem: str, ran: bool, now: float) -> None:
        """A command has looked, or (not ran) could not be spawned, or nobody saw how it ended."""
        check = self._checks.get((run, part))
        if check is not None and (ran or part == "ready"):
            self._found(check, problem, now)
        elif check is not None:
            self._at(check, now + check.interval)
            self._tell_people(check, f"cannot be probed: {problem}")

    def finding(self, instance: Instance) -> str:
        """What the last probe said against its being ready; "" when none has said anything, or it is not asked."""
        return next((check.found for check in self._of.get(id(instance), ()) if check.kind == "ready"), "")

    def away(self, now: float) -> None:
        """The probe process is started again: what it was asked is asked again."""
        asked, self._asked = self._asked, {}
        for check in asked.values():
            self._at(check, now)

    def wake_at(self) -> float | None:
        while self._timers and not self._is_next(self._timers[0]):
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def wake(self, now: float) -> None:
        while (due := self.wake_at()) is not None and due <= now:
            check = heapq.heappop(self._timers)[2]
            if self._asked.pop(check.number, None) is not None:
                self._prober.disconnect()
            if check.kind != "watchdog":
                self._begin(check, now)
            elif now < check.heard + check.spec.watchdog:
                self._at(check, check.heard + check.spec.watchdog)
            else:
                self._fail(check, f"silent for {check.spec.watchdog:g} s (watchdog)", now)

    def _is_next(self, timer: tuple[float, int, Check]) -> bool:
        return self._checks.get((timer[2].run, timer[2].kind)) is timer[2] and timer[2].due == timer[0]

    def _at(self, check: Check, due: float) -> None:
        self._last += 1
        check.due = due
        heapq.heappush(self._timers, (due, self._last, check))

    # -- one look ----------------------------------------------------------------------------------------------------

    def _begin(self, check: Check, now: float) -> None:
        probe = check.probe
        assert probe is not None
        if probe.kind == "command":
            self._at(check, now + check.limit + 4 * GRACE)
            return self._run(check.instance, check.kind, check.run, check.spec, check.limit)
        if len(self._asked) >= AT_ONCE:
            return self._at(check, now + check.interval)
        self._number = self._number % NUMBERS + 1
        check.number = self._number
        self._asked[check.number] = check
        address = probe.address or f"unix:{self._place}/{check.run}"
        if self._prober.ask(check.number, address, probe.target or None, check.limit):
            return self._at(check, now + check.limit + GRACE)
        del self._asked[check.number]
        return self._at(check, now + check.interval)

    def _found(self, check: Check, problem: str, now: float) -> None:
        self._at(check, now + check.interval)
        check.failures, check.found = check.failures + 1 if problem else 0, problem
        if check.kind == "ready":
            self._tell_people(check, problem and f"not ready: {problem}")
            if not problem:
                self._tell(check.instance, states.BecameReady(check.run), now)
        elif check.failures >= check.spec.live_failures:
            why = f"{check.failures} probes in a row failed, the last one: {problem}"
            if check.spec.live_restart:
                self._fail(check, why, now)
            else:
                self._tell_people(check, why)
        elif not problem:
            self._tell_people(check, "")

    def _tell_people(self, check: Check, problem: str) -> None:
        if check.problem != problem:
            check.problem = problem
            self._show(check.instance, check.run, problem)

    def _fail(self, check: Check, why: str, now: float) -> None:
        """Told once: what follows takes it out of what is looked after."""
        signo = signal.SIGABRT.value if check.kind == "watchdog" else 0
        self._tell(check.instance, states.Failing(check.run, why, signo), now)


def _wanted(state: states.State) -> list[tuple[states.Process, Kind]]:
    found: list[tuple[states.Process, Kind]] = []
    for part in states.legs(state):
        if isinstance(part, states.Starting) and part.process.spec.ready_probe:
            found.append((part.process, "ready"))
        elif isinstance(part, states.Running):
            found += [(part.process, "live")] if part.process.spec.live_probe else []
            found += [(part.process, "watchdog")] if part.process.spec.watchdog else []
    return found
