"""A restart of a site on port 80 refuses no connection and fails no request, with a new client each millisecond.

A request that was accepted is the server's to finish: gunicorn does on SIGTERM, nginx on SIGQUIT. What is ours is the
order: the socket is never closed, the old process is told to end only when the new one is ready, and nothing that both
share (the flags of the socket are) changes under the one that stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from house import House
from loading import Load
from people import processes_of

from policy import messages

pytestmark = pytest.mark.root

LISTENING = "0A"  # of proc(5) net/tcp
STEPS = ["starting the new process", "ready", "stopping", "old process stopped"]


@pytest.fixture
def quiet_end(house: House) -> Iterator[None]:
    """The shared house is left with its site up and no load on it."""
    yield
    assert house.status()["site"].state == "RUNNING"
    assert house.loads == []


def restart(house: House, *, hard: bool = False) -> tuple[list[str], float]:
    """The steps that were said, and how long it took; the pid is another one afterwards."""
    before = house.pids("site")
    steps, ended = house.operate(messages.Restart("site", hard=hard))
    assert ended.ok, ended
    after = house.pids("site")
    assert len(after) == 1
    assert after != before
    return steps, ended.seconds


def whole(load: Load) -> dict[str, object]:
    """What a load must say when nobody noticed anything."""
    result = load.result
    assert result["refused"] == 0, result
    assert result["failed"] == {}, result
    assert result["answered"] == result["tried"]
    return result


def site_processes(house: House) -> set[int]:
    return {pid for pid in processes_of({house.people["www"].uid}) if house.space.holds(pid)}


def accept_blocks(house: House) -> bool:
    """Whether the site's listening socket is in blocking mode."""
    (pid,) = house.pids("site")
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    (inode,) = (row[9] for row in rows if row[1].endswith(":0050") and row[3] == LISTENING)
    (fd,) = (path for path in Path(f"/proc/{pid}/fd").iterdir() if os.readlink(path) == f"socket:[{inode}]")
    info = Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text()
    return not int(info.partition("flags:")[2].split()[0], 8) & os.O_NONBLOCK


@pytest.mark.usefixtures("quiet_end")
@pytest.mark.parametrize("restarts", [8, pytest.param(20, marks=pytest.mark.slow)])
def test_rolling_restarts_of_gunicorn_fail_no_request(house: House, restarts: int) -> None:
    pids = set(house.pids("site"))
    with house.load() as load:
        for _ in range(restarts):
            steps, _ = restart(house)
            assert steps[: len(STEPS)] == STEPS
            pids |= set(house.pids("site"))
    result = whole(load)
    assert len(pids) == restarts + 1
    assert len(result["by"]) > restarts  # the workers of every one of them have answered
    house.until(lambda: len(site_processes(house)) == 3, "one gunicorn and its two workers are left")


@pytest.mark.usefixtures("quiet_end")
def test_hard_restarts_of_gunicorn_let_clients_wait_and_fail_no_request(house: House) -> None:
    with house.load(interval=0.005) as load:
        for _ in range(3):
            steps, _ = restart(house, hard=True)
            assert "starting the new process" not in steps
    whole(load)


@pytest.mark.usefixtures("quiet_end")
def test_the_old_processes_of_an_idle_site_end_at_once_after_each_rolling_restart(house: House) -> None:
    """Workers that wait in accept() for a client end when they are told to: the flags of their socket are as they were.

    (Reset under the new process by the exit of the old one, they made its accept() block, until gunicorn killed it.)
    """
    for _ in range(3):
        _, seconds = restart(house)
        assert seconds < 5, seconds
        assert not accept_blocks(house)


@pytest.mark.usefixtures("quiet_end")
def test_a_new_process_that_does_not_become_ready_leaves_the_old_one_serving(house: House) -> None:
    """The site's code is broken: the new one ends at its start, and the old one goes on."""
    program = house.programs / "door.py"
    good, before = program.read_text(), house.pids("site")
    program.write_text("raise RuntimeError('broken')\n")
    try:
        with house.load(interval=0.005) as load:
            _, ended = house.operate(messages.Restart("site"))
            assert not ended.ok
            assert ended.text == "site was not restarted: the new process: exit status 1; the old one keeps serving"
            assert house.pids("site") == before
            assert not accept_blocks(house)
    finally:
        program.write_text(good)
    whole(load)
    house.until(lambda: "\nError: broken\n" in house.service_log("site", "stderr"), "the log says why")
    restart(house)


def test_rolling_restarts_of_nginx_on_an_inherited_socket_fail_no_request(
    make_house: Callable[..., House], nginx: Callable[[House], str]
) -> None:
    house = make_house(services={})
    house.write("services.d/site.toml", nginx(house))
    house.start()
    with house.load() as load:
        for _ in range(8):
            restart(house)
    result = whole(load)
    assert len(result["by"]) > 8
    house.stop()
