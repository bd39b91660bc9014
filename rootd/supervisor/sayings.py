"""What a service says of itself: ready, alive, its words for people, and which of its processes is the main one.

Rule 1: its words are text for people; nothing else follows from them than from what it may say in any case.
Rule 2: another main process counts when privileged has proven it; an exit that is told meanwhile waits for that.

Times are seconds of CLOCK_BOOTTIME. Source: sd_notify(3).
"""

from __future__ import annotations

from collections.abc import Callable

from rootd import ipc
from rootd.supervisor import exits, states
from rootd.supervisor.instances import Instance
from rootd.supervisor.monitor import Monitor
from rootd.supervisor.perform import Adopt, Requests

ADOPT_AGAIN, ADOPT_MOST = 1.0, 60.0  # seconds after which another process may become the main one: each time is written
# down, and the first pause becomes the last by doubling, until none was wanted for two such; nobody fills a disk by it
DOING = {"STOPPING": "stopping", "RELOADING": "reloading"}  # what it says of itself, and how that is shown

Apply = Callable[[Instance, states.Event, float], None]


class Sayings:
    """apply: an event of a slot. show: what people see may have changed. event: what privileged has told."""

    def __init__(
        self, requests: Requests, monitor: Monitor, apply: Apply, show: Callable[[Instance], None],
        event: Callable[[ipc.Message, float], None],
    ) -> None:  # fmt: skip
        self._requests, self._monitor = requests, monitor
        self._apply, self._show, self._event = apply, show, event
        self._adopting: dict[int, ipc.Message | None] = {}  # runs, and the exits that were told meanwhile

    def heard(self, instance: Instance, run: int, payload: dict[str, str], now: float) -> None:
        """The texts are harmless and short already."""
        process = states.runs(instance.slot.state)[run]
        doing = next((word for key, word in DOING.items() if payload.get(key) == "1"), "")
        is_ready = payload.get("READY") == "1"
        if "STATUS" in payload or doing:
            instance.status[run] = payload.get("STATUS", doing)
        elif is_ready and instance.status.get(run) in DOING.values():
            del instance.status[run]
        if "MAINPID" in payload:
            self._adopt(instance, process, int(payload["MAINPID"]), now)
        if payload.get("STOPPING") == "1":
            self._monitor.stopping(run)
        if payload.get("WATCHDOG") == "1":
            self._monitor.alive(run, now)
        if is_ready and process.spec.ready_kind in ("notify", "fd"):
            self._apply(instance, states.BecameReady(run), now)
        if payload.get("WATCHDOG") == "trigger":
            self._monitor.tripped(run, now)
        self._show(instance)

    # -- another main process ----------------------------------------------------------------------------------------

    def _adopt(self, instance: Instance, process: states.Process, pid: int, now: float) -> None:
        """One after the other: what is said while one is asked, or at once after it was done, is not heard."""
        again = instance.adopted_run == process.run  # the first one of a run is heard: it is started seldom enough
        often = process.run in self._adopting or (again and now - instance.adopted_at < instance.adopt_pause)
        if pid != process.pid and not often and not self._requests.full(instance.key):
            self._adopting[process.run] = None
            self._requests.ask(instance.key, Adopt(process.run, pid))

    def holds(self, exited: ipc.Message) -> bool:
        """Whether this EXITED has to wait: it may be that of the process before."""
        if exited.run not in self._adopting:
            return False
        self._adopting[exited.run] = exited
        return True

    def adopted(self, instance: Instance | None, effect: Adopt, number: int, now: float) -> None:
        """privileged has answered: 0, or an errno. An exit that was told meanwhile was that of the one before, if 0.

        instance: None when all of the run has ended meanwhile, and its slot was one too many: nothing follows then.
        """
        ended = self._adopting.pop(effect.run, None)
        if instance is None:
            return None
        if number == 0:
            seldom = now - instance.adopted_at >= 2 * ADOPT_MOST
            longer = min(2 * instance.adopt_pause, ADOPT_MOST)
            instance.adopt_pause = ADOPT_AGAIN if seldom else max(longer, ADOPT_AGAIN)
            instance.adopted_at, instance.adopted_run = now, effect.run
            return self._apply(instance, states.Adopted(effect.run, effect.pid), now)
        mine = states.runs(instance.slot.state).get(effect.run)
        if (
            instance.refused != effect.run and mine is not None and mine.pid != effect.pid
        ):  # as it is: it was asked again
            instance.refused = effect.run
            instance.status[effect.run] = f"MAINPID={effect.pid} does not count: {exits.not_adopted(number)}"
            self._show(instance)
        return self._event(ended, now) if ended is not None else None

    def forget(self) -> None:
        """privileged was started again: it tells every exit anew."""
        self._adopting.clear()

    def asked_again(self, run: int) -> None:
        """What privileged did not answer before that."""
        self._adopting[run] = None
