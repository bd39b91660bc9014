"""What parts of a killed keeper have left is found and ended, and nothing else that has the same uid is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from rootd import ipc, leftovers, sandbox

pytestmark = pytest.mark.root

Make = Callable[..., int]
LIBC = ctypes.CDLL(None)


@pytest.fixture
def uid() -> int:
    """One that nobody else has."""
    return 1_000_000 + os.getpid()


@pytest.fixture
def make() -> Iterator[Make]:
    """make(uid): a process that has become uid, behind a filter, and stays; its pid. before: is called in it as root,
    then: afterwards. name: it gets a parent of root's, of that name."""
    groups = list[int]()

    def made(uid: int, *, filtered: bool = True, before: Callable[[], None] = lambda: None, name: str = "",
             then: Callable[[], None] = lambda: None) -> int:  # fmt: skip
        told, tell = os.pipe()
        leader = os.fork()
        if leader == 0:
            try:
                os.setsid()
                before()
                if name:
                    with open("/proc/self/comm", "w") as comm:
                        comm.write(name)
                    if os.fork():
                        signal.pause()
                if filtered:
                    sandbox.install([(sandbox.RETURN, 0, 0, sandbox.ALLOW)])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                then()
                os.write(tell, str(os.getpid()).encode())
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        groups.append(leader)
        os.close(tell)
        with open(told) as answer:
            return int(os.read(answer.fileno(), 20))

    yield made
    for leader in groups:
        with contextlib.suppress(OSError):
            os.killpg(leader, signal.SIGKILL)
        os.waitpid(leader, 0)


def unshare() -> None:
    assert LIBC.unshare(0x20000) == 0  # CLONE_NEWNS


def lives(pid: int) -> bool:
    one = leftovers.look_at(pid)
    return one is not None and not one.ended


def test_a_part_and_all_that_it_has_forked_end_also_what_never_stays_the_same_process(make: Make, uid: int) -> None:
    def fork() -> None:
        for moving in (False, True):
            if os.fork() == 0:
                while moving:
                    if os.fork():
                        os._exit(0)
                signal.pause()

    accounts = {uid, uid + 1}
    one, another = make(uid, then=fork), make(uid + 1)
    assert leftovers.end(accounts) >= 2
    assert not lives(one)
    assert not lives(another)
    assert not [name for name in os.listdir("/proc") if name.isdigit() and leftovers.is_left(int(name), accounts)]
    assert leftovers.end(accounts) == 0


@pytest.mark.parametrize("why", ["no filter", "another account", "another's mounts", "a keeper that lives"])
def test_what_only_looks_like_it_is_left_alone(make: Make, uid: int, why: str) -> None:
    pid = {
        "no filter": lambda: make(uid, filtered=False),
        "another account": lambda: make(uid + 1),
        "another's mounts": lambda: make(uid, before=unshare),
        "a keeper that lives": lambda: make(uid, name=leftovers.KEEPER),
    }[why]()
    assert leftovers.end({uid}) == 0
    assert lives(pid)


def test_no_account_gains_by_the_name_of_a_keeper_that_it_gives_itself(make: Make, uid: int) -> None:
    def pretend() -> None:
        assert LIBC.prctl(15, leftovers.KEEPER.encode(), 0, 0, 0) == 0  # PR_SET_NAME
        if os.fork():
            signal.pause()

    pid = make(uid, then=pretend)
    assert leftovers.end({uid}) >= 1
    assert not lives(pid)


def test_what_has_ended_or_is_hidden_is_none(make: Make, uid: int) -> None:
    pid = make(uid)
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    ipc.wait(pidfd)
    os.close(pidfd)
    assert not leftovers.is_left(pid, {uid})
    assert not leftovers.kill(pid, {uid})
    assert not leftovers.kill(1 << 22, {uid})
    assert not leftovers.is_left(1 << 22, {uid})
