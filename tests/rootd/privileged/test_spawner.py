"""rootd/privileged/spawner: the process that forks, what its children are given, and what is left when one ends."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from privileged_house import SERVICE_UID, House, entry

from rootd import confine, ipc
from rootd.privileged import cgroup, spawn, spawner
from rootd.privileged.spawner import Birth, Spawner

pytestmark = pytest.mark.root
WAIT = 20.0  # seconds before a test gives up


@pytest.fixture
def group() -> Iterator[str]:
    """A cgroup of our own; skipped where there is no cgroup2 tree."""
    if not (mount := cgroup.mount()):
        pytest.skip("no cgroup2 tree")
    path = f"{mount}/durward-test-fork-{os.getpid()}"
    os.mkdir(path)
    yield path
    os.rmdir(path)


def birth(program: str, group: str = "", env: tuple[str, ...] = (), newline: int = 0) -> Birth:
    ids = (SERVICE_UID, SERVICE_UID, 0o027, 1, 0, newline)
    return Birth(group, "/bin/sh", "/", ids, (), ((7, 64, -2),), ("sh", "-c", program), env)


def run(helper: Spawner, born: Birth, *more: int, stdin: int = -1) -> tuple[int, str]:
    """Exit status and output of one child, whose gate is opened. Its descriptors are ours no more."""
    reader, writer = os.pipe()
    gate, child_gate = socket.socketpair()
    with gate, child_gate, open(os.devnull, "r+b", buffering=0) as null:
        first = null.fileno() if stdin < 0 else stdin
        pid, pidfd = helper.spawn(born, (child_gate.fileno(), first, writer, writer, *more))
        os.close(writer)
        child_gate.close()
        gate.send(spawner.GATE_OPEN)
        with open(reader) as output:
            said = output.read()
        os.close(pidfd)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def test_a_child_is_ours_and_in_its_cgroup_from_its_first_moment(helper: Spawner, group: str) -> None:
    name = group.rpartition("/")[2]
    status, said = run(helper, birth("cat /proc/self/cgroup; echo parent $PPID", group))
    assert status == 0
    assert f"/{name}\n" in said
    assert f"parent {os.getpid()}\n" in said


def test_where_the_kernel_has_no_such_call_it_is_moved_into_its_cgroup(
    group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawner, "CLONE3", 1 << 20)  # the number of no call: ENOSYS, as filters of containers say
    helper = Spawner()
    helper.become(0, 0, (), confine.held(), keep_bounding=True)
    try:
        status, said = run(helper, birth("cat /proc/self/cgroup; echo parent $PPID", group))
    finally:
        helper.close()
    assert status == 0
    assert f"/{group.rpartition('/')[2]}\n" in said
    assert f"parent {os.getpid()}\n" in said


def test_what_is_no_cgroup_is_an_error_and_no_child(helper: Spawner, tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        helper.spawn(birth("true", str(tmp_path)), (0, 0, 1, 2))
    assert set(os.listdir("/proc/self/fd")) == before
    assert run(helper, birth("echo again")) == (0, "again\n")


def test_a_child_has_its_descriptors_and_no_others(helper: Spawner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        reader, writer = os.pipe()
        listing = "umask; ulimit -n; echo x >&9; exec ls -l /proc/self/fd"
        given = (writer, one.fileno(), two.fileno())
        status, said = run(helper, birth(listing, newline=9), *given)
        os.close(writer)
        assert (status, os.read(reader, 10)) == (0, b"x\n")
        os.close(reader)
        umask, nofile, _, *rows = said.splitlines()
        inodes = [f"socket:[{os.fstat(sock.fileno()).st_ino}]" for sock in (one, two)]
    links = [row.split()[-3::2] for row in rows]
    found = {number: to for number, to in links if not to.endswith("/fd")}  # which ls has opened
    assert found["0"] == "/dev/null"
    assert [found["3"], found["4"]] == inodes
    assert set(found) == {"0", "1", "2", "3", "4", "9"}
    assert (umask, nofile) == ("0027", "64")


def test_a_socket_may_be_its_standard_input_and_the_spawner_keeps_none(helper: Spawner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        before = None
        for _ in range(3):
            born = birth("readlink /proc/self/fd/0 /proc/self/fd/3")
            status, said = run(helper, born, two.fileno(), stdin=one.fileno())
            inodes = [f"socket:[{os.fstat(sock.fileno()).st_ino}]" for sock in (one, two)]
            assert (status, said.split()) == (0, inodes)
            held = sorted(os.listdir(f"/proc/{helper.pid}/fd"))
            assert before in (None, held)
            before = held


def test_a_birth_of_megabytes_arrives_whole(helper: Spawner) -> None:
    values = tuple(f"V{index}={'x' * 100_000}" for index in range(12))
    status, said = run(helper, birth("env | wc -c", env=values))
    assert status == 0
    assert int(said) > 1_200_000


def test_a_child_whose_gate_closes_never_becomes_its_service(helper: Spawner) -> None:
    gate, child_gate = socket.socketpair()
    with open(os.devnull, "wb") as null:
        pid, pidfd = helper.spawn(birth("exit 0"), (child_gate.fileno(), *[null.fileno()] * 3))
    child_gate.close()
    gate.close()
    os.close(pidfd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == spawner.FAILED


def test_a_spawner_says_nothing_when_privileged_is_killed_before_it_has_heard_the_answer(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", open(2, "w", buffering=1, closefd=False))  # noqa: SIM115 (nothing to close)
    helper = Spawner()
    helper.become(0, 0, (), confine.held(), keep_bounding=True)
    spawner.send(helper.sock, b"nonsense", ())
    assert ipc.wait(helper.sock, seconds=WAIT), "it has not answered"
    helper.close()
    assert capfd.readouterr().err == ""


def test_a_null_device_that_cannot_be_opened_is_what_the_failure_names(tmp_path: Path) -> None:
    """In mounts of its own; a file system without devices refuses root too: mount(2) MS_NODEV."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            assert ctypes.CDLL(None).unshare(0x20000) == 0  # CLONE_NEWNS
            for words in (("--make-rprivate", "/"), ("-t", "tmpfs", "-o", "nodev", "tmpfs", str(tmp_path))):
                subprocess.run(["mount", *words], check=True)
            os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
            subprocess.run(["mount", "--bind", str(tmp_path / "null"), "/dev/null"], check=True)
            before = set(os.listdir("/proc/self/fd"))
            with pytest.raises(spawn.SpawnFailed) as failed:
                spawn.spawn(
                    entry(), slot=0, run=1, generation=1, sockets={}, paths=(str(tmp_path), ""), probe_gid=0, about=0,
                    store=lambda _: None, helper=Spawner(),
                )  # fmt: skip
            assert (failed.value.errno, failed.value.step) == (errno.EACCES, ipc.STEPS.index("/dev/null"))
            assert len(set(os.listdir("/proc/self/fd")) - before) <= 1, "the spawner's"
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_too_many_sockets_are_refused_and_nothing_is_left(helper: Spawner) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="too many sockets"):
        helper.spawn(birth("true"), (0,) * spawner.FDS_LIMIT)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_birth_that_cannot_be_is_refused_and_the_next_one_is_made(helper: Spawner) -> None:
    ids = (SERVICE_UID, SERVICE_UID, 0o027, 1, 0, 0)
    wrong = Birth("", "/bin/sh", "/", ids, (), ((99, 1, 1),), ("sh",), ())  # no such limit
    with pytest.raises(OSError, match="Invalid argument"):
        helper.spawn(wrong, (0, 0, 1, 2))
    assert run(helper, birth("echo again")) == (0, "again\n")


def test_signals_that_this_process_ignores_or_blocks_are_not_handed_on() -> None:
    """As nohup and others start us: SIGHUP ignored, and whatever else; Python ignores SIGPIPE."""
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1,))
    try:
        helper = Spawner()
    finally:
        signal.signal(signal.SIGHUP, old)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR1,))
    helper.become(0, 0, (), confine.held(), keep_bounding=True)
    found_none = run(helper, birth("exec grep -E '^Sig(Blk|Ign):.*[1-9a-f]' /proc/self/status"))
    helper.close()
    assert found_none == (1, "")


def test_when_it_ends_so_does_privileged_and_the_services_live_on(build: Callable[..., House]) -> None:
    house = build(entry("import signal; print('up', flush=True); signal.pause()"))
    spawned = house.spawn()
    with open(f"/proc/{house.pid}/task/{house.pid}/children") as children:
        helper = next(pid for pid in children.read().split() if int(pid) != spawned.arg)
    os.kill(int(helper), signal.SIGKILL)
    assert ipc.wait(house.pidfd, seconds=WAIT)
    house.wait()
    house.start()
    assert house.hear(ipc.FACT, run=spawned.run)[0].arg == spawned.arg
