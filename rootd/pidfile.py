"""Runs a program that puts itself into the background, and says which process it has become: kind = "forking".

Rule 1: it runs as the service's user, in the service's own cgroup: no part of ours opens a path that the service
        controls, and a link in the place of the pid file shows it nothing that the service could not read itself.
Rule 2: what it says is believed by nobody: privileged adopts a process of the run's own cgroup, or none (adopt.py).
Rule 3: a number in the file counts when it names a living process of this run: what an earlier run has left there, or
        what names another's, is waited over. The service's time to be ready ends the waiting.
Rule 4: it ends with a failure when it has handed over: that is seen only if nobody took over, and then it is one.

Without cgroups nobody could prove whose a process is: there it stays, as the parent of what it has started, passes
signals on, and ends as that ends.

Usage: python -I -m rootd.pidfile PID-FILE COMMAND…. Sources: sd_notify(3), daemon(7), prctl(2)
PR_SET_CHILD_SUBREAPER, DESIGN §14 ADOPT.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import os
import re
import select
import signal
import socket
import sys
import time

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
LOOK_AGAIN = 0.05  # seconds from one look at the pid file to the next
LATE = 0.5  # seconds after which the waiting is worth a line in the log
SAY_AGAIN = 1.0  # seconds after which it is said once more: the supervisor may have been killed when it had heard it
HEARD_IN = 30.0  # seconds in which somebody must have read what was said; a supervisor is back sooner
HANDED_OVER = 70  # the exit status of one whose word was not taken
LIMIT = 64  # bytes of a pid file that are read
NUMBER = re.compile(rb"\s*([1-9][0-9]{0,9})\s*")
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    pid_file, command = argv[0], argv[1:]
    in_cgroup = is_run(cgroup_of("self"))
    if not in_cgroup:
        ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)
    first = os.fork()
    if first == 0:
        become(command)
    status = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    if status:
        print(f"{command[0]}: ended with {status} before it was in the background", file=sys.stderr)
        return status if status > 0 else 128 - status
    pid = await_pid(pid_file, in_cgroup)
    if not in_cgroup:
        return stay(pid)
    for pause in (SAY_AGAIN, 0.0):
        say(f"READY=1\nMAINPID={pid}")
        time.sleep(pause)
    return HANDED_OVER


def become(command: list[str]) -> None:
    """In the child. Never returns."""
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and an exec leaves that as it is
            signal.signal(number, signal.SIG_DFL)
        environment = given()
        if b"LISTEN_PID" in environment:
            environment[b"LISTEN_PID"] = b"%d" % os.getpid()
        os.execve(command[0], command, environment)
    except OSError as error:
        print(f"cannot execute {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


def given() -> dict[bytes, bytes]:
    """The environment as it came: Python sets LC_CTYPE where it finds the locale "C". Without /proc, as it is now."""
    try:
        with open("/proc/self/environ", "rb") as file:
            return dict(word.partition(b"=")[::2] for word in file.read().split(b"\0") if word)
    except OSError:
        return dict(os.environb)


def await_pid(pid_file: str, in_cgroup: bool) -> int:
    """The process that the file names, once it is one of this run that lives. Says what it waits for, once; in the
    log of the service too, where it can be read when its time was up."""
    said = logged = ""
    late = time.monotonic() + LATE
    while True:
        pid, why = look(pid_file, in_cgroup)
        if not why:
            return pid
        if why != said:
            say(f"STATUS=waits for its pid file: {why}")
            said = why
        if why != logged and time.monotonic() > late:
            print(f"waits for its pid file: {why}", file=sys.stderr, flush=True)
            logged = why
        time.sleep(LOOK_AGAIN)


def look(pid_file: str, in_cgroup: bool) -> tuple[int, str]:
    """The pid in the file, and "" or why it does not count."""
    try:
        fd = os.open(pid_file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        return 0, f"{pid_file}: {error.strerror}"
    try:
        found = NUMBER.fullmatch(os.read(fd, LIMIT))
    except OSError as error:
        return 0, f"{pid_file}: {error.strerror}"
    finally:
        os.close(fd)
    if found is None:
        return 0, f"{pid_file} has no number in it"
    pid = int(found[1])
    if pid == os.getpid() or not (cgroup_of(pid) == cgroup_of("self") if in_cgroup else is_child(pid)):
        return 0, f"{pid_file} names {pid}, which is no process of this service"
    return pid, ""


def cgroup_of(pid: int | str) -> str:
    """The cgroup2 path of a process that lives; "" where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat, open(f"/proc/{pid}/cgroup", errors="replace") as groups:
            ended = stat.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
            return "" if ended else next((line[3:].rstrip() for line in groups if line.startswith("0::")), "")
    except OSError:
        return ""


def is_run(group: str) -> bool:
    """Whether it is one that privileged makes for each run."""
    return re.fullmatch(r".*/run-[0-9]+", group) is not None


def is_child(pid: int) -> bool:
    """Whether it is a child of ours that lives: as their subreaper we are the parent of all that was put aside."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def say(text: str) -> None:
    """By sd_notify(3); returns when it was read, or when nobody has read it for long.

    A descriptor goes along: the kernel closes the receiver's when the message is read, or dropped.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    reader, writer = os.pipe2(os.O_CLOEXEC)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer]))]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendmsg([text.encode()], rights, 0, address)
    os.close(writer)
    waiting = select.poll()
    waiting.register(reader, 0)  # POLLHUP is always told
    waiting.poll(HEARD_IN * 1000)
    os.close(reader)


def stay(pid: int) -> int:
    """Be the main process: pass signals on, reap what ends, and end as that process ends."""
    for number in PASSED_ON:
        signal.signal(number, lambda signo, _: os.kill(pid, signo))  # it is a child of ours: its number is not reused
    say("READY=1")
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
