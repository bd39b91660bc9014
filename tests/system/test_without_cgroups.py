"""A machine without cgroup2: what services leave is found all the same, and what is others' is not touched."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import templates
from house import HERE, House
from people import People, processes_of
from space import Space

from policy import messages

pytestmark = pytest.mark.root

AFTER = 'ready = { after = "0.1s" }\n'
SERVICES = {
    "escaped": (("daemon", "daemon"), AFTER + 'restart = { policy = "always", backoff = "0.05s..1s" }'),
    "classic": (("daemon", "daemon", "exit", "0"), AFTER + 'restart = { policy = "never" }'),
    "stone": (("setsid", "stone"), AFTER + 'stop = { timeout = "0.3s" }'),
    "neighbour": (("setsid", "daemon"), AFTER),
    "claimer": (("become", "wait", "/nonexistent"), "ready = { notify = true }"),
}


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    services = {
        f"{name}.toml": templates.plain(name, *words, more=f"autostart = false\n{more}")
        for name, (words, more) in SERVICES.items()
    }
    house = House(people, space, services, policy={})
    house.program = [sys.executable, "-I", "-B", str(HERE / "bare.py"), *house.program]
    with house.running():
        yield house


def jobs(house: House) -> set[int]:
    return {pid for pid in processes_of({house.people["jobs"].uid}) if house.space.holds(pid)}


def start(house: House, service: str, count: int) -> set[int]:
    """All processes of the service when there are as many, its daemons the keeper's: what forked them is gone."""
    before, daemons = jobs(house), SERVICES[service][0].count("daemon")
    _, ended = house.operate(messages.Start(service))
    assert ended.ok, ended

    def all_there() -> set[int]:
        mine = jobs(house) - before
        orphans = [pid for pid in mine if parent(pid) == house.daemon.pid]
        return mine if (len(mine), len(orphans)) == (count, daemons) else set()

    return house.until(all_there, "all of it is there")


def parent(pid: int) -> int:
    """0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def stop(house: House, service: str) -> None:
    _, ended = house.operate(messages.Stop(service))
    assert ended.ok, ended


def test_there_are_no_cgroups_here(house: House) -> None:
    group = Path(f"/proc/{house.pid_of('privileged')}/cgroup").read_text()
    assert "durward" not in group


def test_nothing_of_a_double_forked_daemon_is_left_after_a_stop(house: House) -> None:
    start(house, "escaped", 3)
    stop(house, "escaped")
    assert jobs(house) == set()


def test_nothing_of_it_is_left_after_a_crash_of_its_first_process(house: House) -> None:
    before = start(house, "escaped", 3)
    (first,) = house.pids("escaped")
    os.kill(first, 9)
    house.wait_for(
        lambda s: s["escaped"].state == "RUNNING" and s["escaped"].processes[0].pid != first, "it is started again"
    )
    assert not jobs(house) & before
    house.until(lambda: len(jobs(house)) == 3, "the new ones are there")
    stop(house, "escaped")
    assert jobs(house) == set()


def test_nothing_is_left_when_the_first_process_of_a_daemon_ends_as_daemons_do(house: House) -> None:
    house.operate(messages.Start("classic"))
    house.wait_for(lambda s: s["classic"].state == "EXITED", "it has ended")
    house.until(lambda: jobs(house) == set(), "nothing of it is left")


def test_another_service_of_the_user_keeps_all_its_processes(house: House) -> None:
    neighbours = start(house, "neighbour", 3)
    for _ in range(2):
        start(house, "stone", 2)
        stop(house, "stone")
        assert jobs(house) == neighbours, "what descends from its own process is gone, and nothing else"
        house.wait_back("privileged", house.kill9("privileged"))
    stop(house, "neighbour")
    assert jobs(house) == set()


def test_what_may_be_the_neighbours_is_left_until_he_is_gone_and_that_is_said(house: House) -> None:
    neighbours = start(house, "neighbour", 3)
    mine = start(house, "escaped", 3)
    (first,) = house.pids("escaped")
    stop(house, "escaped")
    assert jobs(house) == neighbours | (mine - {first})
    assert "2 processes are left that escaped or another service of its user has started" in house.stderr()
    stop(house, "neighbour")
    assert jobs(house) == set()


def test_nobody_becomes_a_main_process_without_a_proof(house: House) -> None:
    """Only the main process itself is heard, since nothing tells whose the others are."""
    accepted = house.ask(messages.Start("claimer"))
    assert isinstance(accepted, messages.Accepted), accepted
    house.until(lambda: len(jobs(house)) == 2, "it has forked")
    assert house.status()["claimer"].state == "STARTING"
    stop(house, "claimer")
    assert jobs(house) == set()
