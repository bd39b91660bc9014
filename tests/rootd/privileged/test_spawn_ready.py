"""rootd/privileged/spawn: the descriptors by which a process says, or is asked, that it is ready, and its output."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable

import pytest
from privileged_house import PRIVILEGED_UID, SERVICE_UID, House, entry, tcp_socket

from rootd import ipc

pytestmark = pytest.mark.root
Build = Callable[..., House]

NEWLINE = """
import os, signal
os.write(7, b"almost\\n")
print(sorted(os.listdir("/proc/self/fd")), flush=True)
signal.pause()
"""


def test_the_pipe_for_a_newline_is_the_descriptor_that_its_entry_says_and_goes_to_the_supervisor(build: Build) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        spec = tcp_socket("http", free.getsockname()[1])
    house = build(entry(NEWLINE, sockets=(("http", spec.key),), ready_fd=7), sockets=(spec,))
    run = house.spawn().run
    channel, [reader] = house.hear(ipc.CHANNEL)
    assert (channel.run, channel.scope) == (run, ipc.READY)
    assert os.read(reader, 100) == b"almost\n"
    assert os.read(house.output(run)[1], 100) == b"['0', '1', '2', '3', '4', '7']\n", "4 is the list's own"
    house.kill()
    house.start()
    again, [other] = house.hear(ipc.CHANNEL)
    assert (again.run, again.scope) == (run, ipc.READY)
    assert os.fstat(other).st_ino == os.fstat(reader).st_ino
    house.ask(ipc.SIGNAL, run=run, arg=9, scope=ipc.TREE)
    while not select.select([house.store_pidfd(run)], [], [], 0.1)[0]:
        continue
    house.reap_orphans()
    house.finish(run)
    assert os.read(reader, 100) == b"", "nobody else has the other end"
    assert not [name for name in house.store if name.startswith("notify/")]
    ipc.close_all((reader, other))


PROBED = """
import os, signal, socket
sock = socket.socket(fileno=4)
print(os.environ["LISTEN_FDS"], os.environ["LISTEN_FDNAMES"], flush=True)
sock.accept()[0].send(b"me")
signal.pause()
"""


def connect_as(uid: int, path: str) -> int:
    """The errno of a connection by a process of this user and group, 0 when it was answered."""
    pid = os.fork()
    if pid == 0:
        number = 255
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(20)
                sock.connect(path)
                number = 0 if sock.recv(2) == b"me" else 254
        except OSError as error:
            number = error.errno or 255
        os._exit(number)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_probe_socket_is_the_last_one_and_only_checks_connect_to_it(build: Build) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        spec = tcp_socket("http", free.getsockname()[1])
    house = build(entry(PROBED, sockets=(("http", spec.key),), probe=True, count=2), sockets=(spec,))
    run, other = house.spawn().run, house.spawn(slot=1).run
    assert os.read(house.output(run)[1], 100) == b"2 http:probe\n"
    path = house.directory / "probe" / str(run)
    found = path.lstat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o660, PRIVILEGED_UID, PRIVILEGED_UID)
    assert connect_as(SERVICE_UID, str(path)) == errno.EACCES
    assert connect_as(PRIVILEGED_UID, str(path)) == 0
    assert sorted(os.listdir(path.parent)) == sorted((str(run), str(other)))
    with open("/proc/net/unix") as table:
        inodes = {line.split()[6] for line in table if line.strip().endswith(f"/probe/{run}.new")}
    held = {os.readlink(f"/proc/{house.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{house.pid}/fd")}
    assert inodes
    assert not held & {f"socket:[{inode}]" for inode in inodes}, "privileged keeps no end"
    house.ask(ipc.SIGNAL, run=run, arg=9, scope=ipc.TREE)
    house.finish(run)
    assert os.listdir(path.parent) == [str(other)]


OPENER = """
import os, signal
with open("/dev/stdout", "w") as opened:
    opened.write("by its path\\n")
try:
    os.open("/dev/stdout", os.O_RDONLY)
except PermissionError:
    print("and cannot read it", flush=True)
signal.pause()
"""


def test_a_process_can_open_its_output_by_its_path_to_write_and_not_to_read(build: Build) -> None:
    house = build(entry(OPENER))
    run = house.spawn().run
    output, text = house.output(run)[1], b""
    while not text.endswith(b"read it\n"):
        text += os.read(output, 100)
    assert text == b"by its path\nand cannot read it\n"
    house.ask(ipc.SIGNAL, run=run, arg=9, scope=ipc.TREE)
    house.finish(run)
