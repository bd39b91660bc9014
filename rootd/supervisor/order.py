"""Which service waits for which: who may start, and who has to stop first.

Rule 1: a spawn that comes after something waits until that is ready; what is not waited for is never delayed.
Rule 2: a dependency that dies leaves those that run on it up; one that fails fails those that still wait for it.
Rule 3: nothing is decided here about a slot: it is told Held, Cleared or Barred, and lifecycle says what follows.

Source: DESIGN §4; systemd.unit(5) Requires=, After= for what people expect of the words.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple, assert_never

from rootd.config.specs import ServiceSpec
from rootd.supervisor import mentions, states
from rootd.supervisor.exits import status_words
from rootd.supervisor.instances import Instance, Key

Word = Literal["ready", "coming", "ending", "down", "failed"]  # from the best to the gravest
CHAIN = 2_000  # characters of why one of a chain of services failed, the marks in it too
_GRAVITY: dict[Word, int] = {"ready": 0, "coming": 1, "ending": 2, "down": 3, "failed": 4}


class Standing(NamedTuple):
    """How a service is for those that come after it."""

    word: Word
    why: str = ""


def standing(instances: Iterable[Instance]) -> Standing:
    """Of all processes of a service: the gravest of what they are."""
    return max((_of(states.shown(one.slot.state)) for one in instances), key=lambda found: _GRAVITY[found.word])


def _of(state: states.Leg | states.Rest | states.Waiting) -> Standing:
    match state:
        case states.Running() | states.Exited(clean=True):
            return Standing("ready")
        case states.Exited(end):
            return Standing("failed", f"it ended by itself: {status_words(end)}")
        case states.Fatal(reason):
            return Standing("failed", reason)
        case states.Stopped():
            return Standing("down")
        case (
            states.Backoff() | states.Waiting() | states.Preparing()
            | states.Spawning() | states.Starting() | states.Working() | states.Settling()
        ):  # fmt: skip
            return Standing("coming")
        case states.Stopping(next=rest) | states.Emptying(next=rest) | states.Cleaning(next=rest):
            return Standing("ending") if isinstance(rest, states.Stopped) else _of(rest)
        case _:
            assert_never(state)


class Order:
    """of: the slots of a service. apply: an event of a slot. start: somebody needs this service, which is down."""

    def __init__(
        self,
        of: Callable[[str], list[Instance]],
        apply: Callable[[Instance, states.Event, float], None],
        start: Callable[[str, float], object],
    ) -> None:
        self._of, self._apply, self._start = of, apply, start
        self._specs: Mapping[str, ServiceSpec] = {}
        self._above: dict[str, list[str]] = {}  # service -> those that require it
        self._later: dict[str, list[str]] = {}  # service -> those that come after it, for either reason
        self._waiting: dict[str, dict[Key, Instance]] = {}  # service -> those whose turn it is about
        self._due: deque[Instance] = deque()
        self._busy = False

    def load(self, specs: Mapping[str, ServiceSpec], now: float) -> None:
        """From now on this is who waits for whom; those that wait are looked at again."""
        self._specs, self._above, self._later = specs, {}, {}
        for spec in specs.values():
            for other in spec.requires:
                self._above.setdefault(other, []).append(spec.name)
            for other in (*spec.requires, *spec.after):
                self._later.setdefault(other, []).append(spec.name)
        waiting = [one for them in self._waiting.values() for one in them.values()]
        self._waiting.clear()
        self._look(waiting, now)

    def dependants(self, name: str) -> list[str]:
        """What runs, or is wanted, and requires this service, directly or not; those that nobody requires first."""
        found: dict[str, None] = {}

        def visit(one: str) -> None:
            for other in self._above.get(one, ()):
                if other not in found and any(not _is_down(instance) for instance in self._of(other)):
                    visit(other)
                    found[other] = None

        visit(name)
        return list(found)

    def failed(self, name: str) -> list[str]:
        """What this service requires, directly or not, and what has failed; what is required by another first."""
        found: dict[str, None] = {}

        def visit(one: str) -> None:
            for other in self._specs[one].requires if one in self._specs else ():
                if other not in found and standing(self._of(other)).word == "failed":
                    visit(other)
                    found[other] = None

        visit(name)
        return list(found)

    def ends(self, names: Sequence[str]) -> dict[str, list[str]]:
        """These services, what is to end first first, each with those of them that are to end before it."""
        later = {name: [other for other in self.later(name) if other in names] for name in names}
        found: dict[str, list[str]] = {}

        def visit(name: str) -> None:
            for other in later[name]:
                if other not in found:
                    visit(other)
            found[name] = later[name]

        for name in names:
            if name not in found:
                visit(name)
        return found

    def later(self, name: str) -> list[str]:
        """The services that come directly after this one, and so stop before it."""
        return self._later.get(name, [])

    def earlier(self, name: str) -> tuple[str, ...]:
        """The services that this one comes directly after."""
        spec = self._specs.get(name)
        return () if spec is None else (*spec.requires, *spec.after)

    def awaits(self, instance: Instance, now: float) -> None:
        """This slot wants to be spawned."""
        self._look([instance], now)

    def changed(self, name: str, now: float) -> None:
        """Something has happened to this service: is it somebody's turn? Not while it is what they wait for: coming."""
        if name in self._waiting and standing(self._of(name)).word != "coming":
            self._look(self._waiting.pop(name).values(), now)

    def _look(self, instances: Iterable[Instance], now: float) -> None:
        self._due.extend(instances)
        with self.at_once(now):
            pass

    @contextmanager
    def at_once(self, now: float) -> Iterator[None]:
        """What happens within has happened at one moment: nobody's turn comes before all of it is known.

        Turns come one after the other, not one within the other, however long a chain is.
        """
        if self._busy:
            yield
            return
        self._busy = True
        try:
            yield
            while self._due:
                instance = self._due.popleft()
                if isinstance(instance.slot.state, states.Waiting):
                    self._apply(instance, self._turn(instance, now), now)
        finally:
            self._busy = False

    def _turn(self, instance: Instance, now: float) -> states.Event:
        spec, waits = instance.spec, []
        if instance.removed:  # what it comes after may not be configured any more; it is told to stop next
            return states.Held(())
        for name in spec.requires:
            found = standing(self._of(name))
            if found.word in ("down", "ending"):  # one that is ending is started again when it has ended
                self._start(name, now)
                found = standing(self._of(name))
            if found.word in ("failed", "down", "ending"):
                return states.Barred(_barred(name, found))
            if found.word == "coming":
                waits.append(name)
        waits += [name for name in spec.after if standing(self._of(name)).word == "coming"]
        for name in waits:
            self._waiting.setdefault(name, {})[instance.key] = instance
        return states.Held(tuple(waits)) if waits else states.Cleared()


def _barred(name: str, found: Standing) -> str:
    """Why what requires this cannot start, for who may view that, and for who may not."""
    how = {"down": "cannot be started now", "ending": "is being stopped"}.get(found.word, "")
    why = found.why if len(found.why) < CHAIN else "what it requires has failed"
    return mentions.mark(
        name,
        f"it requires {name}{f', which {how}' if how else f': {why}'}",
        f"a service that it requires {how or 'failed'}",
    )


def _is_down(instance: Instance) -> bool:
    """Nothing of it runs or is wanted; a scheduled one is nothing between its runs."""
    return (instance.slot.wanted == "down" or instance.spec.schedule is not None) and instance.at_rest()
