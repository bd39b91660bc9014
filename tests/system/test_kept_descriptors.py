"""kill -9 of the keeper where a service manager keeps the descriptors: no service notices, as when another part dies.

The manager's part is played by the test, by what sd_notify(3) says; test_systemd.py has the real one.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import templates
from house import PREFIX, House
from manager import Manager
from people import People, processes_of
from space import Space

from policy import messages

pytestmark = pytest.mark.root

JOB = """\
[service.job]
command = ["@PREFIX@/bin/python3", "-I", "@SERVICES@/plain.py", "say", "ran", "wait", "@FOLDER@/done", "exit", "0"]
user = "@jobs@"
kind = "oneshot"
autostart = false
"""
SERVICES = {
    **templates.SERVICES,
    "fragile.toml": templates.plain("fragile", more='ready = { after = "0.1s" }\nrestart = { policy = "always" }'),
    "job.toml": JOB,
}
PARTS = ("privileged", "supervisor", "log", "auth", "probe")


class Kept:
    """A house whose keeper is started by a manager, each time with what that one keeps."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.manager = Manager(house.folder / "manager.sock")

    def start(self) -> None:
        self.house.program, self.house.given = self.manager.command(str(PREFIX / "bin" / "durward-rootd"))
        self.manager.listen()
        self.house.start()

    def kill9(self, *parts: str) -> None:
        """The keeper, and with it these: all of it at once, as far as the kernel has it so."""
        house, daemon = self.house, self.house.daemon
        assert daemon is not None
        pids = [house.until(lambda part=part: house.pid_of(part), f"there is a {part}") for part in parts]
        for pid in (daemon.pid, *pids):
            with contextlib.suppress(ProcessLookupError):  # it has seen the end of its link already
                os.kill(pid, signal.SIGKILL)
        daemon.wait()
        house.daemon = None
        self.manager.settle()


@pytest.fixture(scope="module")
def kept(people: People, space: Space) -> Iterator[Kept]:
    house = House(people, space, SERVICES)
    kept = Kept(house)
    try:
        kept.start()
        yield kept
        house.stop()
    finally:
        kept.manager.close()
        house.remove()


def processes(house: House) -> set[int]:
    """Every process of a service's user, workers too."""
    uids = {house.people[short].uid for short in ("www", "jobs")}
    return {pid for pid in processes_of(uids) if house.space.holds(pid)}


@pytest.mark.parametrize("parts", [(), ("privileged",), PARTS], ids=["alone", "with-privileged", "with-all"])
def test_kill_9_of_the_keeper_is_not_noticed_by_any_service(kept: Kept, parts: tuple[str, ...]) -> None:
    house = kept.house
    house.until(lambda: len(processes_of({house.people["www"].uid})) == 3, "the site has its two workers")
    before, copies = house.status(), processes(house)
    with house.load(interval=0.005) as load:
        load.begun()
        kept.kill9(*parts)
        kept.start()
        after = house.status()
    assert load.result["refused"] == 0, load.result
    assert load.result["failed"] == {}, load.result
    assert processes(house) == copies, "none ended, and there is no second copy"
    assert {name: service.processes[0].pid for name, service in after.items() if service.processes} == {
        name: service.processes[0].pid for name, service in before.items() if service.processes
    }
    assert {name: service.state for name, service in after.items()} == {
        name: service.state for name, service in before.items()
    }


def test_what_is_taken_back_is_in_hand_again(kept: Kept) -> None:
    house = kept.house
    kept.kill9()
    kept.start()
    before = house.pids("worker")
    _, ended = house.operate(messages.Restart("worker"))
    assert ended.ok, ended
    assert house.pids("worker") != before
    assert "READY=1" in kept.manager.said


def test_what_ended_while_nobody_was_there_is_started_again_by_its_policy_and_a_job_is_not(kept: Kept) -> None:
    """How they ended nobody can know: they were children of the keeper that is gone."""
    house = kept.house
    assert isinstance(house.ask(messages.Start("job")), messages.Accepted)
    house.until(lambda: house.service_log("job") == "ran\n", "the job runs")
    (victim,) = house.pids("fragile")
    kept.kill9()
    Path(house.folder / "done").touch()
    os.kill(victim, signal.SIGKILL)
    house.until(lambda: not {victim} & processes(house) and len(processes_of({house.people["jobs"].uid})) == 1, "gone")
    kept.start()
    seen = house.wait_for(lambda s: s["fragile"].state == "RUNNING" and s["job"].state == "EXITED", "both are settled")
    assert seen["fragile"].processes[0].pid != victim
    assert house.service_log("job") == "ran\n", "it has run once"


def test_a_keeper_that_is_asked_to_end_before_it_has_taken_all_back_ends_it_all_the_same(kept: Kept) -> None:
    """And the manager keeps nothing then, so that the next one begins anew."""
    house = kept.house
    kept.kill9()
    house.program, house.given = kept.manager.command(str(PREFIX / "bin" / "durward-rootd"))
    kept.manager.listen()
    house.start(wait=False)
    house.until(lambda: house.pid_of("privileged"), "it has begun to take back")
    house.stop()
    kept.manager.settle()
    assert kept.manager.kept == {}


@pytest.mark.slow
def test_a_keeper_that_is_killed_in_a_restart_is_followed_by_one_that_ends_all_and_asks_to_be_started_once_more(
    kept: Kept,
) -> None:
    """The unit says by a file that a restart was asked for. It is the last test of this house."""
    house = kept.house
    house.stop()
    kept.manager.settle()
    restart = house.folder / "restart"
    restart.touch()
    variable = f"DURWARD_RESTART={restart}"
    house.program, house.given = kept.manager.command("/usr/bin/env", variable, str(PREFIX / "bin" / "durward-rootd"))
    kept.manager.listen()
    house.start()
    assert not restart.exists(), "one that begins anew has nothing to end first"
    kept.kill9()
    restart.touch()
    house.program, house.given = kept.manager.command("/usr/bin/env", variable, str(PREFIX / "bin" / "durward-rootd"))
    kept.manager.listen()
    house.start(wait=False)
    house.until(lambda: house.daemon is None or house.daemon.poll() is not None, "it has ended by itself")
    house.stop(expect=85)
    kept.manager.settle()
    assert kept.manager.kept == {}
    assert not restart.exists()
