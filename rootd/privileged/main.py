"""What holds the privilege: binds, spawns from a frozen table, signals by pidfd, reports. It decides nothing.

Rule 1: it starts as root, sets up, and becomes its own account with five capabilities before it hears anybody.
Rule 2: all that it accepts afterwards are the fixed-size messages of HANDLERS, about slots of root's own table.
Rule 3: its whole memory is the keeper's store: killed at any moment, it is started again and takes everything back.
Rule 4: it waits for keeper and spawner alone: names are resolved and files parsed in a throw-away child (stage).

Sources: DESIGN §14, capabilities(7), epoll(7).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence

from rootd import closing, confine, ipc, memory, sealed
from rootd.config import settings as settings_file
from rootd.config.settings import Settings
from rootd.privileged import adopt, cgroup, requests, signals, spawn, stage, strangers
from rootd.privileged.generations import Generation, Generations
from rootd.privileged.spawn import Run
from rootd.privileged.spawner import Spawner, clean_signals

CAPABILITIES = (5, 6, 7, 8, 10)  # KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE of linux/capability.h
BAD_CONFIGURATION, CANNOT_START = 65, 71  # EX_DATAERR, EX_OSERR of sysexits.h
HEARTBEAT, SETTLED, LAST = 60.0, 1.0, 1.0  # seconds: between questions to log; to the first; at the end, if it is late
AT_ONCE = 8  # messages of one part in one turn
DEEDS_LIMIT = 10_000  # deeds that wait for a log that is being started again


class Cannot(Exception):
    """The daemon cannot start: exit status and every reason."""

    def __init__(self, status: int, *reasons: str) -> None:
        super().__init__("; ".join(reasons))
        self.status, self.reasons = status, reasons


def main(
    link_fd: int, config_dir: str, python: str, explain: Callable[[Sequence[str]], None], helper: Spawner | None = None
) -> int:
    """`explain` prints the reasons why we cannot start, each with its place in the files: not this process's work.
    helper: forked before this file was imported, for then it is small.
    """
    keeper, helper = ipc.link_from(link_fd, takes_fds=True), helper or Spawner()
    inherited = ipc.inherit(keeper)
    try:
        privileged = Privileged(keeper, config_dir, python, helper)
        if any(name.startswith("generation/") for name in inherited.held):
            privileged.take_back(inherited)
        else:
            privileged.begin(inherited)
    except Cannot as problem:
        explain(problem.reasons)
        return problem.status
    account = privileged.settings.accounts["privileged"]
    root = privileged.generations.runs_root
    more = adopt.grant(privileged).union(CAPABILITIES)  # the spawner's alone, and lost in its children
    clean_signals()
    helper.become(account.uid, account.gid, account.groups, sorted(more), keep_bounding=root)
    confine.become(account.uid, account.gid, account.groups, keep=CAPABILITIES, keep_bounding=root)
    keeper.send_now(ipc.Message(ipc.BEGIN, scope=0 if privileged.settings.api else ipc.NO_LOGINS))
    for role, (sock, pidfd) in inherited.links.items():
        privileged.link(role, sock, pidfd)
    memory.trim()
    try:
        status = privileged.serve()
    except ConnectionError:  # of no other link: the keeper is gone, and perhaps what it held
        if not (inherited.outlives and privileged.tree):  # what was not kept yet, the next one finds by its cgroup
            privileged.kill_all()
        status = 0
    helper.close()
    return status


class Privileged:
    """The runs, the sockets and the tables, between the keeper's store and the supervisor's messages."""

    settings: Settings

    def __init__(self, keeper: ipc.Link, config_dir: str, python: str, helper: Spawner) -> None:
        self.keeper, self.parent, self.helper = keeper, os.getppid(), helper  # parent: the keeper, even when it is gone
        self.config_dir, self.python = config_dir, python
        self.loop = ipc.Loop()
        self.tree = ""
        self.kept, self.generations = spawn.Kept(), Generations(self.store, self.drop)
        self.runs: dict[int, Run] = {}
        self.adopted: dict[int, Run] = {}
        self.last_run = 0
        self.links: dict[str, ipc.Link] = {}
        self.peers: dict[str, int] = {}
        self.orphan_pipes: dict[str, int] = {}
        self.deeds: deque[ipc.Message] = deque()
        self.staging: stage.Staging | None = None
        self.staged_as_root: tuple[ipc.Message, int] | None = None  # what a REPLACE was for; told after the facts
        self.beat = self.heard = self.due = self.asked = 0  # last number, PONG, PONG due by the next heartbeat, PING
        self.status: int | None = None

    def begin(self, inherited: ipc.Inherited) -> None:
        """The first start: everything is made and stored; the generation last, which says that it is complete."""
        held = inherited.held  # without the first: one before us was killed when it had begun to drop them
        made = [held[name] for name in ipc.STAGED if name in held] if ipc.STAGED[0] in held else []
        for name, fd in held.items():
            self.drop(name)
            ipc.close_all([] if fd in made else [fd])
        read = None if made[1:] else stage.Staging(self.config_dir, self.python)
        word, fds = read.wait(self.loop) if read else (ipc.Message(ipc.TABLE), made)
        if word.op != ipc.TABLE or word.flags & ipc.INVALID or len(fds) < 2:
            raise Cannot(BAD_CONFIGURATION, f"the configuration in {self.config_dir} cannot be used; see --check")
        table_fd, settings_fd, *secrets = fds
        self.settings = settings_file.from_json(sealed.content(settings_fd))
        try:
            stage.make_directories(self.settings)
            lock = stage.lock(self.settings.paths.run)
            doors = stage.open_doors(self.settings)
        except BlockingIOError:
            raise Cannot(CANNOT_START, f"another durward-rootd runs in {self.settings.paths.run}") from None
        except OSError as error:
            raise Cannot(CANNOT_START, f"{error.filename or self.settings.paths.run}: {error.strerror}") from None
        self.make_tree()
        generation = Generation(1, table_fd, *secrets)
        sockets, problems = self.generations.bind(generation.table)
        if problems:
            raise Cannot(CANNOT_START, *(reason for _, reason in problems))
        for name, fd in {"lock": lock, "settings": settings_fd, **doors}.items():
            self.store(name, fd)
            os.close(fd)
        self.generations.adopt(generation, sockets)
        self.deed(requests.DEED_START)

    def take_back(self, inherited: ipc.Inherited) -> None:
        """Started again: what the store holds is what there is."""
        held = inherited.held
        self.settings = settings_file.from_json(sealed.content(held["settings"]))
        for name, fd in held.items():
            self.kept.add(name)
            kind = name.partition("/")[0]
            if kind in ("generation", "secrets", "socket"):
                self.generations.take_back(name, fd)
            elif kind == "process":
                run = Run.held(name, fd)
                adopt.take_back(self, run)
                self.last_run = max(self.last_run, run.run)
            elif kind == "pipe":
                self.orphan_pipes[name] = fd
            elif kind != "notify":
                os.close(fd)
        self.generations.repair({run.generation for run in self.runs.values()})
        for run in self.runs.values():
            run.notify = held.pop(f"notify/{run.run}", -1)
            if run.pid in inherited.reaped and signals.reaped(run):
                requests.ended(self, run, inherited.reaped[run.pid], ipc.KNOWN)
            else:
                adopt.watch(self, run)
        for name in [name for name in held if name.startswith("notify/")]:  # its run is over, or was never stored
            self.drop(name)
            closing.close(held[name])
        self.make_tree()
        self.deed(requests.DEED_START)
        if "stage" in held:
            self.drop("stage")
            word, fds = stage.Staging(self.config_dir, self.python).wait(self.loop)
            self.staged_as_root = self.generations.stage(0, word, fds)

    def make_tree(self) -> None:
        account = self.settings.accounts["privileged"]
        self.tree = cgroup.make(cgroup.name_of(self.settings.paths.run), account.uid, self.helper.pid)
        cgroup.sweep(self.tree, set(self.runs))
        spawn.sweep(self.settings.paths.run, self.runs)

    def serve(self) -> int:
        self.loop.watch(self.keeper.fileno(), lambda _: self.hear_keeper())
        self.loop.watch(self.helper.fileno(), lambda _: self.alone())
        strange = strangers.Strangers(self)
        beat = self.look = time.monotonic() + SETTLED  # look: when runs of which nobody has told are to be ended
        while self.status is None:
            self.loop.turn(min(beat, self.look, strange.at) - time.monotonic())
            strange.tend(now := time.monotonic())
            if now >= min(beat, self.look):
                self.look = float("inf")
                requests.end_unseen(self)
            if now >= beat:
                beat = now + HEARTBEAT
                self.ask_log()
            self.ask_for_deeds()
        return self.status

    def alone(self) -> None:
        """The spawner is gone: we are started again, with another one."""
        note("its spawner has ended; both are started again")
        self.status = CANNOT_START

    def hear_keeper(self) -> None:
        try:
            received = self.keeper.receive()
        except BlockingIOError:
            return None
        if received is None:
            raise ConnectionError("the keeper is gone")  # as for who has something to tell it
        message, fds = received
        if message.op == ipc.LINK and len(fds) == 2:
            return self.link(message.name, *fds)
        if message.op == ipc.REAPED and message.arg in self.adopted and signals.reaped(self.adopted[message.arg]):
            requests.ended(self, self.adopted.pop(message.arg), message.extra, ipc.KNOWN)
        elif message.op == ipc.END:
            self.shutdown()
        elif message.op == ipc.UPGRADE:  # refused by the keeper: why is the supervisor's to read
            self.tell("supervisor", message, *fds)
        return ipc.close_all(fds)

    def link(self, role: str, sock: int, pidfd: int) -> None:
        """A part of ours has been (re)started: this is the link to it."""
        self.unlink(role)
        self.links[role] = ipc.link_from(sock)
        self.peers[role] = pidfd
        self.watch(role)
        if role == "supervisor":
            requests.report(self)
        elif role == "log":
            self.heard = self.beat
            pipes, self.orphan_pipes = self.orphan_pipes, {}
            for name, fd in pipes.items():
                requests.give_pipe(self, name, fd)
            waiting, self.deeds = self.deeds, deque()
            for deed in waiting:
                self.send_deed(deed)

    def unlink(self, role: str) -> None:
        link = self.links.pop(role, None)
        if link is not None:
            self.loop.forget(link.fileno())
            link.close()
            os.close(self.peers.pop(role))

    def watch(self, role: str) -> None:
        link = self.links[role]
        events = select.EPOLLIN | (select.EPOLLOUT if link.waiting else 0)
        self.loop.watch(link.fileno(), lambda _: self.hear(role, link), events)

    def hear(self, role: str, link: ipc.Link) -> None:
        """A few messages of supervisor or log."""
        for _ in range(AT_ONCE):
            if not self.hear_one(role, link):
                return
        self.watch(role)

    def hear_one(self, role: str, link: ipc.Link) -> bool:
        """Whether there may be more. A part that sends what is no message is ended and started again."""
        try:
            link.flush()
            received = link.receive()
        except BlockingIOError:
            self.watch(role)
            return False
        except ipc.Malformed as problem:
            note(f"{role} sent {problem}; it is ended and started again")
            self.end_peer(role)
            return False
        except OSError:
            received = None
        if received is None:
            self.end_peer(role)  # one that lives on without us would never be linked again
            return False
        handler = HANDLERS[role].get(received[0].op)
        if handler is not None:
            handler(self, received[0])
        elif role == "supervisor":
            self.done(received[0], errno.EINVAL)
        return self.links.get(role) is link and self.status is None

    def end_peer(self, role: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.peers[role], signal.SIGKILL)
        self.unlink(role)

    def tell(self, role: str, message: ipc.Message, *fds: int) -> bool:
        """False when that part is not there now: it is told again what it needs when it is linked."""
        link = self.links.get(role)
        if link is None:
            return False
        try:
            link.send(message, *fds)
        except ConnectionError:
            return False
        except (OverflowError, OSError) as error:  # it does not read, or there are no descriptors left
            note(f"{role} cannot be told; it is ended and started again: {error}")
            self.end_peer(role)
            return False
        self.watch(role)
        return True

    def store(self, name: str, fd: int) -> None:
        self.store_all({name: fd})

    def store_all(self, held: dict[str, int]) -> None:
        """All of it, or none."""
        self.keeper.send_now(ipc.Message(ipc.STORE, body="\n".join(held).encode()), *held.values())
        self.kept.add(*held)

    def drop(self, name: str) -> None:
        self.keeper.send_now(ipc.Message(ipc.DROP, name=name))
        self.kept.discard(name)

    def deed(self, what: int, run: Run | None = None, arg: int = 0) -> None:
        """Every deed goes to log directly, so that nothing is done unrecorded whoever asked for it."""
        self.send_deed(ipc.Message(ipc.DEED, scope=what, arg=arg, **self.generations.about(run)))

    def send_deed(self, deed: ipc.Message) -> None:
        """Kept until log has answered a PING behind it: a new log is told again. Kills without end push out nothing."""
        self.beat += 1
        deed = deed._replace(seq=self.beat)
        self.deeds.extend([deed] if len(self.deeds) < DEEDS_LIMIT else ())
        self.tell("log", deed)

    def ask_for_deeds(self) -> None:
        """One PING for all that was done in a turn."""
        if self.beat > self.asked and self.tell("log", ipc.Message(ipc.PING, seq=self.beat)):
            self.asked = self.beat

    def unrecorded(self) -> bool:
        """Whether so many deeds wait for the log that no more may be done (what is left may still be killed)."""
        return len(self.deeds) >= DEEDS_LIMIT // 2

    def ask_log(self) -> None:
        """The heartbeat. A log that has not answered the last one stops every service that talks."""
        if self.heard < self.due and "log" in self.links:
            note("log does not answer; it is ended and started again")
            self.end_peer("log")
        self.beat += 1
        self.due = self.beat

    def ponged(self, message: ipc.Message) -> None:
        self.heard = min(message.seq, self.beat)
        while message.arg == 0 and self.deeds and self.deeds[0].seq <= self.heard:
            self.deeds.popleft()

    def begin_staging(self, seq: int) -> None:
        """Let a throw-away child read and compile. Raises OSError when there can be none."""
        staging = self.staging = stage.Staging(self.config_dir, self.python)
        self.loop.watch(
            staging.link.fileno(), lambda _: self.show(*self.generations.stage(seq, *self.end_staging(staging)))
        )

    def end_staging(self, staging: stage.Staging) -> tuple[ipc.Message, list[int]]:
        """It has finished, or has to."""
        self.staging = None
        return staging.finish(self.loop)

    def show(self, answer: ipc.Message, fd: int) -> None:
        self.tell("supervisor", answer, *([fd] if fd >= 0 else []))
        if fd >= 0 and self.generations.staged is None:
            os.close(fd)

    def abort(self) -> None:
        """Forget what was staged; nothing has changed."""
        if self.staging is not None:
            ipc.close_all(self.end_staging(self.staging)[1])
        self.generations.abort()

    def retire(self, left: int = 0) -> None:
        self.generations.retire({run.generation for run in self.runs.values()}, left)

    def done(self, asked: ipc.Message, number: int, step: int = 0, flags: int = 0) -> None:
        answer = ipc.Message(ipc.DONE, seq=asked.seq, run=asked.run, arg=number, extra=step, flags=flags)
        self.tell("supervisor", answer)

    def next_run(self) -> int:
        """Never the same twice in a boot, whoever counted before: microseconds of CLOCK_BOOTTIME, or one more."""
        self.last_run = max(self.last_run + 1, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)
        return self.last_run

    def shutdown(self, status: int = 0) -> None:
        """Whatever is left is killed; then the keeper may let go of everything, and ends with this status."""
        self.deed(requests.DEED_SHUTDOWN)
        self.kill_all()
        if log := self.links.get("log"):
            log.drain(LAST)  # nobody tells it again what it does not hear now
        self.keeper.send_now(ipc.Message(ipc.END, arg=status))
        self.status = 0

    def kill_all(self) -> None:
        self.abort()  # who reads the configuration just now has what we have
        for run in self.runs.values():
            requests.kill_tree(self, run, [])
        cgroup.sweep(self.tree, set())
        spawn.sweep(self.settings.paths.run, ())


HANDLERS: dict[str, dict[int, Callable[[Privileged, ipc.Message], None]]] = {
    "supervisor": requests.HANDLERS,
    "log": {ipc.PONG: Privileged.ponged, ipc.DRAINED: requests.drained},
}
note = functools.partial(ipc.note, "privileged")
