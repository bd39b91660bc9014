"""The walls: the filter by an interpreter of its own, for every number, and the real thing in real processes."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rootd import confine, landlock, sandbox

UID = 61_011  # of nobody's
HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}  # fmt: skip
NAMES = {*sandbox.ALWAYS, *sandbox.WRITING}
ALL = r"socket\(AF_INET\), socket\(AF_INET6\), socket\(AF_UNIX\), socket\(AF_NETLINK\)"
ALLOW, KILL = sandbox.ALLOW, sandbox.KILL_PROCESS
EPERM, ENOSYS = sandbox.ERRNO | errno.EPERM, sandbox.ERRNO | errno.ENOSYS


def in_a_process(act: Callable[[], Any]) -> Any:
    """What act returns, in a forked process that is no longer root; what it raises, as text, raises here."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        end = 1
        try:
            try:
                confine.become(UID, UID, ())
                answer = [True, act()]
            except BaseException as error:
                answer = [False, f"{type(error).__name__}: {error}"]
            os.write(writer, json.dumps(answer).encode())
            end = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(end)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    fine, answer = json.loads(said)
    if not fine:
        raise RuntimeError(answer)
    return answer


def number_of(act: Callable[[], object]) -> int:
    """The errno that it fails with; 0 when it does not fail."""
    try:
        act()
    except OSError as error:
        return error.errno or -1
    return 0


def syscall(*words: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(*(ctypes.c_long(word) for word in words)) < 0:
        raise OSError(ctypes.get_errno(), "syscall")


def decide(filters: list[sandbox.Instruction], number: int, architecture: int, *arguments: int) -> int:
    """What the kernel would: bpf(2), for the instructions that are used."""
    words = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    packed = struct.pack("<IIQ6Q", number, architecture, 0, *words)
    data = dict(zip(range(0, 64, 4), struct.unpack("<16I", packed), strict=True))
    loaded, at = 0, 0
    while True:
        code, if_true, if_false, operand = filters[at]
        at += 1
        if code == sandbox.RETURN:
            return operand
        if code == sandbox.LOAD:
            loaded = data[operand]
            continue
        if code == sandbox.JUMP_EQUAL:
            holds = loaded == operand
        elif code == sandbox.JUMP_AT_LEAST:
            holds = loaded >= operand
        else:
            assert code == sandbox.JUMP_BITS
            holds = loaded & operand != 0
        at += if_true if holds else if_false


@pytest.fixture(params=sorted(sandbox.MACHINES))
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=request.param))
    return str(request.param)


@pytest.mark.parametrize("name", sorted(HEADERS))
def test_every_number_is_what_the_kernels_header_says(name: str) -> None:
    header = Path(HEADERS[name])
    if not header.is_file():
        pytest.skip(f"{header} comes with linux-libc-dev")
    said = dict(re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text(), re.MULTILINE))
    said |= {"newfstatat": said.get("newfstatat", said.get("fstatat", ""))}
    ours = {call: numbers[sandbox.MACHINES[name][0]] for call, numbers in sandbox.NUMBERS.items()}
    assert {call: said.get(call, "-1") for call in ours} == {call: str(number) for call, number in ours.items()}


@pytest.mark.parametrize("fork", [False, True])
def test_of_all_numbers_exactly_those_that_are_named_are_allowed(machine: str, fork: bool) -> None:
    column, architecture = sandbox.MACHINES[machine]
    names = {*NAMES, *(sandbox.FORKING if fork else ())}
    filters = sandbox.program(names, (socket.AF_UNIX,), streams=fork)
    allowed = {number for number in range(1024) if decide(filters, number, architecture) == ALLOW}
    checked = {sandbox.NUMBERS[name][column] for name in ("socket", "ioctl", "prlimit64", "shutdown")}
    wanted = {sandbox.NUMBERS[name][column] for name in names} - {-1} - checked
    assert allowed - checked == wanted
    assert decide(filters, sandbox.NUMBERS["clone3"][column], architecture) == ENOSYS
    for name in ("execve", "ptrace", "connect", "bind", "kill", "prctl", "setsid", "setpgid", "setpriority"):
        assert decide(filters, sandbox.NUMBERS[name][column], architecture) == EPERM, name
    options = {n for n in range(1024) if decide(filters, sandbox.NUMBERS["prctl"][column], architecture, n) == ALLOW}
    assert options == ({sandbox.PDEATHSIG} if fork else set())


def test_the_calls_of_another_architecture_end_the_process(machine: str) -> None:
    filters = sandbox.program(NAMES, ())
    for other in (0, 0x40000003, *(arch for name, (_, arch) in sandbox.MACHINES.items() if name != machine)):
        assert {decide(filters, number, other) for number in range(1024)} == {KILL}


def test_the_numbers_with_the_bit_of_x32_are_refused(machine: str) -> None:
    filters = sandbox.program(NAMES, ())
    for number in (*range(sandbox.X32, sandbox.X32 + 600), 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        assert decide(filters, number, sandbox.MACHINES[machine][1]) == EPERM


def test_sockets_of_the_families_that_are_listed_and_no_others(machine: str) -> None:
    column, architecture = sandbox.MACHINES[machine]
    call = sandbox.NUMBERS["socket"][column]
    for listed in ((), (1,), (1, 16)):
        filters = sandbox.program(NAMES, listed)
        assert {family for family in range(64) if decide(filters, call, architecture, family) == ALLOW} == set(listed)


def test_streams_alone_where_it_is_said(machine: str) -> None:
    (column, arch), call = sandbox.MACHINES[machine], sandbox.NUMBERS["socket"]
    filters = sandbox.program(NAMES, (1, 2), streams=True)
    pairs = ((family, kind) for family in range(64) for kind in range(1, 16))
    assert [p for p in pairs if decide(filters, call[column], arch, p[0], p[1] | 0x80800) == ALLOW] == [(1, 1), (2, 1)]


def test_only_harmless_ioctls(machine: str) -> None:
    column, architecture = sandbox.MACHINES[machine]
    filters = sandbox.program(NAMES, ())
    call = sandbox.NUMBERS["ioctl"][column]
    allowed = {word for word in range(0x10000) if decide(filters, call, architecture, 0, word) == ALLOW}
    assert allowed == set(sandbox.IOCTLS)
    assert 0x5412 not in allowed  # TIOCSTI types into the terminal of whoever started the daemon


def test_a_limit_may_be_read_and_not_set(machine: str) -> None:
    column, architecture = sandbox.MACHINES[machine]
    filters = sandbox.program(NAMES, ())
    call = sandbox.NUMBERS["prlimit64"][column]
    assert decide(filters, call, architecture, 0, 7, 0, 0x7FFF00001000) == ALLOW
    for pointer in (1, 0x7FFF00001000, 0x7FFF00000000, 1 << 63):
        assert decide(filters, call, architecture, 0, 7, pointer, 0) == EPERM, hex(pointer)
        named = sandbox.program({*NAMES, "prlimit64"}, ())  # by a child that bounds itself
        assert decide(named, call, architecture, 0, 7, pointer, 0) == ALLOW
        assert decide(named, call, architecture, 1234, 7, pointer, 0) == EPERM, "another of the same account"


def test_who_may_lower_priorities_lowers_its_own(machine: str) -> None:
    column, architecture = sandbox.MACHINES[machine]
    filters = sandbox.program({*NAMES, "setpriority"}, ())
    call = sandbox.NUMBERS["setpriority"][column]
    assert [decide(filters, call, architecture, 0, who, 19) for who in (0, 1, 1234)] == [ALLOW, EPERM, EPERM]


@pytest.mark.root
def test_how_many_descriptors_there_may_be_is_known_inside() -> None:
    """What is unknown is 256 to sysconf, and closing all but a few would leave the others open."""
    import resource

    def act() -> list[int]:
        sandbox.enter()
        number = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, number)
        except (OSError, ValueError):
            return [os.sysconf("SC_OPEN_MAX")]
        return [-1]

    assert in_a_process(act) == [resource.getrlimit(resource.RLIMIT_NOFILE)[0]]


def test_a_fork_makes_no_namespace(machine: str) -> None:
    column, architecture = sandbox.MACHINES[machine]
    filters = sandbox.program({*NAMES, "clone"}, ())
    call = sandbox.NUMBERS["clone"][column]
    assert decide(filters, call, architecture, 0x01200011) == ALLOW  # what fork(3) of glibc asks for
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(filters, call, architecture, flag | 17) == EPERM, hex(flag)


def test_the_filter_has_a_size_that_the_kernel_takes(machine: str) -> None:
    filters = sandbox.program({*sandbox.NUMBERS}, tuple(range(20)))
    assert len(filters) <= 4096
    assert all(0 <= jump <= 255 for _, *jumps, _ in filters for jump in jumps)


def test_the_self_test_fails_where_there_is_no_sandbox() -> None:
    with pytest.raises(
        RuntimeError, match=f"does not hold: execve, {ALL}, ptrace, open of a path that is not listed is possible"
    ):
        in_a_process(lambda: sandbox.self_test(True))


@pytest.mark.root
def test_a_process_whose_filter_is_absent_does_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "install", lambda _filters: None)
    with pytest.raises(RuntimeError, match=f"does not hold: execve, {ALL}, ptrace is possible"):
        in_a_process(sandbox.enter)


@pytest.mark.root
def test_a_process_whose_files_are_open_does_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "restrict_files", lambda *_: True)
    with pytest.raises(RuntimeError, match="does not hold: open of a path that is not listed is possible"):
        in_a_process(sandbox.enter)


@pytest.mark.root
@pytest.mark.parametrize("missing", ["execve", "ptrace"])
def test_a_filter_with_a_hole_is_found(missing: str) -> None:
    with pytest.raises(RuntimeError, match=f"does not hold: {missing} is possible"):
        in_a_process(lambda: sandbox.enter(allow=(missing,)))


@pytest.mark.root
def test_a_kernel_without_landlock_is_said_and_everything_else_stands(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(landlock, "version", lambda: -1)
    monkeypatch.setattr(sandbox, "install", lambda _filters: None)
    with pytest.raises(RuntimeError, match=r"execve.*ptrace is possible"):
        in_a_process(sandbox.enter)
    assert "no Landlock" in capfd.readouterr().err


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    """One to read, one to write; reachable for everybody."""
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o755)
    read, write = tmp_path / "read", tmp_path / "write"
    for folder in (read, write):
        folder.mkdir()
        (folder / "file").write_text("here")
        os.chown(folder, UID, UID)
        os.chown(folder / "file", UID, UID)
    return str(read), str(write)


@pytest.mark.root
def test_what_an_event_loop_does_is_possible_inside(folders: tuple[str, str]) -> None:
    read, write = folders

    def act() -> str:
        import select
        import time

        sandbox.enter(read=(read,), write=(write,), sockets=(socket.AF_UNIX,))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with select.epoll() as poll:
            poll.register(theirs, select.EPOLLIN)
            ours.sendmsg([b"hello"])
            assert poll.poll(5.0)
        assert theirs.recvmsg(16)[0] == b"hello"
        with open(f"{write}/new", "w") as new:
            new.write("written")
        os.rename(f"{write}/new", f"{write}/renamed")
        os.mkdir(f"{write}/folder")
        with open(f"{write}/renamed") as again:
            assert again.read() == "written"
        os.unlink(f"{write}/renamed")
        with open(f"{read}/file") as file:
            text = file.read()
        assert os.listdir(read) == ["file"]
        assert time.clock_gettime(time.CLOCK_BOOTTIME) > 0
        assert len(os.urandom(8)) == 8
        assert len(bytearray(8 << 20)) == 8 << 20
        return text

    assert in_a_process(act) == "here"


@pytest.mark.root
def test_everything_else_is_impossible_inside(folders: tuple[str, str]) -> None:
    read, write = folders
    parent = os.getpid()
    column = sandbox.MACHINES[os.uname().machine][0]

    def act() -> dict[str, int]:
        sandbox.enter(read=(read,), write=(write,))
        return {
            "execve": number_of(lambda: os.execv("/bin/true", ["true"])),
            "fork": number_of(os.fork),
            "inet": number_of(lambda: socket.socket(socket.AF_INET)),
            "unix": number_of(lambda: socket.socket(socket.AF_UNIX)),
            "netlink": number_of(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
            "kill": number_of(lambda: os.kill(parent, 0)),
            "ptrace": number_of(lambda: syscall(sandbox.NUMBERS["ptrace"][column], 16, parent, 0, 0)),
            "setuid": number_of(lambda: os.setuid(0)),
            "chmod": number_of(lambda: os.chmod(f"{write}/file", 0o4755)),
            "chown": number_of(lambda: os.chown(f"{write}/file", 0, 0)),
            "mount": number_of(lambda: syscall(165 if column == 0 else 40, 0, 0, 0, 0, 0)),
            "bpf": number_of(lambda: syscall(321 if column == 0 else 280, 0, 0, 0)),
            "io_uring": number_of(lambda: syscall(425, 1, 0)),
            "write to what may be read": number_of(lambda: os.open(f"{read}/file", os.O_WRONLY)),
            "make a file there": number_of(lambda: os.open(f"{read}/new", os.O_WRONLY | os.O_CREAT)),
            "passwd": number_of(lambda: os.open("/etc/passwd", os.O_RDONLY)),
            "out of the folder": number_of(lambda: os.open(f"{write}/../../x", os.O_WRONLY | os.O_CREAT)),
            "proc": number_of(lambda: os.open("/proc/self/environ", os.O_RDONLY)),
            "tmp": number_of(lambda: os.open("/tmp/durward-no", os.O_WRONLY | os.O_CREAT)),
        }

    refused = in_a_process(act)
    files = ("write to what may be read", "make a file there", "passwd", "out of the folder", "proc", "tmp")
    assert {name: number for name, number in refused.items() if name not in files} == dict.fromkeys(
        set(refused) - set(files), errno.EPERM
    )
    assert {name: refused[name] for name in files} == dict.fromkeys(files, errno.EACCES)


@pytest.mark.root
def test_what_proc_says_of_it() -> None:
    def act() -> list[str]:
        sandbox.enter(read=("/proc",))
        with open("/proc/self/status") as status:
            found = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
        with open("/proc/self/limits") as limits:
            core = next(line for line in limits if line.startswith("Max core file size"))
        return [found["NoNewPrivs"], found["Seccomp"], *core.split()[4:6]]

    assert in_a_process(act) == ["1", "2", "0", "0"]


@pytest.mark.root
def test_a_path_that_is_not_there_is_no_hindrance_and_a_file_can_be_listed(folders: tuple[str, str]) -> None:
    read, _ = folders

    def act() -> list[int]:
        sandbox.enter(read=("/nonexistent/durward", f"{read}/file"), write=("/dev/null",))
        return [
            number_of(lambda: os.close(os.open(f"{read}/file", os.O_RDONLY))),
            number_of(lambda: os.listdir(read)),
            number_of(lambda: os.close(os.open("/dev/null", os.O_RDWR))),
        ]

    assert in_a_process(act) == [0, errno.EACCES, 0]
