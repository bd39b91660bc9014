"""What people have asked for and wait for: each operation with its steps and its end.

Rule 1: an operation ends exactly once, and everything that it says is numbered, in one sequence with all events.
Rule 2: every list here has its limit: a forgotten operation is unknown, never wrong.
Rule 3: nothing here acts; services tells what has happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, assert_never

from msgspec.structs import replace

from policy.messages import Changed, Ended, Lapsed, OperationInfo, Problem, RefusalKind, Step
from policy.names import Action
from rootd.supervisor import mentions, states
from rootd.supervisor.exits import status_words

KEPT_LIMIT = 512  # operations that have ended and can still be asked for
LIVE_LIMIT = 4096  # operations under way
JOINED_LIMIT = 32  # requests that wait for one operation: each has an outcome of its own in the audit log
STEPS_LIMIT = 200  # steps of one operation; further ones are counted, and left out
TEXT_LIMIT = 4_000  # characters of a text that is told: with the problems of a reload it fits into a packet
SHOWN = 1_000  # characters of a step or an outcome in a list of operations
PATIENCE = 10.0  # seconds of failing and trying again, before a start is called failed
AHEAD = 100  # numbers that are written as given out before they are: so many may be left out after a kill -9
GIVE_UP = 3  # SIGKILLs to a tree, before its stop is called failed

Kind = Literal["start", "stop", "restart", "signal", "scale", "shutdown", "reload", "upgrade"]
Publish = Callable[[Changed | Step | Ended | Lapsed], None]


class Refusal(Exception):
    """It cannot be done now: an ordinary reply."""

    def __init__(self, kind: RefusalKind, text: str) -> None:
        super().__init__(text)
        self.kind: RefusalKind = kind
        self.text = text


class Already(Refusal):
    """It is as was asked for, or was made so without a process that began or ended: most will call it done."""

    def __init__(self, text: str) -> None:
        super().__init__("conflict", text)


class Asker(NamedTuple):
    """Who gets an outcome of his own in the audit log."""

    id: str  # of the request
    service: str | None
    action: str


class Operation:
    """One thing under way. requests are the ids of those who asked: more than one when they joined."""

    def __init__(self, number: int, kind: Kind, service: str, request: str, began: float) -> None:
        self.number = number
        self.kind = kind
        self.service = service
        self.requests = [request]
        self.began = began
        self.since = ""  # the same for people
        self.born = 0  # the number of the last event before it
        self.user = ""  # who asked first; "" when it followed from something else
        self.askers: list[Asker] = []
        self.down = kind in ("stop", "shutdown")  # whether it is over when its slots are at rest
        self.processes = 0  # how many there are to be, of a scale
        self.hard = False
        self.spawned = False  # a process was started for it: who asks from now on may mean newer files than that has
        self.active: set[int] = set()  # what it waits for: instances; of a signal runs, of a reload operations
        self.pending: list[int] = []  # instances whose turn has not come
        self.failures: list[str] = []
        self.before: set[str] = set()  # services whose stop has to end before this one begins
        self.idle: set[int] = set()  # active instances that were at rest before it
        self.cancelled = ""  # who took it back, in words
        self.taken_back: set[int] = set()  # active instances of which that is so
        self.well = 0  # instances for which what was asked has come
        self.rolled_back: dict[int, str] = {}  # why the new process of an active instance did not take over
        self.former: dict[int, tuple[int, ...]] = {}  # the runs that an active instance had before its restart
        self.generation = 0  # that ran before a reload
        self.result = ""  # of a reload that waits for what it has begun: what it has changed
        self.events: list[Step | Ended] = []

    @property
    def action(self) -> Action:
        """The right that it takes."""
        return Action.SHUTDOWN if self.kind == "upgrade" else Action(self.kind)

    @property
    def ended(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Ended)

    def is_known_to(self, number: int) -> bool:
        """Whether who has seen this event may mean this operation, and none of an earlier boot; 0: he has seen none."""
        return number == 0 or number >= self.born

    def info(self) -> OperationInfo:
        """As it is shown in a list."""
        steps = [event.text for event in self.events[-3:] if isinstance(event, Step)]
        shown = OperationInfo(
            self.number, self.kind, self.service, self.user, len(self.requests) - 1, self.since,
            mentions.short(steps[-1], SHOWN)[0] if steps else "",
        )  # fmt: skip
        end = self.events[-1] if self.events else None
        if isinstance(end, Ended):
            return replace(shown, ok=end.ok, text=mentions.short(end.text, SHOWN)[0], seconds=end.seconds)
        return shown

    def join(self, request: str) -> int:
        """Its number. Raises Refusal when too many wait for it already."""
        if len(self.requests) >= JOINED_LIMIT:
            many = f"{len(self.requests)} requests wait for operation {self.number}, which is the limit"
            raise Refusal("later", f"{many}; watch that one")
        self.requests.append(request)
        return self.number


class Operations:
    """All of them, by number. wall tells the time for people (RFC 3339)."""

    def __init__(self, publish: Publish, wall: Callable[[], str]) -> None:
        self._publish = publish
        self._wall = wall
        self.reserve: Callable[[int], None] = lambda _: None  # for the next supervisor: given out up to this one
        self._known: dict[int, Operation] = {}
        self._over: deque[int] = deque()  # those that have ended, the first to end first
        self._live = 0
        self.last = self._reserved = 0  # number of the latest operation
        self.events = 0  # number of the latest event
        self.revision = 0  # grows with everything that somebody is told of and that must not be forgotten
        self.ends = 0  # grows with every end, and when its outcome is on disk

    def begin(self, kind: Kind, service: str, request: str, now: float) -> Operation:
        """Raises Refusal when too many are under way. There is one shutdown, and always room for it."""
        if self._live >= LIVE_LIMIT and kind != "shutdown":
            raise Refusal("later", f"{self._live} operations are under way, which is the limit; try again later")
        self.last += 1
        if self.last > self._reserved:  # before anybody is told
            self._reserved = self.last + AHEAD
            self.reserve(self._reserved)
        self._live += 1
        operation = self._known[self.last] = Operation(self.last, kind, service, request, now)
        operation.since, operation.born = self._wall(), self.events
        self.revision += 1
        return operation

    def asked(self, operation: Operation, asker: Asker) -> None:
        operation.askers.append(asker)
        self.revision += 1

    def recorded(self, operation: Operation, asker: Asker, why: str) -> None:
        """The outcome for this asker is on disk, or (why) it is not known to be."""
        if not why and asker in operation.askers:
            operation.askers.remove(asker)
            self.ends += 1

    def resume(self, operations: Iterable[Operation]) -> None:
        """Another supervisor's: those that have ended, and those that go on; what is known already counts."""
        for operation in operations:
            if operation.number not in self._known:
                self.last = max(self.last, operation.number)
                self._known[operation.number] = operation
                if operation.ended:
                    self._over.append(operation.number)
                else:
                    self._live += 1

    def restore(self, data: bytes) -> str:
        """What was reserved last is never given out again. Returns what is wrong with it ("" when nothing is)."""
        if data and not (data.isdigit() and len(data) < 19):
            return "the file of numbers is damaged: the number of an operation may be given out again"
        self.last = max(self.last, int(data or b"0"))
        return ""

    def find(self, number: int) -> Operation | None:
        return self._known.get(number)

    def live(self) -> list[Operation]:
        """Those under way."""
        return [operation for operation in self._known.values() if not operation.ended] if self._live else []

    def over(self) -> list[Operation]:
        """Those that have ended, the first to end first."""
        return [self._known[number] for number in self._over]

    def all(self) -> list[Operation]:
        """Those under way and those that are remembered, the oldest first."""
        return list(self._known.values())

    def step(self, operation: Operation, text: str) -> None:
        if not operation.ended and len(operation.events) < STEPS_LIMIT:
            said = Step(self.next_event(), self._wall(), operation.number, operation.service, short(text))
            operation.events.append(said)
            self._publish(said)

    def end(
        self, operation: Operation, ok: bool, text: str, now: float, problems: Iterable[Problem] = (), mark: str = ""
    ) -> None:
        if operation.ended:
            return
        seconds = round(max(0.0, now - operation.began), 3)
        if ok:
            self.step(operation, f"done in {seconds:.2f} s")
        said = Ended(
            self.next_event(), self._wall(), operation.number, operation.service, ok, short(text), seconds,
            list(problems), mark,
        )  # fmt: skip
        operation.events.append(said)
        self._live -= 1
        self.ends += 1
        self._over.append(operation.number)
        self._publish(said)
        while len(self._over) > KEPT_LIMIT:
            del self._known[self._over.popleft()]

    def changed(self, service: str, process: str, state: str, pid: int, text: str) -> None:
        """A process changed its state: for whoever watches."""
        self._publish(Changed(self.next_event(), self._wall(), service, process, state, pid, short(text)))

    def lapsed(self, approval: int, service: str, text: str) -> None:
        """What waited for a second person waits no more: for whoever watches."""
        self._publish(Lapsed(self.next_event(), self._wall(), approval, service, short(text)))

    def next_event(self) -> int:
        self.events += 1
        return self.events


def short(text: str) -> str:
    """What is said of very many: a packet that does not fit would end every watch that it is for."""
    kept, size = mentions.short(text, TEXT_LIMIT)
    return text if size <= TEXT_LIMIT else f"{kept} … ({size} characters in all)"


def verdict(operation: Operation, slot: states.Slot, now: float, index: int = 0, once: bool = False) -> str | None:
    """Of one slot: None while it goes on, "" when what was asked for has come, else why it will not.

    once: of a service that is to end by itself.
    """
    late = now - operation.began >= PATIENCE
    state = slot.state
    for part in states.legs(state):
        if isinstance(part, states.Stopping | states.Emptying) and part.kills >= GIVE_UP:
            return f"process {part.process.pid} does not end, even by SIGKILL"
    down = operation.down
    match state:
        case states.Stopped():
            return "" if down else "it was stopped"
        case states.Exited(end, clean):
            return "" if down or clean else f"{'' if once else 'it ended by itself: '}{status_words(end)}"
        case states.Fatal(reason):
            return "" if down else reason
        case states.Running():
            return None if down else operation.rolled_back.get(index, "")
        case (
            states.Backoff(_, reason)
            | states.Emptying(next=states.Backoff(_, reason))
            | states.Cleaning(next=states.Backoff(_, reason))
        ):
            return f"{reason}; it is tried again" if reason and late else None
        case (
            states.Waiting()
            | states.Preparing()
            | states.Spawning()
            | states.Starting()
            | states.Working()
            | states.Settling()
            | states.Stopping()
            | states.Emptying()
            | states.Cleaning()
            | states.Replacing()
        ):
            return None
        case _:
            assert_never(state)
