"""userapi/cli/machine: what a kernel does not give is forbidden, taken away or filled up, in a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from rootd import sandbox
from rootd.__main__ import NEEDED
from userapi.cli import machine
from userapi.cli.machine import OK, PROBLEM, WARNING

SCRIPT = """
import ctypes, errno, json, os, resource
from rootd import sandbox
from userapi.cli import machine
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    assert result == 0, os.strerror(ctypes.get_errno())
def forbid(*numbers, argument=None):
    sandbox.prctl(38, 1)
    rows = [(sandbox.LOAD, 0, 0, 0)]
    for number in numbers:
        rows += [(sandbox.JUMP_EQUAL, 0, 1, number), (sandbox.RETURN, 0, 0, sandbox.ERRNO | errno.EPERM)]
    sandbox.install([*rows, (sandbox.RETURN, 0, 0, sandbox.ALLOW)])
def alone():
    check(libc.unshare(0x20000))
    check(libc.mount(None, b"/", None, 0x44000, None))
"""


def found(prepare: str, look: str) -> list[tuple[str, str]]:
    """Level and text of each finding of `look`, in a process that has done `prepare` to itself."""
    code = f"{SCRIPT}\n{prepare}\nprint(json.dumps([(one.level, one.text) for one in {look}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [(level, text) for level, text in json.loads(done.stdout)]


def number(name: str) -> int:
    return sandbox.NUMBERS[name][sandbox.MACHINES[os.uname().machine][0]]


@pytest.mark.parametrize(
    ("syscall", "level", "words"),
    [
        (number("pidfd_open"), PROBLEM, "no pidfd (Operation not permitted)"),
        (number("memfd_create"), PROBLEM, "no sealed memfds"),
        (number("prctl"), PROBLEM, "no seccomp filters"),
        (machine.CLONE3, WARNING, "no clone3"),
        (machine.LANDLOCK_CREATE_RULESET, WARNING, "no Landlock"),
    ],
)
def test_what_the_kernel_refuses_is_found_by_trying_it(syscall: int, level: str, words: str) -> None:
    told = found(f"forbid({syscall})", "machine.kernel()")
    assert next((one, text) for one, text in told if text.startswith(words))[0] == level
    assert all(one in (OK, WARNING) for one, text in told if not text.startswith(words))


def test_a_kernel_that_has_it_is_said_to_have_it() -> None:
    told = {text: level for level, text in found("", "machine.kernel()")}
    assert told["pidfd"] == told["sealed memfds"] == told["seccomp filters"] == OK


@pytest.mark.root
def test_a_capability_that_the_daemon_could_not_have_is_named() -> None:
    [(level, text)] = found("check(libc.prctl(24, 10, 0, 0, 0))", "[machine.capabilities()]")
    assert level == PROBLEM
    assert "NET_BIND_SERVICE" in text
    assert found("", "[machine.capabilities()]") == [(OK, "the capabilities that a start takes can be had")]
    assert machine.CAPABILITIES == NEEDED


@pytest.mark.root
def test_where_no_cgroup2_is_mounted_that_is_said() -> None:
    gone = (
        "alone()\n"
        "for point in [l.split()[4] for l in open('/proc/self/mountinfo') if ' - cgroup2 ' in l][::-1]:\n"
        "    check(libc.umount2(point.encode(), 2))"
    )
    [(level, text)] = found(gone, "machine.cgroups()")
    assert level == WARNING
    assert text.startswith("there is no cgroup2 tree: ")


@pytest.mark.root
def test_a_cgroup2_tree_that_cannot_be_written_is_said() -> None:
    read_only = (
        "alone()\n"
        "for point in [l.split()[4] for l in open('/proc/self/mountinfo') if ' - cgroup2 ' in l]:\n"
        "    check(libc.mount(None, point.encode(), None, 0x1021, None))"
    )
    told = found(read_only, "machine.cgroups()")
    if "there is no cgroup2" in told[0][1]:
        pytest.skip("there is no cgroup2 here")
    assert told[0][0] == WARNING
    assert "cannot be written" in told[0][1]


def test_too_few_files_and_pipes_and_places_in_a_queue_are_told_with_the_number_that_is_wanted() -> None:
    few = "resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))"
    told = found(few, "machine.limits(100, 1 << 30)")
    assert (PROBLEM, "300 open files at most: 100 processes want about 1456") in told
    assert any(level == WARNING and text.startswith("net.core.somaxconn = ") for level, text in told)
    soft = machine.number("/proc/sys/fs/pipe-user-pages-soft")
    if soft:
        told = found("", f"machine.limits({soft}, 1)")
        assert any(level == WARNING and text.startswith(f"fs.pipe-user-pages-soft = {soft}") for level, text in told)


@pytest.mark.root
def test_a_file_system_with_little_room_is_told() -> None:
    full = (
        "alone()\n"
        "check(libc.mount(b'x', b'/mnt', b'tmpfs', 0, b'size=256k'))\n"
        "os.write(os.open('/mnt/x', os.O_CREAT | os.O_WRONLY), bytes(250 << 10))"
    )
    [(level, text)] = found(full, "machine.space(['/mnt', '/nonexistent'])")
    assert level == WARNING
    assert text.startswith("/mnt: 0 MiB are left")


def test_who_listens_on_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        inodes = machine.listeners()[port]
        assert any(name.endswith(f"(pid {os.getpid()})") for name in machine.holders(inodes))
    assert port not in machine.listeners()


def test_time_zones_that_are_not_there_are_a_problem_where_a_rule_needs_them() -> None:
    nothing = "import sys, zoneinfo\nzoneinfo.reset_tzpath(['/nonexistent'])\nsys.modules['tzdata'] = None"
    assert [level for level, _ in found(nothing, "machine.python(True)")] == [OK, PROBLEM]
    assert [level for level, _ in found(nothing, "machine.python(False)")] == [OK, WARNING]


def test_a_number_that_cannot_be_read_is_none() -> None:
    assert machine.number("/nonexistent") is None


@pytest.mark.root
def test_names_that_others_give_mounts_and_processes_may_be_any_bytes() -> None:
    strange = (
        "alone()\n"
        "check(libc.mount(b'x', b'/mnt', b'tmpfs', 0, None))\n"
        "os.mkdir(b'/mnt/\\xff\\rx')\n"
        "check(libc.mount(b'x', b'/mnt/\\xff\\rx', b'tmpfs', 0, None))"
    )
    assert found(strange, "machine.cgroups()")
    named = (
        "import socket, types\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "open('/proc/self/comm', 'wb').write(b'\\xff\\x1b[2J')\n"
        "who = machine.holders(machine.listeners()[server.getsockname()[1]])[0].partition(' ')[0]\n"
        "one = types.SimpleNamespace(level='ok', text=who)"
    )
    assert found(named, "[one]") == [("ok", r"\xff\x1b[2J")]
