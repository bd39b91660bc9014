"""What a service is given besides, read back from the kernel; and what is refused where it cannot be had."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from privileged_house import PRIVILEGED_UID, PYTHON, SERVICE_UID, House, entry

from rootd import confine, ipc, outlook, sandbox
from rootd.config.extras import NOTHING, Extra
from rootd.config.table import Table
from rootd.privileged import cgroup, extras, main

pytestmark = pytest.mark.root
Build = Callable[..., House]
SLEEPER = "import signal; print('up', flush=True); signal.pause()"
READ = ("/usr", "/lib", "/lib64", "/etc", "/bin")
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
IOPRIO_GET = 252 if platform.machine() == "x86_64" else 31
NICE_BIT, RAW_BIT = 1 << 23, 1 << 13


def given(**words: Any) -> Extra:
    return NOTHING._replace(**words)


def status(pid: int) -> dict[str, str]:
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}


def masks(pid: int) -> dict[str, int]:
    found = status(pid)
    return {name: int(found[name], 16) for name in CAPABILITIES}


def up(house: House, slot: int = 0) -> int:
    """The pid of a service that has said something."""
    spawned = house.spawn(slot)
    assert spawned.op == ipc.SPAWNED
    assert os.read(house.output(spawned.run)[1], 64)
    return spawned.arg


def io_priority(pid: int) -> int:
    return ctypes.CDLL(None).syscall(IOPRIO_GET, 1, pid)


def failure(house: House) -> tuple[int, str]:
    """errno and step of a service that cannot be started."""
    number, step = divmod(house.finish(house.spawn().run).extra, 256)
    return number, ipc.STEPS[step]


def spawner_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return next(int(child) for child in children if Path(f"/proc/{child}/comm").read_text() == "durward-spawner\n")


def test_d17_priorities_processors_and_score_are_as_configured(build: Build) -> None:
    last = max(os.sched_getaffinity(0))
    score = int(Path("/proc/self/oom_score_adj").read_text()) + 7
    house = build(entry(SLEEPER, extra=given(nice=7, io=2 << 13 | 6, oom=score, cpus=(last,))), entry(SLEEPER))
    pid, plain = up(house), up(house, 1024)
    assert os.getpriority(os.PRIO_PROCESS, pid) == 7
    assert io_priority(pid) == 2 << 13 | 6
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == f"{score}\n"
    assert os.sched_getaffinity(pid) == {last}
    assert os.getpriority(os.PRIO_PROCESS, plain) == os.getpriority(os.PRIO_PROCESS, 0)
    assert io_priority(plain) == io_priority(0)
    assert Path(f"/proc/{plain}/oom_score_adj").read_text() == f"{score - 7}\n"
    assert os.sched_getaffinity(plain) == os.sched_getaffinity(0)
    assert masks(pid) == masks(plain) == dict.fromkeys(CAPABILITIES, 0)


def test_d17_what_takes_sys_nice_is_given_by_the_spawner_alone_and_no_child_has_it(build: Build) -> None:
    house = build(entry(SLEEPER, extra=given(nice=-5, io=1 << 13 | 4)), entry(SLEEPER))
    pid, plain = up(house), up(house, 1024)
    assert (os.getpriority(os.PRIO_PROCESS, pid), io_priority(pid)) == (-5, 1 << 13 | 4)
    assert masks(pid) == masks(plain) == dict.fromkeys(CAPABILITIES, 0)
    five = confine.mask(main.CAPABILITIES)
    assert masks(house.pid)["CapPrm"] == five
    helper = masks(spawner_of(house.pid))
    assert (helper["CapPrm"], helper["CapBnd"], helper["CapInh"]) == (five | NICE_BIT, five | NICE_BIT, 0)


def test_nobody_has_a_capability_that_no_service_asks_for(build: Build) -> None:
    house = build(entry(SLEEPER, extra=given(nice=5)))
    assert masks(spawner_of(house.pid))["CapPrm"] == confine.mask(main.CAPABILITIES)


def test_a_capability_that_is_asked_for_is_kept_through_the_exec_and_no_other(build: Build) -> None:
    house = build(entry(SLEEPER, extra=given(capabilities=(13,), nice=-1)), entry(SLEEPER))
    pid, plain = up(house), up(house, 1024)
    assert masks(pid) == dict.fromkeys(CAPABILITIES, RAW_BIT)
    assert status(pid)["Uid"].split() == [str(SERVICE_UID)] * 4
    assert status(pid)["NoNewPrivs"] == "1"
    assert masks(plain) == dict.fromkeys(CAPABILITIES, 0)


def test_what_the_daemon_itself_has_not_is_said_and_fails_at_its_step(build: Build) -> None:
    """SYS_RESOURCE taken away from a whole daemon, as many containers do."""

    def poorer() -> None:
        confine.become(0, 0, (), [number for number in range(41) if number not in (23, 24)])

    house = build(entry(SLEEPER, extra=given(nice=-5)), start=False)
    house.inside = poorer
    house.start()
    house.hear(ipc.FACTS_END)
    assert failure(house) == (errno.EACCES, "nice")


def test_a_processor_that_is_not_there_is_refused(build: Build) -> None:
    house = build(entry(SLEEPER, extra=given(cpus=(0, 8190))))
    number, step = failure(house)
    assert (number != 0, step) == (True, "CPU affinity")


# files

TRY = """
import os, sys
def attempt(what, *args):
    try:
        os.close(os.open(*args)); print(what, "yes")
    except OSError as error:
        print(what, error.strerror)
inside, outside = sys.argv[1:]
attempt("read inside", inside + "/file", os.O_RDONLY)
attempt("make inside", inside + "/new", os.O_WRONLY | os.O_CREAT, 0o600)
attempt("list inside", inside, os.O_RDONLY)
attempt("read outside", outside + "/file", os.O_RDONLY)
attempt("list outside", outside, os.O_RDONLY)
attempt("write /usr", "/usr/lib/durward-test", os.O_WRONLY | os.O_CREAT, 0o600)
attempt("null", "/dev/null", os.O_RDWR)
sys.stdout.flush()
os.chmod(inside + "/program", 0o755)
try:
    os.execv(inside + "/program", ["program"])
except OSError as error:
    print("execute inside", error.strerror)
"""


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Two of the service's own, beneath one that everybody may enter."""
    base = Path("/var/lib") / f"durward-test-files-{os.getpid()}"
    made = base / "inside", base / "outside"
    for folder in (base, *made):
        folder.mkdir()
    for folder in made:
        (folder / "file").write_text("x")
        (folder / "program").write_text("#!/bin/sh\necho executed\n")
        for path in (folder, folder / "file", folder / "program"):
            os.chown(path, SERVICE_UID, SERVICE_UID)
    yield made
    for path in sorted(base.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    base.rmdir()


def said(house: House) -> str:
    spawned = house.spawn()
    pipe = house.output(spawned.run)[1]
    house.finish(spawned.run)
    return os.read(pipe, 65536).decode()


def files(folders: tuple[Path, Path], optional: bool = False) -> Any:
    read = tuple(path for path in READ if os.path.isdir(path) and not os.path.islink(path))
    extra = given(read=read, write=(str(folders[0]),), optional=(optional, False))
    return entry(argv=(PYTHON, "-I", "-c", TRY, *map(str, folders)), extra=extra)


def landlock() -> bool:
    return ctypes.CDLL(None).syscall(444, None, 0, 1) > 0


@pytest.mark.skipif(not landlock(), reason="this kernel has no Landlock")
def test_it_reaches_the_files_that_are_named_and_no_others(build: Build, folders: tuple[Path, Path]) -> None:
    assert said(build(files(folders))).splitlines() == [
        "read inside yes", "make inside yes", "list inside yes", "read outside Permission denied",
        "list outside Permission denied", "write /usr Permission denied", "null yes",
        "execute inside Permission denied",
    ]  # fmt: skip


@pytest.mark.skipif(not landlock(), reason="this kernel has no Landlock")
def test_a_path_that_is_not_there_is_refused(build: Build) -> None:
    house = build(entry(SLEEPER, extra=given(read=("/", "/nonexistent/path"))))
    assert failure(house) == (errno.ENOENT, "files")


def forbid_landlock() -> None:
    number = sandbox.LOAD, 0, 0, sandbox.AT_NUMBER
    refuse = sandbox.RETURN, 0, 0, sandbox.ERRNO | errno.ENOSYS
    sandbox.install([number, (sandbox.JUMP_EQUAL, 0, 1, 444), refuse, (sandbox.RETURN, 0, 0, sandbox.ALLOW)])


@pytest.mark.parametrize("optional", [False, True])
def test_where_the_kernel_has_no_landlock_it_does_not_start_unless_that_is_optional(
    build: Build, folders: tuple[Path, Path], optional: bool
) -> None:
    house = build(files(folders, optional), start=False)
    house.inside = forbid_landlock
    house.start()
    house.hear(ipc.FACTS_END)
    if optional:
        assert "read outside yes" in said(house)
    else:
        assert failure(house) == (errno.ENOSYS, "files")


# what is needed


def needed(*entries: Any) -> dict[int, list[str]]:
    return extras.needed([Table(entries, (), False)])


def test_what_is_needed_is_what_goes_beyond_this_process() -> None:
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    score = int(Path("/proc/self/oom_score_adj").read_text())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ours = entry(limits=((resource.RLIMIT_NOFILE, soft, hard),), extra=given(nice=nice, oom=score, io=3 << 13))
    assert needed(entry(), ours, entry(limits=((7, 1, -2),))) == {}
    more = entry(service="more", limits=((resource.RLIMIT_NOFILE, 1, hard + 1),))
    assert needed(more, more) == ({24: ["more"]} if hard != resource.RLIM_INFINITY else {})
    assert needed(entry(service="a", extra=given(nice=nice - 1)), entry(service="b", extra=given(io=1 << 13))) == {
        23: ["a", "b"]
    }
    assert needed(entry(extra=given(oom=score - 1, capabilities=(13, 10)))) == {
        24: ["site"],
        13: ["site"],
        10: ["site"],
    }
    assert needed(entry(root=True, uid=0, extra=given(capabilities=(21,)))) == {}


def test_what_this_process_lacks_is_said_with_the_services_that_need_it() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        confine.become(PRIVILEGED_UID, PRIVILEGED_UID, (), (13,))
        found = extras.grant(
            {13: ["site"], 24: ["db", "mail"], "memory": ["site"]},
            "",
            lambda text: os.write(writer, text.encode() + b"\n"),
        )
        os._exit(0 if found == {13} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(writer)
    with open(reader) as said:
        assert said.read().splitlines() == [
            "there is no CAP_SYS_RESOURCE here, without which these do not start: db, mail",
            "there is no memory controller for cgroups here, without which these start only if optional: site",
        ]


def test_who_checks_files_is_told_what_this_machine_does_not_give() -> None:
    table = Table((entry(extra=given(cgroup=(("nonesuch.max", "1"),), read=("/",))),), (), False)
    [limits] = outlook.lacking(table) if landlock() else [*outlook.lacking(table)[:1]]
    assert (
        limits == "there is no nonesuch controller for cgroups here, without which these start only if optional: site"
    )
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        forbid_landlock()
        os.write(writer, "\n".join(outlook.lacking(table)).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as said:
        assert said.read().splitlines()[-1] == (
            "this kernel has no Landlock, without which these start only if optional: site"
        )
    os.waitpid(pid, 0)


# control groups

# one limit of each controller that the cgroup2 tree of a machine may have; of a hybrid one it may be hugetlb alone
LIMITS = {
    "pids": ("pids.max", "40"),
    "memory": ("memory.max", str(1 << 30)),
    "hugetlb": ("hugetlb.2MB.max", str(4 << 20)),
}


@pytest.fixture
def limit() -> Iterator[tuple[str, str]]:
    """A limit whose controller the machine has, for our own group to hand on; put back afterwards."""
    root = cgroup.mount()
    name = next((name for name in LIMITS if name in cgroup.controllers(root)), None)
    if name is None:
        pytest.skip("no controller in a cgroup2 tree of ours")
    had = name in Path(root, "cgroup.subtree_control").read_text().split()
    yield LIMITS[name]
    if not had:
        with contextlib.suppress(OSError):
            cgroup.write(f"{root}/cgroup.subtree_control", f"-{name}")


def test_a_limit_is_in_its_group_before_it_begins_and_only_there(build: Build, limit: tuple[str, str]) -> None:
    house = build(entry(SLEEPER, extra=given(cgroup=(limit,))), entry(SLEEPER))
    runs = [house.spawn(0).run, house.spawn(1024).run]
    found = [Path(f"{house.tree}/run-{run}/{limit[0]}").read_text().strip() for run in runs]
    assert found[0] == limit[1]
    assert found[1] == "max" or int(found[1]) > 1 << 60


def test_without_a_request_no_controller_is_touched(build: Build, limit: tuple[str, str]) -> None:
    house = build(entry(SLEEPER))
    assert Path(f"{house.tree}/cgroup.subtree_control").read_text().strip() == ""


@pytest.mark.parametrize(("cgroups", "optional"), [(True, False), (True, True), (False, False), (False, True)])
def test_where_there_is_no_controller_it_does_not_start_unless_that_is_optional(
    build: Build, cgroups: bool, optional: bool
) -> None:
    limit = given(cgroup=(("nonesuch.max", "1"),), optional=(False, optional))
    house = build(entry(SLEEPER, extra=limit), cgroups=cgroups)
    answer = house.spawn()
    if optional:
        assert answer.op == ipc.SPAWNED
    else:
        assert (answer.arg, ipc.STEPS[answer.extra]) == (errno.EOPNOTSUPP, "cgroup limits")


def test_nothing_is_spelled_for_who_has_nothing() -> None:
    assert extras.spell(None, "") == ""
    assert extras.spell(given(credentials=(("a", "/a", ""),)), "/run/x") == ""
    assert extras.spell(given(read=("/usr",), optional=(True, True)), "/run/x") == "read /usr\nread /run/x\noptional 1"
    assert extras.Extras(b"").calls() == extras.Extras(b"").last_calls() == []
