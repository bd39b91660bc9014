"""The parent of all. Root, and nothing but this: fork the others, hold descriptors by name, reap, restart, end.

Rule 1: it reads no configuration, and no message but those of privileged on the link that it made itself.
Rule 2: it never blocks and never raises for what a child does; what a child sends wrongly is ignored.
Rule 3: a child gets its link to the keeper, the standard descriptors and what HELD and LINK bring: nothing else. All
        that it forks ends with it (reap.py), before another one is linked.
Rule 4: an upgrade is all that it does about itself: the parts end, and it executes what is installed now (again.py).

Who is forked, what each is handed and who is linked to whom is the table below (DESIGN §1, §14).
Sources: prctl(2) PR_SET_CHILD_SUBREAPER (set by rootd/__main__), waitpid(2), signal(7), pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence

from rootd import forked, ipc, version
from rootd.keeper import again, backup, manifest, reap
from rootd.keeper.manifest import Manifest
from rootd.keeper.store import Store

PRIVILEGED, LOG, SUPERVISOR, AUTH, PROBE = "privileged", "log", "supervisor", "auth", "probe"
HANDED: dict[str, tuple[str, ...]] = {
    PRIVILEGED: ("",),
    LOG: ("settings", "pipe/"),
    SUPERVISOR: ("settings", "door/control", "door/root"),
    AUTH: ("settings", "door/auth", "door/peer"),
    PROBE: ("settings",),
}
WIRES = ((PRIVILEGED, SUPERVISOR), (PRIVILEGED, LOG), (SUPERVISOR, LOG), (SUPERVISOR, AUTH), (SUPERVISOR, PROBE))

ENDING, FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT), (signal.SIGUSR1, signal.SIGUSR2)
HANDLED = (signal.SIGCHLD, signal.SIGHUP, *ENDING, *FORWARDED)

HEALTHY = 10.0  # seconds after which a death is the first one again
BACKOFF_FIRST, BACKOFF_CAP = 0.1, 5.0  # seconds between restarts of a part that keeps dying; the first is at once
LAST_WORD = 5.0  # seconds that the others have to end when privileged has said END
REAPED_LIMIT = 4_096  # last exit statuses of orphans, told again to each new privileged; as many wait to be read
REAPED_AT_ONCE = 256  # exits that are taken in one turn: a service that makes orphans without end holds up nobody

Role = Callable[[int], int]  # runs a role over its link's descriptor; returns the exit status


class Child:
    """One running part of ours."""

    def __init__(self, pid: int, link: ipc.Link, now: float) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.link = link
        self.since = now


class Keeper:
    """The state of the parent. `roles` says how each part is run in its own process. `staged`: descriptors that the
    first privileged finds in the store; owned from now on. `command`: the program that this is, and its words.
    `told`: what the keeper before us has left, whose descriptors are ours: then every part is started at once, and
    takes over what there is as after its own death."""

    def __init__(
        self, roles: dict[str, Role], staged: dict[str, int] | None = None, command: Sequence[str] = (),
        told: Manifest | None = None,
    ) -> None:  # fmt: skip
        self.roles = roles
        self.store = Store(told.held if told else staged)
        self.loop = ipc.Loop()
        self.children: dict[str, Child] = {}
        self.failures: dict[str, int] = {}
        early = [SUPERVISOR] if self.store.held and not told else []  # it makes itself ready meanwhile
        self.due = dict.fromkeys((PRIVILEGED, *early), 0.0)  # role -> when it is (re)started
        self.parts: tuple[str, ...] = ()  # that are there beside privileged, since it has begun
        self.reaped: deque[tuple[int, int]] = deque(told.reaped if told else (), maxlen=REAPED_LIMIT)
        self.begun = False
        self.asked_to_end, self.upgrades = (told.asked, told.upgrades + 1) if told else (0, 0)
        self.renewal = again.Renewal(self, command, HANDLED)
        self.ended_at: float | None = None
        self.status = 0
        self.signals: list[int] = []  # that have come, each as often as it means something
        self.wakeup, self.writer = socket.socketpair()
        for end in (self.wakeup, self.writer):
            end.setblocking(False)
        if told:
            self.begin(AUTH in told.roles)

    def run(self) -> int:
        """Until everything has ended; returns the exit status of the whole."""
        signal.set_wakeup_fd(self.writer.fileno(), warn_on_full_buffer=False)  # first: none is noted that wakes nobody
        for number in HANDLED:
            signal.signal(number, self.signalled)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)  # the keeper before us has let them wait
        self.loop.watch(self.wakeup.fileno(), lambda _: self.woken())
        self.reap()  # what a container's entry point has left that has become us
        while True:
            now = time.monotonic()
            for role in [role for role, when in self.due.items() if when <= now]:
                del self.due[role]
                self.try_start(role, now)
            if self.ended_at is not None and not self.children:
                if not self.renewal.under_way:
                    if self.store.backup:
                        self.store.backup.clear()
                    return self.status
                self.renewal.execute()
                continue
            if self.ended_at is not None and now >= self.ended_at:
                for child in self.children.values():
                    signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
                self.ended_at = now + LAST_WORD
            self.back_up()
            wake = [*self.due.values(), *([] if self.ended_at is None else [self.ended_at])]
            self.loop.turn(min(wake) - now if wake else None)

    def signalled(self, number: int, _: object) -> None:
        """Noted, no more. What only wakes us tells of none when it is full, after some hundreds."""
        if self.signals.count(number) < 2:
            self.signals.append(number)

    def woken(self) -> None:
        self.wakeup.recv(4096)
        signals, self.signals = self.signals, []
        self.reap()
        if signal.SIGHUP in signals and self.hears(SUPERVISOR) and not self.asked_to_end:
            self.tell(SUPERVISOR, ipc.Message(ipc.STAGE))
        elif signal.SIGHUP in signals:
            note("SIGHUP reloads nothing while we end, or a part is being started: send it again")
        for number in signals:
            if number in ENDING:
                self.asked_to_end += 1
                self.note_down()
                if self.asked_to_end == 2:
                    note(f"{signal.Signals(number).name} again: what has not ended yet is killed now")
                self.end()
            elif number in FORWARDED and self.hears(SUPERVISOR):
                self.tell(SUPERVISOR, ipc.Message(ipc.SIGNAL, arg=number))
            elif number in FORWARDED:
                note(f"{signal.Signals(number).name} reaches nobody while a part is being started: send it again")

    def begin(self, logins: bool) -> None:
        """privileged has everything: the others may be there too."""
        self.begun = True
        self.parts = tuple(part for part in (LOG, SUPERVISOR, AUTH, PROBE) if logins or part != AUTH)
        self.due.update(dict.fromkeys(self.parts, 0.0))
        self.note_down()

    def note_down(self) -> None:
        """Where the next keeper can begin with what a service manager keeps: what it has to know besides."""
        if self.store.backup:
            told = self.renewal.told()._replace(held={}, reaped=())
            self.store.backup.note(manifest.write(told))

    def back_up(self) -> None:
        """What has changed in this turn is told to who keeps it too; what he does not take now, when he does."""
        if self.store.backup:
            done = self.store.backup.flush()
            self.loop.watch(self.store.backup.sock.fileno(), lambda _: None, 0 if done else select.EPOLLOUT)

    def hears(self, role: str) -> bool:
        """Whether a part has been handed everything: what it hears before that it takes for a part of it. One that is
        about to end for an upgrade hears nothing any more."""
        return self.begun and role in self.children and role not in self.due and not self.renewal.under_way

    def end(self) -> None:
        """Asked once: the supervisor stops everything in order. Again: privileged ends at once. Too early: all do."""
        role = SUPERVISOR if self.asked_to_end == 1 else PRIVILEGED
        if not self.begun:
            self.finish(0)
        elif self.hears(role):  # else start tells it, which is then due
            self.tell(role, ipc.Message(ipc.END))

    def finish(self, status: int) -> None:
        """Nothing is restarted from now on; every part sees the end of its link and goes."""
        if self.ended_at is None:
            self.ended_at, self.status = time.monotonic() + LAST_WORD, status
            self.due.clear()
            self.renewal.give_up()
            for child in self.children.values():
                self.loop.forget(child.link.fileno())
                child.link.close()

    def try_start(self, role: str, now: float) -> None:
        """A machine that is short of processes or descriptors now must not end us: it is tried again."""
        try:
            self.start(role, now)
        except OSError as error:
            note(f"{role} cannot be started now: {error.strerror}")
            if role in self.children:  # half told of what it needs: its death follows, and its next start
                signal.pidfd_send_signal(self.children[role].pidfd, signal.SIGKILL)
            else:
                self.due[role] = now + BACKOFF_CAP

    def start(self, role: str, now: float) -> None:
        """Fork one part, link it to those that live, and hand it what the table says.

        Before privileged has begun, the supervisor is forked to make itself ready, and waits for all that until then.
        """
        if PRIVILEGED in self.children:
            self.hear(self.children[PRIVILEGED])  # what it has stored so far is handed on too
            self.due.pop(role, None)  # it may have begun just now
        if self.ended_at is not None:
            return
        if role not in self.children:
            self.fork(role, now)
        if not self.begun and role != PRIVILEGED:
            return self.hand(role, ipc.STAGED[:2])  # but not the secrets
        self.hand(role, HANDED[role])
        for wire in WIRES:
            if self.begun and role in wire:
                other = wire[1] if wire[0] == role else wire[0]
                if other in self.children and other not in self.due:  # the early supervisor has its turn yet
                    self.link(role, other)
        if role == PRIVILEGED:
            for number, status in self.reaped:
                self.tell(PRIVILEGED, ipc.Message(ipc.REAPED, arg=number, extra=status))
        kept = ipc.KEPT_TOO if self.store.backup else 0
        self.tell(role, ipc.Message(ipc.HELD_END, scope=kept, name=version.spelled(), arg=self.upgrades))
        if role in (SUPERVISOR, PRIVILEGED) and self.asked_to_end > (role == PRIVILEGED):
            self.tell(role, ipc.Message(ipc.END))

    def fork(self, role: str, now: float) -> None:
        ours, theirs = ipc.pair()
        try:
            pid = os.fork()
            if pid == 0:
                become_role(role, self.roles[role], theirs.fileno())
            child = Child(pid, ipc.Link(ours, takes_fds=role == PRIVILEGED, body=role == PRIVILEGED), now)
        except OSError:
            ours.close()  # a child that was made all the same ends with it
            raise
        finally:
            theirs.close()
        self.children[role] = child
        if self.store.backup:
            self.store.backup.put(f"{backup.PART}{role}", child.pidfd)
        self.watch(role)

    def hand(self, role: str, names: tuple[str, ...]) -> None:
        for name, fd in self.store.beneath(names):
            self.tell(role, ipc.Message(ipc.HELD, name=name), fd)

    def link(self, one: str, two: str) -> None:
        ends = ipc.pair()
        for role, peer, end in ((one, two, ends[0]), (two, one, ends[1])):
            self.tell(role, ipc.Message(ipc.LINK, name=peer), end.fileno(), self.children[peer].pidfd)
            end.close()

    def tell(self, role: str, message: ipc.Message, *fds: int) -> None:
        """Send, unless the part is gone (its death is seen by reap). One that cannot be told is ended.

        It hangs, or there is no descriptor left: without what it should hold, privileged would start it twice. So it
        is told nothing more.
        """
        child = self.children[role]
        if self.ended_at is not None or child.link.broken:
            return
        try:
            child.link.send(message, *fds)
            self.watch(role)
        except ConnectionError:
            return
        except (OverflowError, OSError) as error:
            child.link.broken = True
            note(f"{role} cannot be told and is ended: {error}")
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)

    def watch(self, role: str) -> None:
        link = self.children[role].link
        events = (select.EPOLLIN if role == PRIVILEGED else 0) | (select.EPOLLOUT if link.waiting else 0)
        self.loop.watch(link.fileno(), lambda happened: self.ready(role, happened), events)

    def ready(self, role: str, events: int) -> None:
        child = self.children[role]
        if events & select.EPOLLOUT:
            try:
                child.link.flush()
            except OSError:
                events |= select.EPOLLHUP
        if role == PRIVILEGED and events & select.EPOLLIN and not self.hear(child):
            events |= select.EPOLLHUP
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self.loop.forget(child.link.fileno())  # its death follows by SIGCHLD
        elif self.children.get(role) is child and self.ended_at is None:
            self.watch(role)

    def hear(self, child: Child) -> bool:
        """Everything privileged has sent so far. False at the end of its link."""
        while self.ended_at is None:
            try:
                received = child.link.receive()
            except BlockingIOError:
                return True
            except ipc.Malformed as problem:
                note(f"privileged sent {problem}: ignored")
                continue
            if received is None:
                return False
            message, fds = received
            names = message.body.decode(errors="replace").split("\n") if message.body else [message.name]
            if message.op == ipc.STORE and len(fds) == len(names):
                for name, fd in zip(names, fds, strict=True):
                    if not self.store.put(name, fd):
                        note(f"'{name}' cannot be stored: the name is taken or the store is full")
                continue
            ipc.close_all(fds)
            if message.op == ipc.DROP:
                self.store.drop(message.name)
            elif message.op == ipc.RENEW and PROBE in self.children:
                signal.pidfd_send_signal(self.children[PROBE].pidfd, signal.SIGKILL)
            elif message.op == ipc.BEGIN:
                if self.store.backup:
                    self.store.backup.say(b"READY=1")
                if not self.begun:
                    self.begin(message.scope != ipc.NO_LOGINS)
            elif message.op == ipc.UPGRADE and self.begun:
                self.renewal.ask(message.seq)
            elif message.op == ipc.END:
                self.renewal.under_way = False
                self.finish(min(max(message.arg, 0), 255))
        return True

    def reap(self) -> None:
        """Exits, of which more may be left: parts of ours are restarted, orphans are reported to privileged."""
        for _ in range(REAPED_AT_ONCE):
            found = reap.ended([child.pid for role, child in self.children.items() if role != PRIVILEGED])
            if found is None:
                return
            pid, status = found
            if self.renewal.is_tried(pid, status):
                continue
            role = next((role for role, child in self.children.items() if child.pid == pid), None)
            if role is not None:
                self.lost(role, status)
                continue
            self.reaped.append((pid, status))
            if PRIVILEGED in self.children and self.children[PRIVILEGED].link.waiting < REAPED_LIMIT:
                self.tell(PRIVILEGED, ipc.Message(ipc.REAPED, arg=pid, extra=status))
        with contextlib.suppress(BlockingIOError):  # it is full of wake-ups already
            self.writer.send(bytes(1))

    def lost(self, role: str, status: int) -> None:
        """A part has died. What privileged had sent before is heard first, so that nothing stored is lost."""
        child = self.children[role]
        if self.ended_at is None:
            if role == PRIVILEGED:
                self.hear(child)
            self.loop.forget(child.link.fileno())
            child.link.close()
        if self.store.backup:
            self.store.backup.drop(f"{backup.PART}{role}")
        os.close(child.pidfd)
        del self.children[role]
        now = time.monotonic()
        if self.renewal.under_way:
            return self.renewal.end_rest()
        if self.ended_at is not None:
            return
        if role == PRIVILEGED and not self.begun and (status >= 0 or self.asked_to_end):
            self.finish(max(status, 0))  # it has said why: bad configuration, a port that is taken
            return
        if role == PRIVILEGED and status == ipc.REPLACE_CODE:
            self.due[role] = now
            return
        how = f"exit status {status}" if status >= 0 else f"signal {-status}"
        note(f"{role} ended ({how}) and is started again")
        failures = 0 if now - child.since >= HEALTHY else self.failures.get(role, 0)
        self.failures[role] = failures + 1
        if role == SUPERVISOR and self.asked_to_end and failures:
            self.asked_to_end += 1  # it dies each time: it will not end anything in order
            self.end()
        self.due[role] = now + (min(BACKOFF_FIRST * 2 ** (failures - 1), BACKOFF_CAP) if failures else 0.0)


def become_role(role: str, run: Role, link: int) -> None:
    """In the fork: nothing of the keeper's is left but the standard descriptors and the link. Never returns."""
    with forked.ending():
        again.clean(HANDLED)
        forked.alone(link)
        forked.called(role)
        sys.exit(run(3))


def note(text: str) -> None:
    ipc.note("keeper", text)
