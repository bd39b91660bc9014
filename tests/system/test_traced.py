"""What privileged does after its start, by strace: it opens and makes nothing but what belongs to runs.

It is followed through a restart, a crash, a rolling restart, a service that notifies, one that cannot be executed, and
a reload. What its forks do until they have become their service (or have compiled the configuration) is looked at too.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import templates
from house import House
from people import People
from space import Space

from policy import messages
from rootd.privileged import cgroup

pytestmark = pytest.mark.root

CALL = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>)?(.*)")
PATH = re.compile(r'"([^"]*)"')
# every system call that takes a path, makes a process, a socket, or an identity
TRACED = (
    "%file,%process,%creds,socket,bind,connect,listen,memfd_create,pidfd_open,pidfd_send_signal,ptrace,setns,unshare"
)

SERVICES = {
    "site.toml": templates.SITE,
    "worker.toml": templates.WORKER,
    "crasher.toml": templates.plain("crasher", more='restart = { policy = "always" }\nready = { after = "0.1s" }'),
    "missing.toml": '[service.missing]\ncommand = ["/nonexistent/program"]\nuser = "@jobs@"\nautostart = false\n',
}


class Trace:
    """A strace of processes and all that they fork, until they execute something else."""

    def __init__(self, house: House, *pids: int) -> None:
        self.house, self.left = house, len(pids)
        self.file = house.folder / "trace"
        attach = [f"-p{pid}" for pid in pids]
        self.process = subprocess.Popen(
            ["strace", "-f", "-b", "execve", "-s200", f"-o{self.file}", f"-etrace={TRACED}", *attach],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> Trace:
        assert self.process.stderr is not None
        said = b""
        while said.count(b"\n") < self.left:  # of the descriptor itself: a second line may come with the first
            assert select.select([self.process.stderr], [], [], 20.0)[0], said
            said += (more := os.read(self.process.stderr.fileno(), 65536))
            assert more, said
        assert said.count(b" attached") == self.left, said
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=20)

    def calls(self) -> dict[int, list[tuple[str, str]]]:
        """Of each process: the name of each call, and its arguments with its result."""
        found: dict[int, list[tuple[str, str]]] = {}
        for line in self.file.read_text().splitlines():
            if (match := CALL.fullmatch(line)) and not match[3].endswith("resumed>"):
                found.setdefault(int(match[1]), []).append((match[2], match[3]))
        return found


Calls = tuple[House, int, dict[int, list[tuple[str, str]]]]


@pytest.fixture(scope="module")
def calls(people: People, space: Space) -> Iterator[Calls]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    house = House(people, space, SERVICES)
    try:
        house.start()
        pid = house.pid_of("privileged")
        with Trace(house, pid, spawner_of(pid)) as trace:
            everything(house)
        yield house, pid, trace.calls()
        house.stop()
    finally:
        house.remove()


def spawner_of(privileged: int) -> int:
    """The process that forks for it."""
    children = Path(f"/proc/{privileged}/task/{privileged}/children").read_text().split()
    return next(int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().startswith("durward-spawne"))


def everything(house: House) -> None:
    for command in (
        messages.Restart("worker"),
        messages.Restart("site"),
        messages.Stop("worker"),
        messages.Start("worker"),
    ):
        assert house.operate(command)[1].ok
    assert not house.operate(messages.Start("missing"))[1].ok
    (victim,) = house.pids("crasher")
    os.kill(victim, signal.SIGKILL)
    house.wait_for(
        lambda seen: seen["crasher"].state == "RUNNING" and seen["crasher"].processes[0].pid != victim,
        "crasher is back",
    )
    _, ended = house.operate(messages.Reload())
    assert ended.ok, ended
    with contextlib.ExitStack() as stack:
        stack.enter_context(house.load(interval=0.02))
        assert house.operate(messages.Restart("site"))[1].ok


def allowed(house: House) -> re.Pattern[str]:
    """The cgroups of runs, their notify and probe sockets (bound under a second name first), and their credentials.

    And at a reload what says whether the OOM scores that are asked for take a capability; its own children; and what a
    child has as its standard input.
    """
    mount = next(
        line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line
    )
    name = cgroup.name_of(str(house.run_dir))
    group = rf"{re.escape(mount)}(/[^/]+)*/{re.escape(name)}/run-\d+(/cgroup\.(procs|events|kill))?"
    return re.compile(
        rf"{group}|{re.escape(str(house.run_dir))}/(notify|probe|credentials)/\d+(\.new(/files)?)?"
        "|/proc/self/oom_score_adj|/proc/thread-self/children|/dev/null"
    )


def test_it_names_no_path_but_what_runs_have_and_three_files_of_the_kernels(calls: Calls) -> None:
    house, pid, of = calls
    own_fd = re.compile(r'\(\d+, "", .*AT_EMPTY_PATH.*')  # fstat(2), as newer C libraries spell it
    paths = {path for _, rest in of[pid] if not own_fd.match(rest) for path in PATH.findall(rest)}
    assert len(paths) > 10
    assert not [path for path in paths if not allowed(house).fullmatch(path)]


def test_it_makes_and_removes_nothing_but_runs(calls: Calls) -> None:
    _, pid, of = calls
    made = {name for name, _ in of[pid]}
    assert made <= {
        "openat", "mkdir", "rmdir", "unlink", "rename", "lstat", "stat", "newfstatat", "clone", "clone3",
        "pidfd_open", "pidfd_send_signal", "waitid", "wait4", "socket", "bind", "getegid", "geteuid", "setresgid",
    }, made  # fmt: skip
    assert {"openat", "mkdir", "rmdir", "bind"} <= made
    kinds = {rest.partition(",")[0] for name, rest in of[pid] if name == "socket"}
    assert kinds == {"(AF_UNIX"}


def test_it_executes_nothing_itself_and_each_fork_executes_once_at_most(calls: Calls) -> None:
    _, pid, of = calls
    assert not [rest for name, rest in of[pid] if name == "execve"]
    forks = {child: [rest for name, rest in found if name == "execve"] for child, found in of.items() if child != pid}
    assert all(len(executed) <= 1 for executed in forks.values()), forks
    programs = {path for executed in forks.values() for rest in executed for path in PATH.findall(rest)[:1]}
    assert "/nonexistent/program" in programs


def test_a_fork_opens_nothing_before_it_is_its_service(calls: Calls) -> None:
    _, pid, of = calls
    looked = 0
    for child, found in of.items():
        names = [name for name, _ in found]
        if child == pid or "execve" not in names:
            continue
        before = found[: names.index("execve")]
        opened = {path for name, rest in before if name == "openat" for path in PATH.findall(rest)}
        assert not opened
        changed = [name for name, _ in before if name in ("setgroups", "setresgid", "setresuid")]
        assert changed == ["setgroups", "setresgid", "setresuid"]
        looked += 1
    assert looked >= 5


def test_a_reload_reads_the_configuration_in_a_fork_that_executes_nothing(calls: Calls) -> None:
    _, pid, of = calls
    readers = [
        child
        for child, found in of.items()
        if any(name == "openat" and '"durward.toml"' in rest for name, rest in found)
    ]
    assert len(readers) == 1
    assert readers != [pid]
    names = {name for name, _ in of[readers[0]]}
    assert not names & {"execve", "bind", "mkdir", "unlink", "rename", "setresuid"}
    writes = [rest for name, rest in of[readers[0]] if name == "openat" and re.search("O_WRONLY|O_RDWR|O_CREAT", rest)]
    assert writes == []
