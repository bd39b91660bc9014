"""What is forked behind the walls: held by them, so many at most, and never out of its parent's reach."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from rootd import confine, sandbox

UID = 61_013  # of nobody's


def in_a_process(act: Callable[[], Any]) -> Any:
    """What act returns, in a forked process that is no longer root."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            confine.become(UID, UID, ())
            os.write(writer, json.dumps(act()).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read()
    assert os.waitpid(pid, 0) == (pid, 0)
    return json.loads(said)


def number_of(act: Callable[[], object]) -> int:
    """The errno that it fails with; 0 when it does not fail."""
    try:
        act()
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.root
def test_a_process_that_may_fork_can_wait_for_its_child_and_end_it() -> None:
    def act() -> list[int]:
        sandbox.enter(fork=True)
        pid = os.fork()
        if pid == 0:
            while True:
                signal.pause()  # refused: it ends by an error, or by the signal
        pidfd = os.pidfd_open(pid)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [], 5.0)
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        assert ended is not None
        return [ended.si_pid == pid, number_of(lambda: os.execv("/bin/true", ["true"]))]

    assert in_a_process(act) == [True, errno.EPERM]


@pytest.mark.root
def test_who_may_fork_has_so_many_processes_and_none_out_of_its_group() -> None:
    def act() -> list[int]:
        sandbox.PROCESSES = 16
        sandbox.enter(fork=True)
        reader, writer = os.pipe()
        made = 0
        pid = os.fork()
        if pid == 0:
            left = [number_of(os.setsid), number_of(lambda: os.setpgid(0, 0))]
            os._exit(0 if left == [errno.EPERM, errno.EPERM] else 1)
        fine = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        try:
            while made < 64:
                if os.fork() == 0:
                    os.close(writer)
                    os.read(reader, 1)  # until the first has ended
                    os._exit(0)
                made += 1
        except BlockingIOError:
            pass
        return [fine, made]

    assert in_a_process(act) == [0, 15]


@pytest.mark.root
def test_what_is_inherited_by_a_child_holds_there_too() -> None:
    def act() -> int:
        sandbox.enter(fork=True)
        pid = os.fork()
        if pid == 0:
            os._exit(number_of(lambda: os.open("/etc/passwd", os.O_RDONLY)))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert in_a_process(act) == errno.EACCES
