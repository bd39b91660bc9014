"""kill -9 of each part of ours, in turn, together and again and again, under load on port 80.

No service notices: the same processes, no second copy, no connection refused, no request failed, no line of a log lost;
and each part is back and does its work.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import templates
from house import PREFIX, House
from people import People, processes_of
from space import Space

from policy import messages

pytestmark = pytest.mark.root

PARTS = ("privileged", "supervisor", "auth", "log", "probe")
TOGETHER = (
    ("privileged", "supervisor"), ("privileged", "log"), ("supervisor", "log"), ("supervisor", "auth"),
    ("supervisor", "probe"), PARTS,
)  # fmt: skip
AGAIN = 3  # deaths of one part, one behind the other: the keeper's pauses between them double

COUNTER = """\
[service.counter]
command = ["@PREFIX@/bin/python3", "-I", "@SERVICES@/count.py"]
user = "@jobs@"
ready = { after = "0.1s" }
log = { size = "64K", keep = 1000 }
"""
SLOW = templates.plain(
    "slow", "wait", "@FOLDER@/go", "exit", "0", more='kind = "oneshot"\nautostart = false\nready = {}'
)
SLOWLY = """
[[grant]]
id = "webops-slowly"
who = ["group:@webops@"]
may = ["view", "start"]
on = ["slow"]
"""
FRAGILE = templates.plain("fragile", more='ready = { after = "0.1s" }\nrestart = { policy = "always" }')


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    services = {**templates.SERVICES, "counter.toml": COUNTER, "fragile.toml": FRAGILE, "slow.toml": SLOW}
    policy = {**templates.POLICY, "20-slow.toml": SLOWLY}
    with House(people, space, services, policy).running() as house:
        yield house


@pytest.fixture
def unnoticed(house: House) -> Iterator[None]:
    """Around a test that kills: under load, and whatever it does, the services do not notice it."""
    house.until(lambda: len(site_processes(house)) == 3, "the site has its two workers")
    before, copies = services(house), service_processes(house)
    with house.load(interval=0.002) as load:
        house.until(lambda: load.process.poll() is None and house.http("/").status == 200, "the site answers")
        yield
        restart_works(house)
    assert load.result["refused"] == 0, load.result
    assert load.result["failed"] == {}, load.result
    assert load.result["answered"] == load.result["tried"] > 0
    assert services(house) == before
    assert service_processes(house) == copies


def services(house: House) -> dict[str, list[int]]:
    """The pids of every service but the one that restart_works restarts."""
    return {name: house.pids(name) for name in house.status() if name != "worker"}


def service_processes(house: House) -> set[int]:
    """Every process of a service's user, workers too; of `worker` none."""
    uids = {house.people[short].uid for short in ("www", "jobs")}
    return {pid for pid in processes_of(uids) if house.space.holds(pid)} - set(house.pids("worker"))


def restart_works(house: House) -> None:
    before = house.pids("worker")
    _, ended = house.operate(messages.Restart("worker"))
    assert ended.ok, ended
    assert len(house.pids("worker")) == 1
    assert house.pids("worker") != before


def kill_together(house: House, pids: list[int]) -> None:
    """SIGKILL to all of them at once, and wait until they are gone."""
    with ExitStack() as stack:
        fds = [os.pidfd_open(pid) for pid in pids]
        for fd in fds:
            stack.callback(os.close, fd)
        for fd in fds:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        for fd in fds:
            assert select.select([fd], [], [], 10.0)[0]


def until_written(house: House) -> None:
    """The log moves lines again: some that were written after this moment are in it."""
    folder = house.log / "counter"

    def newest() -> int:
        found = [0]
        for path in folder.glob("stdout.log*"):
            with contextlib.suppress(FileNotFoundError):  # it has just been rotated away
                found.append(path.stat().st_mtime_ns)
        return max(found)

    then = newest()
    house.until(lambda: newest() > then, "the log goes on")


@pytest.mark.parametrize("part", PARTS)
def test_kill_9_of_a_part_is_not_noticed_by_any_service(house: House, unnoticed: None, part: str) -> None:
    house.wait_back(part, house.kill9(part))
    until_written(house)


@pytest.mark.parametrize("parts", TOGETHER, ids="+".join)
def test_kill_9_of_several_parts_at_once(house: House, unnoticed: None, parts: tuple[str, ...]) -> None:
    old = {part: house.until(lambda part=part: house.pid_of(part), f"there is a {part}") for part in parts}
    kill_together(house, list(old.values()))
    for part, pid in old.items():
        house.wait_back(part, pid)
    until_written(house)


@pytest.mark.parametrize("part", PARTS)
def test_kill_9_of_a_part_as_soon_as_it_is_back(house: House, unnoticed: None, part: str) -> None:
    for _ in range(AGAIN):
        old = house.kill9(part)
        house.until(lambda old=old: house.pid_of(part) not in (0, old), f"{part} is back")
    house.wait_back(part, house.kill9(part))
    until_written(house)


def test_a_damaged_state_file_is_said_loudly_and_starts_no_second_copy(house: House, unnoticed: None) -> None:
    """The keeper stands still, so that nobody writes it anew before it is read."""
    old = house.pid_of("supervisor")
    assert house.daemon is not None
    house.daemon.send_signal(signal.SIGSTOP)
    try:
        os.kill(old, signal.SIGKILL)
        house.until(lambda: proc_stat(old)[:1] == ["Z"], "it is dead")
        (house.run_dir / "supervisor" / "state.json").write_bytes(b'{"version":1,"slots":{"site')
        (house.run_dir / "supervisor" / "ended.json").write_bytes(b"[{")
    finally:
        house.daemon.send_signal(signal.SIGCONT)
    house.wait_back("supervisor", old)
    assert "the state file is damaged and not used, only what runs counts" in house.stderr()
    assert "the file of what has ended is damaged" in house.stderr()


@pytest.mark.parametrize(("way", "killed"), [("api", ("privileged", "supervisor")), ("root", ("supervisor",))])
def test_a_command_waits_through_kill_9_of_the_supervisor_and_tells_the_outcome(
    house: House, way: str, killed: tuple[str, ...]
) -> None:
    go, root = house.folder / "go", [str(PREFIX / "bin" / "durward"), "--root", str(house.run_dir / "root.sock")]
    assert house.login("alice").returncode == 0

    def asked() -> subprocess.CompletedProcess[str]:
        if way == "api":
            return house.cli("alice", "start", "slow")
        return subprocess.run([*root, "start", "slow"], capture_output=True, text=True, timeout=60, check=False)

    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(asked)
        try:
            house.wait_for(lambda seen: seen["slow"].processes[0].pid, "begun")
            (pid,) = house.pids("slow")
            for part in killed:
                house.wait_back(part, house.kill9(part))
            assert not told.done()
        finally:
            go.touch()
    done = told.result()
    assert (done.returncode, done.stdout.partition(" in ")[0]) == (0, "slow done"), done
    assert pid not in house.pids("slow")
    (decision,) = [one for one in house.audit() if one["kind"] == "decision" and one["target"] == "slow"][-1:]
    outcomes = [one for one in house.audit() if one["kind"] == "outcome" and one["id"] == decision["id"]]
    assert [(one["ok"], one["result"], one["action"]) for one in outcomes] == [(True, "slow done", "start")]
    go.unlink()


def test_a_session_outlives_kill_9_of_auth_and_of_the_supervisor(house: House) -> None:
    token = house.token("alice")
    for part in ("auth", "supervisor"):
        house.wait_back(part, house.kill9(part))
        house.until(lambda: house.api("GET", "/services", token).status == 200, f"the session is good without {part}")
    assert house.api("POST", "/services/site/restart?wait=true", token).status == 200
    house.until(lambda: house.token("bob"), "auth lets people in")


def test_kill_9_of_the_apis_workers_refuses_nobody(house: House) -> None:
    before, workers = services(house), house.until(house.api_workers, "the api has workers")
    kill_together(house, workers)
    assert house.http("/healthz", port=templates.API_PORT).status == 200
    token = house.token("alice")
    assert house.api("POST", "/services/site/restart?wait=true", token).status == 200
    assert not set(house.api_workers()) & set(workers)
    assert {name: pids for name, pids in services(house).items() if name != "site"} == {
        name: pids for name, pids in before.items() if name != "site"
    }


def test_kill_9_of_the_whole_api_refuses_nobody(house: House) -> None:
    uid = house.people["api"].uid
    ours = [pid for pid in processes_of({uid}) if house.space.holds(pid)]
    before = services(house)
    kill_together(house, ours)
    assert house.http("/healthz", port=templates.API_PORT).status == 200
    assert services(house) == before


@pytest.mark.parametrize("part", ["supervisor", "privileged", "log"])
def test_a_service_that_dies_while_a_part_is_dead_is_started_again(house: House, part: str) -> None:
    """The keeper stands still, so that the part is dead for certain when the service dies."""
    victim, old = house.pids("fragile")[0], house.pid_of(part)
    assert house.daemon is not None
    house.daemon.send_signal(signal.SIGSTOP)
    try:
        os.kill(old, signal.SIGKILL)
        house.until(lambda: proc_stat(old)[:1] == ["Z"], f"{part} is dead")
        os.kill(victim, signal.SIGKILL)
        house.until(lambda: proc_stat(victim)[:1] in ([], ["Z"]), "the service is dead")
    finally:
        house.daemon.send_signal(signal.SIGCONT)
    house.wait_back(part, old)
    seen = house.wait_for(lambda s: s["fragile"].state == "RUNNING" and s["fragile"].processes[0].pid != victim, "up")
    assert seen["fragile"].processes[0].exit == "killed by SIGKILL"
    assert house.daemon.poll() is None


def proc_stat(pid: int) -> list[str]:
    """The words of /proc/PID/stat from the state on; none when nothing is left of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


@pytest.mark.parametrize("part", ["privileged", "supervisor", "log"])
def test_kill_9_in_the_middle_of_a_rolling_restart_leaves_one_site_that_answers(house: House, part: str) -> None:
    with house.load(interval=0.002) as load:
        assert isinstance(house.ask(messages.Restart("site")), messages.Accepted)
        house.until(lambda: len(site_masters(house)) == 2, "both are there")
        house.wait_back(part, house.kill9(part))
        house.until(lambda: len(site_masters(house)) == 1, "one is there")
        seen = house.wait_for(lambda s: s["site"].state == "RUNNING" and len(s["site"].processes) == 1, "it runs")
        assert seen["site"].processes[0].pid in site_masters(house)
        restart_works(house)
    assert load.result["refused"] == 0, load.result
    assert load.result["failed"] == {}, load.result


def site_masters(house: House) -> set[int]:
    """Processes of the site whose parent is no other process of the site."""
    pids = site_processes(house)
    parents = {pid: proc_stat(pid)[1:2] for pid in pids}
    return {pid for pid, parent in parents.items() if parent and int(parent[0]) not in pids}


def site_processes(house: House) -> set[int]:
    return {pid for pid in processes_of({house.people["www"].uid}) if house.space.holds(pid)}


def test_no_line_of_a_plain_log_is_lost_by_all_of_this(house: House) -> None:
    """Runs last; it kills log once more, rotations and all, and stops the service that has counted all along."""
    house.wait_back("log", house.kill9("log"))
    until_written(house)
    _, ended = house.operate(messages.Stop("counter"))
    assert ended.ok, ended
    house.until(lambda: complete(lines(house.log / "counter")), "its last line is written")
    numbers = lines(house.log / "counter")  # once more: nothing is rotated any more
    assert numbers[:-1] == [str(number) for number in range(len(numbers) - 1)]
    assert numbers[-1] == f"end {len(numbers) - 1}"
    assert len(list((house.log / "counter").glob("stdout.log.*"))) > 3


def complete(found: list[str]) -> list[str]:
    return found if found and found[-1].startswith("end ") else []


def lines(folder: Path) -> list[str]:
    """First words of all lines, oldest first, rotated files too; the whole of the last."""
    rotated = sorted(folder.glob("stdout.log.*"), key=lambda path: -int(path.suffix[1:]))
    try:
        text = "".join(path.read_text() for path in (*rotated, folder / "stdout.log"))
    except FileNotFoundError:  # it is being rotated
        return []
    found = text.splitlines()
    return [line if line.startswith("end ") else line.partition(" ")[0] for line in found]
