"""Children that a service has made for privileged are buried, and what it has itself is left to it."""

from __future__ import annotations

import ctypes
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from privileged_house import SERVICE_UID, WAIT, House, entry

from rootd import ipc
from rootd.privileged import orphans, strangers
from rootd.privileged.orphans import Seen
from rootd.privileged.spawner import CLONE

Build = Callable[..., House]

SIBLINGS = f"""
import ctypes, os, signal
def sibling():  # CLONE_PARENT, SIGCHLD
    pid = ctypes.CDLL(None).syscall({CLONE.get(os.uname().machine, 0)}, 0x8000 | 17, 0, 0, 0, 0)
    return pid == 0
"""
HUNDREDS = (
    SIBLINGS + 'for _ in range(300):\n    if sibling():\n        os._exit(0)\nprint("done", flush=True)\nsignal.pause()'
)
APART = SIBLINGS + "if sibling():\n    os.setsid()\n    print(os.getpid(), flush=True)\nsignal.pause()"


def children(house: House) -> list[Seen]:
    """Of privileged, of the service's user: what has ended and what has not."""
    found = [orphans.look_at(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [one for one in found if one and one.parent == house.pid and orphans.real_uid(one.pid) == SERVICE_UID]


def until(condition: Callable[[], bool], house: House) -> None:
    for _ in range(int(WAIT / 0.05)):
        if condition():
            return
        select.select([], [], [], 0.05)
        house.serve_keeper()
    raise AssertionError("not in time")


@pytest.mark.root
def test_a_service_that_makes_children_for_its_parent_leaves_no_zombies(build: Build) -> None:
    house = build(entry(HUNDREDS))
    spawned = house.spawn()
    assert os.read(house.output(spawned.run)[1], 5) == b"done\n"
    until(lambda: [one.pid for one in children(house)] == [spawned.arg], house)
    os.kill(spawned.arg, signal.SIGKILL)
    assert house.finish(spawned.run).arg == -9, "its own end is told as that of any other"
    assert children(house) == []


@pytest.mark.root
@pytest.mark.parametrize("cgroups", [True, False])
def test_a_child_that_it_has_made_for_its_parent_is_gone_before_the_run_is_over(build: Build, cgroups: bool) -> None:
    house = build(entry(APART), start=False, cgroups=cgroups)
    house.start()
    house.hear(ipc.FACTS_END)
    spawned = house.spawn()
    sibling = os.pidfd_open(int(os.read(house.output(spawned.run)[1], 32)))
    house.ask(ipc.SIGNAL, seq=1, run=spawned.run, arg=9, scope=ipc.TREE)
    house.finish(spawned.run)
    assert select.select([sibling], [], [], 0)[0], "EMPTY says that nothing is left"
    until(lambda: children(house) == [], house)
    os.close(sibling)


TRACEME = "import signal; print('up', flush=True); signal.pause()"


@pytest.fixture
def tracer() -> Iterator[Callable[[int], int]]:
    """Traces a process, as its user, and never waits for it; the pidfd of who does."""
    pidfds = list[int]()

    def seize(pid: int) -> int:
        reader, writer = os.pipe()
        tracing = os.fork()
        if tracing == 0:
            os.closerange(3, writer)
            os.setgroups([])
            os.setresgid(SERVICE_UID, SERVICE_UID, SERVICE_UID)
            os.setresuid(SERVICE_UID, SERVICE_UID, SERVICE_UID)
            failed = ctypes.CDLL(None).ptrace(ctypes.c_long(0x4206), ctypes.c_long(pid), None, None)  # PTRACE_SEIZE
            os.write(writer, b"%d" % failed)
            signal.pause()
            os._exit(0)
        os.close(writer)
        assert os.read(reader, 8) == b"0"
        os.close(reader)
        pidfds.append(os.pidfd_open(tracing))
        return pidfds[-1]

    yield seize
    for pidfd in pidfds:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)


@pytest.mark.root
def test_a_process_that_ends_while_another_traces_it_is_over_all_the_same(
    build: Build, tracer: Callable[[int], int]
) -> None:
    house = build(entry(TRACEME))
    spawned = house.spawn()
    assert os.read(house.output(spawned.run)[1], 3) == b"up\n"
    tracing = tracer(spawned.arg)
    house.ask(ipc.SIGNAL, seq=1, run=spawned.run, arg=9, scope=ipc.TREE)
    exited = house.finish(spawned.run)
    assert (exited.arg, exited.flags) == (0, 0), "nobody knows how"
    assert [one.pid for one in children(house)] == [spawned.arg]
    signal.pidfd_send_signal(tracing, signal.SIGKILL)
    until(lambda: children(house) == [], house)


def test_what_is_known_is_left_to_who_knows_it() -> None:
    first, second = (os.fork() or os._exit(3) for _ in range(2))
    for pid in (first, second):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    alive = os.fork()
    if alive == 0:
        signal.pause()
    strangers.bury({first})
    with pytest.raises(ChildProcessError):
        os.waitpid(second, os.WNOHANG)
    assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 3
    assert os.waitpid(alive, os.WNOHANG) == (0, 0)
    os.kill(alive, signal.SIGKILL)
    os.waitpid(alive, 0)
