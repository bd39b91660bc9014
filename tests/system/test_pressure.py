"""Descriptors, processes, memory and pages of pipes run out, one at a time and for real, in one part after the other.

Whoever asks is told what is short and what to do, no service ends, no line is lost, and when there is enough again all
goes on by itself.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import templates
import torture
from house import House
from people import People, Person, processes_of
from space import Space

from policy import messages
from userapi.audit import verify

pytestmark = pytest.mark.root

PARTS = ("privileged", "supervisor", "auth", "log", "probe")
NONE_LEFT = 4  # descriptors: those that are open stay so
AGAIN = 'restart = { policy = "always", backoff = "0.1s..0.2s", limit = "100 in 60s" }'
SERVICES = {
    "teller.toml": templates.plain("teller", "ready", more=f"ready = {{ notify = true }}\n{AGAIN}"),
    "plain.toml": templates.plain("plain", more=AGAIN),
    "lines.toml": f"""\
[service.lines]
command = ["@PREFIX@/bin/python3", "-I", "@SERVICES@/lines.py", "@FOLDER@/counts", "0.002"]
user = "@jobs@"
ready = {{ after = "0.05s" }}
log = {{ size = "64K", keep = 1000 }}
{AGAIN}
""",
}


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    house = House(people, space, SERVICES, policy={})
    counts = house.folder / "counts"
    counts.mkdir()
    counts.chmod(0o777)
    with house.running():
        yield house


@pytest.fixture(autouse=True)
def goes_on(house: House) -> Iterator[None]:
    """Around each: no process of a service that the test itself has not ended is another one, and all works."""
    before = house.pids("lines")
    yield
    house.until(lambda: all(house.pid_of(part) for part in PARTS), "every part is there")
    house.until(house.answers, "the house answers")
    for name in ("teller", "plain"):
        assert house.operate(messages.Restart(name))[1].ok, house.stderr()
    assert house.pids("lines") in (before, [])  # the last one stops it


@contextlib.contextmanager
def limited(account: Person | None, pid: int, what: int, soft: int) -> Iterator[None]:
    """A soft limit of one process of ours, set from its own account: root may not be let to do it for others."""

    def set_to(number: int) -> int:
        program = (
            "import resource, sys; pid, what, soft = map(int, sys.argv[1:]); old, hard = resource.prlimit(pid, what);"
            "resource.prlimit(pid, what, (soft, hard)); print(old)"
        )
        argv = [sys.executable, "-I", "-c", program, str(pid), str(what), str(number)]
        who = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30, **who)
        assert done.returncode == 0 or not Path(f"/proc/{pid}").exists(), done.stderr
        return int(done.stdout or -1)

    old = set_to(soft)
    try:
        yield
    finally:
        if Path(f"/proc/{pid}").exists():
            set_to(old)


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[Path]:
    """A cgroup of the test's own whose tasks can be limited, by the controller of either version."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for words in (("cgroup", "-o", "pids"), ("cgroup2",)):
        if subprocess.run(["mount", "-t", *words, "none", tree], capture_output=True, check=False).returncode == 0:
            given = tree / "cgroup.subtree_control"
            if not given.exists() or "pids" in given.read_text().split():
                break
            subprocess.run(["umount", tree], check=True)
    else:
        pytest.skip("no cgroup with the controller pids, neither of version 1 nor handed on by version 2")
    group = tree / tmp_path.name
    group.mkdir()
    yield group
    group.rmdir()
    subprocess.run(["umount", tree], check=True)


@contextlib.contextmanager
def moved(pid: int, group: Path) -> Iterator[None]:
    """Into this cgroup, and back to where it was."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    before = next((line for line in lines if "pids" in line.split(":")[1].split(",")), lines[-1]).split(":")[2]
    (group / "cgroup.procs").write_text(str(pid))
    try:
        yield
    finally:
        (group.parent / before.strip("/") / "cgroup.procs").write_text(str(pid))


def spawner_of(house: House) -> int:
    parent = house.pid_of("privileged")
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return next(int(pid) for pid in found if torture.comm(int(pid)).startswith("durward-spawne"))


def account(house: House, part: str) -> Person:
    return house.people[{"privileged": "priv", "supervisor": "sup"}.get(part, part)]


def crashes(house: House, name: str) -> None:
    (pid,) = house.pids(name)
    os.kill(pid, signal.SIGKILL)


def crash_both(house: House) -> None:
    """Without asking anybody, who may not be able to answer."""
    before = {pid for pid in services_there(house) if name_of(pid) != "lines"}
    assert len(before) == 2
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    house.until(lambda: not services_there(house) & before, "both are gone")


def test_without_processes_it_is_said_what_to_raise_and_a_service_is_back_when_there_are_some(house: House) -> None:
    with limited(house.people["priv"], spawner_of(house), resource.RLIMIT_NPROC, 1):
        crashes(house, "plain")
        seen = house.wait_for(lambda seen: "cannot start a process" in seen["plain"].processes[0].text, "it is told")
        assert "pids.max" in seen["plain"].processes[0].text
        assert house.http("/healthz", port=templates.API_PORT).status == 200
    house.wait_for(lambda seen: seen["plain"].state == "RUNNING", "it is back by itself")


def test_at_pids_max_the_same(house: House, tasks: Path) -> None:
    spawner = spawner_of(house)
    (tasks / "pids.max").write_text("1")
    with moved(spawner, tasks):
        crashes(house, "plain")
        house.wait_for(lambda seen: "cannot start a process" in seen["plain"].processes[0].text, "it is told")
        assert int((tasks / "pids.events").read_text().split()[-1]) > 0, "it was this limit"
    house.wait_for(lambda seen: seen["plain"].state == "RUNNING", "it is back by itself")
    assert spawner_of(house) == spawner


def test_without_descriptors_in_privileged_the_same_and_nothing_is_half_done(house: House) -> None:
    pid = house.pid_of("privileged")
    before = torture.descriptors(house.daemon.pid)  # type: ignore[union-attr]
    with limited(house.people["priv"], pid, resource.RLIMIT_NOFILE, NONE_LEFT):
        crashes(house, "plain")
        seen = house.wait_for(lambda seen: "Too many open files" in seen["plain"].processes[0].text, "it is told")
        assert "LimitNOFILE" in seen["plain"].processes[0].text
    house.wait_for(lambda seen: seen["plain"].state == "RUNNING", "it is back by itself")
    assert house.pid_of("privileged") == pid
    torture.retried(house, lambda: same(torture.descriptors(house.daemon.pid), before))  # type: ignore[union-attr]


def same(now: object, then: object) -> None:
    assert now == then


@pytest.mark.parametrize("part", PARTS)
def test_a_part_without_descriptors_ends_no_service(house: House, part: str) -> None:
    """It goes on, or ends and is started again, with the keeper's limits."""
    pid = house.pid_of(part)
    with limited(account(house, part), pid, resource.RLIMIT_NOFILE, NONE_LEFT):
        crash_both(house)
        with contextlib.suppress(OSError):
            house.http("/healthz", port=templates.API_PORT, timeout=1.0)
    house.wait_for(lambda seen: {seen[name].state for name in ("plain", "teller")} == {"RUNNING"}, "both are back")
    if part in ("supervisor", "log"):  # those that are handed some
        assert "raise the limit of open files" in house.stderr()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_without_memory_ends_no_service(house: House, part: str) -> None:
    pid, reloading = house.pid_of(part), torture.Worker(house, 0, threading.Event(), [])
    with limited(account(house, part), pid, resource.RLIMIT_AS, 1):  # what it has, it keeps
        crash_both(house)
        begun = reloading.ask(messages.Reload())
        with contextlib.suppress(OSError):
            house.http("/healthz", port=templates.API_PORT, timeout=1.0)
    if isinstance(begun, messages.Accepted):
        reloading.follow(begun.operation)
        assert reloading.lost == []
    house.wait_for(lambda seen: {seen[name].state for name in ("plain", "teller")} == {"RUNNING"}, "both are back")


def test_a_flood_on_every_door_starves_no_spawn(house: House) -> None:
    """More connections to each than it takes: they wait, or are turned away; what there is goes on, new ones too."""
    doors = dict.fromkeys(("root.sock", "control.sock", "auth.sock"), socket.SOCK_SEQPACKET)
    doors["api.sock"] = socket.SOCK_STREAM
    with contextlib.ExitStack() as held:
        for name, kind in doors.items():
            for _ in range(200):
                sock = held.enter_context(socket.socket(socket.AF_UNIX, kind))
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    sock.connect(str(house.run_dir / name))
        crash_both(house)
        house.until(lambda: len(services_there(house)) == 3, "both are back")


def services_there(house: House) -> set[int]:
    """Their processes, without asking anybody."""
    return {pid for pid in processes_of({house.people["jobs"].uid}) if house.space.holds(pid)}


def name_of(pid: int) -> str:
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(word.partition(b"=")[2].decode() for word in words if word.startswith(b"DURWARD_SERVICE="))


def test_without_pages_for_pipes_a_service_runs_with_the_little_that_there_is(house: House) -> None:
    """Who has made so many pipes is the account that makes those of services (pipe-user-pages-soft, pipe(7))."""
    account = house.people["priv"]
    soft = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text())
    if not 0 < soft <= 1 << 16:
        pytest.skip(f"fs.pipe-user-pages-soft is {soft} here")
    program = (
        "import os, resource, sys; n = int(sys.argv[1]);"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (min(2 * n + 64, resource.getrlimit(7)[1]),) * 2);"
        "held = [os.pipe() for _ in range(n)]; print(flush=True); sys.stdin.read()"
    )
    eater = subprocess.Popen(
        [sys.executable, "-I", "-c", program, str(soft // 16 + 64)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        user=account.uid, group=account.gid, extra_groups=[],
    )  # fmt: skip
    try:
        assert eater.stdout is not None
        assert eater.stdout.readline() == b"\n"
        assert house.operate(messages.Restart("plain"))[1].ok
    finally:
        eater.communicate()


def test_no_line_was_lost_and_the_audit_log_is_whole(house: House) -> None:
    """Runs last."""
    assert house.operate(messages.Stop("lines"))[1].ok
    counts = house.folder / "counts"
    torture.retried(house, lambda: many(torture.no_line_is_lost_or_doubled(house, ["lines"], counts)))
    keys = verify.parse_keys((house.state / "log" / "audit.initial").read_bytes())
    with (house.log / "audit" / "audit.jsonl").open("rb") as log:
        assert verify.verify(log, keys).problems == ()


def many(count: int) -> None:
    assert count > 1000
