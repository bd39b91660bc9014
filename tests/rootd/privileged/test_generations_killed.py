"""kill -9 of privileged after every system call of a reload: STAGE, COMMIT, REPLACE, and taking all back.

Whatever the moment: the old configuration counts or the new one, whole; what runs goes on, no port is let go, nothing
is left over, and the same reload can be done then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest
from privileged_house import House, entry, tcp_socket
from test_spawn import DyingOs

from rootd import closing, ipc, sealed
from rootd.config import shape
from rootd.config.table import Socket, Table
from rootd.privileged import adopt, cgroup, generations, listen, main, orphans, requests, signals, spawn, stage

pytestmark = pytest.mark.root
Build = Callable[..., House]
SLEEPER = "import signal; print('up', flush=True); signal.pause()"
MODULES = (spawn, cgroup, listen, requests, signals, adopt, orphans, generations, stage, sealed, closing, main)


def free_ports(count: int) -> list[int]:
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(sock.getsockname()[1]) for sock in socks]
    for sock in socks:
        sock.close()
    return ports


def line_of(*sockets: Socket) -> bytes:
    """A table of one service, with these sockets, the first of which is its own."""
    return shape.to_json(Table((entry(SLEEPER, sockets=(("http", sockets[0].key),)),), sockets, False))


def compiles(line: bytes) -> Callable[[str, str, int], None]:
    """In the place of the throw-away child's work: what it would have compiled."""

    def compile_in_child(_config: str, _python: str, link: int) -> None:
        fds = [
            sealed.memfd(name, text) for name, text in (("generation", line + b"\n{}"), ("s", b""), ("secrets", b"x"))
        ]
        ipc.link_from(link).send_now(ipc.Message(ipc.TABLE), *fds)
        os._exit(0)

    return compile_in_child


def dying(line: bytes, calls: int = 0, moment: Any = None) -> Callable[[], None]:
    """Run in privileged before its main: `moment` is the op, or the method of Privileged, from which it counts."""

    def inside() -> None:
        stage.compile_in_child = compiles(line)
        if not calls:
            return
        count = DyingOs(os, [calls])
        real_now, real_send, bind = ipc.Link.send_now, ipc.Link.send, listen.bind

        def step_after(call: Callable[..., Any]) -> Callable[..., Any]:
            def stepped(*words: Any) -> Any:
                try:
                    return call(*words)
                finally:
                    count.step()

            return stepped

        def arm() -> None:
            for module in MODULES:
                module.os = count  # type: ignore[attr-defined]
            for name, real in (("send_now", real_now), ("send", real_send)):
                setattr(ipc.Link, name, step_after(real))
            listen.bind = step_after(bind)
            signal.pidfd_send_signal = step_after(signal.pidfd_send_signal)

        def armed(call: Callable[..., Any]) -> Callable[..., Any]:
            def run(*words: Any) -> Any:
                arm()
                return call(*words)

            return run

        if isinstance(moment, int):
            requests.HANDLERS[moment] = armed(requests.HANDLERS[moment])
        else:
            setattr(main.Privileged, moment, armed(getattr(main.Privileged, moment)))

    return inside


class Reload:
    """A house with one process, of generation 2, whose next configuration has a port more and a port less."""

    def __init__(self, build: Build) -> None:
        kept, gone, new = (tcp_socket(name, port) for name, port in zip(("k", "g", "n"), free_ports(3), strict=True))
        self.kept, self.gone, self.new = kept, gone, new
        self.line = line_of(kept, new)
        self.house = build(entry(SLEEPER, sockets=(("http", kept.key),)), sockets=(kept, gone), start=False)
        self.house.store["generation/2"] = sealed.memfd("generation", line_of(kept, gone) + b"\n{}")
        self.start()
        self.first = dict(self.house.store)
        self.told()
        self.spawned = self.house.spawn(generation=2)
        assert os.read(self.house.output(self.spawned.run)[1], 3) == b"up\n"

    def start(self, calls: int = 0, moment: Any = None) -> None:
        self.house.inside = dying(self.line, calls, moment)
        self.house.start()

    def told(self) -> tuple[int, set[int]]:
        """What a privileged says when it has been started: the generation that counts, and the runs."""
        current, runs = 0, set()
        while True:
            message, fds = self.house.hear(ipc.TABLE, ipc.FACT, ipc.FACTS_END)
            ipc.close_all(fds)
            if message.op == ipc.TABLE and message.flags & ipc.RUNNING:
                current = message.generation
            elif message.op == ipc.FACT:
                runs.add(message.run)
            elif message.op == ipc.FACTS_END:
                return current, runs

    def answered(self, *ops: int) -> bool:
        """False when it has died before it could answer with one of these."""
        try:
            _, fds = self.house.hear(*ops)
        except (AssertionError, OSError):
            return False
        ipc.close_all(fds)
        return True

    def lives(self) -> bool:
        """Whether it also does what is asked next; else it is waited for."""
        with contextlib.suppress(OSError):
            self.house.ask(ipc.ABORT, seq=9)
        lives = self.answered(ipc.DONE)
        if not lives:
            assert self.house.wait() == -signal.SIGKILL
        return lives

    def staged(self, seq: int = 1) -> ipc.Message:
        self.house.ask(ipc.STAGE, seq=seq)
        while True:
            message, fds = self.house.hear(ipc.TABLE, ipc.DONE)
            ipc.close_all(fds)
            if message.seq == seq:  # else it is what a REPLACE was for
                assert (message.op, message.extra) == (ipc.TABLE, 0), message
                return message

    def commit(self, table: ipc.Message) -> None:
        self.house.ask(ipc.COMMIT, seq=2, generation=table.generation, digest=table.digest)

    def check(self, before: int, may_be: set[int]) -> int:
        """After a death and a start: all is well; the generation that counts."""
        current, runs = self.told()
        assert current in may_be
        assert runs == {self.spawned.run}
        socket.create_connection(("127.0.0.1", self.kept.port)).close()
        names = set(self.house.store)
        assert "stage" not in names
        numbers = {int(name.partition("/")[2]) for name in names if name.startswith("generation/")}
        secrets = {int(name.partition("/")[2]) for name in names if name.startswith("secrets/")}
        assert secrets <= numbers, "nobody keeps what counts no more"
        sockets = {name.partition("/")[2] for name in names if name.startswith("socket/")}
        others = {self.gone.key}  # while the process of generation 2 runs
        assert sockets == {self.kept.key, *others} | ({self.new.key} if current > before else set())
        return current

    def again(self, current: int) -> int:
        """The same once more, by who was told nothing: it goes well. The generation that counts then."""
        table = self.staged()
        self.commit(table)
        assert self.house.hear(ipc.DONE)[0].arg == 0
        socket.create_connection(("127.0.0.1", self.new.port)).close()
        numbers = {int(name.partition("/")[2]) for name in self.house.store if name.startswith("generation/")}
        assert table.generation == current + 1
        assert numbers == {2, current, table.generation} - {1}
        return table.generation

    def back(self) -> None:
        """To what there was at first: privileged is killed, and the store is what it was, with the process."""
        house = self.house
        house.kill()
        for name in [name for name in house.store if name not in self.first and not name.startswith("process/")]:
            os.close(house.store.pop(name))
        lost = self.first.keys() - house.store.keys()
        for name in lost:
            if name.startswith("socket/"):
                spec = next(one for one in (self.kept, self.gone) if name.endswith(one.key))
                house.store[name] = socket.create_server((spec.host, spec.port), backlog=64).detach()
            else:
                house.store[name] = sealed.memfd("generation", line_of(self.kept, self.gone) + b"\n{}")
        order = [*(name for name in self.first), *(name for name in house.store if name not in self.first)]
        house.store = {name: house.store[name] for name in order}


@pytest.fixture
def reload(build: Build) -> Reload:
    made = Reload(build)
    made.house.kill()
    return made


def some(every: int) -> pytest.MarkDecorator:
    """Each call is slow, every so many are not."""
    return pytest.mark.parametrize("every", [every, pytest.param(1, id="each", marks=pytest.mark.slow)])


def rounds(
    reload: Reload, every: int, moment: Any, act: Callable[[], bool], may_be: set[int]
) -> list[tuple[bool, int]]:
    """`act` in a privileged that dies after so many calls, until it does not any more. For each death: whether it had
    answered, and which generation counted then."""
    seen, calls = list[tuple[bool, int]](), 1 - every
    while True:
        calls += every
        assert calls < 400, "it never ended"
        reload.start(calls, moment)
        answered = act()
        if answered and reload.lives():
            reload.back()
            return seen
        if reload.house.pid:
            assert reload.house.wait() == -signal.SIGKILL
        reload.start()
        current = reload.check(2, may_be)
        seen.append((answered, current))
        reload.again(current)
        reload.back()


@some(4)
def test_d7_a_kill_after_any_call_of_a_staging_changes_nothing(reload: Reload, every: int) -> None:
    def act() -> bool:
        reload.told()
        reload.house.ask(ipc.STAGE, seq=1)
        return reload.answered(ipc.TABLE, ipc.DONE)

    seen = rounds(reload, every, ipc.STAGE, act, {2})
    assert len(seen) > 8 // every, "the failpoints were not reached"


@some(2)
def test_d7_a_kill_after_any_call_of_a_commit_leaves_the_old_configuration_or_the_new_one(
    reload: Reload, every: int
) -> None:
    def act() -> bool:
        reload.told()
        reload.commit(reload.staged())
        return reload.answered(ipc.DONE)

    seen = rounds(reload, every, ipc.COMMIT, act, {2, 3})
    assert {(False, 2), (False, 3)} <= set(seen)
    assert (True, 2) not in seen, "what was answered counts"


@some(13)
def test_d7_a_kill_after_any_call_of_taking_all_back_changes_nothing(reload: Reload, every: int) -> None:
    seen = rounds(reload, every, "take_back", lambda: reload.answered(ipc.FACTS_END), {2})
    assert len(seen) > 8 // every, "the failpoints were not reached"


@pytest.mark.parametrize(
    ("moment", "every"),
    [
        pytest.param(ipc.REPLACE, 2, id="replacement, some"),
        pytest.param(ipc.REPLACE, 1, id="replacement, each", marks=pytest.mark.slow),
        pytest.param("take_back", 1, id="staged as root, each", marks=pytest.mark.slow),
    ],
)
def test_d7_a_kill_after_any_call_of_a_replacement_and_of_what_is_staged_as_root_changes_nothing(
    reload: Reload, moment: Any, every: int
) -> None:
    statuses, calls = [], 1 - every
    while statuses[-1:] != [ipc.REPLACE_CODE]:
        calls += every
        if moment == "take_back":
            reload.house.store.setdefault("stage", sealed.memfd("stage", b""))
        reload.start(calls, moment)
        if moment == "take_back":
            answered = reload.answered(ipc.FACTS_END) and reload.answered(ipc.TABLE)
            statuses.append(ipc.REPLACE_CODE if answered and reload.lives() else -signal.SIGKILL)
        else:
            reload.told()
            reload.house.ask(ipc.REPLACE, seq=4, arg=1)
            statuses.append(reload.house.wait())
        if reload.house.pid:
            reload.house.kill()
        reload.start()
        assert reload.check(2, {2}) == 2
        reload.again(2)
        reload.back()
    assert set(statuses[:-1]) == {-signal.SIGKILL}
    assert len(statuses) > 3 // every, "the failpoints were not reached"
