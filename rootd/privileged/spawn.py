"""The one file that creates the processes of services.

Rule 1: what a process gets is its entry of the frozen table, and nothing else: this file parses and decides nothing.
Rule 2: the child waits at its gate until its pidfd and its pipes are in the keeper's store; when the gate closes
        instead, it ends. A crash between fork and store cannot make a second copy.
Rule 3: the fork is the spawner's, which has nothing in memory; the child is ours.

Sources: fork(2), pidfd_open(2), sd_listen_fds(3), sd_notify(3), pipe(7), skarnet.org/software/s6/notifywhenup.html.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable

from rootd import closing, ipc
from rootd.config.table import INSTANCES, Entry
from rootd.privileged import cgroup, credentials, extras, listen, spawner
from rootd.privileged.spawner import Birth, Spawner

KEPT_LIMIT, KEPT_LEAST = 25_000, 128  # names in the keeper's store, which takes 25,900; fewer where nofile is low
PROBE_BACKLOG = 16  # checks of one process that may wait
PIPES_LIMIT = 64  # pipes of one slot that log has not drained: whoever holds the other end keeps them
Store = Callable[[dict[str, int]], None]  # puts descriptors into the keeper's store by their names, all or none


class SpawnFailed(Exception):
    """Nothing was started, nor stored. errno and the step (an index of ipc.STEPS) that failed."""

    def __init__(self, number: int, step: str) -> None:
        super().__init__(number, step)
        self.errno = number
        self.step = ipc.STEPS.index(step)


class Run:
    """One spawn: a process of a service from its fork until its tree is empty. Owns its descriptors."""

    def __init__(self, run: int, slot: int, generation: int, pid: int, started: int, pidfd: int) -> None:
        self.run = run
        self.slot = slot
        self.generation = generation
        self.pid = pid
        self.started = started  # nanoseconds of CLOCK_BOOTTIME
        self.pidfd = pidfd
        self.ours = False  # whether it is a child of this process; else the keeper reaps it
        self.gate = -1  # what the child says if it fails before its exec
        self.failure = 0  # errno << 8 | step, from the gate
        self.exited: tuple[int, int] | None = None  # status, flags: said to the supervisor, until acknowledged
        self.acknowledged = False
        self.events = -1  # cgroup.events, while the tree is awaited to be empty
        self.notify = -1  # where it is heard to be ready: its notify socket, or the read end of its pipe

    @property
    def name(self) -> str:
        """Its name in the store: all that has to be known to take it back."""
        return f"process/{self.slot}/{self.run}/{self.generation}/{self.pid}/{self.started}"

    @classmethod
    def held(cls, name: str, pidfd: int) -> Run:
        """A run from the store. Raises ValueError when the name is none that this version wrote."""
        _, slot, run, generation, pid, started = name.split("/")
        return cls(int(run), int(slot), int(generation), int(pid), int(started), pidfd)


class Kept:
    """The names in the keeper's store, and how many pipes of each slot are among them.

    For each that waits to be handed to the next privileged the keeper needs a second descriptor.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._pipes: Counter[str] = Counter()
        self._limit = min(KEPT_LIMIT, max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2, KEPT_LEAST))

    def add(self, *names: str) -> None:
        for name in names:
            if name not in self._names:
                self._names.add(name)
                self._pipes.update(pipe_of(name))

    def discard(self, name: str) -> None:
        if name in self._names:
            self._names.discard(name)
            self._pipes.subtract(pipe_of(name))

    def full(self, process: str, slot: int) -> bool:
        """Whether there is no room for a run: at all, or because others still write to what earlier runs were given.

        A process and its hooks and probes have the same name, but slots of their own: what those use up is theirs.
        """
        return len(self._names) >= self._limit or self._pipes[f"{process}/{slot}"] >= PIPES_LIMIT


def pipe_of(name: str) -> list[str]:
    """The process and slot whose pipe this name in the store is; nothing for other names."""
    kind, _, rest = name.partition("/")
    return [f"{rest.partition('/')[0]}/{rest.rpartition('/')[2]}"] if kind == "pipe" else []


def process_name(entry: Entry, slot: int) -> str:
    return entry.service if entry.count == 1 else f"{entry.service}.{slot % INSTANCES}"


def spawn(
    entry: Entry, *, slot: int, run: int, generation: int, sockets: dict[str, int], paths: tuple[str, str],
    probe_gid: int, about: int, store: Store, helper: Spawner, secrets: int = -1,
) -> tuple[Run, dict[str, int]]:  # fmt: skip
    """Start one process of an entry; it waits at its gate: open_gate lets it go on.

    paths: the run directory and the cgroup tree ("" where there is none). probe_gid: the group that may connect to a
    probe socket. about: the pid that a hook or a probe gets as DURWARD_PID, 0 for none. secrets: the memfd of those of
    its generation. Returns the run and the read ends of its pipes by their names in the store; the caller closes those.
    Raises SpawnFailed; then nothing is left behind.
    """
    run_dir, tree = paths
    process = process_name(entry, slot)
    group = f"{tree}/run-{run}" if tree else ""
    kept, given = list[int](), list[int]()  # descriptors of ours, and of the child alone
    born, notify, ready, step = None, -1, list[int](), "/dev/null"
    try:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        given.append(null)
        step = "pipe"
        if entry.notify:
            notify = bind_notify(f"{run_dir}/notify/{run}", entry.gid)
            kept.append(notify)
        elif entry.ready_fd:
            notify, newline = os.pipe2(os.O_CLOEXEC)
            kept, given, ready = [notify], [newline], [newline]
        pipes, writers = {}, []
        for stream in entry.streams:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            kept.append(reader)
            given.append(writer)
            os.fchmod(writer, 0o622)  # so that it can open /dev/stdout; no way but its own /proc/PID/fd leads there
            writers.append(writer)
            pipes[f"pipe/{process}/{stream}/{run}/{entry.log[0]}/{entry.log[1]}/{slot}"] = reader
        gate, child_gate = (end.detach() for end in socket.socketpair())
        kept.append(gate)
        given.append(child_gate)
        inherited = [sockets[key] for _, key in entry.sockets]
        if entry.probe:
            inherited.append(bind_probe(f"{run_dir}/probe/{run}", probe_gid))
            given.append(inherited[-1])
        step, secret = "credentials", ""
        if entry.extra and entry.extra.credentials:
            secret = credentials.directory(run_dir, run)
            credentials.place(secret, entry.extra.credentials, secrets, entry.uid, entry.gid)
        step = "cgroup"
        if group:
            os.mkdir(group)
        step = "cgroup limits"
        if entry.extra and entry.extra.cgroup:
            cgroup.limit(group, entry.extra.cgroup, entry.extra.optional[1])
        step = "fork"
        environment = build_environment(entry, process, f"{run_dir}/notify/{run}" if entry.notify else "", about)
        environment += [f"CREDENTIALS_DIRECTORY={secret}"] if secret else []
        stdin = sockets[entry.stdin] if entry.stdin else null
        ids = entry.uid, entry.gid, entry.umask, int(entry.nnp), int(entry.root), entry.ready_fd
        more = extras.spell(entry.extra, secret)
        birth = Birth(group, entry.path, entry.cwd, ids, entry.groups, entry.limits, entry.argv, environment, more)
        started = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        fds = (child_gate, stdin, *((writers or [null]) * 2)[:2], *ready, *inherited)
        born = helper.spawn(birth, fds)
        pid, pidfd = born
        kept.append(pidfd)
        started_run = Run(run, slot, generation, pid, started, pidfd)
        started_run.ours, started_run.gate, started_run.notify = True, gate, notify
        step = "store"
        own = {f"notify/{run}": notify} if notify >= 0 else {}
        store({**own, **pipes, started_run.name: pidfd})
    except OSError as error:
        closing.close(*kept, *given)
        if born is not None:
            os.waitpid(born[0], 0)  # its gate has closed: it ends by itself
        forget(run_dir, tree, run)
        raise SpawnFailed(error.errno or 0, step) from None
    ipc.close_all(given)
    return started_run, pipes


def open_gate(run: Run) -> None:
    """Let the child become its service. A child that is dead already is seen by its pidfd."""
    with contextlib.suppress(BrokenPipeError):
        os.write(run.gate, spawner.GATE_OPEN)


def read_failure(run: Run) -> None:
    """What the child said before it ended, if it could not become its service; closes the gate."""
    if run.gate >= 0:
        word = ipc.after_reset(lambda: os.read(run.gate, 8))  # it may have ended before it read that the gate is open
        run.failure = int.from_bytes(word, "little") if len(word) == 8 else 0
        os.close(run.gate)
        run.gate = -1


def bind_notify(path: str, gid: int) -> int:
    """The datagram socket of one run for sd_notify(3): 0660, the service's group, with the sender's credentials."""
    sock = listen.bind_unix(path, socket.SOCK_DGRAM, gid, 0o660)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return sock.detach()


def bind_probe(path: str, gid: int) -> int:
    """The listening socket of one run that only checks connect to: 0660, the group of who makes them."""
    sock = listen.bind_unix(path, socket.SOCK_STREAM, gid, 0o660)
    sock.listen(PROBE_BACKLOG)
    return sock.detach()


def forget(run_dir: str, tree: str, run: int) -> None:
    """Remove what a run had in the file system, as far as it is there."""
    group = f"{tree}/run-{run}" if tree else ""
    for remove, path in (
        (os.unlink, f"{run_dir}/notify/{run}"),
        (os.unlink, f"{run_dir}/probe/{run}"),
        (os.rmdir, group),
    ):
        with contextlib.suppress(OSError):
            remove(path)
    credentials.discard(credentials.directory(run_dir, run))


def sweep(run_dir: str, known: Iterable[int]) -> None:
    """Remove what is there of runs that nobody knows: killed in the middle of a spawn, nobody has forgotten them."""
    keep = {str(run) for run in known}
    for folder in (f"{run_dir}/notify", f"{run_dir}/probe"):
        with contextlib.suppress(FileNotFoundError):
            for name in set(os.listdir(folder)) - keep:
                os.unlink(f"{folder}/{name}")
    credentials.sweep(run_dir, keep)


def build_environment(entry: Entry, process: str, notify: str, about: int = 0) -> list[str]:
    """All but LISTEN_PID, which only the child knows. Built, not inherited."""
    environment = dict(entry.env)
    environment |= {"DURWARD_SERVICE": entry.service, "DURWARD_PROCESS": process}
    names = [*(name for name, _ in entry.sockets), *(["probe"] if entry.probe else [])]
    if names:
        environment["LISTEN_FDS"] = str(len(names))
        environment["LISTEN_FDNAMES"] = ":".join(names)
    if notify:
        environment["NOTIFY_SOCKET"] = notify
    if about:
        environment["DURWARD_PID"] = str(about)
    return [f"{name}={value}" for name, value in environment.items()]
