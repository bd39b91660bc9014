"""kill -9 of the keeper after every system call of what it does with the store, with a part that dies, in an upgrade.

A service manager keeps its descriptors. Whatever the moment: the next keeper has what was stored up to some point, each
descriptor by its own name, starts every part once, and ends with nothing left.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import prctl
import pytest
from manager import Manager
from test_again import PROGRAM
from test_spawn import DyingOs
from theatre import WAIT, Theatre, roles

from rootd import closing, ipc, sealed, trial
from rootd.keeper import again, backup, main as keeper, store

PARTS = ("privileged", "log", "supervisor", "auth", "probe")
FIRST = ("settings", "generation/1")
STORES: tuple[dict[str, Any], ...] = (  # what privileged sends
    {"op": ipc.STORE, "name": "process/0/1"},
    {"op": ipc.STORE, "body": "pipe/a\npipe/b"},
    {"op": ipc.DROP, "name": "pipe/a"},
    {"op": ipc.STORE, "name": "socket/x"},
    {"op": ipc.DROP, "name": "process/0/1"},
    {"op": ipc.STORE, "name": "generation/2"},
)
ALL = {"pipe/b", "socket/x", "generation/2"}


def may_be_told() -> list[set[str]]:
    """What a manager may have: all up to some point, without any of what was dropped later, before it was sent."""
    steps = [(words["op"], name) for words in STORES for name in (words.get("body") or words["name"]).split("\n")]
    found, held = [set[str]()], set[str]()
    for at, (op, name) in enumerate(steps):
        held = held | {name} if op == ipc.STORE else held - {name}
        later = sorted(held & {name for op, name in steps[at + 1 :] if op == ipc.DROP})
        found += [held - {*gone} for count in range(3) for gone in itertools.combinations(later, count)]
    return found


def dying(calls: int, armed_by: str) -> None:
    """In a keeper: it dies after so many calls, counted from the first time that a method is called."""
    count = DyingOs(os, [calls])

    def step_after(call: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*words: Any) -> Any:
            try:
                return call(*words)
            finally:
                count.step()

        return stepped

    def arm() -> None:
        for module in (keeper, store, backup, again, closing, sealed):
            module.os = count  # type: ignore[attr-defined]
        backup.Backup._send = step_after(backup.Backup._send)  # type: ignore[method-assign]
        ipc.Link.send = step_after(ipc.Link.send)  # type: ignore[method-assign]
        ipc.pair = step_after(ipc.pair)
        signal.pidfd_send_signal = step_after(signal.pidfd_send_signal)

    owner: Any = again.Renewal if armed_by == "ask" else store.Store
    first = getattr(owner, armed_by)

    def armed(self: Any, *words: Any) -> Any:
        if armed_by == "ask" or words[0] == STORES[0]["name"]:
            setattr(owner, armed_by, first)
            arm()
        return getattr(type(self), armed_by)(self, *words) if armed_by == "ask" else first(self, *words)

    setattr(owner, armed_by, armed)


class Managed(Theatre):
    """A keeper whose descriptors a manager keeps, which can be killed and started again with those."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.manager = Manager(folder / "manager")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.address = str(folder / "strings")
        self.listener.bind(self.address)
        self.listener.listen(64)
        self.strings: dict[str, socket.socket] = {}
        self.parts: list[int] = []  # the pidfds of all that were there
        self.stderr, self.program = folder / "stderr", folder / "program"
        more = {"folder": str(Path(__file__).parent), "trial": "pass", "late": "", "address": self.address}
        self.program.write_text(PROGRAM.format(python=sys.executable, **more))
        self.program.chmod(0o755)
        self.pid = 0

    def start(self, calls: int = 0, armed_by: str = "") -> None:
        self.manager.settle()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                prctl.set_child_subreaper(1)
                os.dup2(os.open(self.stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
                sys.stderr = os.fdopen(2, "w", closefd=False)
                environment = self.handed_over()
                signal.pthread_sigmask(signal.SIG_BLOCK, keeper.HANDLED)
                held, told = backup.found(environment, trial.unreadable)
                if calls:
                    dying(calls, armed_by)
                os._exit(keeper.Keeper(roles(self.address), held, (str(self.program),), told).run())
            finally:
                os._exit(99)
        self.pidfd = os.pidfd_open(self.pid)
        self.manager.listen()

    def handed_over(self) -> dict[str, str]:
        """In the fork: what the manager keeps, and nothing else of the test's."""
        kept = self.manager.kept
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 500) for fd in kept.values()]
        for target, fd in enumerate(high, 3):
            os.dup2(fd, target)
        os.closerange(3 + len(high), 4096)
        words = {"NOTIFY_SOCKET": str(self.manager.path), "FDSTORE": "26000"}
        return words | {
            "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(high)), "LISTEN_FDNAMES": ":".join(kept),
        }  # fmt: skip

    def hello(self) -> dict[str, Any] | None:
        """The next part that comes on stage, of this keeper; None when that is gone."""
        while True:
            ready = select.select([self.listener, self.pidfd], [], [], WAIT)[0]
            assert ready, self.stderr.read_text()
            if self.listener not in ready:
                return None
            string, _ = self.listener.accept()
            string.settimeout(WAIT)
            said: dict[str, Any] = json.loads(string.recv(65536) or b"{}")
            if said.get("parent") != self.pid:
                string.close()  # of a keeper before
                continue
            self.parts.append(os.pidfd_open(said["hello"]))
            if said["role"] in self.strings:
                self.strings[said["role"]].close()
            self.strings[said["role"]] = string
            return said

    def enter_until(self, *parts: str) -> dict[str, dict[str, Any]] | None:
        found: dict[str, dict[str, Any]] = {}
        while not found.keys() >= {*parts}:
            said = self.hello()
            if said is None:
                return None
            found[said["role"]] = said
        return found

    def first(self) -> None:
        assert self.enter_until("privileged")
        for name in FIRST:
            self.order("privileged", do="send", op=ipc.STORE, name=name, made=[name])
        self.order("privileged", do="send", op=ipc.BEGIN)
        assert self.enter_until(*PARTS[1:])

    def try_order(self, role: str, **words: Any) -> None:
        try:
            self.order(role, **words)
        except OSError:
            return  # it has gone with its keeper

    def store_all(self) -> None:
        for words in STORES:
            made = (words.get("body") or words["name"]).split("\n") if words["op"] == ipc.STORE else []
            self.try_order("privileged", do="send", **words, made=made)

    def kill(self) -> None:
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        assert select.select([self.pidfd], [], [], WAIT)[0]
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.pid = 0

    def check(self, may_be: list[set[str]]) -> set[str]:
        """The next keeper has taken over, and does its work to an orderly end. What was stored."""
        before, self.parts = self.parts, []
        self.start()
        found = self.enter_until(*PARTS)
        assert found is not None, self.stderr.read_text()
        for pidfd in before:
            assert select.select([pidfd], [], [], WAIT)[0], "a part of the keeper before lives on"
            os.close(pidfd)
        held = found["privileged"]["what"]
        stored = held.keys() - set(FIRST)
        assert stored in may_be, self.stderr.read_text()
        assert {*FIRST} <= held.keys()
        assert held == {name: f"/memfd:{name} (deleted)" for name in held}, "each by its own name"
        self.order("privileged", do="send", op=ipc.STORE, name="later", made=["later"])
        self.order("log", do="exit", status=0)
        assert self.enter_until("log")
        self.order("privileged", do="send", op=ipc.END, arg=5)
        assert select.select([self.pidfd], [], [], WAIT)[0]
        assert os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == 5
        os.close(self.pidfd)
        self.pid = 0
        self.manager.settle()
        assert self.manager.kept == {}
        return set(stored)

    def close(self) -> None:
        if self.pid:
            self.kill()
        self.manager.close()
        self.listener.close()
        for string in self.strings.values():
            string.close()
        for pidfd in self.parts:
            os.close(pidfd)


@pytest.fixture
def stages(tmp_path: Path) -> Iterator[Callable[[int], Managed]]:
    made: list[Managed] = []

    def make(number: int) -> Managed:
        for one in made:
            one.close()
        made[:] = [Managed(tmp_path / str(number))]
        return made[0]

    yield make
    for one in made:
        one.close()


def some(every: int) -> pytest.MarkDecorator:
    """Each call is slow, every so many are not."""
    return pytest.mark.parametrize("every", [every, pytest.param(1, id="each", marks=pytest.mark.slow)])


def rounds(
    stages: Callable[[int], Managed], every: int, armed_by: str, act: Callable[[Managed], bool], may_be: list[set[str]]
) -> list[set[str]]:
    """`act` with a keeper that dies after so many calls, until it does not any more: False."""
    seen, calls = [], 1
    while True:
        stage = stages(calls)
        stage.start(calls, armed_by)
        stage.first()
        died = act(stage)
        stage.kill()
        seen.append(stage.check(may_be))
        if not died:
            return seen
        calls += every
        assert calls < 1000, "it never ended"


@some(12)
def test_d7_a_keeper_killed_after_any_call_of_the_store_hands_on_what_was_stored(
    stages: Callable[[int], Managed], every: int
) -> None:
    def act(stage: Managed) -> bool:
        stage.store_all()
        stage.try_order("log", do="exit", status=0)
        return stage.enter_until("log") is None

    seen = rounds(stages, every, "put", act, may_be_told())
    assert seen[-1] == ALL
    assert len(seen) > 20 // every


@some(25)
def test_d7_a_keeper_killed_after_any_call_of_an_upgrade_hands_on_all_that_was_stored(
    stages: Callable[[int], Managed], every: int
) -> None:
    def act(stage: Managed) -> bool:
        stage.store_all()
        stage.order("log", do="exit", status=0)
        assert stage.enter_until("log"), "and the manager has been told of it"
        stage.try_order("privileged", do="send", op=ipc.UPGRADE, seq=7)
        return stage.enter_until(*PARTS) is None

    seen = rounds(stages, every, "ask", act, [ALL])
    assert len(seen) > 20 // every
