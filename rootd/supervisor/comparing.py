"""What rights one policy gives that another does not, found out in a throw-away child: many rules take seconds.

Rule 1: the loop waits for nothing. The child has two texts and a pipe, so much processor time, memory and time, none of
        our descriptors, and our walls; it dies with us.
Rule 2: what it finds is what `durward policy diff` shows (policy/diff, policy/wording). What it cannot find is said.

Sources: setrlimit(2), prctl(2) PR_SET_PDEATHSIG, pidfd_open(2), waitid(2), pipe(7).
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
import zlib
from collections.abc import Callable, Iterable

import msgspec
from msgspec import structs

from policy import source, wording
from policy.diff import diff
from policy.rights import Book, groups_named, places
from rootd import ipc, sandbox, zones

CALLS = ("prlimit64", "setpriority")  # by which the child is bounded; who is not root can only have less of both
CPU = 30  # seconds of processor time: two policies of 10,000 rules each have taken 7
TIME = 300.0  # seconds in all
NICE = 10  # a tenth of what others get: 19 would get nothing of a busy machine
MEMORY = 1 << 30  # bytes of address space: 124 MiB, those
SHOWN, ROOM = 25, 3_000  # lines of gained and of lost rights, and bytes of each: most of syslog takes 8 KiB of a record
CELL = 400  # characters of what such a line says of services, for example
ANSWER_LIMIT = 65_536  # bytes: a pipe takes that much without a reader
TOO_LARGE = 71  # exit status
COLUMNS = (*wording.COLUMNS[:-1], "other")


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """gained, lost: lines of `policy diff`, by column, where it is not empty; more: how many there are besides.
    why: they are not known, and this is why."""

    gained: list[dict[str, str]] = []
    lost: list[dict[str, str]] = []
    more: int = 0
    why: str = ""


Then = Callable[[Answer], None]


def compared(old: bytes, new: bytes) -> Answer:
    """old, new: of publishing.policy_alone. Raises nothing but what bounds it."""
    found, policies = [source.decode(zlib.decompress(text)) for text in (old, new)], []
    for one, which in zip(found, ("before", "now"), strict=True):
        made = source.parsed(structs.replace(one, whole=False), zones.zone)  # its tests were made when it was loaded
        if isinstance(made, list):
            told = f"{made[0].file}:{made[0].line}: {made[0].text}"
            return Answer(why=f"the policy of {which} cannot be read by this version: {told}")
        policies.append(made)
    groups = groups_named(policies[0]) | groups_named(policies[1])
    before, after = (places(one.services, groups) for one in found)
    changes = diff(Book(policies[0]), before, Book(policies[1]), after)
    return fitting(wording.change_cells(changes, found[1].services))


def fitting(cells: Iterable[tuple[str, ...]]) -> Answer:
    """As many as a record has room for, of each kind."""
    shown: dict[str, list[dict[str, str]]] = {"gained": [], "lost": []}
    room, more = dict.fromkeys(shown, ROOM), 0
    for kind, *texts in cells:
        line = {
            name: text if len(text) <= CELL else f"{text[:CELL]} …"
            for name, text in zip(COLUMNS, texts, strict=True)
            if text
        }
        room[kind] -= len(msgspec.json.encode(line))
        if room[kind] < 0 or len(shown[kind]) == SHOWN:
            room[kind], more = 0, more + 1
        else:
            shown[kind].append(line)
    return Answer(shown["gained"], shown["lost"], more)


class Comparison:
    """A child at work. then: told its answer, once. Raises OSError when there can be none."""

    def __init__(
        self, loop: ipc.Loop, old: bytes, new: bytes, then: Then, cpu: int = CPU, memory: int = MEMORY
    ) -> None:
        self._loop, self._then, self._cpu, self._memory = loop, then, cpu, memory
        self._late = False
        self._reader, writer = os.pipe()
        try:
            parent, pid = os.getpid(), os.fork()
            if pid == 0:
                self._work(parent, writer, old, new)
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            os.close(self._reader)
            raise
        finally:
            os.close(writer)
        loop.watch(self._pidfd, lambda _: self._ended())

    def kill(self) -> None:
        """Its time is up."""
        self._late = True
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _work(self, parent: int, writer: int, old: bytes, new: bytes) -> None:
        """In the child. Never returns."""
        status = 70
        try:
            sandbox.prctl(sandbox.PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                os.dup2(writer, 3, inheritable=False)
                os.closerange(4, os.sysconf("SC_OPEN_MAX"))
                resource.setrlimit(resource.RLIMIT_CPU, (self._cpu, self._cpu + 1))
                resource.setrlimit(resource.RLIMIT_AS, (self._memory, self._memory))
                os.setpriority(os.PRIO_PROCESS, 0, NICE)  # what else there is to do comes first
                gc.disable()  # nothing of it lives long
                os.write(3, msgspec.json.encode(compared(old, new)))
                status = 0
        except MemoryError:
            status = TOO_LARGE
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)

    def _ended(self) -> None:
        self._loop.forget(self._pidfd)
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.set_blocking(self._reader, False)
        said = b""
        with contextlib.suppress(BlockingIOError):
            said = os.read(self._reader, ANSWER_LIMIT)
        ipc.close_all((self._pidfd, self._reader))
        status = 70 if result is None else result.si_status
        if result is not None and result.si_code != os.CLD_EXITED:
            status = -status
        self._then(Answer(why=f"it took more than {TIME:g} s") if self._late else self._understood(status, said))

    def _understood(self, status: int, said: bytes) -> Answer:
        """status: of its exit; a signal's number, negative, when that has ended it."""
        if status == 0:
            with contextlib.suppress(msgspec.DecodeError, ValueError):
                return msgspec.json.decode(said, type=Answer)
        why = {
            TOO_LARGE: f"it took more than {self._memory >> 20} MiB",
            -signal.SIGXCPU: f"it took more than {self._cpu} s of processor time",
            -signal.SIGSEGV: f"it took more than {self._memory >> 20} MiB, or failed",  # its stack could not grow
            -signal.SIGKILL: "the process that compares was killed",
        }
        return Answer(why=why.get(status, f"the process that compares failed ({status})"))
