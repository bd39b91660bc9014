"""rootd/privileged/spawn: the gate, and kill -9 after every system call of a spawn, its store and its end."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from privileged_house import SERVICE_UID, House, entry, tcp_socket

from rootd import closing, confine, ipc
from rootd.privileged import adopt, cgroup, listen, orphans, requests, signals, spawn, spawner
from rootd.privileged.spawner import Spawner

pytestmark = pytest.mark.root
Build = Callable[..., House]
SLEEPER = "import signal; print('up', flush=True); signal.pause()"


class DyingOs:
    """The os module for one process, which kills itself with SIGKILL after the n-th call through any of these."""

    def __init__(self, real: ModuleType, count: list[int]) -> None:
        self.real, self.count, self.pid = real, count, os.getpid()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.real, name)
        if not callable(found) or isinstance(found, type):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return found(*args, **kwargs)
            finally:
                self.step()

        return call

    def step(self) -> None:
        if os.getpid() == self.pid:
            self.count[0] -= 1
            if self.count[0] == 0:
                os.kill(self.pid, signal.SIGKILL)


def die_after(calls: int, op: int = ipc.SPAWN) -> Callable[[], None]:
    """Run in privileged before its main: from the first SPAWN (or another) on, it dies after this many calls."""

    def inside() -> None:
        answer = requests.HANDLERS[op]
        real_now, real_send = ipc.Link.send_now, ipc.Link.send

        def armed(house: Any, asked: ipc.Message) -> None:
            dying = DyingOs(os, [calls])
            for module in (spawn, cgroup, listen, requests, signals, adopt, orphans, closing):
                module.os = dying  # type: ignore[attr-defined]

            def send_now(link: ipc.Link, message: ipc.Message, *fds: int) -> None:
                real_now(link, message, *fds)
                dying.step()

            def send(link: ipc.Link, message: ipc.Message, *fds: int) -> None:
                real_send(link, message, *fds)
                dying.step()

            ipc.Link.send_now, ipc.Link.send = send_now, send  # type: ignore[method-assign]
            answer(house, asked)

        requests.HANDLERS[op] = armed

    return inside


def living(uid: int) -> set[int]:
    """Processes of this uid that are not zombies."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/status") as status:
                fields = dict(line.split(":", 1) for line in status if ":" in line)
        except OSError:
            continue
        if fields["Uid"].split()[0] == str(uid) and not fields["State"].strip().startswith("Z"):
            found.add(int(pid))
    return found


def facts(house: House) -> dict[int, int]:
    """What a privileged that was started again says of the runs: run -> pid, without those that have ended."""
    found = {}
    while True:
        message, fds = house.hear(ipc.FACT, ipc.FACTS_END, ipc.TABLE)
        ipc.close_all(fds)
        if message.op == ipc.FACTS_END:
            return found
        if message.op == ipc.FACT:
            found[message.run] = message.arg


def settle(house: House, run: int) -> bool:
    """Whether a run of the facts lives: one whose gate closed ends by itself, and is told to have ended."""
    until_exec = f"/proc/{facts_pid(house, run)}/exe"
    while True:
        house.reap_orphans()
        try:
            if os.readlink(until_exec) == os.path.realpath("/usr/bin/python3") and b"-c" in cmdline(house, run):
                return True
        except OSError:  # it has no program any more, and can be reaped a moment later
            assert select.select([house.store_pidfd(run)], [], [], 20)[0]
            house.reap_orphans()
            return False


def facts_pid(house: House, run: int) -> int:
    return next(int(n.split("/")[4]) for n in house.store if n.startswith("process/") and n.split("/")[2] == str(run))


def cmdline(house: House, run: int) -> bytes:
    with open(f"/proc/{facts_pid(house, run)}/cmdline", "rb") as words:
        return words.read()


def test_d7_d8_a_kill_after_any_call_of_a_spawn_leaves_one_process_or_none_and_never_two(build: Build) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        spec = tcp_socket("http", free.getsockname()[1])
    site = entry(SLEEPER, notify=True, probe=True, sockets=(("http", spec.key),))
    house = build(site, sockets=(spec,), start=False)
    outcomes = []
    for calls in range(1, 200):
        house.inside = die_after(calls)
        house.start()
        house.hear(ipc.FACTS_END)
        house.ask(ipc.SPAWN, seq=1, generation=1, slot=0)
        died = finished_or_died(house)
        if died:
            house.wait()
        house.inside = lambda: None
        if died:
            house.start()
        lives = check_one_or_none(house, died)
        outcomes.append(lives)
        house.kill()
        clean(house)
        if not died:
            break
    else:
        pytest.fail("the spawn never ended")
    assert len(outcomes) > 25, "the failpoints were not reached"
    assert False in outcomes
    assert True in outcomes


def finished_or_died(house: House) -> bool:
    """True when privileged has died; False when it has answered the spawn and said everything it had to say."""
    while True:
        ready, _, _ = select.select([house.pidfd, house.supervisor, house.keeper], [], [], 20)
        assert ready
        house.serve_keeper()
        if house.pidfd in ready:
            return True
        try:
            received = house.supervisor.receive()
        except BlockingIOError:
            continue
        if received is not None:
            ipc.close_all(received[1])
            if received[0].op == ipc.CHANNEL:
                return bool(select.select([house.pidfd], [], [], 0.2)[0])


def check_one_or_none(house: House, died: bool) -> bool:
    """Every process that lives is a fact, every fact lives or is told to have ended; a new spawn works."""
    if not died:
        return True
    told = facts(house)
    assert len(told) <= 1
    lives = False
    for run in told:
        lives = settle(house, run)
        if not lives:  # it never ran, so it has not done what it is for either
            assert house.hear(ipc.EXITED, run=run)[0].arg != 0
        house.ask(ipc.SIGNAL, run=run, arg=9, scope=ipc.TREE)
        if lives:
            assert living(SERVICE_UID) <= {told[run]}
            while not select.select([house.store_pidfd(run)], [], [], 0.1)[0]:
                continue
            house.reap_orphans()
            house.hear(ipc.EXITED, run=run)
            house.ask(ipc.SIGNAL, run=run, arg=9, scope=ipc.TREE)
        house.hear(ipc.EMPTY, run=run)
    assert living(SERVICE_UID) == set()
    assert os.listdir(house.directory / "notify") == os.listdir(house.directory / "probe") == []
    fresh = house.spawn()
    assert fresh.op == ipc.SPAWNED
    return lives


def clean(house: House) -> None:
    """Between two failpoints: nothing of the last one may be there."""
    for name in [name for name in house.store if name.split("/")[0] in ("process", "pipe", "notify")]:
        fd = house.store.pop(name)
        if name.startswith("process/"):
            try:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                os.waitpid(int(name.split("/")[4]), 0)
            except (ProcessLookupError, ChildProcessError):
                pass
        os.close(fd)
    house.reaped.clear()
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
    if os.path.isdir(house.tree):
        cgroup.sweep(house.tree, set())


def test_a_run_is_taken_back_from_its_name_alone() -> None:
    fd = os.dup(0)
    run = spawn.Run(12, 5, 2, 4711, 99, fd)
    again = spawn.Run.held(run.name, fd)
    assert (again.run, again.slot, again.generation, again.pid, again.started) == (12, 5, 2, 4711, 99)
    assert again.name == run.name
    with pytest.raises(ValueError, match="unpack"):
        spawn.Run.held("process/1/2", fd)
    os.close(fd)


def test_processes_are_numbered_only_where_there_are_several() -> None:
    assert spawn.process_name(entry(), 0) == "site"
    assert spawn.process_name(entry(count=2), 5 * 1024 + 1) == "site.1"


def test_a_spawn_that_cannot_be_made_says_which_step_and_leaves_nothing(build: Build) -> None:
    """Out of descriptors, for real: the limit of privileged itself."""
    house = build(entry(SLEEPER, count=64), start=False)
    house.inside = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
    house.start()
    house.hear(ipc.FACTS_END)
    answers = [house.spawn(slot=0)]
    while answers[-1].op == ipc.SPAWNED:
        answers.append(house.spawn(slot=len(answers)))
    assert answers[-1].arg in (errno.EMFILE, errno.ETOOMANYREFS)  # the latter: too many in flight
    assert ipc.STEPS[answers[-1].extra] in ("/dev/null", "pipe", "cgroup", "fork", "store")
    assert len([name for name in house.store if name.startswith("process/")]) == len(answers) - 1
    running = {str(answer.run) for answer in answers[:-1]}
    assert {name.split("/")[3] for name in house.store if name.startswith("pipe/")} <= running
    house.log.close()  # what was on its way to log is gone with it
    house.log = house.link("log", takes_fds=True)
    house.ask(ipc.SIGNAL, run=answers[0].run, arg=9, scope=ipc.TREE)
    house.finish(answers[0].run)
    assert house.spawn(slot=0).op == ipc.SPAWNED  # it has recovered by itself


def test_d7_a_child_that_is_killed_before_it_has_read_the_open_gate_is_no_error_of_ours() -> None:
    """Linux says ECONNRESET then: the byte of the gate is still in its queue."""
    gate, child = socket.socketpair()
    run = spawn.Run(12, 5, 2, 4711, 99, -1)
    run.gate = gate.detach()
    spawn.open_gate(run)
    child.close()
    spawn.read_failure(run)
    assert (run.gate, run.failure) == (-1, 0)


def test_c6_pipes_that_somebody_else_holds_open_cost_their_own_service_only() -> None:
    """A service may hand its stdout to a process that outlives it: its pipes are then never drained."""
    kept = spawn.Kept()
    for run in range(spawn.PIPES_LIMIT // 2):
        assert not kept.full("evil", 0)
        for stream in ("stdout", "stderr"):
            kept.add(f"pipe/evil/{stream}/{run}/1024/1/0")
    assert kept.full("evil", 0)
    assert not kept.full("site", 0)
    assert not kept.full("evil", 1024)  # a hook of it
    kept.discard("pipe/evil/stdout/0/1024/1/0")
    kept.discard("pipe/evil/stdout/0/1024/1/0")
    assert not kept.full("evil", 0)


def test_c6_the_store_is_never_filled_by_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (400, 400))
    kept = spawn.Kept()
    for run in range(200):
        assert not kept.full("site", 0)
        kept.add(f"process/0/{run}/1/{run}/1")
    assert kept.full("site", 0)


def test_a_spawn_whose_store_fails_leaves_nothing(tmp_path: Path, helper: Spawner) -> None:
    def store(_: dict[str, int]) -> None:
        raise OSError(errno.ETOOMANYREFS, "too many in flight")

    before, others = set(os.listdir("/proc/self/fd")), children()
    with pytest.raises(spawn.SpawnFailed) as failed:
        spawn.spawn(
            entry(), slot=0, run=1, generation=1, sockets={}, paths=(str(tmp_path), ""), probe_gid=0, about=0,
            store=store, helper=helper,
        )  # fmt: skip
    assert (failed.value.errno, failed.value.step) == (errno.ETOOMANYREFS, ipc.STEPS.index("store"))
    assert set(os.listdir("/proc/self/fd")) == before
    assert children() == others


def children() -> set[str]:
    with open(f"/proc/self/task/{os.getpid()}/children") as pids:
        return set(pids.read().split())


def test_a_birth_is_spelled_as_roots_files_are_whatever_the_locale() -> None:
    program = (
        "from rootd.privileged.spawner import Birth; import os, sys; assert sys.getfilesystemencoding() == 'ascii';"
        "os.write(1, Birth('', '/x', '/', (), (), (), ('\\u20ac\\udcff',), ()).encode())"
    )
    other = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    found = subprocess.run([sys.executable, "-c", program], env=other, stdout=subprocess.PIPE, check=True)
    assert found.stdout.endswith(b"\0\xe2\x82\xac\xff")


def test_a_birth_that_names_more_descriptors_than_come_does_not_end_the_spawner(helper: Spawner) -> None:
    for ids in ((SERVICE_UID, SERVICE_UID, 0o022, 1, 0, 5), (SERVICE_UID, SERVICE_UID, 1 << 70, 1, 0, 0)):
        birth = spawner.Birth("", "/bin/true", "/", ids, (), (), ("true",), ())
        with pytest.raises(OSError, match="Invalid argument"):
            helper.spawn(birth, (0, 0, 1, 2))


@pytest.mark.parametrize("moment", ["before the birth", "after the birth", "before the answer"])
def test_the_spawner_killed_at_any_moment_of_a_birth_leaves_no_service_and_none_twice(
    build: Build, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """What was born waits at its gate, which closes; privileged tells that it could not, and is started again."""
    house = build(entry(SLEEPER), start=False)
    real = spawner.fork_child, spawner.bear

    def dies(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fork(child: spawner.Child, held: Any) -> tuple[int, int]:
        dies(real[0](child, held) if moment == "after the birth" else None)
        raise AssertionError

    def bear(*words: Any) -> Any:
        dies(real[1](*words))

    house.inside = lambda: monkeypatch.setattr(
        spawner, *(("bear", bear) if moment == "before the answer" else ("fork_child", fork))
    )
    house.start()
    facts(house)
    answer = house.spawn()
    assert (answer.op, answer.arg) == (ipc.DONE, errno.EPIPE)
    assert house.wait() != 0
    house.inside = lambda: None
    house.start()
    assert facts(house) == {}
    assert not living(SERVICE_UID)
    assert [name for name in house.store if name.startswith(("process/", "pipe/"))] == []
    if os.path.isdir(house.tree):
        assert not [name for name in os.listdir(house.tree) if name.startswith("run-")]
    spawned = house.spawn()
    assert os.read(house.output(spawned.run)[1], 10) == b"up\n"
    assert living(SERVICE_UID) == {spawned.arg}


def test_a_child_that_cannot_be_moved_into_its_cgroup_is_reaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawner, "CLONE3", 1 << 20)  # ENOSYS, as filters of containers say
    helper = Spawner()
    helper.become(0, 0, (), confine.held(), keep_bounding=True)
    ids = (SERVICE_UID, SERVICE_UID, 0o022, 1, 0, 0)
    with open("/proc/thread-self/children") as children:
        before = children.read()
        with pytest.raises(FileNotFoundError):
            helper.spawn(spawner.Birth(str(tmp_path), "/bin/true", "/", ids, (), (), ("true",), ()), (0, 0, 1, 2))
        children.seek(0)
        assert children.read() == before
    helper.close()
