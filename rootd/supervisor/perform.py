"""From effects to messages for privileged, and back from answers to what was asked.

Rule 1: nothing is decided here: an effect goes out as its message, an answer comes back to who asked.
Rule 2: one request a slot is outstanding; what follows waits for its answer.
Rule 3: what was asked of a privileged that is gone is not sent again from here: after FACTS_END services compares
        what is with what was asked (Requests.forget) and asks again. So nothing is lost, and nothing is done twice.
Rule 4: sequence numbers below OTHERS are Requests'; whoever else asks privileged (STAGE, COMMIT …) counts from OTHERS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, assert_never

from rootd import ipc
from rootd.supervisor.states import Signal, Spawn

Key = tuple[str, int]  # whose a request is: service and instance, or "" and something else

OTHERS = 1 << 31  # the first sequence number that is not from here
WAITING_LIMIT = 64  # requests of one slot that wait for their turn: then nobody should ask for more


class Adopt(NamedTuple):
    """A process of the run says that it is the main one from now on."""

    run: int
    pid: int


class Shutdown(NamedTuple):
    """The last of all: what is left is killed, and the daemon ends with this exit status."""

    status: int = 0


class Resume(NamedTuple):
    """The facts are known: from now on requests go out."""


class Request(NamedTuple):
    """One thing that is asked of privileged. slot and generation are used by Spawn alone, seq not by Resume."""

    seq: int
    slot: int
    generation: int
    effect: Spawn | Signal | Adopt | Shutdown | Resume


class Asked(NamedTuple):
    """A request, and whose it is."""

    key: Key
    request: Request


class Requests:
    """Numbers requests, and holds them until they are answered: the first of each key is out, the others wait."""

    def __init__(self, perform: Callable[[Request], None]) -> None:
        self._perform = perform
        self._queues: dict[Key, list[Request]] = {}  # short ones: an empty deque takes 600 bytes
        self._out: dict[int, Key] = {}
        self._last = 0

    def ask(self, key: Key, effect: Spawn | Signal | Adopt | Shutdown, slot: int = 0, generation: int = 0) -> int:
        """The request's number. To kill a tree that waits to be killed is one request."""
        queue = self._queues.setdefault(key, [])
        for waiting in queue:
            if waiting.seq not in self._out and waiting.effect == effect and isinstance(effect, Signal) and effect.tree:
                return waiting.seq
        self._last = self._last % (OTHERS - 1) + 1
        queue.append(Request(self._last, slot, generation, effect))
        if len(queue) == 1:
            self._send(key, queue[0])
        return self._last

    def answered(self, seq: int) -> Asked | None:
        """What an answer is about; None when it is about nothing that was asked here. The next one goes out."""
        key = self._out.pop(seq, None)
        if key is None:
            return None
        queue = self._queues[key]
        request = queue.pop(0)
        if queue:
            self._send(key, queue[0])
        else:
            del self._queues[key]
        return Asked(key, request)

    def full(self, key: Key) -> bool:
        """Whether as many wait as may."""
        return len(self._queues.get(key, ())) > WAITING_LIMIT

    def forget(self) -> list[Asked]:
        """Everything that is not answered, in its order; nothing of it is outstanding any more."""
        everything = [Asked(key, request) for key, queue in self._queues.items() for request in queue]
        self._queues.clear()
        self._out.clear()
        return everything

    def _send(self, key: Key, request: Request) -> None:
        self._out[request.seq] = key
        self._perform(request)


class Performer:
    """Sends requests to privileged. Its `perform` is what Services is made with.

    connect at each new link, disconnect at its end. Between connect and Resume (Services.facts_done) nothing is sent.
    """

    def __init__(self) -> None:
        self._link: ipc.Link | None = None
        self._open = False

    def connect(self, link: ipc.Link) -> None:
        self._link, self._open = link, False

    def disconnect(self) -> None:
        self._link, self._open = None, False

    def perform(self, request: Request) -> None:
        """Never fails: what cannot be sent is asked again after the next FACTS_END."""
        match request.effect:
            case Resume():
                self._open = self._link is not None
                return
            case Spawn(about):
                generation, slot = request.generation, request.slot
                message = ipc.Message(ipc.SPAWN, seq=request.seq, generation=generation, slot=slot, run=about)
            case Signal(run, signo, tree):
                scope = ipc.TREE if tree else ipc.MAIN
                message = ipc.Message(ipc.SIGNAL, seq=request.seq, run=run, arg=signo, scope=scope)
            case Adopt(run, pid):
                message = ipc.Message(ipc.ADOPT, seq=request.seq, run=run, arg=pid)
            case Shutdown(status):
                message = ipc.Message(ipc.SHUTDOWN, seq=request.seq, arg=status)
            case _:
                assert_never(request.effect)
        if self._link is not None and self._open:
            try:
                self._link.send(message)
            except (OSError, OverflowError):
                self.disconnect()
