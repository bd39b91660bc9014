"""Under the real systemd: boot, kill -9 of privileged and of the keeper, restart, stop, reboot. By -m systemd alone.

The machine is a container of systemd-nspawn; what Durward is told and handed there is real (machine.py).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import PREFIX
from machine import UNIT, Machine

pytestmark = [pytest.mark.root, pytest.mark.systemd]

SERVICES = """\
[socket.http]
listen = "0.0.0.0:80"

[service.site]
command = ["@PREFIX@/bin/gunicorn", "--config", "@SERVICES@/gunicorn.conf.py", "door:app"]
directory = "@SERVICES@"
user = "www"
sockets = ["http"]
ready = { notify = true, timeout = "15s" }
stop = { signal = "TERM", timeout = "15s" }

[service.worker]
command = ["@PREFIX@/bin/python3", "-I", "@SERVICES@/plain.py", "say", "begun"]
user = "jobs"
ready = { after = "0.2s" }
stop = { signal = "TERM", timeout = "5s" }

[service.last]
command = ["@PREFIX@/bin/python3", "-I", "@SERVICES@/plain.py"]
user = "jobs"
requires = ["worker"]
ready = { after = "0.2s" }
"""
PARTS = ("privileged", "supervisor", "log", "auth", "probe")


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    if shutil.which("mmdebstrap") is None:
        pytest.skip("needs mmdebstrap, to make a small Debian with systemd: apt-get install mmdebstrap")
    machine = Machine(Path(tempfile.mkdtemp(prefix="durward-systemd-")))
    try:
        machine.write("/etc/durward/services.d/all.toml", SERVICES, "_durward")
        machine.boot()
        yield machine
        machine.power_off()
    finally:
        machine.remove()


def up(machine: Machine) -> dict[str, list[int]]:
    """When all of it runs: every service's pids."""

    def look() -> dict[str, list[int]]:
        if machine.show("ActiveState") != "active":
            return {}
        pids = machine.pids()
        states = {service["state"] for service in machine.status().values()}
        return pids if states == {"RUNNING"} and len(machine.of("www")) == 3 else {}

    return machine.until(look, "all is up")


def kill9(machine: Machine, *parts: str) -> int:
    """The keeper, and these parts with it; the keeper that follows."""
    old = machine.keeper()
    machine.run("kill", "-KILL", str(old), *(str(machine.part(part)) for part in parts))
    return machine.until(lambda: (now := machine.keeper()) not in (0, old) and now, "there is another keeper")


def ended(machine: Machine) -> bool:
    return machine.show("ActiveState") in ("inactive", "failed")


def test_it_is_there_after_boot_and_holds_its_doors(machine: Machine) -> None:
    pids = up(machine)
    assert set(pids) == {"site", "worker", "last"}
    with machine.load() as load:
        load.begun()
    assert load.result["refused"] == 0
    assert load.result["failed"] == {}
    assert machine.show("Type") == "notify"
    assert int(machine.show("NFileDescriptorStore")) > 10


def test_no_service_gets_what_systemd_has_given_the_keeper(machine: Machine) -> None:
    (pid,) = up(machine)["worker"]
    environment = machine.run("cat", f"/proc/{pid}/environ").split("\0")
    names = {word.partition("=")[0] for word in environment}
    assert not names & {
        "NOTIFY_SOCKET",
        "FDSTORE",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LISTEN_FDS",
        "RUNTIME_DIRECTORY",
    }
    assert "NoNewPrivs:\t1" in machine.run("cat", f"/proc/{pid}/status"), "as its own file says, by default"
    assert "/durward.service/durward" in machine.run("cat", f"/proc/{pid}/cgroup"), "its group is beneath the unit's"
    parts = {name: machine.part(name) for name in PARTS}
    assert all(parts.values()), parts
    for pid in (machine.keeper(), parts["privileged"]):
        assert "NoNewPrivs:\t0" in machine.run("cat", f"/proc/{pid}/status")


@pytest.mark.parametrize("parts", [(), ("privileged",), PARTS], ids=["alone", "with-privileged", "with-all"])
def test_kill_9_of_the_keeper_is_not_noticed_by_any_service(machine: Machine, parts: tuple[str, ...]) -> None:
    before, copies = up(machine), machine.of("www", "jobs", "_durward-api")
    kept = machine.until(lambda: int(machine.show("NFileDescriptorStore")), "they are kept")
    with machine.load() as load:
        load.begun()
        kill9(machine, *parts)
        assert up(machine) == before
    assert load.result["refused"] == 0, load.result
    assert load.result["failed"] == {}, load.result
    assert machine.of("www", "jobs", "_durward-api") == copies, "none ended, and there is no second copy"
    assert all(machine.until(lambda part=part: machine.part(part), part) for part in PARTS)
    machine.until(lambda: int(machine.show("NFileDescriptorStore")) == kept, "as many are kept as before")
    assert int(machine.show("NRestarts")) > 0
    machine.run(f"{PREFIX}/bin/durward", "--root", "restart", "worker")
    assert machine.pids()["worker"] != before["worker"], "it is in hand"


def test_kill_9_of_privileged_is_not_noticed_either(machine: Machine) -> None:
    before, keeper = up(machine), machine.keeper()
    old = machine.part("privileged")
    with machine.load() as load:
        load.begun()
        machine.run("kill", "-KILL", str(old))
        machine.until(lambda: machine.part("privileged") not in (0, old), "another one")
        assert up(machine) == before
    assert (load.result["refused"], load.result["failed"]) == (0, {}), load.result
    assert machine.keeper() == keeper


def test_a_keeper_comes_back_into_a_cgroup_that_hands_controllers_on(machine: Machine) -> None:
    """As it does where a service has limits of memory: then the keeper is moved, and systemd may put nobody there."""
    before = up(machine)
    if not machine.hand_on("hugetlb"):
        pytest.skip("no controller that a cgroup could hand on")
    kill9(machine)
    assert up(machine) == before


def test_what_died_with_the_keeper_is_started_again(machine: Machine) -> None:
    before = up(machine)
    machine.run("kill", "-KILL", str(machine.keeper()), str(before["worker"][0]))
    after = machine.until(lambda: (now := up(machine)) != before and now, "another one")
    assert {name for name in after if after[name] != before[name]} == {"worker"}


def test_an_upgrade_is_not_noticed_either_and_all_is_kept_as_before(machine: Machine) -> None:
    before, keeper, part = up(machine), machine.keeper(), machine.part("supervisor")
    kept = machine.show("NFileDescriptorStore")
    with machine.load() as load:
        load.begun()
        machine.run(f"{PREFIX}/bin/durward", "--root", "upgrade")
        assert up(machine) == before
    assert (load.result["refused"], load.result["failed"]) == (0, {}), load.result
    assert machine.keeper() == keeper, "it has executed the program that is installed"
    assert machine.part("supervisor") != part
    machine.until(lambda: machine.show("NFileDescriptorStore") == kept, "as many are kept as before")
    kill9(machine)
    assert up(machine) == before, "and it can still be killed"


def test_systemctl_restart_ends_every_service_in_order_and_begins_anew(machine: Machine) -> None:
    before = up(machine)
    machine.run("systemctl", "restart", UNIT)
    after = up(machine)
    assert not {pid for pids in before.values() for pid in pids} & {pid for pids in after.values() for pid in pids}
    assert "Found left-over process" not in machine.journal().rpartition("Stopping")[2], "all had ended"
    audit = machine.run("tail", "-n", "200", "/var/log/durward/audit/audit.jsonl")
    assert "killed" not in audit.rpartition("shutdown")[2]


def test_stop_ends_all_and_nothing_is_kept_or_left(machine: Machine) -> None:
    up(machine)
    machine.run("systemctl", "stop", UNIT)
    assert machine.show("Result") == "success"
    assert machine.show("NFileDescriptorStore") == "0"
    left = machine.of("www", "jobs", *(f"_durward{part}" for part in ("", "-sup", "-auth", "-log", "-probe", "-api")))
    assert not left
    machine.run("systemctl", "start", UNIT)
    up(machine)


def test_stop_in_the_moment_in_which_another_keeper_is_started_ends_all_too(machine: Machine) -> None:
    up(machine)
    kill9(machine)
    machine.run("systemctl", "stop", UNIT)
    assert machine.until(lambda: ended(machine), "it has ended")
    assert not machine.of("www", "jobs", "_durward", "_durward-api")
    machine.run("systemctl", "start", UNIT)
    up(machine)


@pytest.mark.parametrize("pause", [0.0, 0.03, 0.08])
def test_stop_while_no_keeper_is_there_ends_all_too(machine: Machine, pause: float) -> None:
    up(machine)
    machine.run("sh", "-c", f"kill -KILL {machine.keeper()}; sleep {pause}; systemctl stop {UNIT}")
    machine.until(lambda: ended(machine), "it has ended")
    left = machine.until(lambda: not machine.of("www", "jobs", "_durward", "_durward-api"), "nothing is left")
    assert left
    machine.run("systemctl", "start", UNIT)
    up(machine)


IMPATIENT = """\
[Service]
TimeoutStartSec=4s
TimeoutStopSec=1s
ExecStartPre=/bin/sh -c 'if [ -e /run/hang ]; then rm /run/hang; exec sleep 1000; fi'
"""


@pytest.fixture
def impatient(machine: Machine) -> Iterator[Machine]:
    """Its unit gives up soon, and its next start hangs where there is a /run/hang."""
    up(machine)
    folder = f"/run/systemd/system/{UNIT}.d"
    machine.run("sh", "-c", f'mkdir -p {folder}; printf %s "$1" >{folder}/test.conf', "sh", IMPATIENT)
    machine.run("systemctl", "daemon-reload")
    yield machine
    machine.run("rm", "-r", folder)
    machine.run("systemctl", "daemon-reload")


def test_a_start_after_a_crash_that_takes_too_long_ends_no_service(impatient: Machine) -> None:
    before = up(impatient)
    impatient.run("touch", "/run/hang")
    kill9(impatient)
    assert up(impatient) == before
    assert "start-pre operation timed out" in impatient.journal()


def freeze(machine: Machine) -> None:
    """Who would end the services in order does not, so that a stop takes too long."""
    machine.run("kill", "-STOP", str(machine.part("supervisor")))


def begun_anew(machine: Machine, before: dict[str, list[int]]) -> None:
    """When all that was there before a restart has ended, and all is up again."""
    machine.until(lambda: "restart" not in machine.run("ls", "/run/durward").split(), "all of that has ended")
    after = up(machine)
    assert not {pid for pids in before.values() for pid in pids} & {pid for pids in after.values() for pid in pids}


def test_a_restart_that_takes_too_long_ends_every_service_in_order_and_begins_anew(impatient: Machine) -> None:
    before = up(impatient)
    freeze(impatient)
    impatient.run("systemctl", "restart", UNIT)
    begun_anew(impatient, before)
    assert "State 'stop-sigterm' timed out" in impatient.journal()
    audit = impatient.run("tail", "-n", "200", "/var/log/durward/audit/audit.jsonl")
    since = audit.rpartition('"shutdown","allowed"')[2]
    deeds = [json.loads(line) for line in since.splitlines() if '"kind":"deed"' in line]
    done = [(deed["process"], deed["deed"], deed["arg"]) for deed in deeds]
    assert ("last", "signal", 15) in done
    assert done.index(("last", "exited", 0)) < done.index(("worker", "signal", 15)), "what requires it ends first"


def test_a_keeper_that_is_killed_in_a_restart_is_followed_by_one_that_goes_on_with_it(impatient: Machine) -> None:
    before = up(impatient)
    impatient.run("kill", "-STOP", str(before["worker"][0]))  # it takes all its 5 s
    impatient.run("systemctl", "restart", UNIT)
    kill9(impatient)
    begun_anew(impatient, before)


def test_a_stop_that_takes_too_long_ends_all_and_stays_a_stop(impatient: Machine) -> None:
    up(impatient)
    freeze(impatient)
    impatient.run("systemctl", "stop", UNIT)
    ours = ("www", "jobs", *(f"_durward{part}" for part in ("", "-sup", "-auth", "-log", "-probe", "-api")))
    impatient.until(lambda: not impatient.of(*ours), "none is left, nor who has hung")
    shown = [impatient.show(key) for key in ("Result", "ActiveState", "NFileDescriptorStore", "Job")]
    assert shown == ["timeout", "failed", "0", ""]
    impatient.run("systemctl", "start", UNIT)
    up(impatient)


def test_durward_shutdown_is_an_end_that_systemd_does_not_undo(machine: Machine) -> None:
    up(machine)
    machine.run(f"{PREFIX}/bin/durward", "--root", "shutdown", check=False)
    machine.until(lambda: ended(machine), "it has ended")
    assert machine.show("Result") == "success"
    machine.run("systemctl", "start", UNIT)
    up(machine)


def test_a_bad_configuration_is_said_once_and_not_tried_for_ever(machine: Machine) -> None:
    up(machine)
    machine.run("systemctl", "stop", UNIT)
    before = machine.show("NRestarts")
    machine.run("sh", "-c", "echo nonsense >/etc/durward/services.d/bad.toml")
    machine.run("systemctl", "start", UNIT, check=False)
    assert machine.show("ActiveState") == "failed"
    assert machine.show("ExecMainStatus") == "65"
    assert machine.show("NRestarts") in (before, "0")
    machine.run("rm", "/etc/durward/services.d/bad.toml")
    machine.run("systemctl", "start", UNIT)
    up(machine)


def test_a_boot_begins_anew(machine: Machine) -> None:
    """It is the last: the machine goes off with everything running, and on again."""
    up(machine)
    machine.run(f"{PREFIX}/bin/durward", "--root", "stop", "last")
    machine.power_off()
    machine.boot()
    up(machine)
