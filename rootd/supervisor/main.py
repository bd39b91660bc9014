"""The supervisor: everything that is decided, by a process that can do nothing itself.

Rule 1: its own account, no capability, sandboxed before it hears anybody: it writes its state files, reads
        logs, choices, time zones and who sent a notification, and else only has its links and its doors.
Rule 2: one loop that waits for nothing but it; the clock is read once a turn.
Rule 3: its memory is privileged's facts, auth's sessions, a few files on tmpfs and the choices that log keeps for it:
        killed, it is started again from them.

Sources: DESIGN §1, §3, §14; clock_getres(2) CLOCK_BOOTTIME.
"""

from __future__ import annotations

import os
import select
import time
from functools import partial

from policy import messages
from rootd import ipc, memory, zones
from rootd.supervisor import beginning, clocks, files, inflight, mentions, watching
from rootd.supervisor.approvals import Approvals
from rootd.supervisor.auditing import Audit
from rootd.supervisor.auth_link import AuthLink
from rootd.supervisor.beginning import Begun
from rootd.supervisor.choices import LIMIT, Choices
from rootd.supervisor.clearing import Clearing
from rootd.supervisor.control import Door
from rootd.supervisor.desk import Desk
from rootd.supervisor.exits import signal_name
from rootd.supervisor.lifecycle import Impossible
from rootd.supervisor.limits import Limits
from rootd.supervisor.loading import Loads
from rootd.supervisor.notify import Notify, Pipe, Socket
from rootd.supervisor.perform import OTHERS, Performer, Request
from rootd.supervisor.probe_link import ProbeLink
from rootd.supervisor.reload import Loaded, Reloads, read_generation
from rootd.supervisor.services import Services
from rootd.supervisor.sessions import Sessions
from rootd.supervisor.upgrading import Upgrades, of_api

CONTROL_LIMIT, ROOT_LIMIT = 256, 32  # connections of a door
AT_ONCE = 256  # messages of one peer in one turn
AUTH_WAIT = 3.0  # seconds that the api's door waits for auth to tell who is logged in
# seconds from a change that nobody asked for to the state file: many come at once, and it is written whole
SAVE_AFTER, SAVE_EACH = 0.05, 0.0005  # the second for each slot
STATE_LIMIT = 16 << 20  # bytes of the state file


def main(link_fd: int) -> int:
    begun = beginning.begin(link_fd)
    return Supervisor(begun).run() if begun else 0


class Supervisor:
    """The links, the doors and the timers; who they belong to decides."""

    def __init__(self, begun: Begun) -> None:
        settings, keeper, inherited, made, life = begun
        self.settings, self.keeper = settings, keeper
        self.loop = ipc.Loop()
        self.links: dict[str, ipc.Link] = {}
        self.status: int | None = None
        self._now: float | None = None
        self._effects: list[Request] = []  # of this turn
        self._saved = -1  # the revision of services that is in the state file
        self._asked = -1  # how far it knows what was asked for (Services.asked)
        self._save_at: float | None = None
        self._facts = False  # told since this privileged was linked
        self._open: set[str] = set()
        self._open_by = self.clock() + AUTH_WAIT
        self._tables: dict[int, tuple[bytes, int]] = {}  # digest and descriptor of generations in use
        self._running = 0
        self._used: set[int] = set()  # generations of runs
        self.kept = files.Kept(f"{settings.paths.run}/supervisor", self.clock, note)
        self.performer = Performer()
        renew = partial(self.tell, "privileged", ipc.Message(ipc.RENEW))
        self.probes = ProbeLink(self.loop, note, self.probed, lambda: self.services.probe_away(self.clock()), renew)
        place = f"{settings.paths.run}/probe"
        perform, publish = self._effects.append, self.publish
        self.services = Services(
            perform, publish, clocks.wall, self.probes, place, note, clock=clocks.scheduled, life=life
        )
        self.ends = inflight.Ends(self.services.operations, partial(self.kept.write, "ended.json"))
        self.sessions = Sessions()
        self.audit = Audit(partial(self.tell, "log"), self.clock, note)
        self.loads = Loads(self.loop, self.audit, self.clock, partial(self.kept.write, "loaded.json"))
        keep = partial(self.kept.write, "revoked.json")
        self.auth = AuthLink(self.loop, self.clock, self.sessions, self.audit, note, keep)
        self.reloads = Reloads(self.services.operations, partial(self.tell, "privileged"), self.adopt, made)
        self.choices = Choices(partial(self.tell, "log"), self.load, partial(self.kept.write, "choosing"), note)
        self.clearing = Clearing(partial(self.tell, "log"))
        self.limits = Limits(self.clock, partial(self.kept.write, "limits.json"))
        self.approvals = Approvals(self.clock, partial(self.kept.write, "approvals.json"))
        self.desk = Desk(
            self.services, self.sessions, self.audit, self.reloads, self.choices, self.clearing, clock=self.clock,
            expires=self.expires, tell_auth=self.auth.tell, log=settings.paths.log,
            goes_on=settings.audit.on_failure == "continue", windows=zones.posix, limits=self.limits,
            approvals=self.approvals,
        )  # fmt: skip
        restart, keep = of_api(self.services.restart, self.services.wanted), partial(self.kept.write, "upgrading")
        send = partial(self.tell, "privileged")
        self.upgrades = Upgrades(self.services.operations, inherited, send, keep, restart)
        self.desk.upgrades = self.upgrades
        self.services.readiness.attach(partial(self.kept.write, "ready.json"))
        self.notify = Notify(self.loop, self.clock, self.services.notified, self.services.readiness.remember)
        api = settings.accounts["api"].uid
        control, root = inherited.held["door/control"], inherited.held["door/root"]
        self.control = Door("control.sock", control, api, CONTROL_LIMIT, self.loop, self.clock, self.desk.ask, note)
        self.root = Door("root.sock", root, 0, ROOT_LIMIT, self.loop, self.clock, self.desk.ask, note, root=True)
        self.timers = (
            self.services, self.audit, self.choices, self.clearing, self.reloads, self.notify, self.control, self.root,
            self.kept, self.upgrades, self.approvals, self.loads,
        )  # fmt: skip
        self.desk.remember = self.save
        self.restore()
        for role, (sock, pidfd) in inherited.links.items():
            self.link(role, sock, pidfd)
        self.loop.watch(keeper.fileno(), lambda _: self.hear_keeper())

    # -- the loop --------------------------------------------------------------------------------------------

    def run(self) -> int:
        while self.status is None:
            due = [at for timer in self.timers if (at := timer.wake_at()) is not None]
            if self._facts and "control" not in self._open:
                due.append(self._open_by)
            if self._save_at is not None:
                due.append(self._save_at)
            self.watch_writers()
            self._now = None
            timeout = min(due) - self.clock() if due else None
            self._now = None
            self.loop.turn(timeout)
            for timer in self.timers:
                timer.wake(self.clock())
            self.open_doors()
            self.act()
        return self.status

    def clock(self) -> float:
        """Seconds of CLOCK_BOOTTIME; the same during one turn."""
        if self._now is None:
            self._now = time.clock_gettime(time.CLOCK_BOOTTIME)
        return self._now

    def act(self) -> None:
        """What was decided in this turn. What people asked for is remembered before anything of it is done."""
        self.ends.keep()
        if self._asked != self.services.asked:
            self.save()
        for request in self._effects:
            self.performer.perform(request)
        self._effects.clear()
        if self._save_at is not None and self.clock() >= self._save_at:
            self.save()
        elif self._save_at is None and self._saved != self.services.revision:
            self._save_at = self.clock() + SAVE_AFTER + SAVE_EACH * self.services.size

    def watch_writers(self) -> None:
        for role, link in self.links.items():
            events = select.EPOLLIN | (select.EPOLLOUT if link.waiting else 0)
            self.loop.watch(link.fileno(), partial(self.hear, role), events)
        self.auth.watch()
        self.probes.watch()

    def open_doors(self) -> None:
        """Requests wait in the queue until they can be answered: services known, and who is logged in."""
        if self._facts and "root" not in self._open:
            self._open.add("root")
            self.root.open()
        if self._facts and "control" not in self._open and (self.auth.is_told or self.clock() >= self._open_by):
            self._open.add("control")
            self.control.open()

    # -- the keeper ------------------------------------------------------------------------------------------

    def hear_keeper(self) -> None:
        try:
            received = self.keeper.receive()
        except BlockingIOError:
            return
        if received is None:
            self.status = 0
            return
        message, fds = received
        if message.op == ipc.LINK and len(fds) == 2:
            return self.link(message.name, *fds)
        ipc.close_all(fds)
        if message.op == ipc.END:
            self.desk.signalled(messages.Shutdown(), note)
        elif message.op == ipc.STAGE:
            self.desk.signalled(messages.Reload(), note)
        elif message.op == ipc.SIGNAL:
            for name in self.services.ends_all():
                self.desk.signalled(messages.Signal(name, signal_name(message.arg).removeprefix("SIG")), note)

    def link(self, role: str, sock: int, pidfd: int) -> None:
        """A part of ours has been (re)started: this is the link to it."""
        os.close(pidfd)
        if role == "auth":
            return self.auth.connect(sock)
        if role == "probe":
            return self.probes.connect(sock)
        if role not in ("privileged", "log"):
            return os.close(sock)
        self.unlink(role)
        self.links[role] = ipc.link_from(sock, takes_fds=role == "privileged", body=role == "log")
        if role == "log":
            self.audit.linked()
            self.choices.linked()
            self.services.scheduled.linked()
            self.clearing.linked()
        elif role == "privileged":
            self._facts = False
            self.performer.connect(self.links[role])
            self.probes.told_again()
        return None

    def unlink(self, role: str) -> None:
        link = self.links.pop(role, None)
        if link is None:
            return
        self.loop.forget(link.fileno())
        link.close()
        if role == "log":
            self.audit.lost()
        elif role == "privileged":
            self.performer.disconnect()

    # -- privileged and log ----------------------------------------------------------------------------------

    def tell(self, role: str, message: ipc.Message) -> bool:
        """False when that part is not there now."""
        link = self.links.get(role)
        try:
            if link is not None:
                link.send(message)
        except (OSError, OverflowError):
            return False
        return link is not None

    def hear(self, role: str, events: int) -> None:
        """What a part of ours has sent. Its link is closed at its end, and when it sends what is no message."""
        link = self.links[role]
        try:
            if events & select.EPOLLOUT:
                link.flush()
            for _ in range(AT_ONCE):
                received = link.receive()
                if received is None:
                    return self.unlink(role)
                message, fds = received
                try:
                    self.heard(role, message, fds)
                finally:
                    ipc.close_all(fds)
        except BlockingIOError:
            return None
        except (OSError, ipc.Malformed) as problem:
            if role == "privileged" and isinstance(problem, ipc.Malformed):
                raise Impossible(f"privileged sent {problem}") from None  # started again, we get a new link to it
            note(f"the link to {role} is closed: {problem}")
            self.unlink(role)
        return None

    def heard(self, role: str, message: ipc.Message, fds: list[int]) -> None:
        """One message. A descriptor that is kept is taken out of fds."""
        now = self.clock()
        if role == "log":
            if message.op == ipc.RECORDED:
                self.audit.recorded(message)
            elif message.op == ipc.KEPT:
                (self.services.scheduled if message.extra == ipc.RUNS else self.choices).kept(message, now)
            elif message.op == ipc.CLEARED:
                self.clearing.cleared(message)
            elif message.op == ipc.LOST:
                self.services.lost(message.name, message.scope, message.arg, message.extra)
        elif message.op == ipc.TABLE and len(fds) == 1:
            if self._facts:
                self.reloads.staged(message, fds[0], now)
            else:
                self.in_use(message, fds.pop())
        elif message.op == ipc.FACT:
            self._used.add(message.generation)
            self.services.fact(message, now)
        elif message.op == ipc.FACTS_END:
            self.facts_end(now)
            self.upgrades.facts(now)
        elif message.op == ipc.UPGRADE and len(fds) == 1:
            self.upgrades.refused(message, files.content(fds.pop()), now)
        elif message.op == ipc.CHANNEL and message.scope == ipc.NOTIFY and len(fds) == 1:
            self.notify.add(Socket(message.run, fds.pop(), self.services.main_pid))
        elif message.op == ipc.CHANNEL and message.scope == ipc.READY and len(fds) == 1:
            self.notify.add(Pipe(message.run, fds.pop()))
        elif message.op == ipc.DONE and message.seq >= OTHERS:
            self.reloads.done(message, now)
        else:
            if message.op == ipc.EXITED:
                self.notify.hear_out(message.run)
            elif message.op == ipc.EMPTY:
                self.notify.drop(message.run)
            self.services.event(message, now)

    def in_use(self, message: ipc.Message, fd: int) -> None:
        """A generation that is in use, told before the facts. It is compiled when it turns out to be wanted."""
        old = self._tables.pop(message.generation, None)
        if old is not None:
            os.close(old[1])
        self._tables[message.generation] = message.digest, fd
        if message.flags & ipc.RUNNING:
            self._running = message.generation

    def facts_end(self, now: float) -> None:
        """All is told: the configuration that runs, and what of it runs."""
        known = self.reloads.current
        for number, (digest, fd) in self._tables.items():
            if number == self._running:
                same = (known.generation, known.digest) == (number, digest)
                known = known if same else self.reloads.read(number, digest, fd)
            elif number in self._used:
                self.services.known(number, read_generation(number, digest, fd).specs or ())
            os.close(fd)
        if self._running not in self._tables or known.specs is None:
            raise Impossible(f"generation {self._running} runs and cannot be understood: {known.problems}")
        self._facts = True
        self._tables.clear()
        self._used.clear()
        self.reloads.facts(known, now, self.services.going)
        self.services.facts_done(now)
        self.reloads.resume(self.services.catch_up, now)

    def adopt(self, loaded: Loaded, now: float) -> dict[str, int]:
        """This generation counts from now on, as far as it can be understood. Returns what it has begun, by service."""
        for problem in loaded.problems:
            note(f"only root is let in: {problem.file}:{problem.line}: {problem.key}: {problem.text}")
        self.desk.policy = loaded.policy
        self.desk.spelled.forget()
        begun = self.load(now)
        self.loads.count(loaded, *self.reloads.asked)
        memory.trim()
        return begun

    def probed(self, number: int, problem: str) -> None:
        self.services.probed(number, problem, self.clock())

    def load(self, now: float) -> dict[str, int]:
        """What is configured, with the choices that were made against it; again when another choice counts."""
        current = self.reloads.current
        return self.services.load(self.choices.over(current.specs or ()), current.generation, now).operations

    # -- events and the state file ---------------------------------------------------------------------------

    def publish(self, event: watching.Happened) -> None:
        self.desk.publish(event)
        if isinstance(event, messages.Ended):
            self.reloads.ended(event, self.clock())
            self.upgrades.ended(event, self.clock())

    def restore(self) -> None:
        restores = (
            ("state.json", self.services.restore), ("revoked.json", self.sessions.restore),
            ("choosing", self.choices.restore), ("numbers", self.services.operations.restore),
            ("limits.json", self.limits.restore), ("approvals.json", self.approvals.restore),
            ("upgrading", self.upgrades.restore), ("ended.json", self.ends.restore),
            ("ready.json", self.services.readiness.restore), ("loaded.json", self.loads.restore),
        )  # fmt: skip
        for name, restore in restores:
            if problem := restore(self.kept.read(name, STATE_LIMIT)):
                note(problem)
        kept = f"{self.settings.paths.state}/choices"
        runs = partial(files.read, f"{kept}/schedules.json", LIMIT)
        self.services.scheduled.attach(partial(self.tell, "log"), runs, os.uname().nodename)
        try:
            self.choices.load(files.read(f"{kept}/choices.json", LIMIT))
        except OSError as error:
            self.choices.load(None, error.strerror or str(error))
        operations = self.services.operations
        for operation in operations.over():
            self.desk.outcomes.tell(operation)
        operations.reserve = lambda number: self.kept.write("numbers", str(number).encode())
        operations.events = watching.first(operations.events)
        self.desk.watchers.begin(operations.events)
        self.save()  # before the first number is given out: the next one begins after those

    def save(self) -> None:
        self.ends.keep()
        self._saved, self._asked, self._save_at = self.services.revision, self.services.asked, None
        self.kept.write("state.json", self.services.state())
        if self._facts:
            self.services.readiness.saved()

    def expires(self, at: float) -> str:
        """A time of CLOCK_BOOTTIME, for people."""
        return clocks.expires(at - self.clock())


def note(text: str) -> None:
    ipc.note("supervisor", mentions.plain(text))
