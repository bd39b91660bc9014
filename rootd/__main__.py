"""The program: durward-rootd --config DIR [--check].

It becomes the parent of all orphans, raises what it may hold open, and hands the roles to the keeper. Each role is
imported in its own process only, so that each has in memory what it alone needs; what all need is shared (memory).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import prctl

from rootd import forked, ipc, memory, trial
from rootd.keeper import again, backup, main as keeper, manifest
from rootd.keeper.manifest import Manifest

if TYPE_CHECKING:
    from rootd.config.compile import Bundle, Compiled

DEFAULT_CONFIG = "/etc/durward"
PYTHON = os.path.join(sys.prefix, "bin", "python3")  # what runs our own api
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
NEEDED = {  # of a start: directories are given to our accounts, and privileged keeps the last five; linux/capability.h
    "CHOWN": 0, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8, "NET_BIND_SERVICE": 10
}  # fmt: skip
BAD_CONFIGURATION, OVERDUE, NOT_ROOT = 65, 75, 77  # EX_DATAERR, EX_TEMPFAIL, EX_NOPERM of sysexits.h
ANEW = 85  # exit status: all has ended, and is to begin again (errno's ERESTART): RestartForceExitStatus= of the unit


def main() -> int:
    open_standard_descriptors()
    if os.getpid() == 1:  # of a container: until the keeper listens, the kernel ignores what has no handler
        for number in keeper.ENDING:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    parser = argparse.ArgumentParser(
        prog="durward-rootd", description="Holds the doors: binds, spawns as configured users, asks the policy."
    )
    parser.add_argument("--config", metavar="DIR", default=DEFAULT_CONFIG, help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="only check the configuration: exit 65 with every error")
    parser.add_argument(
        "--resume", metavar="FD", type=int, help=argparse.SUPPRESS
    )  # what the keeper before us has left
    parser.add_argument(again.TRIED, dest="tried", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    program = os.path.abspath(sys.argv[0])
    if asked.resume is not None:
        return resume(program, os.path.abspath(asked.config), asked.resume, asked.tried)
    if os.geteuid() != 0 and not asked.check:
        print("durward-rootd: it must be started as root, to bind low ports and to start services", file=sys.stderr)
        return NOT_ROOT
    if not asked.check and (missing := [name for name, number in NEEDED.items() if not prctl.capbset_read(number)]):
        names = ",".join(missing)
        print(
            f"durward-rootd: it cannot start without these capabilities: {names}: in a container, --cap-add {names}",
            file=sys.stderr,
        )
        return NOT_ROOT
    for number in () if asked.check else (signal.SIGHUP, *keeper.FORWARDED):
        signal.signal(number, signal.SIG_IGN)  # they mean nothing before the keeper listens, and must not end it
    config = os.path.abspath(asked.config)
    staged = dict[str, int]()
    if not asked.check:
        signal.pthread_sigmask(signal.SIG_BLOCK, keeper.HANDLED)  # whoever was told to end has to end what there is
        staged, left = backup.found(os.environ, trial.unreadable)
        if left is not None:
            return go_on(program, config, left, os.environ.get("DURWARD_RESTART", ""))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, keeper.HANDLED)
        over(os.environ.get("DURWARD_RESTART", ""))
    status = check(config, asked.check, staged)
    if status and os.geteuid() != 0:
        print("durward-rootd: not root, so it may not see all of it: sudo durward-rootd --check", file=sys.stderr)
    if status or asked.check:
        return status
    return keep(program, config, staged)


def resume(program: str, config: str, told_fd: int, tried: bool) -> int:
    """Take over all that a keeper before us has held; its signals wait. tried: only say whether that would do."""
    with open(told_fd, "rb") as file:
        text = os.pread(told_fd, os.fstat(file.fileno()).st_size, 0)
    if tried:
        return trial.main(text, lambda: check(config, True, quoted=False))  # it is told to people, and recorded
    told = manifest.read(text)
    for fd in told.held.values():
        os.set_inheritable(fd, False)
    return keep(program, config, told=told)


def go_on(program: str, config: str, left: Manifest, restart: str) -> int:
    """Take over what a killed keeper has left. restart: a file that is there, by the unit, while a restart was asked of
    the service manager and not all has ended yet: then all of it ends first, in order, and is begun anew."""
    if not os.path.exists(restart):
        return keep(program, config, told=left)
    ipc.note("keeper", "the stop of a restart was cut short: what is left ends in order now, and all begins anew")
    keep(program, config, told=left._replace(asked=max(left.asked, 1)))
    over(restart)
    return ANEW


def over(restart: str) -> None:
    """Nothing of what was there before that restart is left."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(restart)


def keep(program: str, config: str, staged: dict[str, int] | None = None, told: Manifest | None = None) -> int:
    """Become the keeper; returns its exit status."""
    build_environment()
    prctl.set_child_subreaper(1)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.chdir("/")
    os.umask(0o022)
    forked.called("rootd")  # what is beneath it is of a keeper that lives (leftovers)
    memory.share()
    return keeper.Keeper(roles(config), staged, (program, "--config", config), told).run()


def open_standard_descriptors() -> None:
    """Where the caller has closed one: a descriptor of ours must not take its number, which every role keeps open."""
    while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
        continue
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def build_environment() -> None:
    """Nothing that the caller has set speaks to PAM's modules, to name services or to other libraries of ours.

    Nor does what may be installed beside us: msgspec would import typing_extensions, with inspect and ast (1.4 MiB).
    """
    sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]
    os.environ.clear()
    os.environ.update(ENVIRONMENT)


def roles(config: str) -> dict[str, keeper.Role]:
    """How each part is run, in its own process."""

    def privileged(link: int) -> int:
        from rootd.privileged.spawner import Spawner

        helper = Spawner()  # before the rest is imported: what it has in memory is paid for by every service
        from rootd.privileged import main as role

        return role.main(link, config, PYTHON, lambda reasons: explain(config, reasons), helper)

    def log(link: int) -> int:
        from rootd.log import main as role

        return role.main(link)

    def supervisor(link: int) -> int:
        from rootd.supervisor import main as role

        return role.main(link)

    def auth(link: int) -> int:
        from rootd.auth import main as role

        return role.main(link)

    def probe(link: int) -> int:
        from rootd.probe import main as role

        return role.main(link)

    return {"privileged": privileged, "log": log, "supervisor": supervisor, "auth": auth, "probe": probe}


def explain(config: str, reasons: Sequence[str]) -> None:
    """Print why privileged cannot start, each reason with its place in the files, as far as it has one."""

    def act() -> int:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # nothing of privileged's
        from rootd import check as checker, holder
        from rootd.config import trusted

        files = trusted.read_tree(config)
        for line in [checker.headline(checker.located(files, holder.named(reason))) for reason in reasons]:
            ipc.note("privileged", line)
        return 0

    if in_a_child(act) != 0:
        for reason in reasons:
            ipc.note("privileged", reason)


def check(config: str, asked: bool, staged: dict[str, int] | None = None, quoted: bool = True) -> int:
    """Read and check everything, and print what is wrong; 0, or the exit status.

    asked: notes are printed too, and on standard output what was found to be good. staged: is given what was made of
    the files, by its names in the store, so that it need not be made again. quoted: each mistake with its line.
    """
    ours, theirs = ipc.pair()

    def act() -> int:
        build_environment()
        from rootd import check as checker
        from rootd.privileged import stage

        resource.setrlimit(resource.RLIMIT_AS, (stage.CHILD_MEMORY, stage.CHILD_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it reads secrets, perhaps as root
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # no handler of ours would be called in a library that hangs
        signal.setitimer(signal.ITIMER_REAL, stage.TIME_LIMIT)
        gc.disable()  # nothing of it lives long
        link = ipc.Link(theirs)

        def begin(bundle: Bundle, compiled: Compiled, contents: dict[str, bytes]) -> None:
            end_leftovers(compiled)
            stage.show(link, bundle, compiled, contents)

        made = None if staged is None or asked else begin
        checked = checker.check(config, PYTHON, asked, made, time.clock_gettime(time.CLOCK_REALTIME))
        told = checker.render(checked.problems, quoted)
        sys.stderr.write(told + "".join(f"note: {note}\n" for note in checked.notes if asked))
        if asked and not checked.problems:
            print(checked.summary, flush=True)
        return BAD_CONFIGURATION if checked.problems else 0

    status = in_a_child(act)
    if status == OVERDUE:
        print("durward-rootd: its files took too long to read: does a directory service answer?", file=sys.stderr)
    theirs.close()
    received = ipc.Link(ours, takes_fds=True).receive()
    ours.close()
    if staged is not None and received is not None:
        staged |= zip(ipc.STAGED, received[1], strict=False)
    return status


def end_leftovers(compiled: Compiled) -> None:
    """Of a keeper that was killed, and of parts of it that did not end with it."""
    from rootd import leftovers

    if compiled.settings is not None:
        accounts = compiled.settings.accounts
        if count := leftovers.end({accounts[role].uid for role in ("supervisor", "auth", "log", "probe")}):
            ipc.note("keeper", f"ended what parts of another keeper, which was killed, had left: {count} processes")


def in_a_child(act: Callable[[], int]) -> int:
    """Do it in a throw-away child, the only place where root's files are parsed: its exit status. It ends with us.

    That is 70 when it fails, and 75 when its time was up.
    """
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        status = 70
        try:
            again.end_with(parent)
            status = act()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, raw = os.waitpid(pid, 0)
    return exit_status(os.waitstatus_to_exitcode(raw))


def exit_status(status: int) -> int:
    return OVERDUE if status == -signal.SIGALRM else status if status >= 0 else 70


if __name__ == "__main__":
    sys.exit(main())
