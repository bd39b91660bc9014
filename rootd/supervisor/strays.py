"""Runs that there is no place for: they are killed, and what is to be spawned in their slot waits for that.

Rule 1: nothing is spawned in a slot in which a run is left that nobody accounts for.
Rule 2: nobody waits for ever: where SIGKILL does not end one, it is told, and the spawn has failed.

Times are seconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

from collections.abc import Callable

from rootd import ipc
from rootd.supervisor import states
from rootd.supervisor.exits import Exit
from rootd.supervisor.instances import Instance, Key
from rootd.supervisor.moves import KILL_AGAIN
from rootd.supervisor.perform import Requests

SIGKILL = 9
GIVE_UP = 3  # SIGKILLs while a spawn waits, after which it has failed
STUCK = states.SpawnFailed(Exit(None, failure=ipc.STEPS.index("left")))


class Hold:
    """A spawn that waits. due: when what is left is killed again."""

    def __init__(self, instance: Instance, due: float) -> None:
        self.instance, self.due = instance, due
        self.kills = 0


class Strays:
    """tell: what has become of a spawn that waits: SpawnLost (it can be asked now) or STUCK."""

    def __init__(self, requests: Requests, tell: Callable[[Instance, states.Event, float], None]) -> None:
        self._requests, self._tell = requests, tell
        self._left: dict[int, Instance | None] = {}
        self._held: dict[Key, Hold] = {}

    def forget(self) -> None:
        """privileged tells anew what there is."""
        self._left.clear()
        self._held.clear()

    def kill(self, run: int, instance: Instance | None = None) -> None:
        """instance: the slot that it is in. Told again after its exit, which makes privileged forget it."""
        self._left[run] = instance or self._left.get(run)
        self._requests.ask(("", run), states.Signal(run, SIGKILL, tree=True))

    def hold(self, instance: Instance, now: float) -> bool:
        """Whether what is to be spawned there has to wait. Who does is told of what becomes of it."""
        if not self._of(instance):
            return False
        self._held[instance.key] = Hold(instance, now + KILL_AGAIN)
        return True

    def over(self, run: int, now: float) -> None:
        """Nothing is left of it."""
        instance = self._left.pop(run, None)
        if instance is not None and instance.key in self._held and not self._of(instance):
            del self._held[instance.key]
            self._tell(instance, states.SpawnLost(), now)

    def wake_at(self) -> float | None:
        return min((hold.due for hold in self._held.values()), default=None)

    def wake(self, now: float) -> None:
        for key, hold in [(key, hold) for key, hold in self._held.items() if hold.due <= now]:
            hold.due, hold.kills = now + KILL_AGAIN, hold.kills + 1
            for run in self._of(hold.instance):
                self.kill(run)
            if hold.kills >= GIVE_UP:
                del self._held[key]
                self._tell(hold.instance, STUCK, now)

    def _of(self, instance: Instance) -> list[int]:
        return [run for run, other in self._left.items() if other is instance]
