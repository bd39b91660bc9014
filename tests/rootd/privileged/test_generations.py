"""rootd/privileged/generations: what counts, what is staged, what is forgotten."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lingering import LINGER, does
from privileged_house import entry, tcp_socket

from rootd import ipc, sealed
from rootd.config import extras, shape
from rootd.config.table import Socket, Table
from rootd.privileged import generations
from rootd.privileged.generations import Generation, Generations
from rootd.privileged.spawn import Run


class Keeper:
    """The store, as far as names go."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def store(self, name: str, fd: int) -> None:
        assert name not in self.names
        os.fstat(fd)
        self.names.append(name)

    def drop(self, name: str) -> None:
        self.names.remove(name)


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
def held(keeper: Keeper) -> Iterator[Generations]:
    made = Generations(keeper.store, keeper.drop)
    yield made
    made.abort()
    ipc.close_all([*made.sockets.values(), *(one.fd for one in made.held.values())])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def compiled(*sockets: Socket, flags: int = 0, root: bool = False, **words: Any) -> tuple[ipc.Message, list[int]]:
    pairs = tuple((spec.name, spec.key) for spec in sockets)
    return of_table(Table((entry(sockets=pairs, root=root, **words),), sockets, root), flags)


def of_table(table: Table, flags: int = 0) -> tuple[ipc.Message, list[int]]:
    line = shape.to_json(table)
    return ipc.Message(ipc.TABLE, flags=flags), [sealed.memfd("generation", line + b"\n{}")]


def first(held: Generations, *sockets: Socket) -> None:
    generation = Generation(1, compiled(*sockets)[1][0])
    bound, problems = held.bind(generation.table)
    assert not problems
    held.adopt(generation, bound)


def test_staging_changes_nothing_until_it_is_committed(held: Generations, keeper: Keeper) -> None:
    one, two = tcp_socket("one", free_port()), tcp_socket("two", free_port())
    first(held, one)
    kept = held.sockets[one.key]
    answer, fd = held.stage(7, *compiled(one, two))
    assert (answer.op, answer.seq, answer.generation, answer.arg) == (ipc.TABLE, 7, 2, 1)
    assert keeper.names == [f"socket/{one.key}", "generation/1"]
    assert held.current == 1
    assert not held.commit(2, bytes(32))
    assert not held.commit(3, answer.digest)
    assert held.commit(2, answer.digest)
    assert keeper.names[2:] == [f"socket/{two.key}", "generation/2"]  # the table last
    assert held.current == 2
    assert held.sockets[one.key] == kept
    assert held.held[2].fd == fd
    assert not held.commit(2, answer.digest)


def test_b6_aborting_closes_what_was_bound_for_it(held: Generations, keeper: Keeper) -> None:
    first(held)
    extra = tcp_socket("extra", free_port())
    held.stage(1, *compiled(extra))
    held.abort()
    held.abort()
    socket.create_server(("127.0.0.1", extra.port)).close()
    assert keeper.names == ["generation/1"]


def test_a_port_that_is_taken_is_told_with_its_errno_and_nothing_is_staged(held: Generations) -> None:
    first(held)
    with socket.create_server(("127.0.0.1", 0)) as other:
        free = tcp_socket("free", free_port())
        answer, fd = held.stage(1, *compiled(free, tcp_socket("taken", other.getsockname()[1])))
    assert (answer.op, answer.extra) == (ipc.TABLE, errno.EADDRINUSE)
    assert answer.name.startswith("socket taken: tcp:127.0.0.1:")
    assert held.staged is None
    os.close(fd)
    socket.create_server(("127.0.0.1", free.port)).close()


def test_a_configuration_that_is_wrong_is_shown_and_not_staged(held: Generations) -> None:
    first(held)
    answer, fd = held.stage(1, *compiled(flags=ipc.INVALID))
    assert (answer.op, answer.flags) == (ipc.TABLE, ipc.INVALID)
    assert held.staged is None
    os.close(fd)


def test_a_child_that_said_nothing_is_told(held: Generations) -> None:
    first(held)
    answer, fd = held.stage(4, ipc.Message(ipc.DONE), [])
    assert (answer.op, answer.seq, answer.arg, fd) == (ipc.DONE, 4, errno.ETIMEDOUT, -1)


def test_what_only_root_can_do_is_asked_for(held: Generations, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock of the uid: the real thing is in tests/system/test_reload.py."""
    first(held)
    monkeypatch.setattr(generations.os, "geteuid", lambda: 61001)
    unread, fd = held.stage(1, *compiled(flags=ipc.NEEDS_ROOT | ipc.INVALID))
    assert (unread.flags, unread.generation) == (ipc.NEEDS_ROOT | ipc.INVALID, 2)
    os.close(fd)
    answer, fd = held.stage(1, *compiled(root=True))
    assert (answer.flags, answer.extra, answer.name) == (ipc.NEEDS_ROOT, 1, "root site")
    os.close(fd)
    assert held.staged is None
    assert held.stage(1, *compiled(umask=0o077))[0].op == ipc.TABLE


def test_what_only_root_can_do_is_named_as_far_as_it_fits(held: Generations, monkeypatch: pytest.MonkeyPatch) -> None:
    first(held)
    extra = extras.NOTHING._replace(nice=-20, capabilities=(8,), cgroup=(("pids.max", "5"),))
    table = Table((entry(extra=extra),), (), False)
    problems = [
        (errno.EACCES, "socket a: unix:/x: y: Permission denied"),
        (errno.EADDRINUSE, "socket b: tcp:1: in use"),
    ]
    told = held.beyond(table, problems)
    assert told[0] == "socket a: unix:/x: y"
    assert sorted(told[1:]) == ["23 site", "8 site", "pids site"]
    monkeypatch.setattr(generations.os, "geteuid", lambda: 61001)
    names = [f"{number}-{'x' * 50}" for number in range(9)]
    answer, fd = held.stage(1, *of_table(Table(tuple(entry(service=name, root=True) for name in names), (), True)))
    os.close(fd)
    assert answer.extra == 9
    assert answer.name.split("\n") == [f"root {name}" for name in names[:3]]


def test_what_no_run_uses_is_forgotten_but_the_last_two_stay(held: Generations, keeper: Keeper) -> None:
    one, two = tcp_socket("one", free_port()), tcp_socket("two", free_port())
    first(held, one)
    for number in range(2, 5):
        answer, _ = held.stage(0, *compiled(two, umask=number))
        assert held.commit(number, answer.digest)
    held.retire({1})
    assert set(held.held) == {1, 3, 4}
    assert set(held.sockets) == {one.key, two.key}
    held.retire(set())
    assert set(held.held) == {3, 4}
    assert set(held.sockets) == {two.key}
    assert sorted(keeper.names) == ["generation/3", "generation/4", f"socket/{two.key}"]


def test_a_configuration_stays_for_the_hook_that_follows_the_end_of_its_last_run(
    held: Generations, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tcp_socket("one", free_port())
    first(held, one)
    for number in range(2, 5):
        answer, _ = held.stage(0, *compiled(umask=number))
        assert held.commit(number, answer.digest)
    held.retire(set(), 1)
    held.retire(set(), 4)
    assert set(held.held) == {1, 3, 4}
    assert held.sockets == {}
    monkeypatch.setattr(generations, "HOOK_FOLLOWS", 0.0)
    held.retire(set())
    assert set(held.held) == {3, 4}


def test_a_slot_is_an_instance_of_an_entry_or_nothing(held: Generations) -> None:
    first(held)
    assert held.entry(1, 0) is not None
    assert [held.entry(1, 1), held.entry(1, 1024), held.entry(2, 0), held.entry(0, 0)] == [None] * 4


def test_what_the_store_gives_back_is_what_there_was(held: Generations, keeper: Keeper) -> None:
    one = tcp_socket("one", free_port())
    first(held, one)
    again = Generations(keeper.store, keeper.drop)
    for name, fd in ((f"socket/{one.key}", held.sockets[one.key]), ("generation/1", held.held[1].fd)):
        again.take_back(name, os.dup(fd))
    assert again.current == 1
    assert again.held[1].digest == held.held[1].digest
    assert not again.runs_root
    ipc.close_all([*again.sockets.values(), again.held[1].fd])


def run_of(slot: int, exited: tuple[int, int] | None = None) -> Run:
    run = Run(slot + 1, slot, 1, 0, 0, -1)
    run.exited = exited
    return run


def test_a_socket_blocks_again_after_the_end_of_a_run_unless_another_process_is_on_it(held: Generations) -> None:
    one = tcp_socket("one", free_port())
    first(held, one)
    ended, other = run_of(0, exited=(0, ipc.KNOWN)), run_of(0)
    os.set_blocking(held.sockets[one.key], False)
    ended.acknowledged = True
    held.mend(ended, [ended, other])
    assert not os.get_blocking(held.sockets[one.key])
    other.exited = (0, ipc.KNOWN)
    held.mend(other, [ended, other])
    assert not os.get_blocking(held.sockets[one.key]), "what it has forked may become its main process yet"
    other.acknowledged = True
    held.mend(other, [ended, other])
    assert os.get_blocking(held.sockets[one.key])


def test_a_socket_that_was_shut_down_listens_again_for_the_others_on_it_too(held: Generations) -> None:
    one = tcp_socket("one", free_port())
    first(held, one)
    sock = socket.socket(fileno=os.dup(held.sockets[one.key]))
    sock.shutdown(socket.SHUT_RD)
    held.mend(run_of(0, exited=(1, ipc.KNOWN)), [run_of(0)])
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    sock.close()


def test_d7_a_unix_socket_that_only_root_can_make_again_is_made_when_it_is_root_again(
    held: Generations, keeper: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "site.sock")
    one = tcp_socket("one", 0)._replace(key=f"unix:{path}", family="unix", host="", path=path, mode=0o660)
    first(held, one)
    ended = run_of(0, exited=(1, ipc.KNOWN))
    with socket.socket(fileno=os.dup(held.sockets[one.key])) as sock:
        sock.shutdown(socket.SHUT_RDWR)

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr(generations.listen, "bind", refused)
        patched.setattr(os, "geteuid", lambda: 4242)
        assert held.mend(ended, [ended]) is False
    held.repair(set())
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    assert held.mend(ended, [ended]) is True
    assert sorted(keeper.names) == ["generation/1", f"socket/{one.key}"]


def test_a_socket_that_was_lost_between_the_old_and_the_new_one_is_bound_again(
    held: Generations, keeper: Keeper, capfd: pytest.CaptureFixture[str]
) -> None:
    """kill -9 after DROP and before STORE: there is a table that names it, and no socket."""
    one, two = tcp_socket("one", free_port()), tcp_socket("two", free_port())
    first(held, one, two)
    for spec in (one, two):
        os.close(held.sockets.pop(spec.key))
        keeper.drop(f"socket/{spec.key}")
    with socket.create_server((two.host, two.port)):
        held.repair(set())
    assert f"socket two: {two.key}: Address already in use" in capfd.readouterr().err
    socket.create_connection((one.host, one.port), 5).close()
    assert sorted(keeper.names) == ["generation/1", f"socket/{one.key}"]


def test_d7_a_socket_that_a_service_has_spoilt_is_another_one(
    held: Generations, keeper: Keeper, capfd: pytest.CaptureFixture[str]
) -> None:
    """Connected, or its port taken by somebody else: privileged goes on, and has the port again when it can."""
    one = tcp_socket("one", free_port())
    first(held, one)
    ended = run_of(0, exited=(1, ipc.KNOWN))
    sock = socket.socket(fileno=os.dup(held.sockets[one.key]))
    sock.shutdown(socket.SHUT_RDWR)
    with socket.create_server((one.host, one.port)):
        held.mend(ended, [ended])
        assert f"a service has spoilt socket one: {one.key}: Address already in use" in capfd.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as other:
        sock.connect(other.getsockname())
        held.mend(ended, [ended])
    socket.create_connection((one.host, one.port), 5).close()
    assert sorted(keeper.names) == ["generation/1", f"socket/{one.key}"]
    sock.close()


def test_d7_a_socket_that_a_service_has_connected_to_whom_it_likes_keeps_nobody_who_lets_go_of_it() -> None:
    def act() -> None:
        keeper, one = Keeper(), tcp_socket("one", free_port())
        held = Generations(keeper.store, keeper.drop)
        first(held, one)
        ended = run_of(0, exited=(1, ipc.KNOWN))
        with (
            socket.create_server(("127.0.0.1", 0)) as other,
            socket.socket(fileno=os.dup(held.sockets[one.key])) as sock,
        ):
            sock.shutdown(socket.SHUT_RDWR)
            sock.connect(other.getsockname())
            far, _ = other.accept()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.send(bytes(1 << 16))
            sock.close()
            held.mend(ended, [ended])
            socket.create_connection((one.host, one.port), 5).close()
            far.close()

    assert does(act)
