"""The run directory is full, as anything may fill /run: what is asked for is done, and no part dies of it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import House
from people import People
from space import Space
from templates import plain

from policy import messages

pytestmark = pytest.mark.root

SERVICES = {"one.toml": plain("one"), "two.toml": plain("two")}


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    house = House(people, space, SERVICES, policy={})
    house.run_dir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "durward-test", house.run_dir], check=True)
    try:
        with house.running():
            yield house
    finally:
        subprocess.run(["umount", "--lazy", house.run_dir], check=True)
        house.remove()


@contextlib.contextmanager
def filled(house: House) -> Iterator[Path]:
    path = house.run_dir / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def test_what_is_asked_for_while_it_is_full_is_done_and_remembered_when_there_is_room(house: House) -> None:
    supervisor, two = house.pid_of("supervisor"), house.pids("two")
    with filled(house):
        assert house.operate(messages.Stop("one"))[1].ok
        house.until(lambda: "cannot be written" in house.stderr(), "it says that it cannot write")
    assert house.pid_of("supervisor") == supervisor, house.stderr()
    house.until(lambda: "written again" in house.stderr(), "it says that it can")
    house.kill9("supervisor")
    house.wait_back("supervisor", supervisor)
    assert house.status()["one"].wanted == "down"
    assert house.pids("two") == two
    assert house.operate(messages.Start("one"))[1].ok


@pytest.mark.parametrize("role", ["supervisor", "log", "auth", "probe", "privileged"])
def test_a_part_that_is_killed_while_it_is_full_is_back_at_once(house: House, role: str) -> None:
    before = house.pids("one") + house.pids("two")
    with filled(house):
        said = house.stderr().count(f"{role} ended")
        house.wait_back(role, house.kill9(role))
        assert house.operate(messages.Restart("two"))[1].ok
        assert house.stderr().count(f"{role} ended") == said + 1, house.stderr()
        assert house.pids("one") == before[:1]
