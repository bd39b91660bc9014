"""What is run for a service besides its processes: hooks, its stop command, its probes' commands. Each ends in time.

Rule 1: one that takes too long is killed with all that it left, and so is what is left of one that has ended.
Rule 2: whoever asked for one is told of its end exactly once, with what went wrong, whatever becomes of privileged.
Rule 3: its outcome is decided on by others: lifecycle for a hook, monitor for a probe.

Times are seconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rootd.supervisor import states
from rootd.supervisor.exits import Exit, status_words, words
from rootd.supervisor.instances import SLOTS, Instance, Key
from rootd.supervisor.moves import KILL_AGAIN
from rootd.supervisor.perform import Requests

if TYPE_CHECKING:
    from rootd.config.specs import ServiceSpec

SIGKILL = 9
GIVE_UP = 3  # SIGKILLs after which its end is told although it has not come

# part, the run that it was about, problem ("" for none), whether it has run and was seen to end
Told = Callable[[Instance, str, int, str, bool, float], None]


class Errand:
    """One of them, from its asking to its end. run is 0 until it is spawned; due: when it is killed (again)."""

    def __init__(self, instance: Instance, part: str, about: int, spec: ServiceSpec, limit: float) -> None:
        self.instance, self.part, self.about, self.spec = instance, part, about, spec
        self.limit = limit
        self.run = 0
        self.due: float | None = None
        self.kills = 0
        self.problem: str | None = None  # None while nothing is known of its end

    @property
    def key(self) -> Key:
        return f"{self.spec.name}/{self.part}/{self.about}", self.instance.index  # no service has such a name


class Errands:
    """told: called at each end."""

    def __init__(self, requests: Requests, told: Told) -> None:
        self._requests, self._told = requests, told
        self._asked: dict[Key, Errand] = {}
        self._runs: dict[int, Errand] = {}

    def begin(self, instance: Instance, part: str, about: int, spec: ServiceSpec, limit: float) -> None:
        """Run it, at most `limit` seconds. One that is under way is let go on."""
        errand = Errand(instance, part, about, spec, limit)
        if errand.key not in self._asked:
            self._asked[errand.key] = errand
            self._ask(errand)

    def _ask(self, errand: Errand) -> None:
        about = 0 if errand.part == "post-stop" else errand.about  # nothing of that is left
        slot = dict(errand.spec.parts)[errand.part] * SLOTS + errand.instance.index
        self._requests.ask(errand.key, states.Spawn(about), slot, errand.spec.generation)

    def end(self, instance: Instance, part: str, about: int, now: float) -> None:
        """It is not wanted any more."""
        for errand in self._asked.values():
            if (errand.instance, errand.part, errand.about, errand.problem) == (instance, part, about, None):
                errand.problem = "it was ended"
                self._kill(errand, now)

    def has(self, run: int) -> bool:
        return run in self._runs

    def asked(self, key: Key) -> Errand | None:
        """What was asked for under this key."""
        return self._asked.get(key)

    def unspawned(self, instance: Instance, part: str) -> Errand | None:
        """One whose spawn was asked and is not answered."""
        alike = (one for one in self._asked.values() if not one.run and one.instance is instance and one.part == part)
        return next(alike, None)

    # -- what happens ----------------------------------------------------------------------------------------------

    def spawned(self, errand: Errand, run: int, now: float) -> None:
        errand.run, errand.due = run, now + errand.limit
        self._runs[run] = errand
        if errand.problem is not None:
            self._kill(errand, now)

    def failed(self, errand: Errand, failure: Exit, now: float) -> None:
        """It could not be spawned."""
        self._over(errand, errand.problem or words(failure, errand.spec, errand.part), now, ran=False)

    def exited(self, run: int, end: Exit, now: float) -> None:
        errand = self._runs[run]
        if errand.problem is None:
            errand.problem = "" if end.code == 0 and not end.failure else words(end, errand.spec, errand.part)
        self._kill(errand, now)

    def empty(self, run: int, now: float) -> None:
        errand = self._runs[run]
        seen = errand.problem is not None
        self._over(errand, errand.problem or ("" if seen else status_words(Exit(None))), now, ran=seen)

    def wake_at(self) -> float | None:
        return min((one.due for one in self._runs.values() if one.due is not None), default=None)

    def wake(self, now: float) -> None:
        for errand in [one for one in self._runs.values() if one.due is not None and one.due <= now]:
            if errand.problem is None:
                errand.problem = f"it took more than {errand.limit:g} s"
            if errand.kills >= GIVE_UP:
                self._over(errand, f"{errand.problem}, and does not end, even by SIGKILL", now)
            else:
                self._kill(errand, now)

    def _kill(self, errand: Errand, now: float) -> None:
        """All of it. After its exit this is what makes privileged forget it."""
        if errand.run:
            errand.due, errand.kills = now + KILL_AGAIN, errand.kills + 1
            self._requests.ask(errand.key, states.Signal(errand.run, SIGKILL, tree=True))

    def _over(self, errand: Errand, problem: str, now: float, ran: bool = True) -> None:
        self._runs.pop(errand.run, None)
        if self._asked.get(errand.key) is errand:
            del self._asked[errand.key]
            self._told(errand.instance, errand.part, errand.about, problem, ran, now)

    # -- what is found ---------------------------------------------------------------------------------------------

    def adopt(self, errand: Errand, run: int, started: float) -> None:
        """One that the last supervisor began."""
        errand.run, errand.due = run, started + errand.limit
        self._asked[errand.key] = self._runs[run] = errand

    def reconcile(self, found: set[int]) -> list[int]:
        """privileged was started again, and this is what runs: one that was not spawned is asked for again.

        Returns the runs that are over; whoever calls says so (empty) when every slot knows what has become of it.
        """
        for errand in [one for one in self._asked.values() if not one.run]:
            self._ask(errand)
        return [run for run in self._runs if run not in found]
