"""rootd/privileged/listen: real sockets, real modes, real holders."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import socket
import stat
import struct
from pathlib import Path

import pytest

from rootd.config.table import Socket
from rootd.privileged import listen


def spec(**words: object) -> Socket:
    fields: dict[str, object] = {
        "key": "tcp:127.0.0.1:0", "name": "http", "family": "inet", "kind": "stream", "host": "127.0.0.1", "port": 0,
        "path": "", "backlog": 16, "mode": 0o660, "gid": os.getegid(), "v6only": True, "freebind": False, "users": (),
    }  # fmt: skip
    return Socket(**(fields | words))  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "sockets").mkdir(mode=0o755)
    return tmp_path / "sockets"


def test_a_tcp_socket_listens_and_is_not_inherited() -> None:
    sock = listen.bind(spec(freebind=True))
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
    assert sock.getsockopt(socket.SOL_IP, listen.IP_FREEBIND) == 1
    assert not sock.get_inheritable()
    socket.create_connection(sock.getsockname(), 5).close()
    sock.close()


@pytest.mark.parametrize("v6only", [True, False])
def test_an_ipv6_socket_takes_ipv4_only_when_told(v6only: bool) -> None:
    sock = listen.bind(spec(family="inet6", host="::", v6only=v6only))
    port = sock.getsockname()[1]
    socket.create_connection(("::1", port), 5).close()
    if v6only:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
    else:
        socket.create_connection(("127.0.0.1", port), 5).close()
    sock.close()


def test_a_datagram_socket_is_bound_and_does_not_listen() -> None:
    sock = listen.bind(spec(kind="dgram"))
    assert sock.type == socket.SOCK_DGRAM
    assert listen.mend(sock.fileno(), 16) is False
    sock.close()


def test_c11_nobody_else_can_bind_where_datagrams_come_in_and_get_them() -> None:
    """Linux lets whoever says SO_REUSEADDR share the port of a datagram socket that said so too."""
    with listen.bind(spec(kind="dgram")) as ours, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="already in use"):
            theirs.bind(ours.getsockname())


def test_c12_a_unix_socket_never_has_another_mode(place: Path) -> None:
    path = place / "site.sock"
    sock = listen.bind(spec(family="unix", path=str(path), mode=0o640))
    found = path.lstat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert os.listdir(place) == ["site.sock"]
    sock.close()


@pytest.mark.root
def test_c12_a_unix_socket_has_its_group_from_the_beginning(place: Path) -> None:
    sock = listen.bind_unix(str(place / "x.sock"), socket.SOCK_STREAM, 12345, 0o660)
    assert (place / "x.sock").lstat().st_gid == 12345
    assert os.getegid() == 0
    sock.close()


def test_c12_a_unix_socket_that_cannot_be_had_leaves_group_and_mask_as_they_were(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socket", none_left)
    mask = os.umask(0o022)
    try:
        with pytest.raises(OSError, match="open files"):
            listen.bind_unix(str(place / "a.sock"), 1, 7, 0o660)
        assert (os.umask(0o022), os.getegid()) == (0o022, 0)
    finally:
        os.umask(mask)


def test_c11_a_stale_socket_is_replaced_but_nothing_else_is(place: Path) -> None:
    path = place / "site.sock"
    listen.bind(spec(family="unix", path=str(path))).close()
    listen.bind(spec(family="unix", path=str(path))).close()
    path.unlink()
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="not a socket"):
        listen.bind(spec(family="unix", path=str(path)))
    assert path.read_text() == "precious"


def test_e1_a_link_where_a_socket_should_be_is_refused(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (place / "site.sock").symlink_to(target)
    with pytest.raises(FileExistsError):
        listen.bind(spec(family="unix", path=str(place / "site.sock")))
    assert target.read_text() == "precious"


@pytest.mark.root
@pytest.mark.parametrize(("mode", "owner"), [(0o775, 0), (0o757, 0), (0o755, 4242)])
def test_a_directory_that_the_service_can_write_is_refused(place: Path, mode: int, owner: int) -> None:
    place.chmod(mode)
    os.chown(place, owner, 0)
    with pytest.raises(OSError, match=r"can be written by .*: choose one that is root's alone") as refused:
        listen.bind(spec(family="unix", path=str(place / "site.sock"), users=(4242,)))
    assert refused.value.errno not in (errno.EACCES, errno.EPERM), "no reload asks for root in vain"
    assert os.listdir(place) == []


def test_a_directory_that_is_missing_or_a_link_is_refused(place: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"its directory .*/no is missing: make it first"):
        listen.bind(spec(family="unix", path=str(place / "no" / "site.sock")))
    (place.parent / "link").symlink_to(place)
    with pytest.raises(NotADirectoryError):
        listen.bind(spec(family="unix", path=str(place.parent / "link" / "site.sock")))


def test_a_socket_that_was_shut_down_listens_again_and_blocks_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    sock = listen.bind(spec(port=address[1]))  # a port that was asked for stays with the socket through shutdown()
    sock.setblocking(False)
    sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 5)
    assert listen.mend(sock.fileno(), 16) is True
    socket.create_connection(address, 5).close()
    assert not fcntl.fcntl(sock.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
    assert listen.mend(sock.fileno(), 16) is False
    sock.close()


def test_a_socket_is_not_taken_for_a_spoilt_one_when_there_are_no_descriptors_left() -> None:
    """It would be shut down then, beneath those that are on it."""
    with listen.bind(spec()) as sock:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            assert listen.mend(sock.fileno(), 16) is False
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_d7_a_socket_that_was_connected_is_replaced() -> None:
    """After shutdown(2) a socket can be connected: then it will never listen again."""
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        spoilt = listen.bind(spec(port=port))
        spoilt.shutdown(socket.SHUT_RDWR)
        spoilt.connect(other.getsockname())
        with pytest.raises(OSError, match="Invalid argument"):
            listen.mend(spoilt.fileno(), 16)
        fresh = listen.renew(spoilt.fileno(), spec(port=port))
        socket.create_connection(("127.0.0.1", port), 5).close()
        fresh.close()
        spoilt.close()


@pytest.mark.parametrize("locked", [False, True])
def test_d7_a_filter_that_a_service_leaves_on_its_socket_drops_nothing_of_the_next_ones(locked: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    wanted = spec(port=address[1])
    spoilt = listen.bind(wanted)
    code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))  # BPF_RET: no byte of anything is taken
    spoilt.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HL", 1, ctypes.addressof(code)))  # SO_ATTACH_FILTER
    if locked:
        spoilt.setsockopt(socket.SOL_SOCKET, 44, 1)  # SO_LOCK_FILTER
    assert listen.mend(spoilt.fileno(), 16, block=False) is False, "others are on it"
    with pytest.raises(TimeoutError):
        socket.create_connection(address, 0.1)
    if locked:
        with pytest.raises(PermissionError):
            listen.mend(spoilt.fileno(), 16)
        fresh = listen.renew(spoilt.fileno(), wanted)
    else:
        assert listen.mend(spoilt.fileno(), 16) is False
        fresh = spoilt
    socket.create_connection(address, 5).close()
    for sock in (fresh, spoilt):
        sock.close()


def test_d7_a_unix_socket_that_was_shut_down_is_replaced(place: Path) -> None:
    path = str(place / "site.sock")
    spoilt = listen.bind(spec(family="unix", path=path))
    assert listen.mend(spoilt.fileno(), 16) is False
    spoilt.shutdown(socket.SHUT_RDWR)
    with pytest.raises(OSError, match="shutdown"):
        listen.mend(spoilt.fileno(), 16)
    fresh = listen.renew(spoilt.fileno(), spec(family="unix", path=path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    fresh.close()
    spoilt.close()


@pytest.mark.root
def test_e1_b3_a_folder_above_that_the_service_owns_is_refused(place: Path) -> None:
    """It could be renamed, and a link to another's sockets put in its place."""
    above, inner = place / "site", place / "site" / "run"
    inner.mkdir(parents=True)
    above.chmod(0o755)
    listen.bind(spec(family="unix", path=str(inner / "site.sock"), users=(4242,))).close()
    os.chown(above, 4242, 4242)
    with pytest.raises(OSError, match=r"uid 4242, whose .*/site is"):
        listen.bind(spec(family="unix", path=str(inner / "site.sock"), users=(4242,)))
    os.chown(above, 0, 0)
    above.chmod(0o777)
    with pytest.raises(OSError, match=r"everybody, as .*/site is"):
        listen.bind(spec(family="unix", path=str(inner / "site.sock"), users=(4242,)))
    os.chown(above, 0, 4242)
    above.chmod(0o775)
    with pytest.raises(OSError, match=r"its group, as .*/site is"):
        listen.bind(spec(family="unix", path=str(inner / "site.sock"), users=(4242,)))
    above.chmod(0o777)
    (place / "link").symlink_to(above)
    with pytest.raises(OSError, match=r"everybody, as .*/site is"):
        listen.bind(spec(family="unix", path=str(place / "link" / "run" / "site.sock"), users=(4242,)))
