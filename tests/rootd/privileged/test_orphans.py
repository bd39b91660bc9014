"""rootd/privileged/orphans: without cgroups, all that a run has left is found, and nothing that is another's."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable

import pytest
from privileged_house import SERVICE_UID, House, entry, without_cgroups

from rootd import ipc
from rootd.privileged import orphans
from rootd.privileged.orphans import Seen, beneath, left, ticks
from rootd.privileged.spawn import Run

Build = Callable[..., House]
KEEPER, PRIVILEGED, SUPERVISOR = 10, 11, 12
UID, ROOT_UID = 5000, 0
MAIN, OTHER = 100, 200

HOUSE = [
    Seen(1, 0, 1, 1, 0), Seen(KEEPER, 1, 10, 10, 1), Seen(PRIVILEGED, KEEPER, 11, 11, 2, 61),
    Seen(SUPERVISOR, KEEPER, 12, 12, 2, 62),
]  # fmt: skip


def run(pid: int = MAIN, second: int = 10, ended: bool = False) -> Run:
    made = Run(pid, 0, 1, pid, second * 10**9, -1)
    made.exited = (0, 0) if ended else None
    return made


def at(second: int) -> int:
    return ticks(second * 10**9)


def judge(
    *processes: Seen, others: list[tuple[Run, int]] | None = None, uid: int = UID, number: bool = True
) -> tuple[set[int], set[int]]:
    found = {one.pid: one for one in (*HOUSE, *processes)}
    return left(run(), uid, others or [], KEEPER, found, number, PRIVILEGED)


MAIN_LIVES = Seen(MAIN, PRIVILEGED, MAIN, MAIN, at(10))


def test_what_descends_from_a_main_process_is_its_own_whatever_its_session() -> None:
    child, deep = Seen(101, MAIN, 101, 101, at(11)), Seen(102, 101, 102, 102, at(12))
    beside = Seen(103, PRIVILEGED, 103, 103, at(12))
    assert judge(MAIN_LIVES, child, deep, beside) == ({101, 102}, set())


def test_its_session_is_its_own_while_its_number_cannot_be_anothers() -> None:
    member = Seen(101, KEEPER, 101, MAIN, at(5), UID + 1)
    orphaned = Seen(300, 1, 300, MAIN, at(11))
    reused = Seen(MAIN, KEEPER, MAIN, MAIN, at(5), UID + 1)
    assert judge(MAIN_LIVES, member, orphaned) == ({101, 300}, set()), "whoever is the parent: the keeper may be gone"
    assert judge(orphaned, number=False) == (set(), set()), "none that is not beneath the keeper"
    assert judge(member, number=False) == ({101}, set()), "as long as it has a member, its number is no other's"
    assert judge(reused, member, number=False) == (set(), set())


def test_an_orphan_of_its_user_is_its_own_when_nobody_else_can_have_left_it() -> None:
    orphan = Seen(101, KEEPER, 101, 101, at(11), UID)
    theirs = Seen(102, 101, 102, 102, at(12))
    for changed, mine in (
        (orphan, {101, 102}),
        (orphan._replace(start=at(10)), {101, 102}),
        (orphan._replace(start=at(9)), set()),  # it was there before the run
        (orphan._replace(uid=UID + 1), set()),
        (orphan._replace(parent=1), set()),
        (orphan._replace(parent=SUPERVISOR), set()),
    ):
        assert judge(changed, theirs) == (mine, set()), changed
    assert judge(orphan._replace(uid=0), uid=0) == (set(), set()), "a part of ours is root's too until it has dropped"


def test_what_may_be_another_runs_is_left_and_told() -> None:
    orphan = Seen(101, KEEPER, 101, 101, at(11), UID)
    mine, maybe = {101}, {101}
    for other, whose, expected in (
        (run(OTHER, 5), UID, (set(), maybe)),
        (run(OTHER, 11), UID, (set(), maybe)),
        (run(OTHER, 12), UID, (mine, set())),  # it was there before the other
        (run(OTHER, 5), UID + 1, (mine, set())),
        (run(OTHER, 5, ended=True), UID, (mine, set())),  # it is to have nothing left either
    ):
        assert judge(orphan, others=[(other, whose)]) == expected, other.__dict__


def test_no_process_of_another_run_is_touched() -> None:
    main = Seen(OTHER, KEEPER, OTHER, OTHER, at(11), UID)  # taken over from a privileged that is gone
    child = Seen(201, OTHER, 201, 201, at(11))
    member = Seen(202, KEEPER, 202, OTHER, at(11), UID)
    beneath_mine = Seen(OTHER, MAIN, OTHER, OTHER, at(11))
    for ended in (False, True):
        others = [(run(OTHER, 11, ended), UID)]
        assert judge(MAIN_LIVES, main, child, member, others=others) == (set(), set())
        assert judge(MAIN_LIVES, beneath_mine, child, others=others) == (set(), set())
        assert judge(main, others=[(run(MAIN, 11), UID), *others], number=False) == (set(), set())


def test_a_circle_of_parents_that_a_race_of_two_looks_made_ends() -> None:
    circle = {101: Seen(101, 102, 1, 1, 1), 102: Seen(102, 101, 1, 1, 1)}
    assert beneath(circle, [101]) == {101, 102}
    assert beneath(circle, [101], never=[102]) == {101}


def test_d5_a_number_that_is_another_process_by_now_is_not_hit() -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    one = orphans.look_at(pid)
    assert one is not None
    assert (one.parent, one.session) == (os.getpid(), os.getsid(0))
    assert orphans.kill_one(one._replace(start=one.start - 1)) == -1
    assert orphans.kill_one(one._replace(pid=1 << 22)) == -1
    pidfd = orphans.kill_one(one)
    assert os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT).si_status == signal.SIGKILL
    assert orphans.kill_one(one) == -1, "a zombie is nothing that is left"
    os.waitpid(pid, 0)
    assert (orphans.look_at(pid), orphans.real_uid(pid)) == (None, -1)
    os.close(pidfd)


# a daemon in a session of its own, without a parent; then the main process does {0}
ESCAPES = """
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        print(os.getpid(), flush=True)
        while True:
            signal.pause()
    os._exit(0)
os.wait()
{0}
"""
STAYS, ENDS = ESCAPES.format("signal.pause()"), ESCAPES.format("os._exit(4)")


def without(build: Build, *entries: object) -> House:
    house = build(*entries, start=False, cgroups=False)
    house.start()
    house.hear(ipc.FACTS_END)
    return house


def daemon_of(house: House, slot: int = 0) -> tuple[int, int]:
    """The run, and a pidfd of its daemon."""
    spawned = house.spawn(slot=slot)
    return spawned.run, os.pidfd_open(int(os.read(house.output(spawned.run)[1], 32)))


def ended(pidfd: int, seconds: float = 20.0) -> bool:
    return bool(select.select([pidfd], [], [], seconds)[0])


@pytest.mark.root
@pytest.mark.parametrize("program", [STAYS, ENDS], ids=["killed", "ended"])
def test_a_daemon_that_escaped_from_its_session_is_gone_before_the_run_is_over(build: Build, program: str) -> None:
    house = without(build, entry(program))
    run, daemon = daemon_of(house)
    assert not ended(daemon, 0.0)
    if program is STAYS:
        house.ask(ipc.SIGNAL, seq=1, run=run, arg=9, scope=ipc.TREE)
    exited = house.finish(run)
    assert exited.arg == (-9 if program is STAYS else 4)
    assert ended(daemon, 0.0), "EMPTY says that nothing is left"
    os.close(daemon)


@pytest.mark.root
def test_what_an_older_run_of_the_user_may_have_started_lives_on(build: Build) -> None:
    house = without(build, entry(STAYS, count=2))
    (older, first), (younger, second) = daemon_of(house, 0), daemon_of(house, 1)
    house.ask(ipc.SIGNAL, seq=1, run=younger, arg=9, scope=ipc.TREE)
    house.finish(younger)
    assert not ended(first, 0.0)
    assert not ended(second, 0.0), "it may be the older one's"
    house.ask(ipc.SIGNAL, seq=1, run=older, arg=9, scope=ipc.TREE)
    house.finish(older)
    assert ended(first, 0.0)
    assert ended(second, 0.0), "whose ever it was: nobody else is left"
    os.close(first)
    os.close(second)


@pytest.mark.root
def test_what_a_younger_run_of_the_user_has_started_lives_on(build: Build) -> None:
    house = without(build, entry(STAYS, count=2), entry(STAYS, service="other", uid=SERVICE_UID + 1))
    daemons = [daemon_of(house)]
    while ticks(time.clock_gettime_ns(time.CLOCK_BOOTTIME)) <= max(one.start for one in orphans.look(0)[0].values()):
        continue  # the kernel tells times by the hundredth of a second
    daemons += [daemon_of(house, slot) for slot in (1, 1024)]
    house.ask(ipc.SIGNAL, seq=1, run=daemons[0][0], arg=9, scope=ipc.TREE)
    house.finish(daemons[0][0])
    assert [ended(daemon, 0.0) for _, daemon in daemons] == [True, False, False]
    for run, daemon in daemons[1:]:
        house.ask(ipc.SIGNAL, seq=1, run=run, arg=9, scope=ipc.TREE)
        house.finish(run)
        assert ended(daemon, 0.0)
        os.close(daemon)
    os.close(daemons[0][1])


@pytest.mark.root
def test_a_killed_privileged_has_its_run_swept_by_the_next(build: Build) -> None:
    house = without(build, entry(ENDS))
    run, daemon = daemon_of(house)
    house.hear(ipc.EXITED)
    house.kill()
    house.reap_orphans()
    house.start()
    house.hear(ipc.EXITED)
    house.ask(ipc.SIGNAL, run=run, arg=9, scope=ipc.TREE)
    house.hear(ipc.EMPTY)
    assert ended(daemon, 0.0)
    assert not [name for name in house.store if name.startswith("process/")]
    os.close(daemon)


@pytest.mark.root
def test_a_shutdown_leaves_no_daemon_of_any_run(build: Build) -> None:
    house = without(build, entry(STAYS, count=2))
    daemons = [daemon_of(house, slot)[1] for slot in (0, 1)]
    house.ask(ipc.SHUTDOWN, seq=3)
    assert house.wait() == 0
    assert all(ended(daemon) for daemon in daemons)
    for daemon in daemons:
        os.close(daemon)


@pytest.mark.root
def test_d5_when_the_keeper_is_killed_nothing_of_the_user_that_init_has_adopted_is_taken_for_an_orphan(
    build: Build,
) -> None:
    """Then the parent of privileged and of all orphans is init, and so it is of what others have started."""

    def in_the_keeper() -> None:
        without_cgroups()
        if os.fork():  # we are the keeper, and privileged our child
            os.closerange(3, 4096)
            signal.pause()

    house = build(entry(STAYS), start=False)
    house.inside = in_the_keeper
    house.start()
    house.hear(ipc.FACTS_END)
    spawned = house.spawn()
    daemon = os.pidfd_open(int(os.read(house.output(spawned.run)[1], 32)))
    main, found = os.pidfd_open(spawned.arg), orphans.look_at(spawned.arg)
    assert found is not None
    privileged, stranger = os.pidfd_open(found.parent), os.fork()
    if stranger == 0:
        os.setresuid(SERVICE_UID, SERVICE_UID, SERVICE_UID)
        os.closerange(3, 4096)
        signal.pause()
    theirs = os.pidfd_open(stranger)
    os.kill(house.pid, signal.SIGKILL)
    assert ended(house.pidfd)
    house.keeper.close()
    assert ended(privileged)
    assert ended(main)
    assert not ended(theirs, 0.0)
    for pidfd in (daemon, theirs):  # a daemon of its own session could be anybody's too
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    for pidfd in (privileged, main, daemon, theirs):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
    house.wait()


@pytest.mark.root
def test_a_daemon_that_starts_its_child_again_each_time_is_gone_with_it(build: Build) -> None:
    program = """
import os, signal
if os.fork() == 0:
    os.setsid()
    while True:
        if os.fork() == 0:
            os.setsid()
            print("up", flush=True)
            signal.pause()
        os.wait()
signal.pause()
"""
    house = without(build, entry(program))
    spawned = house.spawn()
    assert os.read(house.output(spawned.run)[1], 3) == b"up\n"
    house.ask(ipc.SIGNAL, seq=1, run=spawned.run, arg=9, scope=ipc.TREE)
    house.finish(spawned.run)
    left_over = [one for one in orphans.look(os.getpid())[0].values() if one.uid == SERVICE_UID]
    assert [one for one in left_over if orphans.kill_one(one) >= 0] == [], "zombies apart: they wait for the keeper"
