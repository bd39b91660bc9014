"""How services say that they are ready, and who their main process is: a newline (s6), READY=1, MAINPID (systemd)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import templates
from house import House
from people import People, processes_of
from space import Space

from policy import messages

pytestmark = pytest.mark.root

OFF = "autostart = false\n"
SERVICES = {
    "newline": (("wait", "@FOLDER@/go", "newline", "9"), "ready = { fd = 9 }"),
    "late": (("wait", "@FOLDER@/go", "claim", "@FOLDER@/go"), "ready = { notify = true }"),
    "mute": (("say", "nothing"), 'ready = { fd = 3, timeout = "0.3s" }\nrestart = { policy = "never" }'),
    "forker": (("become", "exit", "0"), 'ready = { notify = true }\nrestart = { policy = "never" }'),
    "wrapper": (("become",), 'ready = { notify = true }\nrestart = { policy = "never" }'),
    "thief": (("claim", "@FOLDER@/whose"), "ready = { notify = true }"),
}


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    services = {
        f"{name}.toml": templates.plain(name, *words, more=OFF + more) for name, (words, more) in SERVICES.items()
    }
    with House(people, space, services, policy={}).running() as house:
        yield house


def start(house: House, service: str) -> messages.Ended:
    return house.operate(messages.Start(service))[1]


def stop(house: House, service: str) -> None:
    assert house.operate(messages.Stop(service))[1].ok
    assert jobs(house) == set()


def jobs(house: House) -> set[int]:
    return {pid for pid in processes_of({house.people["jobs"].uid}) if house.space.holds(pid)}


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def kill_both(house: House) -> None:
    for part in ("privileged", "supervisor"):
        house.wait_back(part, house.kill9(part))


def test_a_newline_is_heard_after_kill_9_of_privileged(house: House) -> None:
    accepted = house.ask(messages.Start("newline"))
    assert isinstance(accepted, messages.Accepted), accepted
    house.wait_for(lambda seen: bool(seen["newline"].processes[0].pid), "it runs")
    house.wait_back("privileged", house.kill9("privileged"))
    assert house.status()["newline"].state == "STARTING"
    (house.folder / "go").touch()
    house.wait_for(lambda seen: seen["newline"].state == "RUNNING", "it has said that it is ready")
    kill_both(house)
    assert house.status()["newline"].state == "RUNNING"
    stop(house, "newline")


def test_one_that_has_not_said_that_it_is_ready_is_not_started_because_the_supervisor_was_killed(house: House) -> None:
    for service in ("newline", "late"):
        (house.folder / "go").unlink(missing_ok=True)
        accepted = house.ask(messages.Start(service))
        assert isinstance(accepted, messages.Accepted), accepted
        house.wait_for(lambda seen: bool(seen[service].processes[0].pid), "it runs")  # noqa: B023
        pids = house.pids(service)
        house.wait_back("supervisor", house.kill9("supervisor"))
        with house.root() as events:
            events.send(messages.Watch(operation=accepted.operation))
            assert house.status()[service].state == "STARTING"
            (house.folder / "go").touch()
            while not isinstance(event := events.receive(), messages.Ended):
                assert house.status()[service].state != "BACKOFF"
        assert event.ok, event
        assert house.status()[service].state == "RUNNING"
        assert house.pids(service) == pids
        stop(house, service)


def test_one_that_writes_none_does_not_become_ready(house: House) -> None:
    ended = start(house, "mute")
    assert not ended.ok
    assert "not ready in 0.3 s: no newline came on its descriptor 3 (see ready.fd and ready.timeout)" in ended.text
    house.wait_for(lambda seen: seen["mute"].state == "FATAL", "it is given up")


def test_a_daemon_that_forks_twice_is_its_own_main_process_from_then_on(house: House) -> None:
    """Its first process ends as soon as the last one has said MAINPID."""
    assert start(house, "forker").ok
    house.until(lambda: set(house.pids("forker")) == jobs(house), "the first process is gone")
    (pid,) = house.pids("forker")
    assert house.daemon is not None
    assert parent(pid) == house.daemon.pid
    deeds = [(record["process"], record["arg"]) for record in house.audit() if record.get("deed") == "adopt"]
    assert deeds == [("forker", pid)]
    kill_both(house)
    assert (house.pids("forker"), jobs(house)) == ([pid], {pid})
    os.kill(pid, signal.SIGKILL)
    seen = house.wait_for(lambda seen: seen["forker"].state == "EXITED", "its end is seen")
    assert seen["forker"].processes[0].exit == "killed by SIGKILL", "the keeper has reaped it"
    assert start(house, "forker").ok
    stop(house, "forker")


def test_one_whose_first_process_stays_is_stopped_with_it(house: House) -> None:
    assert start(house, "wrapper").ok
    assert house.daemon is not None
    house.until(lambda: [parent(pid) for pid in house.pids("wrapper")] == [house.daemon.pid], "the last one counts")
    assert len(jobs(house)) == 2
    stop(house, "wrapper")


def test_the_process_of_somebody_else_is_nobodys_main_process(house: House) -> None:
    assert start(house, "wrapper").ok
    (victim,) = house.pids("wrapper")
    assert house.daemon is not None
    for whose in (victim, house.pid_of("privileged"), house.daemon.pid):
        (house.folder / "whose").write_text(str(whose))
        assert start(house, "thief").ok
        seen = house.wait_for(lambda seen: "MAINPID" in seen["thief"].processes[0].text, "it is refused")
        process = seen["thief"].processes[0]
        assert process.pid != whose
        assert process.text.startswith(f"MAINPID={whose} does not count: it is ")
        assert house.operate(messages.Stop("thief"))[1].ok
    assert house.status()["wrapper"].state == "RUNNING"
    stop(house, "wrapper")
