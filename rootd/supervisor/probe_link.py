"""The link to probe: what it is asked to check, and what it found.

Rule: a probe that is away, silent or talks nonsense has checked nothing; it can lie only of what it was asked.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable

from rootd import ipc
from rootd.supervisor.lifecycle import Impossible

TIMEOUT_LIMIT = 600_000  # milliseconds of one check
AT_ONCE = 256  # answers in one turn


class ProbeLink:
    """told(seq, problem): the answer to what was asked under that number; "" is success, else it says why not.

    gone(): whatever was asked and is not answered will not be: it must be asked again, where it still matters.
    renew(): have it killed, and another one started.
    """

    def __init__(
        self, loop: ipc.Loop, note: Callable[[str], None], told: Callable[[int, str], None] = lambda *_: None,
        gone: Callable[[], None] = lambda: None, renew: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        self.told, self.gone, self.renew = told, gone, renew
        self._loop, self._note = loop, note
        self._link: ipc.Link | None = None
        self._asked: set[int] = set()
        self._hangs = False  # the one that was linked last, as far as is known

    def connect(self, fd: int) -> None:
        """probe has been (re)started; owns the descriptor from now on."""
        was_linked = self._disconnect()
        self._link, self._hangs = ipc.link_from(fd), False
        self.watch()
        if was_linked:
            self.gone()

    def ask(self, seq: int, address: str, target: str | None, timeout: float) -> bool:
        """Have an address (the key of a table.Socket) checked: with a GET of target, or by connecting alone (None).

        seq is 0 … 2**32 - 1, and no other one that waits for its answer has it: Impossible. timeout is in seconds, a
        millisecond to ten minutes. target is as ipc's CHECK wants it: probe ends for another. False: probe is away.
        """
        if seq in self._asked:
            raise Impossible(f"check {seq} is asked twice")
        if self._link is None:
            return False
        milliseconds = min(max(round(timeout * 1000), 1), TIMEOUT_LIMIT)
        scope, body = (ipc.TCP, b"") if target is None else (ipc.HTTP, target.encode())
        check = ipc.Message(ipc.CHECK, seq=seq, scope=scope, arg=milliseconds, name=address, body=body)
        with contextlib.suppress(OSError, OverflowError):  # gone, which will be heard; or hung, with 65,536 waiting
            self._link.send(check)
            self._asked.add(seq)
            return True
        return False

    def watch(self) -> None:
        if self._link is not None:
            events = select.EPOLLIN | (select.EPOLLOUT if self._link.waiting else 0)
            self._loop.watch(self._link.fileno(), self._hear, events)

    def disconnect(self) -> None:
        """By who waits too long for an answer: it may hang, and would not see the end of its link either."""
        if self._link is not None:
            self._note("probe does not answer: it is killed, and started again")
            self._hangs = True
            self.renew()
            self._ended()

    def told_again(self) -> None:
        """privileged was started again: the last one may have died before it had that passed on."""
        if self._hangs:
            self.renew()

    def _ended(self) -> None:
        """A probe that lives sees that too, and ends, to be started again."""
        if self._disconnect():
            self.gone()

    def _disconnect(self) -> bool:
        """Whether there was a link."""
        if self._link is None:
            return False
        self._loop.forget(self._link.fileno())
        self._link.close()
        self._link = None
        self._asked.clear()
        return True

    def _hear(self, events: int) -> None:
        link = self._link
        if link is None:
            return None
        try:
            if events & select.EPOLLOUT:
                link.flush()
            for _ in range(AT_ONCE):
                received = link.receive()
                if received is None:
                    return self._ended()
                self._checked(received[0])
                if self._link is not link:  # by what was told
                    return None
        except BlockingIOError:
            return None
        except (OSError, ipc.Malformed) as problem:
            self._note(f"the link to probe is closed, it is started again: {problem}")
            self._ended()
        return None

    def _checked(self, message: ipc.Message) -> None:
        problem, failed = message.name, message.arg == 1
        fair = problem.isascii() and problem.isprintable() and failed == bool(problem) and message.arg in (0, 1)
        if message.op != ipc.CHECKED or message.seq not in self._asked or not fair:
            raise ipc.Malformed(f"{message!r}, which is no answer to what was asked")
        self._asked.remove(message.seq)
        self.told(message.seq, problem)
