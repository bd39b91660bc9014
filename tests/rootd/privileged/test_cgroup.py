"""rootd/privileged/cgroup: real groups, where this machine has a cgroup2 tree."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootd.config import secrets
from rootd.privileged import cgroup

pytestmark = pytest.mark.root
NAME = f"durward-test-{os.getpid()}"


@pytest.fixture
def tree() -> Iterator[str]:
    """Our subtree, made by a child so that this process is not moved."""
    base = f"{cgroup.mount()}/{NAME}"
    child = os.fork()
    if child == 0:
        os._exit(0 if cgroup.make(NAME, 4242) == base else 1)
    assert os.waitpid(child, 0)[1] == 0
    yield base
    cgroup.sweep(base, set())
    os.rmdir(f"{base}/self")
    os.rmdir(base)


def sleeper() -> int:
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(1)
    return child


def test_two_instances_never_have_one_group() -> None:
    runs = ["/run/durward", "/run/durward-2", "/run/durward/2", "/run/durward%2D2", "/run/durward%2d2"]
    assert cgroup.name_of(runs[0]) == "durward-run-durward"
    assert len({cgroup.name_of(run) for run in runs}) == len(runs)


def test_the_tree_belongs_to_our_account(tree: str) -> None:
    for name in ("", "/self", "/cgroup.procs", "/self/cgroup.procs"):
        assert os.stat(tree + name).st_uid == 4242


def test_a_run_is_seen_populated_killed_and_empty(tree: str) -> None:
    path = f"{tree}/run-7"
    os.mkdir(path)
    child = sleeper()
    cgroup.attach(path, child)
    events = cgroup.open_events(path)
    assert cgroup.populated(events)
    poll = select.poll()
    poll.register(events, select.POLLPRI)
    cgroup.kill(path)
    os.waitpid(child, 0)
    while cgroup.populated(events):
        assert poll.poll(5000)
    os.close(events)


def test_d7_what_a_dead_instance_left_is_killed_and_what_is_known_stays(tree: str) -> None:
    children = {}
    for run in (1, 2):
        os.mkdir(f"{tree}/run-{run}")
        children[run] = sleeper()
        cgroup.attach(f"{tree}/run-{run}", children[run])
    pidfd = os.pidfd_open(children[1])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps, so that the group can go
    try:
        cgroup.sweep(tree, {2})
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    assert sorted(p.name for p in Path(tree).glob("run-*")) == ["run-2"]
    assert select.select([pidfd], [], [], 0)[0]
    assert os.stat(f"/proc/{children[2]}")
    os.close(pidfd)
    os.kill(children[2], signal.SIGKILL)
    os.waitpid(children[2], 0)


def test_however_many_groups_do_not_die_they_are_waited_for_once(tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for run in range(20):
        os.mkdir(f"{tree}/run-{run}")
    with monkeypatch.context() as patched:
        patched.setattr(cgroup, "KILL_WAIT", 0.1)
        patched.setattr(cgroup, "populated", lambda _: time.monotonic() < begun + 100)
        begun = time.monotonic()
        cgroup.sweep(tree, set())
    assert time.monotonic() < begun + 1.0


def test_a_kernel_that_cannot_kill_a_tree_has_none(tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or nothing would ever be killed with its tree, and what a dead instance left would end each start."""
    monkeypatch.setattr(cgroup, "attach", lambda *_: None)
    assert cgroup.make(NAME, 4242) == tree
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert cgroup.make(NAME, 4242) == ""


def test_without_a_cgroup2_tree_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "mount", lambda: "")
    assert cgroup.make(NAME, 4242) == ""
    monkeypatch.setattr(cgroup, "mount", lambda: "/proc/no-such-place")
    assert cgroup.make(NAME, 4242) == ""


def test_a_mount_that_somebody_has_named_by_any_bytes_ends_nobody(tmp_path: Path) -> None:
    """Users mount by FUSE where they like: the name is in everybody's mountinfo."""
    place = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.mkdir(place)
    mine = cgroup.mount()
    program = (
        "import sys; from rootd.config import secrets; from rootd.privileged import cgroup;"
        "assert secrets.is_in_memory(sys.argv[2]); assert cgroup.mount() == sys.argv[1]"
    )
    mounted = b'mount -t tmpfs none "$1" && exec "$2" -c "$3" "$4" "$1"'
    words = [b"unshare", b"-m", b"sh", b"-c", mounted, b"sh", place, *map(os.fsencode, (sys.executable, program, mine))]
    assert subprocess.run(words, cwd=os.getcwd(), check=False).returncode == 0


def test_ours_leave_a_group_that_is_to_hand_controllers_on_and_others_stay(tree: str) -> None:
    """The keeper and its children share the daemon's own group, and with processes in it that hands nothing on."""
    parent, ours = f"{tree}/run-1", f"{tree}/run-2"
    for path in (parent, ours):
        os.mkdir(path)
    other, keeper = sleeper(), os.fork()
    if keeper == 0:
        child = sleeper()
        cgroup.attach(parent, child)
        cgroup.attach(parent, os.getpid())
        signal.pause()
    cgroup.attach(parent, other)
    procs = Path(parent, "cgroup.procs")
    until = time.monotonic() + 20
    while len(procs.read_text().split()) < 3 and time.monotonic() < until:
        select.select([], [], [], 0.01)
    cgroup.gather(parent, ours, keeper)
    assert procs.read_text().split() == [str(other)]
    assert len(Path(ours, "cgroup.procs").read_text().split()) == 2
    cgroup.sweep(tree, set())
    for pid in (other, keeper):
        os.waitpid(pid, 0)


def test_a_controller_that_there_is_not_is_told_and_the_others_are_lent(tree: str) -> None:
    assert cgroup.lend(tree, {"nonesuch"}) == {"nonesuch"}
    assert cgroup.lend("", {"memory"}) == {"memory"}
    assert cgroup.controllers("/nonexistent") == []


def test_c5_names_that_others_give_groups_and_processes_may_be_any_bytes(tree: str) -> None:
    parent, ours = f"{tree}/run-1", f"{tree}/run-2"
    strange = os.fsencode(f"{tree}/run-1/") + b"\xff\r0::"
    for path in (os.fsencode(parent), os.fsencode(ours), strange):
        os.mkdir(path)
    comm, before = Path("/proc/self/comm"), Path("/proc/self/comm").read_bytes()
    comm.write_bytes(b"\xff) \r")
    child = sleeper()
    comm.write_bytes(before)
    cgroup.attach(os.fsdecode(strange), child)
    assert os.fsencode(cgroup.group_of(child)).endswith(b"/run-1/\xff\r0::")
    assert not cgroup.holds("run-2", child)
    cgroup.gather(os.fsdecode(strange), ours, os.getpid())
    assert Path(ours, "cgroup.procs").read_text().split() == [str(child)]
    os.rmdir(strange)
    cgroup.sweep(tree, set())
    os.waitpid(child, 0)


def test_c5_somebody_elses_mount_with_a_name_of_any_bytes_hides_no_tree() -> None:
    before = cgroup.mount()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            mount_strangely()
            status = 0 if cgroup.mount() == before and secrets.is_in_memory("/mnt/\udcff\rx") else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def mount_strangely() -> None:
    """In a mount namespace of its own; whoever has a FUSE file system may choose such a name without being root."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x20000) == 0, "CLONE_NEWNS"
    assert libc.mount(None, b"/", None, 0x44000, None) == 0, "MS_REC | MS_PRIVATE"
    assert libc.mount(b"x", b"/mnt", b"tmpfs", 0, None) == 0
    os.mkdir(b"/mnt/\xff\rx")
    assert libc.mount(b"x", b"/mnt/\xff\rx", b"tmpfs", 0, None) == 0
