"""How a process ended, or why it never became the service, in the words that people see.

Rule: pure, and nothing is decided here but which failures trying again cannot mend.

Sources: wait(2), execve(2), setuid(2), DESIGN §14 (EXITED.extra, DONE of SPAWN).
"""

from __future__ import annotations

import errno
import json
import os
import signal
from typing import TYPE_CHECKING

import msgspec

from rootd import ipc
from rootd.config.specs import PARTS

if TYPE_CHECKING:
    from rootd.config.specs import ServiceSpec

# Steps of ipc.STEPS that end the same way however often they are tried, with the errors that do so.
_LASTING = {
    "exec": {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EPERM},
    "directory": {errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ELOOP},
    "limits": {errno.EPERM, errno.EINVAL},
    "groups": {errno.EPERM, errno.EINVAL},
    "gid": {errno.EPERM, errno.EINVAL},
    "uid": {errno.EPERM, errno.EINVAL},
    "capabilities": {errno.EPERM, errno.EINVAL},
    "left": {0},
    "nice": {errno.EPERM, errno.EACCES},
    "I/O priority": {errno.EPERM, errno.EINVAL},
    "OOM score": {errno.EPERM, errno.EACCES},
    "CPU affinity": {errno.EPERM, errno.EINVAL},
    "files": {errno.ENOSYS, errno.ENOENT, errno.EACCES, errno.ENOTDIR},
    "credentials": {errno.EOPNOTSUPP},
    "cgroup limits": {errno.EINVAL, errno.ERANGE, errno.EOPNOTSUPP},
}
_WORDS = {
    "nothing": "cannot be started",
    "limits": "cannot set its limits",
    "groups": "cannot take its groups",
    "gid": "cannot take its group",
    "fork": "cannot start a process",
    "cgroup": "cannot make its control group",
    "store": "cannot hand its process to the keeper",
    "pipe": "cannot make its output pipes",
    "/dev/null": "cannot open /dev/null (which must be the device, and anybody's to read and write)",
    "notify": "cannot make its notify socket",
    "no-new-privileges": "cannot give up new privileges",
    "capabilities": "cannot take just its capabilities",
    "left": "cannot be started beside what is left of an earlier run, which does not end, even by SIGKILL",
    "nice": "cannot take its priority (nice)",
    "I/O priority": "cannot take its I/O priority",
    "OOM score": "cannot take its OOM score",
    "CPU affinity": "cannot be bound to its processors",
    "files": "cannot be kept to its files (Landlock)",
    "credentials": "cannot be given its credentials",
    "cgroup limits": "cannot limit its control group (there must be a controller for it)",
}


# What is short, and what makes it more. Of each service, so the words are few.
SHORT = {
    errno.EAGAIN: "processes are short: raise pids.max of its control group (TasksMax=), or kernel.pid_max",
    errno.EMFILE: "descriptors are short: raise the daemon's limit of open files (LimitNOFILE=)",
    errno.ENFILE: "descriptors are short: raise fs.file-max",
    errno.ENOMEM: "memory is short: free some, or raise memory.max of its control group",
    errno.ENOSPC: "there is no room: free some in the run directory, or have fewer control groups",
}
# What to do about the rest of what a service asks for and this machine does not give.
_LACK = "the daemon lacks the capability that it takes: durward doctor names it"
_PATH = "durward doctor names the path"
_TO_DO = {
    ("limits", errno.EPERM): _LACK,
    ("nice", errno.EACCES): _LACK,
    ("nice", errno.EPERM): _LACK,
    ("I/O priority", errno.EPERM): _LACK,
    ("OOM score", errno.EACCES): _LACK,
    ("files", errno.ENOENT): _PATH,
    ("files", errno.ENOTDIR): _PATH,
}
_NOT_ADOPTED = {
    errno.ENOTSUP: "without control groups nobody can tell whose it is",
    errno.EPERM: "it is none of this process's own",
    errno.ESRCH: "there is none",
    errno.ENOENT: "there is none",
    errno.EEXIST: "it is the main process of another",
}


class Exit(msgspec.Struct, frozen=True):
    """The end of a main process. failure is not 0 when it ended before it had become the service."""

    code: int | None  # the exit code, or minus the signal; None when nobody knows
    core: bool = False
    failure: int = 0  # errno << 8 | index of the step in ipc.STEPS


def exit_of(message: ipc.Message) -> Exit:
    """What an EXITED of privileged says."""
    known = bool(message.flags & ipc.KNOWN) or message.extra != 0
    return Exit(message.arg if known else None, bool(message.flags & ipc.CORE), message.extra)


def failure_of(message: ipc.Message) -> Exit:
    """What a DONE says that answers a SPAWN: nothing was started."""
    return Exit(None, failure=message.arg << 8 | message.extra or ipc.STEPS.index("fork"))


def words(exit_: Exit, spec: ServiceSpec, part: str = "") -> str:
    """One phrase: exit status 1 · killed by SIGKILL · cannot execute /srv/x: No such file or directory.

    part: of specs.PARTS, "" for the service's own process.
    """
    return _failure_words(exit_.failure, spec, part) if exit_.failure else status_words(exit_)


def status_words(exit_: Exit) -> str:
    """The same, of one that did become the service."""
    if exit_.code is None:
        return "ended, nobody saw how"
    if exit_.code >= 0:
        return f"exit status {exit_.code}"
    return f"killed by {signal_name(-exit_.code)}{', core dumped' if exit_.core else ''}"


def status_of(exit_: Exit | None, failed: bool) -> int:
    """As a shell says it: the exit code, 128 + signal, 127 and 126 for what was not found or could not be executed.

    failed: it was given up, which is no success however its last process ended. 1 where nothing better is known.
    """
    if exit_ is None or (exit_.code is None and not exit_.failure):
        return 1
    if exit_.failure:
        return 127 if exit_.failure >> 8 == errno.ENOENT else 126
    code = exit_.code or 0
    return 128 - code if code < 0 else code or int(failed)


def unready(spec: ServiceSpec, found: str) -> str:
    """What was waited for in vain, of a process that was not ready in time. found: by its last probe."""
    settings = dict(spec.settings)
    if spec.ready_kind == "probe":
        what = f", its last probe: {found}" if found else ": no probe has been answered (see ready)"
    elif spec.ready_kind == "fd":
        what = f": no newline came on its descriptor {settings.get('ready.fd', '')} (see ready.fd and ready.timeout)"
    elif "pid_file" in settings:
        what = ": its pid file named no process of its own (see pid_file and ready.timeout)"
    else:
        what = ": no READY=1 came on its $NOTIFY_SOCKET (see ready.notify and ready.timeout)"
    return f"not ready in {spec.ready_timeout:g} s{what}"


def lasting(exit_: Exit) -> bool:
    """Whether the same would happen at each further try, until somebody changes something on the machine."""
    number, step = divmod(exit_.failure, 256)
    return number in _LASTING.get(_step_name(step), ())


def not_adopted(number: int) -> str:
    """Why a process cannot become the main one, by the errno of ADOPT."""
    return _NOT_ADOPTED.get(number, os.strerror(number))


def signal_name(number: int) -> str:
    """SIGTERM for 15; the number in words for one that has no name (the real-time signals)."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _step_name(step: int) -> str:
    return ipc.STEPS[step] if step < len(ipc.STEPS) else f"step {step}"


def _failure_words(failure: int, spec: ServiceSpec, part: str) -> str:
    number, step = divmod(failure, 256)
    name = _step_name(step)
    settings = dict(spec.settings)
    if name == "exec":
        what = f"cannot execute {_program(settings, part)}"
    elif name == "directory":
        what = f"cannot enter {settings.get('directory', 'its directory')}"
    elif name == "uid":
        what = f"cannot become {spec.user}"
    else:
        what = _WORDS.get(name, f"cannot start ({name})")
    to_do = SHORT.get(number) or _TO_DO.get((name, number))
    return "; ".join(filter(None, (f"{what}: {os.strerror(number)}" if number else what, to_do)))


def _program(settings: dict[str, str], part: str) -> str:
    """The first word of the command, as Describe shows it."""
    shown = settings.get(".".join(PARTS[part]) if part else "command", "")
    return str(json.loads(shown)[0]) if shown else "its command"
