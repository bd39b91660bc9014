"""Configuration becomes a frozen table: read and compiled in a throw-away child, kept as a sealed memfd.

Rule 1: nothing is parsed in the process that lives on, but the table that its own child wrote and sealed.
Rule 2: names are resolved in that child too, which is ended when a directory service hangs.
Rule 3: as root, once, before anything is given away: settings, directories, doors.

Sources: flock(2), unix(7).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import resource
import signal
import socket
from typing import TYPE_CHECKING

from rootd import accounts, confine, forked, ipc, sealed
from rootd.config import settings as settings_file, trusted
from rootd.config.settings import Settings
from rootd.privileged import listen

if TYPE_CHECKING:
    from rootd.config.compile import Bundle, Compiled

TIME_LIMIT = 30.0  # seconds for reading, resolving and compiling
LATE, LATE_LIMIT = set[int](), 4  # pidfds of children that were killed and have not ended: one may hang in a server
CHILD_MEMORY = 2 << 30  # bytes of address space for the child
DOOR_BACKLOG = 128
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Staging:
    """A throw-away child at work. `link` becomes readable when it has finished; finish() then has its word.

    Raises OSError when there can be none, or LATE_LIMIT of them still hang.
    """

    def __init__(self, config_dir: str, python: str) -> None:
        if len(LATE) >= LATE_LIMIT:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        ours, theirs = ipc.pair()
        self.pid = os.fork()
        if self.pid == 0:
            signal.set_wakeup_fd(-1)  # privileged's own
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
            compile_in_child(config_dir, python, theirs.fileno())
        theirs.close()
        self.link = ipc.Link(ours, takes_fds=True)
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except OSError:
            os.kill(self.pid, signal.SIGKILL)  # a child of ours that is not waited for: the number is its own
            os.waitpid(self.pid, 0)
            self.link.close()
            raise

    def finish(self, loop: ipc.Loop) -> tuple[ipc.Message, list[int]]:
        """The child's message and its memfds: generation; settings when they could be made; secrets, if any.

        INVALID: the table is empty and the bundle says why. NEEDS_ROOT: a file could not be read as this user.
        A child that said nothing (it was ended, or its memory was short) is DONE with ETIMEDOUT. It is killed, and
        nobody waits for its end: loop sees that.
        """
        try:
            received = self.link.receive()
        except (BlockingIOError, ipc.Malformed):
            received = None
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        loop.forget(self.link.fileno())
        self.link.close()
        LATE.add(self.pidfd)
        loop.watch(self.pidfd, lambda _: self.ended(loop))
        return received or (ipc.Message(ipc.DONE, arg=errno.ETIMEDOUT), [])

    def ended(self, loop: ipc.Loop) -> None:
        with contextlib.suppress(ChildProcessError):  # strangers has done it
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        loop.forget(self.pidfd)
        LATE.discard(self.pidfd)
        os.close(self.pidfd)

    def wait(self, loop: ipc.Loop) -> tuple[ipc.Message, list[int]]:
        """As finish, when it has finished or its time is up; a moment later when it hangs where nothing ends it."""
        ipc.wait(self.link, seconds=TIME_LIMIT + 1)
        return self.finish(loop)


def compile_in_child(config_dir: str, python: str, link: int) -> None:
    """In the fork, with nothing of privileged's but the standard descriptors and the link. Never returns."""
    with forked.ending():
        forked.alone(link)
        if os.geteuid():
            confine.forget()  # name services of the machine's are asked next, and files are parsed
        resource.setrlimit(resource.RLIMIT_AS, (CHILD_MEMORY, CHILD_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it reads secrets, perhaps as root
        from rootd.config import compile as compiler, gather

        gc.disable()  # nothing of it lives long
        contents = dict[str, bytes]()
        bundle = gather.gather(config_dir, python, accounts.resolve, contents)
        show(ipc.link_from(3), bundle, compiler.compile_bundle(bundle, table_alone=True), contents)


def show(link: ipc.Link, bundle: Bundle, compiled: Compiled, contents: dict[str, bytes]) -> None:
    """TABLE, with the memfds of ipc.STAGED as far as they could be made. contents: what the services' secrets say."""
    from rootd.config import compile as compiler, secrets

    others = (*bundle.environment_files.values(), *bundle.credentials.values())
    denied = any(file.denied for file in (*bundle.files, *others))
    flags = (ipc.INVALID if compiled.problems else 0) | (ipc.NEEDS_ROOT if denied else 0)
    fds = [sealed.memfd("generation", compiler.generation_bytes(compiled, bundle))]
    if compiled.settings is not None:
        fds.append(sealed.memfd("settings", settings_file.to_json(compiled.settings)))
        fds += [sealed.memfd("secrets", secrets.pack(contents))] if contents else []
    link.send_now(ipc.Message(ipc.TABLE, flags=flags, digest=compiled.digest), *fds)


def make_directories(settings: Settings) -> None:
    """As root, at the first start: every directory that a part of ours needs, with its owner and mode.

    Raises OSError, before anything is made, where another than root could put something else in their place.
    """
    paths, who = settings.paths, settings.accounts
    private = who["privileged"]
    for path, uid in ((paths.run, 0), (paths.log, who["log"].uid), (paths.state, 0)):
        trusted.check_place(path, uid)
    wanted = (
        (paths.run, 0, 0, 0o755),
        (f"{paths.run}/sockets", private.uid, 0, 0o755),
        (f"{paths.run}/notify", private.uid, 0, 0o755),
        (f"{paths.run}/credentials", private.uid, 0, 0o711),
        (f"{paths.run}/probe", private.uid, who["probe"].gid, 0o750),
        (f"{paths.run}/supervisor", who["supervisor"].uid, who["supervisor"].gid, 0o700),
        (f"{paths.run}/log", who["log"].uid, who["log"].gid, 0o700),
        (f"{paths.run}/auth", who["auth"].uid, who["auth"].gid, 0o700),
        (paths.log, who["log"].uid, who["supervisor"].gid, 0o2750),
        (f"{paths.log}/audit", who["log"].uid, who["supervisor"].gid, 0o2750),
        (paths.state, 0, 0, 0o755),
        (f"{paths.state}/auth", who["auth"].uid, who["auth"].gid, 0o700),
        (f"{paths.state}/log", who["log"].uid, who["log"].gid, 0o700),
        (f"{paths.state}/choices", who["log"].uid, who["supervisor"].gid, 0o2750),
    )
    for path, uid, gid, mode in wanted:
        os.makedirs(path, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(fd, uid, gid)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)


def lock(run: str) -> int:
    """Whoever holds it is the one instance of this run directory. Raises BlockingIOError when another does.

    It says of which boot: what a supervisor of another one wrote counts no more, where the directory was kept. In a
    container a start of the first process is a boot too, but the clock goes on, and with it sessions and limits.
    """
    fd = os.open(f"{run}/lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    with open(BOOT_ID, "rb") as file:
        last, boot = os.pread(fd, 64, 0), file.read()
    stale = ["state.json"] if os.getppid() == 1 else []
    for name in stale if last in (b"", boot) else os.listdir(f"{run}/supervisor"):
        with contextlib.suppress(OSError):
            os.unlink(f"{run}/supervisor/{name}")
    with contextlib.suppress(OSError):  # there may be no room
        os.pwrite(fd, boot, 0)
    return fd


def open_doors(settings: Settings) -> dict[str, int]:
    """As root: the sockets that people's processes connect to, bound once. Names in the store, and descriptors."""
    api = settings.accounts["api"].gid
    doors = {
        "control": ("control.sock", api, 0o660),
        "root": ("root.sock", 0, 0o600),
        "auth": ("auth.sock", api, 0o660),
    }
    if settings.auth.local == "peer":
        doors["peer"] = ("peer.sock", 0, 0o666)
    opened = {}
    for door, (name, gid, mode) in doors.items():
        sock = listen.bind_unix(f"{settings.paths.run}/{name}", socket.SOCK_SEQPACKET, gid, mode)
        with contextlib.suppress(OSError):  # before Linux 6.16; each connection has it from its first moment
            sock.setsockopt(socket.SOL_SOCKET, ipc.SO_PASSRIGHTS, 0)
        sock.listen(DOOR_BACKLOG)
        opened[f"door/{door}"] = sock.detach()
    return opened
