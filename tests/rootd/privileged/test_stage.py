"""rootd/privileged/stage: the throw-away child, sealed tables, the one instance, directories and doors."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lingering import rights

from rootd import confine, ipc, sealed
from rootd.config import settings as settings_file
from rootd.privileged import stage, strangers


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="durward-stage-", dir="/run" if os.geteuid() == 0 else None) as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def loop() -> Iterator[ipc.Loop]:
    loop = ipc.Loop()
    yield loop
    while stage.LATE:
        loop.turn()
    loop.close()


def settings_for(place: Path, local: str = "password") -> settings_file.Settings:
    roles = ("privileged", "supervisor", "auth", "log", "probe", "api")
    accounts = {role: settings_file.Account(role, 62000 + n, 62000 + n, ()) for n, role in enumerate(roles)}
    paths = settings_file.Paths(f"{place}/run", f"{place}/log", f"{place}/state")
    auth = settings_file.Auth("none", "none", local, 60.0, 60.0)
    return settings_file.Settings(str(place), paths, accounts, auth, None, settings_file.Audit("refuse"))


def test_b6_a_configuration_that_cannot_be_used_is_invalid_and_its_bundle_says_why(place: Path, loop: ipc.Loop) -> None:
    word, fds = stage.Staging(str(place / "nowhere"), sys.executable).wait(loop)
    assert word.op == ipc.TABLE
    assert word.flags & ipc.INVALID
    assert len(fds) == 1
    table, _, bundle = sealed.content(fds[0]).partition(b"\n")
    assert table == b""
    assert b"nowhere" in bundle
    ipc.close_all(fds)


def test_d4_a_child_has_nothing_of_ours_but_its_link_however_many_descriptors_are_open(
    place: Path, loop: ipc.Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than select(2) knows, too: a privileged that holds a thousand sockets can stage."""
    told, tell = os.pipe()
    os.dup2(tell, 2_000)

    def gather(*_: object) -> None:
        open_now = sorted(int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2)
        (place / "open").write_text(repr(open_now))
        raise SystemExit

    monkeypatch.setattr("rootd.config.gather.gather", gather)
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    many = [os.dup(told) for _ in range(1_100)]
    word, fds = stage.Staging(str(place), sys.executable).wait(loop)
    ipc.close_all((*many, told, tell, 2_000))
    assert (word.op, fds) == (ipc.DONE, [])
    assert (place / "open").read_text() == "[3, 4]"  # 4 is that of the listing


@pytest.mark.root
def test_who_reads_and_asks_for_names_has_none_of_the_capabilities_that_privileged_keeps(
    place: Path, loop: ipc.Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.chmod(0o777)

    def gather(*_: object) -> None:
        (place / "sets").write_text(repr({name: confine.sets()[name] for name in ("CapPrm", "CapEff", "CapInh")}))
        raise SystemExit

    monkeypatch.setattr("rootd.config.gather.gather", gather)
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    if (pid := os.fork()) == 0:
        status = 1
        try:
            confine.become(62000, 62000, (), keep=(5, 6, 7))
            stage.Staging(str(place), sys.executable).wait(loop)
            status = 0 if confine.sets()["CapEff"] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (place / "sets").read_text() == "{'CapPrm': 0, 'CapEff': 0, 'CapInh': 0}"


def test_a_child_that_hangs_is_ended_and_counts_as_too_late(
    place: Path, loop: ipc.Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "TIME_LIMIT", 0.05)
    monkeypatch.setattr(stage, "compile_in_child", lambda *_: signal.pause())
    word, fds = stage.Staging(str(place), sys.executable).wait(loop)
    assert (word.op, word.arg, fds) == (ipc.DONE, errno.ETIMEDOUT, [])


def test_a_child_that_fails_leaves_nothing_behind(place: Path, loop: ipc.Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(stage, "compile_in_child", lambda *_: os._exit(3))
    staging = stage.Staging(str(place), sys.executable)
    select.select([staging.link], [], [], 20)
    assert staging.finish(loop)[0].op == ipc.DONE
    loop.turn()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.root
def test_nobody_waits_for_a_child_that_cannot_be_killed_and_few_can_hang_so(
    place: Path, loop: ipc.Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that a tracer stops at its end stands for one that hangs in a file server: ptrace(2) PTRACE_O_TRACEEXIT."""
    monkeypatch.setattr(stage, "compile_in_child", lambda *_: signal.pause())
    monkeypatch.setattr(stage, "LATE_LIMIT", 1)
    staging = stage.Staging(str(place), sys.executable)
    begun, begin = os.pipe()
    if (tracer := os.fork()) == 0:
        ptrace = ctypes.CDLL(None).ptrace
        ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        os.write(begin, b"y" if ptrace(0x4206, staging.pid, None, 0x40) == 0 else b"n")  # PTRACE_SEIZE
        signal.pause()
    assert os.read(begun, 1) == b"y"
    word, fds = staging.finish(loop)
    assert (word.op, word.arg, fds) == (ipc.DONE, errno.ETIMEDOUT, [])
    with pytest.raises(BlockingIOError):
        stage.Staging(str(place), sys.executable)
    os.kill(tracer, signal.SIGKILL)
    os.waitpid(tracer, 0)
    loop.turn(20.0)
    assert not Path(f"/proc/{staging.pid}").exists(), "it has been waited for"
    ipc.close_all((begun, begin))
    stage.Staging(str(place), sys.executable).finish(loop)
    loop.turn(20.0)


def test_a_child_that_was_buried_with_strangers_is_not_waited_for_twice(place: Path, loop: ipc.Loop) -> None:
    staging = stage.Staging(str(place), sys.executable)
    staging.finish(loop)
    assert ipc.wait(staging.pidfd, seconds=20.0)
    strangers.bury(set())
    assert not Path(f"/proc/{staging.pid}").exists()
    loop.turn(20.0)
    assert not stage.LATE


@pytest.mark.root
def test_each_part_has_its_directory_and_no_other(place: Path) -> None:
    settings = settings_for(place)
    for _ in range(2):
        stage.make_directories(settings)
    found = {}
    for path in sorted(p for p in place.rglob("*") if p.is_dir()):
        status = path.stat()
        found[str(path.relative_to(place))] = (status.st_uid, status.st_gid, oct(stat.S_IMODE(status.st_mode)))
    assert found == {
        "run": (0, 0, "0o755"), "run/sockets": (62000, 0, "0o755"), "run/notify": (62000, 0, "0o755"),
            "run/credentials": (62000, 0, "0o711"),
        "run/probe": (62000, 62004, "0o750"),
        "run/supervisor": (62001, 62001, "0o700"), "run/auth": (62002, 62002, "0o700"),
        "run/log": (62003, 62003, "0o700"),
        "log": (62003, 62001, "0o2750"), "log/audit": (62003, 62001, "0o2750"),
        "state": (0, 0, "0o755"), "state/log": (62003, 62003, "0o700"),
        "state/auth": (62002, 62002, "0o700"), "state/choices": (62003, 62001, "0o2750"),
    }  # fmt: skip


@pytest.mark.root
@pytest.mark.parametrize("which", ["run", "log", "state"])
def test_e1_nothing_is_made_where_somebody_else_could_put_something_in_its_place(place: Path, which: str) -> None:
    (place / "open").mkdir()
    (place / "open").chmod(0o1777)
    settings = settings_for(place)
    path = f"{place}/open/{which}"
    settings = settings._replace(paths=settings.paths._replace(**{which: path}))
    with pytest.raises(PermissionError, match=r"/open can be written by everybody .*: choose another place") as refused:
        stage.make_directories(settings)
    assert refused.value.filename == path
    assert sorted(os.listdir(place)) == ["open"]
    assert os.listdir(place / "open") == []


@pytest.mark.root
def test_b3_a_link_where_a_directory_should_be_is_refused_and_its_target_untouched(place: Path) -> None:
    (place / "elsewhere").mkdir(mode=0o755)
    (place / "log").symlink_to(place / "elsewhere")
    with pytest.raises(PermissionError, match=r"/log is a symbolic link: choose another place"):
        stage.make_directories(settings_for(place))
    assert (place / "elsewhere").stat().st_uid == 0


@pytest.mark.root
@pytest.mark.parametrize(("local", "extra"), [("password", set()), ("peer", {"door/peer"})])
def test_c12_the_doors_have_their_groups_and_modes(place: Path, local: str, extra: set[str]) -> None:
    settings = settings_for(place, local)
    stage.make_directories(settings)
    doors = stage.open_doors(settings)
    assert set(doors) == {"door/control", "door/root", "door/auth"} | extra
    found = {
        p.name: (p.stat().st_uid, p.stat().st_gid, stat.S_IMODE(p.stat().st_mode))
        for p in (place / "run").glob("*.sock")
    }
    expected = {"control.sock": (0, 62005, 0o660), "auth.sock": (0, 62005, 0o660), "root.sock": (0, 0, 0o600)}
    assert found == expected | ({"peer.sock": (0, 0, 0o666)} if extra else {})
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(str(place / "run" / "root.sock"))
        with contextlib.suppress(OSError):  # before Linux 6.16 there is no such option
            client.getsockopt(socket.SOL_SOCKET, ipc.SO_PASSRIGHTS)
            with pytest.raises(PermissionError):
                client.sendmsg([b"x"], rights(client))
    ipc.close_all(doors.values())


def test_one_run_directory_has_one_instance(place: Path) -> None:
    first = stage.lock(str(place))
    with pytest.raises(BlockingIOError):
        stage.lock(str(place))
    os.close(first)
    os.close(stage.lock(str(place)))


def test_what_a_supervisor_wrote_in_another_boot_counts_no_more(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = place / "supervisor"
    kept.mkdir()
    monkeypatch.setattr(stage, "BOOT_ID", str(place / "boot"))
    monkeypatch.setattr(os, "getppid", lambda: 4242)  # not in a container

    def start(boot: str) -> list[str]:
        (place / "boot").write_text(boot)
        os.close(stage.lock(str(place)))
        return sorted(os.listdir(kept))

    (kept / "state.json").write_text("{}")
    assert start("first") == ["state.json"], "nothing says that it is of another"
    (kept / "approvals.json").write_text("{}")
    assert start("first") == ["approvals.json", "state.json"]
    assert start("other") == []
    (kept / "state.json").write_text("{}")
    assert start("other") == ["state.json"]
