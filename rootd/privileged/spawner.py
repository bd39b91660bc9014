"""The small process that forks: privileged as it was before it knew anything, with the same account and capabilities.

A fork costs what its process has in memory: privileged has the table of all services, and writes to its memory between
two forks, a page at a time copied. This process has nothing, and does nothing else. The child becomes its service here.

Rule 1: it is told by privileged alone, what to spawn in one packet; it decides nothing and keeps nothing. It ends when
        privileged does, and privileged when it does: both are started again together.
Rule 2: a child is privileged's (CLONE_PARENT), and is born in its cgroup where that can be: to move it there would wait
        until every processor has passed a quiet state of the kernel (RCU), for milliseconds.
Rule 3: every descriptor but 0, 1, 2, the sockets and the pipe for its newline is closed before anything else is done
        in the child; then it waits at its gate. When the gate closes, it ends.
Rule 4: the order is groups, gid, uid, capabilities (confine), each verified; then no-new-privileges, exec.
Rule 5: what can be known before the fork is not found out in the child: each page that it touches is copied.
Rule 6: one thread only, so that a child may go on as the very interpreter that called clone3: every lock is free, or
        its own, and what Python does after a fork (PyOS_AfterFork_Child) would mend nothing.

Sources: clone3 of clone(2), execve(2), pidfd_open(2), credentials(7), unix(7), sd_listen_fds(3).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Sequence

from rootd import confine, forked, ipc, sealed
from rootd.confine import Call
from rootd.privileged.extras import Extras

GATE_OPEN = b"g"
FAILED = 127  # exit status of a child that could not become its service; the reason came over the gate
CLONE3 = 435  # its number, the same on every architecture
CLONE = dict.fromkeys(("aarch64", "riscv64", "loongarch64"), 220) | {"x86_64": 56}
CLONE_PIDFD, CLONE_PARENT, CLONE_INTO_CGROUP, SIGCHLD = 0x1000, 0x8000, 0x2_0000_0000, 17
WORDS = 11  # of struct clone_args: flags pidfd child_tid parent_tid exit_signal, five that are 0, cgroup
PACKET = 48 * 1024  # bytes of a birth that are sent; one that is longer comes in a memfd
FDS_LIMIT = 253  # descriptors that one packet can bring (SCM_MAX_FD)
LEAVE = -2  # a hard limit that stays as it is
OWN = 320  # the spawner's own descriptors are from here on; beneath, those of the next child are put in their places
DESCRIPTORS = os.sysconf("SC_OPEN_MAX")
ANSWER = struct.Struct("=ii")  # errno, pid

_words = (ctypes.c_uint64 * WORDS)()
_python = ctypes.PyDLL(None, use_errno=True)  # made once: what is made in the child is paid for by every child
_syscall = _python.syscall
_syscall.restype, _syscall.argtypes = ctypes.c_long, (ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t)


class Birth:
    """All that a child has to know, as privileged sends it: texts, none of which has a NUL, and numbers in decimal."""

    def __init__(
        self, group: str, path: str, cwd: str, ids: Sequence[int], groups: Sequence[int],
        limits: Sequence[Sequence[int]], argv: Sequence[str], env: Sequence[str], extras: str = "",
    ) -> None:  # fmt: skip
        self.words = (
            group, path, cwd, _numbers(ids), _numbers(groups), _numbers([n for limit in limits for n in limit]),
            extras, str(len(argv)), *argv, *env,
        )  # fmt: skip

    def encode(self) -> bytes:
        return "\0".join(self.words).encode(errors="surrogateescape")  # as root's files are, whatever our locale


def _numbers(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def new_limit(kind: int, soft: int, hard: int) -> tuple[int, tuple[int, int]] | None:
    """What setrlimit is to be given; nothing where it is so already."""
    now = resource.getrlimit(kind)
    ceiling = now[1] if hard == LEAVE else hard
    wanted = (soft if hard != LEAVE or ceiling == -1 else min(soft, ceiling), ceiling)
    return None if wanted == now else (kind, wanted)


class Child:
    """A birth, read before the fork. Its descriptors come as gate, stdin, stdout, stderr, [newline], sockets."""

    def __init__(self, packet: bytes) -> None:
        self.group, self.path, self.cwd, ids, groups, limits, extras, count, *words = packet.split(b"\0")
        self.uid, self.gid, self.umask, self.nnp, self.root, self.newline = map(int, ids.split())
        self.groups = [int(number) for number in groups.split()]
        numbers = [int(number) for number in limits.split()]
        self.limits = [limit for at in range(0, len(numbers), 3) if (limit := new_limit(*numbers[at : at + 3]))]
        self.extras = Extras(extras)
        self.argv = words[: int(count)]
        self.env = dict(word.partition(b"=")[::2] for word in words[int(count) :])
        self.sockets, self.gate = 0, -1

    def place(self, fds: Sequence[int], own: int) -> None:
        """Make the descriptors of this process those of the child: 0 is what came for it, 1 and 2 where its output
        goes, 3… the sockets, the newline's where its entry says, the gate after all, close-on-exec. What came is
        closed.

        own: the first number that the child never gets. Raises OSError.
        """
        gate, stdin, stdout, stderr, *sockets = fds
        ready = {self.newline: sockets.pop(0)} if self.newline else {}
        placed = {0: stdin, 1: stdout, 2: stderr, **dict(enumerate(sockets, 3)), **ready}
        self.sockets, self.gate = len(sockets), max(placed) + 1
        if self.gate >= own:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        moved = {
            target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, own) for target, fd in (placed | {self.gate: gate}).items()
        }
        os.closerange(3, own)
        for target, fd in moved.items():
            os.dup2(fd, target, inheritable=target != self.gate)
            os.close(fd)

    def calls(self, held: Sequence[int]) -> list[Call]:
        """What the child does when its gate is open, as DESIGN §5 says."""
        who = self.uid, self.gid, self.groups
        return [
            ("session", os.setsid, (), None),
            *self.extras.calls(),
            *(("limits", resource.setrlimit, limit, None) for limit in self.limits),
            *(confine.ids(*who) if self.root else confine.way_to(*who, held, self.extras.keep)),
            *([confine.no_new_privileges()] if self.nnp else []),
            *([("directory", os.chdir, (self.cwd,), None)] if self.cwd != b"/" else []),  # the spawner is in "/"
            *self.extras.last_calls(),
        ]


def begin_child(child: Child, calls: list[Call]) -> None:
    """In the fork. Never returns; a failure goes over the gate."""
    gate, step = child.gate, "descriptors"
    try:
        os.closerange(gate + 1, DESCRIPTORS)
        step = "gate"
        if os.read(gate, 1) != GATE_OPEN:
            os._exit(FAILED)  # not 0: a service that never ran has not done its work
        for name, function, arguments, answer in calls:
            step = name
            if function(*arguments) != answer:
                raise OSError(ctypes.get_errno() or errno.EPERM, "it did not take")
        step = "exec"
        if child.sockets:
            child.env[b"LISTEN_PID"] = b"%d" % os.getpid()
        os.execve(child.path, child.argv, child.env)
    except (OSError, ValueError) as error:  # ValueError is how Python says that a limit is above our own
        number = error.errno if isinstance(error, OSError) else errno.EPERM
        os.write(gate, ((number or 0) << 8 | ipc.STEPS.index(step)).to_bytes(8, "little"))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os.write(gate, ipc.STEPS.index("verify").to_bytes(8, "little"))
    finally:
        os._exit(FAILED)


def fork_child(child: Child, held: Sequence[int]) -> tuple[int, int]:
    """Pid and pidfd of a child of our own parent, in its cgroup from its first moment. Raises OSError.

    Where a container has no clone3 for us (ENOSYS or EPERM of its filter), it has to be moved into its cgroup.
    """
    pidfd, directory, calls = ctypes.c_int(-1), 0, child.calls(held)
    flags = CLONE_PIDFD | CLONE_PARENT
    if child.group:
        directory = os.open(child.group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        flags |= CLONE_INTO_CGROUP
    _words[:] = [flags, ctypes.addressof(pidfd), 0, 0, 0, 0, 0, 0, 0, 0, directory]
    pid: int = _syscall(CLONE3, _words, WORDS * 8)
    if pid == 0:
        begin_child(child, calls)
    number = ctypes.get_errno()
    if child.group:
        os.close(directory)
    if pid < 0 and number in (errno.ENOSYS, errno.EPERM):
        return fork_plainly(child, calls)
    if pid < 0:
        raise OSError(number, os.strerror(number))
    return pid, pidfd.value


def fork_plainly(child: Child, calls: list[Call]) -> tuple[int, int]:
    """The same by the older call, whose number each architecture has its own of. A negative errno for the pidfd where
    it was born, and cannot be what it should. Raises OSError."""
    if (call := CLONE.get(os.uname().machine)) is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    pid: int = _syscall(call, CLONE_PARENT | SIGCHLD, 0)
    if pid == 0:
        begin_child(child, calls)
    if pid < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        pidfd = os.pidfd_open(pid)  # it is not reaped before we have answered
        if child.group:
            from rootd.privileged import cgroup

            cgroup.attach(os.fsdecode(child.group), pid)
    except OSError as error:
        return pid, -(error.errno or errno.EIO)  # its parent has to reap it
    return pid, pidfd


def clean_signals() -> None:
    """Let nothing of this process's signals go on to its children.

    An exec makes default again what is handled, and leaves as it is what is ignored or blocked (execve(2)).
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class Spawner:
    """privileged's side. Forked at its very start, while there is little in memory; may fork for a whole life."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.sock, theirs = ipc.pair()
        self.pid = os.fork()
        if self.pid == 0:
            serve(theirs.fileno())
        theirs.close()

    def fileno(self) -> int:
        """Readable when it is gone: nothing comes that was not asked for."""
        return self.sock.fileno()

    def close(self) -> None:
        """It ends, and is waited for."""
        self.sock.close()
        os.waitpid(self.pid, 0)

    def become(self, uid: int, gid: int, groups: Sequence[int], keep: Sequence[int], *, keep_bounding: bool) -> None:
        """The account that it works as from now on. Raises OSError or PermissionError."""
        words = (str(int(keep_bounding)), _numbers((uid, gid)), _numbers(groups), _numbers(keep))
        number, _, _ = self._ask("\0".join(words).encode(), ())
        if number:
            raise PermissionError(number, "the spawner cannot become its account")

    def spawn(self, birth: Birth, fds: Sequence[int]) -> tuple[int, int]:
        """A child of ours that waits at its gate: pid and pidfd. Raises OSError."""
        packet, extra = birth.encode(), -1
        if len(fds) >= FDS_LIMIT:
            raise OSError(errno.E2BIG, "too many sockets")
        try:
            if len(packet) > PACKET:
                extra = sealed.memfd("birth", packet)
                packet, fds = b"\0", (*fds, extra)
            number, pid, pidfd = self._ask(packet, fds)
        finally:
            if extra >= 0:
                os.close(extra)
        if pid > 0 and pidfd < 0:
            os.kill(pid, signal.SIGKILL)  # a child of ours that is not waited for: the number is its own
            os.waitpid(pid, 0)
            number = number or errno.EMFILE
        if number:
            raise OSError(number, os.strerror(number))
        return pid, pidfd

    def _ask(self, packet: bytes, fds: Sequence[int]) -> tuple[int, int, int]:
        """errno, pid and pidfd. It waits for a fork, as if it made it itself."""
        send(self.sock, packet, fds)
        answer, found = receive(self.sock, ANSWER.size)
        if len(answer) != ANSWER.size:
            ipc.close_all(found)
            raise OSError(errno.EPIPE, "the spawner is gone")
        number, pid = ANSWER.unpack(answer)
        return number, pid, found[0] if found else -1


def receive(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """One packet and its descriptors, none where not all could be had; an empty packet at the end."""
    packet, control, flags, _ = sock.recvmsg(size, socket.CMSG_SPACE(FDS_LIMIT * 4), socket.MSG_CMSG_CLOEXEC)
    fds = ipc.descriptors(control)
    if flags & socket.MSG_CTRUNC:
        ipc.close_all(fds)
        return packet, []
    return packet, fds


def serve(link: int) -> None:
    """In the fork: nothing is left of privileged's but the standard descriptors and the link. Never returns."""
    with forked.ending(), contextlib.suppress(ConnectionError):  # privileged is gone
        own = min(OWN, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, own) for fd in (link, 0, 1, 2)]
        os.closerange(3, min(kept))
        os.closerange(max(kept) + 1, DESCRIPTORS)
        os.chdir("/")
        forked.called("spawner")
        sock, *standard = kept
        with socket.socket(fileno=sock) as peer:
            held = become_account(peer)
            while held:
                packet, fds = receive(peer, PACKET)
                if not packet:
                    break
                send(peer, *bear(packet, fds, held, min(kept)))
                for target, fd in enumerate(standard):
                    os.dup2(fd, target)
                os.closerange(3, min(kept))
                os.closerange(max(kept) + 1, DESCRIPTORS)


def bear(packet: bytes, fds: list[int], held: Sequence[int], own: int) -> tuple[bytes, list[int]]:
    """One child, and what is answered: errno and pid, and its pidfd."""
    try:
        if not fds:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if packet == b"\0":
            *fds, extra = fds
            packet = os.pread(extra, os.fstat(extra).st_size, 0)
            os.close(extra)
        child = Child(packet)
        child.place(fds, own)
        os.umask(child.umask)
        pid, pidfd = fork_child(child, held)
        return (ANSWER.pack(0, pid), [pidfd]) if pidfd >= 0 else (ANSWER.pack(-pidfd, pid), [])
    except (OSError, ValueError, LookupError, OverflowError) as error:  # what cannot be must not end us each time
        number = error.errno if isinstance(error, OSError) else errno.EINVAL
        return ANSWER.pack(number or errno.EIO, 0), []


def resolve() -> None:
    """The dynamic linker looks for a name when it is first called: not in each child again."""
    os.setsid()
    with contextlib.suppress(FileNotFoundError):
        os.execve("", (b"nothing",), {})


def send(peer: socket.socket, packet: bytes, fds: Sequence[int]) -> None:
    peer.sendmsg([packet], ipc.rights(fds), socket.MSG_NOSIGNAL)


def become_account(sock: socket.socket) -> tuple[int, ...]:
    """As the first packet says; the capabilities that children are to lose. Nothing when privileged is gone."""
    packet, _ = receive(sock, PACKET)
    if not packet:
        return ()
    bounding, ids, groups, keep = packet.split(b"\0")
    uid, gid = map(int, ids.split())
    clean_signals()
    resolve()
    confine.become(uid, gid, [*map(int, groups.split())], [*map(int, keep.split())], keep_bounding=bounding == b"1")
    sock.send(ANSWER.pack(0, 0))
    return confine.held()
