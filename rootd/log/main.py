"""log: service output into files, and the audit log. Its own account, no capability, sandboxed.

Rule 1: the only writer of the log tree and of the supervisor's choices, and the only holder of the audit key.
Rule 2: it wakes up when somebody wrote something, while a disk is in trouble, and each hour for an anchor (outside.py).
Rule 3: a record, or a choice, is acknowledged when it is on disk (or with the errno that kept it from there), and never
        before.
Rule 4: a peer that sends nonsense loses its link; the keeper brings the next one when that peer starts again. Where a
        supervisor that lives on has closed its own, log ends (lifeline).
Rule 5: who may send what is the table in Log.__init__; descriptors come only with LINK and PIPE.
"""

from __future__ import annotations

import math
import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from rootd import confine, ipc, memory, sandbox
from rootd.config import settings
from rootd.lifeline import UNLINKED, Lifeline
from rootd.log import chain, choices, lines
from rootd.log.audit import RETRY, Audit
from rootd.log.outside import Outside
from rootd.log.rotate import Mover
from rootd.log.source import Source, check, is_process, source_of

DEEDS = {1: "spawn", 2: "signal", 3: "exited", 4: "commit", 5: "start", 6: "shutdown", 7: "adopt"}
MESSAGES = 64  # heard of one peer in one turn
LAST_MESSAGES = ipc.QUEUE_LIMIT  # heard of a peer that is gone, or at the end
LOSSES_LIMIT = 4_096  # processes' streams of which it is remembered what was lost; the last ones
DRAINED_LIMIT = 4_096  # DRAINED messages that are repeated to a privileged that was started again


def main(link_fd: int) -> int:
    keeper = ipc.link_from(link_fd, takes_fds=True)
    inherited = ipc.inherit(keeper)
    conf = settings.from_json(read_memfd(inherited.held.pop("settings")))
    account = conf.accounts["log"]
    os.umask(0o027)
    confine.become(account.uid, account.gid, account.groups)
    paths = conf.paths
    directories = open_directories(paths.log, paths.state, paths.run)
    log = Log(keeper, *directories, f"{paths.state}/log", conf.audit)
    log.mover.open_sender()
    log.begin()  # before the sandbox: the first use of a hash may read what OpenSSL wants to read
    written = (paths.log, f"{paths.state}/log", f"{paths.state}/choices", f"{paths.run}/log")
    sandbox.enter(write=written, allow=("utimensat", "fgetxattr", "fsetxattr"))
    log.take_over(inherited)
    memory.trim()
    return log.run()


def read_memfd(fd: int) -> bytes:
    """All of it, by offset: the descriptor's own position is shared with every other part. Closes fd."""
    try:
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def open_directories(log: str, state: str, run: str) -> tuple[int, int, int, int, int]:
    """The log directory, its audit directory, those for the key, for choices and for spools: made by privileged at its
    start."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    root = os.open(log, flags)
    secrets, kept = (os.open(f"{state}/{name}", flags) for name in ("log", "choices"))
    return root, os.open("audit", flags, dir_fd=root), secrets, kept, os.open(f"{run}/log", flags)


def wall() -> str:
    """The time that records bear: UTC, to the microsecond."""
    return lines.time_of(wall_ns())


def wall_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def say(text: str) -> None:
    """What is said here is never the only record of anything."""
    ipc.note("log", text)


class Asked(NamedTuple):
    """A RECORD or KEEP that waits for the disk."""

    link: ipc.Link
    seq: int
    members: str = ""
    body: bytes = b""
    scope: int = 0  # of a KEEP: which file


Handler = Callable[[ipc.Link, ipc.Message, list[int]], None]


class Log:
    """The loop. Owns the keeper's link and the five directories. `place` is the path of the secrets, for people."""

    def __init__(
        self, keeper: ipc.Link, root: int, audit: int, secrets: int, kept: int, spools: int, place: str,
        conf: settings.Audit,
    ) -> None:  # fmt: skip
        self.keeper = keeper
        self.loop = ipc.Loop()
        self.mover = Mover(root, spools, self.drained, say, wall_ns, self.lost)
        self.audit = Audit(audit, secrets, place, wall, say, conf.size)
        self.outside = Outside(conf, wall, say)
        self.audit.written = self.outside.written
        self.losses = self.mover.totals.all()  # process and stream: bytes and lines that are lost
        self.links: dict[str, ipc.Link] = {}
        self.asked: list[Asked] = []
        self.kept = kept
        self.keeps: list[Asked] = []
        self.pings: list[int] = []
        self.gone: deque[ipc.Message] = deque(maxlen=DRAINED_LIMIT)
        self.audit_at: float | None = None  # when a disk in trouble is tried again
        self.ended = False
        self.lifeline = Lifeline("log", say)
        self.handlers: dict[tuple[str, int], Handler] = {
            ("privileged", ipc.PIPE): self.pipe,
            ("privileged", ipc.DEED): self.deed,
            ("privileged", ipc.PING): self.ping,
            ("supervisor", ipc.RECORD): self.record,
            ("supervisor", ipc.KEEP): self.keep,
            ("supervisor", ipc.CLEAR): self.clear,
        }

    def begin(self) -> None:
        """The `start` record; where the disk does not let us, it comes before the first record that can be written."""
        self.audit.settle()

    def take_over(self, inherited: ipc.Inherited) -> None:
        """The pipes that the keeper held, and the links to the others."""
        for name, fd in inherited.held.items():
            try:
                self.mover.add(source_of(name), fd)
            except ValueError as error:
                say(f"the keeper handed over what log does not take: {error}")
                os.close(fd)
        self.mover.strays(time.monotonic())
        for role, (sock, pidfd) in inherited.links.items():
            self.connect(role, sock, pidfd)

    def run(self) -> int:
        """Until the keeper is gone or wants an end (0), or there is no way on with this supervisor."""
        self.loop.watch(self.keeper.fileno(), self.from_keeper)
        self.loop.watch(self.mover.fileno(), self.move)
        while not self.ended:
            self.loop.turn(self.timeout(time.monotonic()))
            now = time.monotonic()
            self.mover.tend(now)
            self.settle(now)
            self.outside.tend(now, self.audit.next_n - 1, self.audit.head)
            if not self.ended and self.lifeline.is_cut(now):
                self.end()
                return UNLINKED
        self.end()
        return 0

    def move(self, _events: int) -> None:
        self.mover.turn(time.monotonic())

    def timeout(self, now: float) -> float | None:
        """Seconds until there is something to do by itself; None when there is nothing."""
        every = (self.mover.next(), self.audit_at, self.outside.next(), self.lifeline.wake_at())
        due = [when for when in every if when is not None]
        return max(min(due) - now, 0.0) if due else None

    def settle(self, now: float) -> None:
        """What came in this turn for the audit log goes to the disk at once; then those who wait are answered."""
        asked, self.asked = self.asked, []
        due = self.audit.waiting and (self.audit_at is None or now >= self.audit_at)
        if asked or due:
            number = self.audit.settle([one.members for one in asked])
            self.audit_at = now + RETRY if self.audit.waiting else None
            for one in asked:
                self.answer(one, ipc.Message(ipc.RECORDED, seq=one.seq, arg=number))
        keeps, self.keeps = self.keeps, []
        for which in {one.scope for one in keeps}:  # each is the whole of it: the last one counts
            mine = [one for one in keeps if one.scope == which]
            number, replaced = choices.keep(self.kept, mine[-1].body, choices.FILES[which])
            for one in mine:
                scope = ipc.REPLACED if replaced else 0
                self.answer(one, ipc.Message(ipc.KEPT, seq=one.seq, arg=number, scope=scope, extra=which))
        pings, self.pings = self.pings, []
        for seq in pings:
            self.send("privileged", ipc.Message(ipc.PONG, seq=seq, arg=self.audit.trouble if self.audit.waiting else 0))

    def answer(self, asked: Asked, message: ipc.Message) -> None:
        """To the supervisor that asked: one that came after it has other numbers."""
        if self.links.get("supervisor") is asked.link:
            self.send("supervisor", message)

    def end(self) -> None:
        """What is already here is written; then log is gone, in order."""
        for role in list(self.links):
            self.hear(role, LAST_MESSAGES)
        self.mover.last(time.monotonic())
        self.settle(time.monotonic())
        self.audit.close("end")
        self.outside.tend(math.inf, self.audit.next_n - 1, self.audit.head)

    def from_keeper(self, _events: int) -> None:
        if self.lifeline.is_over(self.keeper, self.connect):
            self.ended = True

    def connect(self, role: str, sock: int, pidfd: int) -> None:
        """A link to a peer. An older one is of a peer that is dead: what that had sent is heard first."""
        if role not in ("privileged", "supervisor"):
            return ipc.close_all((sock, pidfd))
        if role in self.links:
            self.hear(role, LAST_MESSAGES)
            self.lose(role)
        if role == "supervisor":
            self.lifeline.linked(pidfd)
        else:
            os.close(pidfd)
        self.links[role] = ipc.link_from(sock, takes_fds=role == "privileged", body=role == "supervisor")
        self.watch(role)
        if role == "privileged":
            for message in self.gone:
                self.send(role, message)
        else:
            for process, stream in self.losses:
                self.tell_loss(process, stream, *self.losses[process, stream])
        return None

    def watch(self, role: str) -> None:
        link = self.links[role]
        events = select.EPOLLIN | (select.EPOLLOUT if link.waiting else 0)
        self.loop.watch(link.fileno(), lambda happened: self.ready(role, happened), events)

    def ready(self, role: str, events: int) -> None:
        if events & select.EPOLLOUT:
            try:
                self.links[role].flush()
            except OSError:
                pass  # it is gone: what it had sent is heard below, and then the end
            else:
                self.watch(role)
        self.hear(role, MESSAGES)

    def hear(self, role: str, limit: int) -> None:
        """At most `limit` messages of a peer; after its last one, or the first nonsense, the link is closed."""
        for _ in range(limit):
            link = self.links.get(role)
            if link is None:
                return
            try:
                received = link.receive()
                if received is None:
                    if role == "supervisor":
                        self.lifeline.lost(time.monotonic())
                    self.lose(role)
                    return
                self.handle(role, link, *received)
            except BlockingIOError:
                return
            except ipc.Malformed as error:
                say(f"{role} sent what is no message of its own, its link is closed: {error}")
                self.lose(role)

    def handle(self, role: str, link: ipc.Link, message: ipc.Message, fds: list[int]) -> None:
        handler = self.handlers.get((role, message.op))
        if handler is None or len(fds) != (message.op == ipc.PIPE):
            ipc.close_all(fds)
            raise ipc.Malformed(f"{message!r} with {len(fds)} descriptors")
        handler(link, message, fds)

    def send(self, role: str, message: ipc.Message) -> None:
        """A peer that is gone is noticed when it is heard; one that does not read loses its link."""
        link = self.links.get(role)
        if link is None:
            return
        try:
            link.send(message)
        except OverflowError:
            say(f"{role} does not read its messages, its link is closed")
            self.lose(role)
        except OSError:
            return
        else:
            if link.waiting:
                self.watch(role)

    def lose(self, role: str) -> None:
        link = self.links.pop(role, None)
        if link is not None:
            self.loop.forget(link.fileno())
            link.close()

    # what the others ask

    def pipe(self, _link: ipc.Link, message: ipc.Message, fds: list[int]) -> None:
        try:
            bits = ipc.LOW.bit_length()
            keep = -1 if message.extra >> bits else message.extra | message.generation << bits
            source = check(Source(message.name, message.scope, message.run, message.slot, message.arg, keep))
        except ValueError as error:
            ipc.close_all(fds)
            raise ipc.Malformed(str(error)) from None
        self.mover.add(source, fds[0])

    def drained(self, source: Source) -> None:
        """Everything that a pipe brought is in its file. With all fields of its PIPE, which make its name in the store;
        kept, because privileged may just be dying."""
        message = ipc.Message(
            ipc.DRAINED,
            scope=source.stream,
            run=source.run,
            slot=source.slot,
            arg=source.size,
            extra=source.keep & ipc.LOW,
            generation=source.keep >> ipc.LOW.bit_length(),
            name=source.process,
        )
        self.gone.append(message)
        self.send("privileged", message)

    def lost(self, source: Source, size: int, lines: int, over: bool) -> None:
        """Output of a service is gone: counted since the daemon was started, and told to the supervisor, for people.

        over: it is; else more may come, and all of it is told again.
        """
        whose = source.process, source.stream
        before = self.losses.get(whose, (0, 0))
        total = before[0] + size, before[1] + lines
        if over:
            self.losses.pop(whose, None)
            self.losses[whose] = total
        while len(self.losses) > LOSSES_LIMIT:
            del self.losses[next(iter(self.losses))]
        self.tell_loss(*whose, *total)

    def tell_loss(self, process: str, stream: int, size: int, lines: int) -> None:
        self.send("supervisor", ipc.Message(ipc.LOST, scope=stream, arg=size, extra=lines, name=process))

    def deed(self, _link: ipc.Link, message: ipc.Message, _fds: list[int]) -> None:
        if message.scope not in DEEDS:
            raise ipc.Malformed(f"{message.scope} is no deed")
        self.audit.note(
            {
                "kind": "deed",
                "deed": DEEDS[message.scope],
                "process": message.name,
                "run": message.run,
                "slot": message.slot,
                "generation": message.generation,
                "arg": message.arg,
            }
        )

    def ping(self, _link: ipc.Link, message: ipc.Message, _fds: list[int]) -> None:
        """Answered after this turn's writing: PONG with arg 0 says that every DEED before the PING is on disk."""
        self.pings.append(message.seq)

    def record(self, link: ipc.Link, message: ipc.Message, _fds: list[int]) -> None:
        try:
            members = chain.parse_body(message.body)
        except ValueError as error:
            raise ipc.Malformed(f"a record that may not be written: {error}") from None
        self.asked.append(Asked(link, message.seq, members))

    def keep(self, link: ipc.Link, message: ipc.Message, _fds: list[int]) -> None:
        if message.scope >= len(choices.FILES):
            raise ipc.Malformed(f"there is no file {message.scope} to keep")
        self.keeps.append(Asked(link, message.seq, body=message.body, scope=message.scope))

    def clear(self, link: ipc.Link, message: ipc.Message, _fds: list[int]) -> None:
        """A process's logs. That they were cleared is recorded here too: the supervisor is not believed to say so."""
        if not is_process(message.name) or message.scope not in (0, ipc.REOPEN):
            raise ipc.Malformed(f"{message!r} names no logs")
        if message.scope != ipc.REOPEN:
            self.audit.note({"kind": "deed", "deed": "clear", "process": message.name})
        number = self.mover.shelf.clear(message.name, reopen=message.scope == ipc.REOPEN)
        self.answer(Asked(link, message.seq), ipc.Message(ipc.CLEARED, seq=message.seq, arg=number))
