"""Sockets inside the walls: what families there are, whom one can connect to, what one can do to a shared one."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rootd import confine, sandbox

UID = 61_013  # of nobody's
PROBES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
HOLE = 99  # exit status of a process that found one

pytestmark = pytest.mark.root


def inside(act: Callable[[], object], **walls: Any) -> int:
    """The errno that it fails with in a process of nobody's inside these walls; 0 when it was done."""
    pid = os.fork()
    if pid == 0:
        try:
            confine.become(UID, UID, ())
            sandbox.enter(**walls)
            act()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 255)
        except RuntimeError as error:
            os._exit(HOLE if str(error) == f"the sandbox does not hold: {act.__doc__} is possible" else 254)
        except BaseException:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def reachable(tmp_path: Path) -> Path:
    """A folder that everybody may go through."""
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o755)
    return tmp_path


def test_c6_a_unix_socket_that_listens_survives_whoever_is_in_the_walls(tmp_path: Path) -> None:
    """Shut for receiving it would refuse everybody for good, in whatever process it is then."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "door"))
        listener.listen(4)
        for how, expected in ((socket.SHUT_RD, errno.EPERM), (socket.SHUT_RDWR, errno.EPERM), (socket.SHUT_WR, 0)):
            assert inside(partial(listener.shutdown, how)) == expected
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "door"))


@pytest.mark.parametrize("family", sandbox.FAMILIES)
@pytest.mark.parametrize("listed", [(), PROBES], ids=["none", "probes"])
def test_a_filter_that_lets_more_families_in_than_are_listed_is_found(
    monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily, listed: tuple[int, ...]
) -> None:
    real = sandbox.program
    monkeypatch.setattr(sandbox, "program", lambda names, sockets, **words: real(names, (*sockets, family), **words))

    def act() -> None:
        return

    act.__doc__ = f"socket({family.name})"
    assert inside(act, sockets=listed) == (0 if family in listed else HOLE)


def test_where_streams_alone_are_allowed_a_filter_that_lets_datagrams_out_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = sandbox.program
    monkeypatch.setattr(sandbox, "program", lambda names, sockets, **_: real(names, sockets))

    def act() -> None:
        return

    act.__doc__ = ", ".join(f"a datagram's socket({one.name})" for one in sandbox.FAMILIES if one in PROBES)
    assert inside(act, sockets=PROBES, streams=True) == HOLE


@pytest.mark.parametrize("family", PROBES)
def test_where_streams_alone_are_allowed_nothing_else_can_be_spoken(family: int) -> None:
    flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW, socket.SOCK_RDM):
        for more in (0, flags):
            assert inside(partial(socket.socket, family, kind | more), sockets=PROBES, streams=True) == errno.EPERM
    assert inside(partial(socket.socket, family, socket.SOCK_STREAM | flags), sockets=PROBES, streams=True) == 0


@pytest.mark.parametrize("family", sandbox.FAMILIES)
def test_a_family_that_the_self_test_tries_can_be_had_by_anybody_without_the_filter(
    monkeypatch: pytest.MonkeyPatch, family: int
) -> None:
    """Else its failure inside would prove nothing."""
    monkeypatch.setattr(sandbox, "install", lambda _filters: None)
    monkeypatch.setattr(sandbox, "self_test", lambda *_, **__: None)
    assert inside(lambda: socket.socket(family, socket.SOCK_DGRAM).close()) == 0


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_who_is_listed_for_the_internet_reaches_a_port_and_opens_none(family: int, host: str) -> None:
    with socket.create_server((host, 0), family=family) as server:

        def reach(address: Any) -> None:
            with socket.socket(family) as sock:
                sock.connect(address)

        def open_one() -> None:
            with socket.socket(family) as sock:
                sock.bind((host, 0))

        reach_it = partial(reach, server.getsockname())
        assert inside(reach_it, allow=("connect",), sockets=PROBES) == 0
        assert inside(reach_it, allow=("connect",), sockets=(socket.AF_UNIX,)) == errno.EPERM
        assert inside(reach_it, sockets=PROBES) == errno.EPERM
        assert inside(open_one, allow=("connect",), sockets=PROBES) == errno.EPERM


def test_a_unix_socket_is_reached_by_its_path_where_its_mode_lets_one(reachable: Path) -> None:
    door = str(reachable / "door")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(door)
        server.listen()

        def reach() -> None:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(door)

        for mode, expected in ((0o666, 0), (0o660, errno.EACCES)):
            os.chmod(door, mode)
            assert inside(reach, allow=("connect",), sockets=PROBES) == expected
