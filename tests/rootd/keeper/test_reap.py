"""Who has ended, and what ends with it."""

from __future__ import annotations

import errno
import os
import select
import signal
import time

import pytest

from rootd.keeper import reap

WAIT = 20.0  # seconds before a test gives up


def leader(*, bomb: bool = False) -> tuple[int, int]:
    """A child with a group of its own, and the end of a pipe that all of them hold: at its end when nobody is left."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.setsid()
        for _ in range(2):
            os.fork()
        os.write(writer, b"x")
        while bomb and os.getpid() != os.getpgrp():
            if os.fork():
                os._exit(0)
        time.sleep(WAIT)
        os._exit(0)
    os.close(writer)
    for _ in range(4):
        assert os.read(reader, 1) == b"x"
    return pid, reader


def nobody_is_left(reader: int) -> bool:
    ready, _, _ = select.select([reader], [], [], WAIT / 2)
    return bool(ready) and os.read(reader, 1) == b""


def killed(pid: int, *leaders: int) -> tuple[int, int] | None:
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], WAIT)[0]
    os.close(pidfd)
    return reap.ended(leaders)


@pytest.mark.parametrize("bomb", [False, True])
def test_with_a_leader_ends_all_of_its_group_however_fast_it_forks(bomb: bool) -> None:
    pid, reader = leader(bomb=bomb)
    assert killed(pid, pid) == (pid, -signal.SIGKILL)
    assert nobody_is_left(reader)
    os.close(reader)


def test_of_who_is_no_leader_the_rest_stays() -> None:
    pid, reader = leader()
    assert killed(pid, 1) == (pid, -signal.SIGKILL)
    assert not select.select([reader], [], [], 0)[0]
    os.killpg(pid, signal.SIGKILL)
    assert nobody_is_left(reader)
    os.close(reader)


def test_who_has_ended_before_it_had_a_group_is_told_as_any_other_and_nobody_else_is_hit() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert reap.ended([pid]) == (pid, 3)


def test_while_nobody_has_ended_there_is_nothing_to_tell() -> None:
    assert reap.ended([]) is None, "no child at all"
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    assert reap.ended([pid]) is None, "one that lives"
    os.close(writer)
    assert os.waitpid(pid, 0) == (pid, 0)
    os.close(reader)


def has_process_group() -> bool:
    pidfd = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(pidfd, 0, None, reap.PROCESS_GROUP)
    except OSError as error:
        return error.errno != errno.EINVAL
    finally:
        os.close(pidfd)
    return True


@pytest.mark.parametrize("is_dead", [False, True])
def test_of_a_keeper_that_is_gone_a_part_ends_with_its_group_even_when_it_has_ended_itself(is_dead: bool) -> None:
    pid, reader = leader()
    pidfd = os.pidfd_open(pid)
    if is_dead:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if not has_process_group():
        pytest.skip("Linux before 6.9 has no PIDFD_SIGNAL_PROCESS_GROUP")
    reap.end(pidfd, group=True)
    assert nobody_is_left(reader)
    if not is_dead:
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    os.close(reader)


def test_of_privileged_that_part_alone_is_ended() -> None:
    pid, reader = leader()
    reap.end(os.pidfd_open(pid), group=False)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert not select.select([reader], [], [], 0)[0]
    os.killpg(pid, signal.SIGKILL)
    assert nobody_is_left(reader)
    os.close(reader)
