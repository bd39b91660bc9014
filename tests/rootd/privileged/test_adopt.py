"""rootd/privileged/adopt: a double fork in the run's cgroup becomes its main process, and nobody else does."""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from privileged_house import House, entry
from test_spawn import die_after

from rootd import ipc
from rootd.privileged import adopt as adopt_file, cgroup, requests
from rootd.privileged.spawn import Run

pytestmark = pytest.mark.root
Build = Callable[..., House]

# a child that lives in another session; {0}: what its parent does afterwards
FORKING = """
import os, signal, sys
pid = os.fork()
if pid == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
    print(os.getpid(), flush=True)
    while True:
        signal.pause()
{0}
"""
PARENT_STAYS = FORKING.format("signal.signal(signal.SIGTERM, lambda *_: os._exit(3))\nwhile True: signal.pause()")
PARENT_WAITS = FORKING.format("os.waitpid(pid, 0)\nsignal.pause()")
PARENT_ENDS = FORKING.format("os._exit(0)")


def spawned(house: House) -> tuple[ipc.Message, int]:
    """SPAWNED, and the pid of the child that the service has made."""
    message = house.spawn()
    return message, int(os.read(house.output(message.run)[1], 32))


def adopt(house: House, run: int, pid: int) -> int:
    house.ask(ipc.ADOPT, seq=9, run=run, arg=pid)
    return house.hear(ipc.DONE)[0].arg


def names(house: House) -> list[str]:
    return [name for name in house.store if name.startswith("process/")]


def gone(pidfd: int) -> None:
    assert select.select([pidfd], [], [], 20)[0]
    os.close(pidfd)


def test_a_child_of_the_service_becomes_its_main_process(build: Build) -> None:
    house = build(entry(PARENT_STAYS))
    message, child = spawned(house)
    assert adopt(house, message.run, child) == 0
    deed, _ = house.hear(ipc.DEED, on="log")
    while deed.scope != requests.DEED_ADOPT:
        deed, _ = house.hear(ipc.DEED, on="log")
    assert (deed.run, deed.arg) == (message.run, child)
    assert names(house) == [f"process/0/{message.run}/1/{child}/{message.extra}"]
    first = os.pidfd_open(message.arg)
    os.kill(message.arg, signal.SIGTERM)
    gone(first)  # reaped by privileged: it is no exit of the run, and no zombie
    house.ask(ipc.SIGNAL, seq=5, run=message.run, arg=signal.SIGUSR1, scope=ipc.MAIN)
    assert house.hear(ipc.DONE, ipc.EXITED)[0].op == ipc.DONE
    while os.path.exists(f"/proc/{message.arg}"):
        house.serve_keeper()
    house.reap_orphans_until(child)
    exited = house.finish(message.run)
    assert (exited.arg, exited.flags) == (-signal.SIGUSR1, ipc.KNOWN)


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_exit_of_the_process_before_is_none_of_the_run(build: Build, when: str) -> None:
    house = build(entry(PARENT_ENDS if when == "before" else PARENT_STAYS))
    message, child = spawned(house)
    if when == "before":
        assert house.hear(ipc.EXITED)[0].arg == 0
        assert adopt(house, message.run, message.arg) == errno.EEXIST, "its name would be stored and dropped again"
    assert adopt(house, message.run, child) == 0
    if when == "after":
        os.kill(message.arg, signal.SIGTERM)
    while os.path.exists(f"/proc/{message.arg}"):  # no zombie of it is left
        house.serve_keeper()
    house.supervisor.close()
    house.supervisor = house.link("supervisor", takes_fds=True)
    fact, _ = house.hear(ipc.FACT, ipc.EXITED)
    assert (fact.op, fact.run, fact.arg, fact.extra) == (ipc.FACT, message.run, child, message.extra)
    house.ask(ipc.SIGNAL, seq=5, run=message.run, arg=signal.SIGTERM, scope=ipc.MAIN)
    assert house.hear(ipc.DONE, ipc.EXITED)[0].op == ipc.DONE, "the one before has not been told to have ended"
    house.reap_orphans_until(child)
    exited = house.finish(message.run)
    assert (exited.arg, exited.flags) == (9, ipc.KNOWN), "its keeper has reaped it"
    assert names(house) == []


def test_an_end_that_another_parent_has_reaped_is_seen_and_nobody_knows_how(build: Build) -> None:
    house = build(entry(PARENT_WAITS))
    message, child = spawned(house)
    assert adopt(house, message.run, child) == 0
    os.kill(child, signal.SIGTERM)
    exited = house.finish(message.run)
    assert (exited.arg, exited.flags) == (0, 0)


def test_it_outlives_kill_9_of_privileged(build: Build) -> None:
    house = build(entry(PARENT_STAYS))
    message, child = spawned(house)
    assert adopt(house, message.run, child) == 0
    house.kill()
    house.start()
    fact, _ = house.hear(ipc.FACT)
    assert (fact.run, fact.arg) == (message.run, child)
    house.ask(ipc.SIGNAL, seq=5, run=message.run, arg=9, scope=ipc.TREE)
    house.reap_orphans_until(message.arg)
    house.reap_orphans_until(child)
    exited = house.finish(message.run)
    assert (exited.arg, exited.flags) == (-9, ipc.KNOWN)


def test_d8_of_two_names_of_one_run_the_later_counts(build: Build) -> None:
    """The end came between the store's taking the new one and its forgetting the old one."""
    house = build(entry(PARENT_STAYS))
    message, child = spawned(house)
    [name] = names(house)
    house.kill()
    house.store[f"process/0/{message.run}/1/{child}/{message.extra}"] = os.pidfd_open(child)
    house.start()
    fact, _ = house.hear(ipc.FACT)
    assert (fact.run, fact.arg) == (message.run, child)
    assert house.hear(ipc.FACT, ipc.FACTS_END)[0].op == ipc.FACTS_END
    house.serve_keeper()
    assert name not in house.store
    assert len(names(house)) == 1


def test_d7_d8_a_kill_after_any_call_of_it_leaves_one_main_process_and_one_name(build: Build) -> None:
    house = build(entry(PARENT_STAYS), start=False)
    mains = []
    for calls in range(1, 60):
        house.inside = die_after(calls, ipc.ADOPT)
        house.start()
        house.hear(ipc.FACTS_END)
        message, child = spawned(house)
        house.ask(ipc.ADOPT, seq=9, run=message.run, arg=child)
        while not select.select([house.pidfd], [], [], 0)[0]:
            select.select([house.supervisor, house.keeper, house.pidfd], [], [])
            house.serve_keeper()
            try:
                received = house.supervisor.receive()
            except BlockingIOError:
                continue
            if received is not None and received[0].op == ipc.DONE:
                break
        done = not select.select([house.pidfd], [], [], 0.2)[0]
        house.kill() if done else house.wait()
        house.inside = lambda: None
        house.start()
        fact, _ = house.hear(ipc.FACT)
        assert (fact.run, len(names(house))) == (message.run, 1)
        assert fact.arg in (message.arg, child)
        assert names(house)[0].split("/")[4] == str(fact.arg)
        mains.append(fact.arg == child)
        house.ask(ipc.SIGNAL, seq=5, run=message.run, arg=9, scope=ipc.TREE)
        house.reap_orphans_until(message.arg)
        house.reap_orphans_until(child)
        house.finish(message.run)
        assert names(house) == []
        house.kill()
        house.reaped.clear()
        if done:
            break
    else:
        pytest.fail("the ADOPT never ended")
    assert mains[0] is False
    assert mains[-1] is True
    assert sorted(mains) == mains, "once it is another's, it stays so"


def test_c5_nobody_elses_process_is_taken(build: Build) -> None:
    house = build(entry(PARENT_STAYS, count=2))
    mine, child = spawned(house)
    other = house.spawn(slot=1)
    others_child = int(os.read(house.output(other.run)[1], 32))
    before = names(house)
    stranger = os.fork()
    if stranger == 0:
        signal.pause()
        os._exit(0)
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    gone(os.pidfd_open(dead))
    for pid, number in (
        (stranger, errno.EPERM), (house.pid, errno.EPERM), (others_child, errno.EPERM),
        (dead, errno.EPERM), (mine.arg, errno.EEXIST), (other.arg, errno.EEXIST), (1, errno.EINVAL), (0, errno.EINVAL),
        (-child, errno.EINVAL), ((1 << 22) + 1, errno.EINVAL), (1 << 40, errno.EINVAL), (1 << 22, errno.ESRCH),
    ):  # fmt: skip
        assert adopt(house, mine.run, pid) == number, pid
    assert adopt(house, 4711, child) == errno.ESRCH, "no such run"
    assert names(house) == before
    ended = os.pidfd_open(child)
    os.kill(child, signal.SIGTERM)
    gone(ended)
    assert adopt(house, mine.run, child) in (errno.ESRCH, errno.ENOENT, errno.EPERM), "it has ended"
    assert adopt(house, other.run, others_child) == 0
    assert adopt(house, mine.run, others_child) == errno.EEXIST
    os.kill(stranger, signal.SIGKILL)
    for pid in (stranger, dead):
        os.waitpid(pid, 0)


def test_a_process_in_a_group_beneath_the_runs_is_its_own_and_one_beside_it_is_not(build: Build) -> None:
    house = build(entry(PARENT_STAYS))
    message, child = spawned(house)
    group = f"{house.tree}/run-{message.run}"
    for aside, number in ((f"{group}9", errno.EPERM), (f"{group}/beneath", 0)):
        os.mkdir(aside)
        cgroup.attach(aside, child)
        assert adopt(house, message.run, child) == number, aside
        cgroup.attach(group, child)
        os.rmdir(aside)


def test_c5_a_group_that_somebody_has_named_by_any_bytes_ends_nobody(build: Build) -> None:
    """Whoever is lent a tree of cgroups, as systemd lends one to each who logs in, names groups as he likes."""
    house = build(entry(PARENT_STAYS))
    message, child = spawned(house)
    group = f"{house.tree}/lent-\udcff"
    os.mkdir(group)
    try:
        cgroup.attach(group, child)
        assert adopt(house, message.run, child) == errno.EPERM
        cgroup.attach(f"{house.tree}/run-{message.run}", child)
        assert adopt(house, message.run, child) == 0, "it is the same privileged"
    finally:
        os.rmdir(group)


def test_without_cgroups_there_is_no_proof(build: Build) -> None:
    house = build(entry(PARENT_STAYS), start=False, cgroups=False)
    house.start()
    house.hear(ipc.FACTS_END)
    message, child = spawned(house)
    assert adopt(house, message.run, child) == errno.ENOTSUP
    house.ask(ipc.SIGNAL, seq=5, run=message.run, arg=9, scope=ipc.TREE)
    house.finish(message.run)


def test_what_runs_has_its_limits_again_with_the_next_privileged(tmp_path: Path) -> None:
    """They are lost where the groups above hand on no controllers for a moment, as systemd needs it to be."""
    limited = entry("", extra=SimpleNamespace(cgroup=(("memory.max", "1048576"), ("pids.max", "9"))))
    runs = {number: Run(number, 1, 1, 2, 3, -1) for number in (7, 8)}
    (tmp_path / "run-7").mkdir()
    for name in ("memory.max", "pids.max"):
        (tmp_path / "run-7" / name).write_text("max")
    tables = SimpleNamespace(grant=lambda tree: {tree}, entry=lambda generation, slot: limited)
    house = SimpleNamespace(tree=str(tmp_path), runs=runs, generations=tables)
    assert adopt_file.grant(house) == {str(tmp_path)}
    assert (tmp_path / "run-7" / "memory.max").read_text() == "1048576"
    assert (tmp_path / "run-7" / "pids.max").read_text().startswith("9")
