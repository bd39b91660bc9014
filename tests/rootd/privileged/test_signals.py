"""rootd/privileged/signals: a signal reaches exactly what is ours, with and without a cgroup tree."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from privileged_house import House, entry

from rootd import ipc
from rootd.privileged import cgroup, signals
from rootd.privileged.spawn import Run


@pytest.fixture
def child() -> Iterator[Run]:
    """A leader of its own session, with a child in its group that ignores SIGTERM."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            os.write(writer, b"x")
        os.close(writer)
        signal.pause()
        os._exit(1)
    os.close(writer)
    os.read(reader, 1)
    run = Run(1, 0, 1, pid, 0, os.pidfd_open(pid))
    run.ours = True
    yield run
    with contextlib.suppress(ProcessLookupError):  # the test has ended the whole group
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    os.close(run.pidfd)
    os.close(reader)


def test_a_signal_goes_to_the_main_process_and_its_end_is_seen_without_reaping(child: Run) -> None:
    assert signals.peek(child) is None
    assert not signals.dead(child)
    assert signals.send(child, signal.SIGTERM, tree=False, tree_path="") == 0
    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
    assert signals.dead(child)
    assert signals.peek(child) == (-signal.SIGTERM, ipc.KNOWN)
    assert signals.peek(child) == (-signal.SIGTERM, ipc.KNOWN)
    assert not signals.reaped(child)


def test_without_cgroups_the_whole_group_dies_while_its_leader_is_unreaped(child: Run) -> None:
    signals.send(child, signal.SIGTERM, tree=False, tree_path="")
    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
    members = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and group_of(p) == child.pid]
    assert len(members) == 2  # the leader's zombie, and the one that ignores SIGTERM
    other = os.pidfd_open(next(pid for pid in members if pid != child.pid))
    assert signals.send(child, signal.SIGKILL, tree=True, tree_path="") == 0
    signals.reap(child)
    import select

    assert select.select([other], [], [], 20)[0]
    os.close(other)


def group_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[2])
    except (OSError, ProcessLookupError):
        return -1


def test_d5_after_reaping_nothing_can_be_hit(child: Run) -> None:
    os.killpg(child.pid, signal.SIGKILL)
    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
    signals.reap(child)
    assert signals.reaped(child)
    child.ours = False
    assert signals.send(child, signal.SIGTERM, tree=False, tree_path="") == errno.ESRCH
    assert signals.send(child, signal.SIGKILL, tree=True, tree_path="") == 0  # dead, not ours: no number is used
    child.exited = (0, ipc.KNOWN)
    assert signals.send(child, signal.SIGTERM, tree=False, tree_path="") == errno.ESRCH


def test_a_tree_that_cannot_be_killed_says_why(child: Run) -> None:
    assert signals.send(child, signal.SIGKILL, tree=True, tree_path="/nonexistent") == errno.ENOENT


@pytest.mark.root
@pytest.mark.skipif(not cgroup.mount(), reason="no cgroup2 tree")
def test_a_run_is_not_over_because_there_is_no_descriptor_left_to_look_at_its_tree(build: Callable[..., House]) -> None:
    """What it has left would be forgotten alive, and another one started beside it."""

    def inside() -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        signal.signal(signal.SIGUSR1, lambda *_: resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1])))
        signal.signal(signal.SIGUSR2, lambda *_: resource.setrlimit(resource.RLIMIT_NOFILE, limits))

    house = build(entry("import os, signal; os.fork() or signal.pause()"), start=False)
    house.inside = inside
    house.start()
    house.hear(ipc.FACTS_END)
    run = house.spawn().run
    house.hear(ipc.EXITED, run=run)
    os.kill(house.pid, signal.SIGUSR1)
    for seq in (1, 2):  # when the second one is answered, all that the first one led to has been done
        house.ask(ipc.SIGNAL, seq=seq, run=run, arg=signal.SIGKILL, scope=ipc.TREE)
        answer, _ = house.hear(ipc.DONE, ipc.EMPTY)
        assert (answer.op, answer.seq, answer.arg) == (ipc.DONE, seq, errno.EMFILE)
    os.kill(house.pid, signal.SIGUSR2)
    house.ask(ipc.SIGNAL, seq=3, run=run, arg=signal.SIGKILL, scope=ipc.TREE)
    answer, _ = house.hear(ipc.DONE, ipc.EMPTY)
    assert (answer.op, answer.seq, answer.arg) == (ipc.DONE, 3, 0)
    house.hear(ipc.EMPTY, run=run)
