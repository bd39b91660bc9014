"""The one file that creates the processes of services.

Rule 1: what a process gets is its entry of the frozen table, and nothing else: this file parses and decides nothing.
Rule 2: the child waits at its gate until its pidfd and its pipes are in the keeper's store; when the gate closes
        instead, it ends. A crash between fork and store cannot make a second copy.
Rule 3: every descriptor but 0, 1, 2, the sockets and the pipe for its newline is closed before anything else is done
        in the child.
Rule 4: the order is groups, gid, uid, capabilities (confine.become), each verified; then no-new-privileges, exec.
Rule 5: it is born in its cgroup where that can be: to move it there would wait until every processor has passed a quiet
        state of the kernel (RCU), for milliseconds.
Rule 6: what can be known before the fork is not found out in the child: each page that it touches is copied.

Sources: fork(2), clone3 of clone(2), PyOS_BeforeFork of Python's C API, execve(2), pidfd_open(2), credentials(7),
sd_listen_fds(3), sd_notify(3), pipe(7), skarnet.org/software/s6/notifywhenup.html.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import resource
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable

import prctl

from rootd import confine, ipc
from rootd.config.table import INSTANCES, Entry
from rootd.privileged import cgroup, listen

GATE_OPEN = b"g"
CLONE3 = 435  # its number, the same on every architecture
CLONE_PIDFD, CLONE_INTO_CGROUP, SIGCHLD = 0x1000, 0x2_0000_0000, 17
WORDS = 11  # of struct clone_args: flags pidfd child_tid parent_tid exit_signal, five that are 0, cgroup
KEPT_LIMIT, KEPT_LEAST = 50_000, 128  # names in the keeper's store, which takes 60,000; fewer where nofile is low
PROBE_BACKLOG = 16  # checks of one process that may wait
PIPES_LIMIT = 64  # pipes of one slot that log has not drained: whoever holds the other end keeps them
FAILED = 127  # exit status of a child that could not become its service; the reason came over the gate

_words = (ctypes.c_uint64 * WORDS)()
_python = ctypes.PyDLL(None, use_errno=True)  # made once: what is made in the child is paid for by every child
_syscall = _python.syscall
_syscall.restype, _syscall.argtypes = ctypes.c_long, (ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t)

Store = Callable[[str, int], None]  # puts a descriptor into the keeper's store; returns when it is there


class SpawnFailed(Exception):
    """Nothing was started. errno and the step (an index of ipc.STEPS) that failed, and names to drop from the store."""

    def __init__(self, number: int, step: str, *stored: str) -> None:
        super().__init__(number, step)
        self.errno = number
        self.step = ipc.STEPS.index(step)
        self.stored = stored


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
    """The names in the keeper's store, and how many pipes of each slot are among them."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._pipes: Counter[str] = Counter()
        self._limit = min(KEPT_LIMIT, max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 3 // 4, KEPT_LEAST))

    def add(self, name: str) -> None:
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
    probe_gid: int, about: int, store: Store,
) -> tuple[Run, dict[str, int]]:  # fmt: skip
    """Start one process of an entry; it waits at its gate: open_gate lets it go on.

    paths: the run directory and the cgroup tree ("" where there is none). probe_gid: the group that may connect to a
    probe socket. about: the pid that a hook or a probe gets as DURWARD_PID, 0 for none. Returns the run and the read
    ends of its pipes by their names in the store; the caller closes those. Raises SpawnFailed; then nothing is left
    behind but what it says is in the store.
    """
    run_dir, tree = paths
    process = process_name(entry, slot)
    group = f"{tree}/run-{run}" if tree else ""
    kept, given, stored = list[int](), list[int](), list[str]()  # descriptors of ours, and of the child alone
    pid, notify, ready, step = 0, -1, -1, "pipe"
    try:
        if entry.notify:
            notify = bind_notify(f"{run_dir}/notify/{run}", entry.gid)
            kept.append(notify)
        elif entry.ready_fd:
            notify, ready = os.pipe2(os.O_CLOEXEC)
            kept, given = [notify], [ready]
        pipes, writers = {}, []
        for stream in entry.streams:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            kept.append(reader)
            given.append(writer)
            writers.append(writer)
            pipes[f"pipe/{process}/{stream}/{run}/{entry.log[0]}/{entry.log[1]}/{slot}"] = reader
        gate, child_gate = (end.detach() for end in socket.socketpair())
        kept.append(gate)
        given.append(child_gate)
        inherited = [sockets[key] for _, key in entry.sockets]
        if entry.probe:
            inherited.append(bind_probe(f"{run_dir}/probe/{run}", probe_gid))
            given.append(inherited[-1])
        step = "cgroup"
        if group:
            os.mkdir(group)
        step = "fork"
        environment = build_environment(entry, process, f"{run_dir}/notify/{run}" if entry.notify else "", about)
        held = ours()
        started = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        born = fork_into(group) if group else None
        pid = os.fork() if born is None else born[0]
        if pid == 0:
            become_service(
                entry, environment, writers, inherited, child_gate, ready, held, sockets.get(entry.stdin, -1)
            )
        pidfd = os.pidfd_open(pid) if born is None else born[1]
        kept.append(pidfd)
        started_run = Run(run, slot, generation, pid, started, pidfd)
        started_run.ours, started_run.gate, started_run.notify = True, gate, notify
        step = "cgroup"
        if group and born is None:
            cgroup.attach(group, pid)
        step = "store"
        own = {f"notify/{run}": notify} if notify >= 0 else {}
        for name, fd in {**own, **pipes, started_run.name: started_run.pidfd}.items():
            store(name, fd)
            stored.append(name)
    except OSError as error:
        ipc.close_all((*kept, *given))
        if pid:
            os.waitpid(pid, 0)  # its gate has closed: it ends by itself
        forget(run_dir, tree, run)
        raise SpawnFailed(error.errno or 0, step, *stored) from None
    ipc.close_all(given)
    return started_run, pipes


def fork_into(group: str) -> tuple[int, int] | None:
    """As os.fork, but the child is in this cgroup from its first moment: its pid and pidfd; in the child 0 and -1.

    None where a container does not let us (ENOSYS or EPERM of its filter). Raises OSError.
    """
    pidfd, directory = ctypes.c_int(-1), os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _words[:] = [CLONE_PIDFD | CLONE_INTO_CGROUP, ctypes.addressof(pidfd), 0, 0, SIGCHLD, 0, 0, 0, 0, 0, directory]
    _python.PyOS_BeforeFork()
    pid: int = _syscall(CLONE3, _words, WORDS * 8)
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0, -1
    number = ctypes.get_errno()
    _python.PyOS_AfterFork_Parent()
    os.close(directory)
    if pid < 0 and number in (errno.ENOSYS, errno.EPERM):
        return None
    if pid < 0:
        raise OSError(number, os.strerror(number))
    return pid, pidfd.value


@functools.cache
def ours() -> tuple[int, ...]:
    """Let nothing of this process's signals go on to its children; its capabilities, which they are to lose.

    An exec makes default again what is handled, and leaves as it is what is ignored or blocked (execve(2)).
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return confine.held()


def open_gate(run: Run) -> None:
    """Let the child become its service. A child that is dead already is seen by its pidfd."""
    try:
        os.write(run.gate, GATE_OPEN)
    except BrokenPipeError:
        return


def read_failure(run: Run) -> None:
    """What the child said before it ended, if it could not become its service; closes the gate."""
    if run.gate >= 0:
        try:
            word = os.read(run.gate, 8)
        except ConnectionResetError:  # it was killed before it had read that the gate is open
            word = b""
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


def build_environment(entry: Entry, process: str, notify: str, about: int = 0) -> dict[str, str]:
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
    return environment


def become_service(
    entry: Entry, environment: dict[str, str], writers: list[int], sockets: list[int], gate: int, ready: int,
    held: tuple[int, ...], stdin: int = -1,
) -> None:  # fmt: skip
    """In the fork: what DESIGN §5 says, and exec. Never returns; a failure goes over the gate."""
    step = "descriptors"
    try:
        gate = place_descriptors(writers, sockets, gate, {entry.ready_fd: ready} if ready >= 0 else {}, stdin)
        step = "gate"
        if os.read(gate, 1) != GATE_OPEN:
            os._exit(FAILED)  # not 0: a service that never ran has not done its work
        step = "session"
        os.setsid()
        os.umask(entry.umask)
        step = "limits"
        for kind, soft, hard in entry.limits:
            ceiling = resource.getrlimit(kind)[1] if hard == -2 else hard
            try:
                resource.setrlimit(kind, (soft if hard != -2 or ceiling == -1 else min(soft, ceiling), ceiling))
            except ValueError:  # how Python says EPERM, EINVAL
                raise OSError(errno.EPERM, "a limit above our own") from None
        step = "uid"
        confine.become(entry.uid, entry.gid, entry.groups, keep_bounding=entry.root, held=held)
        step = "no-new-privileges"
        if entry.nnp:
            prctl.set_no_new_privs(1)
        step = "directory"
        os.chdir(entry.cwd)
        step = "exec"
        if sockets:
            environment["LISTEN_PID"] = str(os.getpid())
        os.execve(entry.path, entry.argv, environment)
    except OSError as error:
        word = (error.errno or 0) << 8 | ipc.STEPS.index(step)
        os.write(gate, word.to_bytes(8, "little"))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os.write(gate, ipc.STEPS.index("verify").to_bytes(8, "little"))
    finally:
        os._exit(FAILED)


def place_descriptors(writers: list[int], sockets: list[int], gate: int, ready: dict[int, int], stdin: int = -1) -> int:
    """0 is stdin or /dev/null, 1 and 2 the pipes, 3… the sockets, `ready` where its entry says; all others are closed.

    One pipe is for both; where there is none, it is /dev/null. But the gate: it comes after the last of them, and is
    closed by exec. Returns its number.
    """
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    placed = dict(enumerate((null if stdin < 0 else stdin, *((writers or [null]) * 2)[:2], *sockets))) | ready
    last = max(placed) + 1
    wanted = {
        target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, last + 1) for target, fd in (placed | {last: gate}).items()
    }
    for target, fd in wanted.items():
        os.dup2(fd, target, inheritable=target < last)
    for before in [fd for fd in ready if fd > 3 + len(sockets)]:
        os.closerange(3 + len(sockets), before)
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))
    return last
