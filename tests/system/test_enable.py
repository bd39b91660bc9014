"""Which services start with the daemon, as somebody without root has chosen it: kept on disk, or refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable

import pytest
from house import House
from people import PREFIX
from templates import plain

from policy import messages

ALICE, BOB = f"{PREFIX}alice", f"{PREFIX}bob"

pytestmark = pytest.mark.root

READY = 'ready = { after = "0.1s" }\n'
SERVICES = {"work.toml": plain("worker", more=READY) + plain("spare", more=READY + "autostart = false\n")}
POLICY = {
    "10-work.toml": """\
[[grant]]
id = "alice-chooses"
who = ["user:@alice@"]
may = ["view", "enable", "stop"]
on = ["*"]

[[grant]]
id = "bob-starts"
who = ["user:@bob@"]
may = ["view", "start", "stop", "restart"]
on = ["*"]
"""
}
MakeHouse = Callable[..., House]


def states(house: House) -> dict[str, tuple[str, bool]]:
    return {name: (one.state, one.enabled) for name, one in house.status().items()}


def kept(house: House) -> dict[str, list[object]]:
    found: dict[str, list[object]] = json.loads((house.state / "choices" / "choices.json").read_bytes())["choices"]
    return found


@pytest.fixture
def house(make_house: MakeHouse) -> House:
    house = make_house(services=SERVICES, policy=POLICY)
    house.start()
    assert house.login("alice").returncode == 0
    return house


def reloaded(house: House) -> bool:
    return house.operate(messages.Reload())[1].ok


def again(house: House) -> None:
    """The daemon ends and is started: sessions have ended, choices have not."""
    house.stop()
    house.start()
    assert house.login("alice").returncode == 0


def test_what_somebody_disables_is_not_started_with_the_daemon_and_what_he_enables_is(house: House) -> None:
    pids = house.pids("worker")
    done = house.cli("alice", "disable", "worker")
    assert (done.returncode, done.stdout, done.stderr) == (0, "worker is disabled\n", "")
    done = house.cli("alice", "enable", "spare")
    assert (done.returncode, done.stdout) == (0, "spare is enabled\n")
    assert house.cli("alice", "disable", "worker").stdout == "worker is already disabled\n"
    assert house.pids("worker") == pids, "nothing is stopped"
    assert states(house) == {"worker": ("RUNNING", False), "spare": ("STOPPED", True)}, "nor started"
    assert house.cli("alice", "status", "worker").stdout.rstrip().endswith("disabled")
    described = house.cli("alice", "describe", "worker").stdout.splitlines()
    assert f"enabled no, chosen by {ALICE}" in [re.sub(" +", " ", line) for line in described]

    again(house)
    assert states(house) == {"worker": ("STOPPED", False), "spare": ("RUNNING", True)}
    assert house.cli("alice", "enable", "all").stdout == "spare: already enabled\nworker: enabled\n"
    assert house.cli("alice", "disable", "spare").returncode == 0
    again(house)
    assert states(house) == {"worker": ("RUNNING", True), "spare": ("STOPPED", False)}
    house.stop()


def test_it_is_a_right_of_its_own_and_so_is_what_now_does(house: House) -> None:
    house.login("bob")
    denied = house.cli("bob", "disable", "worker")
    assert denied.returncode == 77
    assert f"denied: no rule lets {BOB} enable or disable worker" in denied.stderr
    half = house.cli("alice", "enable", "worker", "--now")
    assert half.returncode == 77
    assert half.stderr.startswith(f"worker is enabled, but denied: no rule lets {ALICE} start worker")
    done = house.cli("alice", "disable", "worker", "--now")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("worker is disabled\nworker stopped in ")
    assert states(house)["worker"] == ("STOPPED", False)
    said = [
        (one["user"], one["action"], one["command"], one["allowed"])
        for one in house.audit()
        if one["kind"] == "decision" and one["action"] in ("enable", "start", "stop")
    ]
    assert said == [
        (BOB, "enable", "disable", False), (ALICE, "enable", "enable", True),
        (ALICE, "start", "start", False), (ALICE, "enable", "disable", True),
        (ALICE, "stop", "stop", True),
    ]  # fmt: skip
    results = [one["result"] for one in house.audit() if one["kind"] == "outcome" and one["action"] == "enable"]
    assert results == ["worker is enabled", "worker is disabled"]
    house.stop()


def test_a_reload_keeps_the_choice_and_does_not_start_what_is_disabled(house: House) -> None:
    assert house.cli("alice", "disable", "worker", "--now").returncode == 0
    text = house.fill(SERVICES["work.toml"])
    house.write("services.d/work.toml", plain("spare", more=READY + "autostart = false\n"))
    assert reloaded(house)
    assert set(house.status()) == {"spare"}
    house.write("services.d/work.toml", text)
    assert reloaded(house)
    assert states(house)["worker"] == ("STOPPED", False), "it is configured again, and still nobody wants it"
    house.write("services.d/work.toml", text.replace("0.1s", "0.2s"))
    assert reloaded(house)
    assert states(house)["worker"] == ("STOPPED", False)
    assert house.cli("alice", "enable", "worker").returncode == 0
    house.write("services.d/work.toml", plain("spare", more=READY + "autostart = false\n"))
    assert reloaded(house)
    house.write("services.d/work.toml", text)
    assert reloaded(house)
    house.wait_for(lambda seen: seen["worker"].state == "RUNNING", "what is enabled is started when it comes")
    house.stop()


def test_a_disk_that_is_full_refuses_and_nothing_has_changed(make_house: MakeHouse) -> None:
    house = make_house(services=SERVICES, policy=POLICY)
    place = house.state / "choices"
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "durward-test", place], check=True)
    try:
        house.start()
        house.login("alice")
        assert house.cli("alice", "disable", "worker").returncode == 0
        before = (place / "choices.json").read_bytes()
        (place / "ballast").write_bytes(b"x" * 4096)
        refused = house.cli("alice", "enable", "worker", "spare")
        assert refused.returncode == 1
        assert "worker was not enabled: it cannot be kept: No space left on device\n" in refused.stderr
        assert states(house) == {"worker": ("RUNNING", False), "spare": ("STOPPED", False)}
        assert (place / "choices.json").read_bytes() == before
        house.stop()
        house.start()
        house.login("alice")
        assert states(house) == {"worker": ("STOPPED", False), "spare": ("STOPPED", False)}
        (place / "ballast").unlink()
        assert house.cli("alice", "enable", "worker").returncode == 0
        house.stop()
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize("what", ["damaged", "a FIFO"])
def test_a_file_that_is_not_as_it_should_be_is_said_loudly_and_left_alone(house: House, what: str) -> None:
    assert house.cli("alice", "disable", "worker").returncode == 0
    house.stop()
    path = house.state / "choices" / "choices.json"
    if what == "a FIFO":
        path.unlink()
        os.mkfifo(path)
        path.chmod(0o644)
    else:
        path.write_bytes(path.read_bytes()[:-1])
    seen = os.lstat(path)
    house.start()
    assert "choices.json is not used, autostart alone counts until somebody chooses again: " in house.stderr()
    assert states(house) == {"worker": ("RUNNING", True), "spare": ("STOPPED", False)}
    house.until(lambda: house.pid_of("log"), "log is there")
    house.wait_back("supervisor", house.kill9("supervisor"))
    now = os.lstat(path)
    assert (now.st_ino, now.st_size, now.st_mtime_ns) == (seen.st_ino, seen.st_size, seen.st_mtime_ns)
    house.login("alice")
    assert house.cli("alice", "enable", "spare").returncode == 0
    assert kept(house) == {"spare": [True, ALICE]}
    house.stop()


def test_nobody_but_log_and_the_supervisor_comes_near_it(house: House) -> None:
    assert house.cli("alice", "disable", "worker").returncode == 0
    place = house.state / "choices"
    for path, mode in ((place, 0o2750), (place / "choices.json", 0o640)):
        found = path.stat()
        owners = (house.people["log"].uid, house.people["sup"].gid)
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (*owners, mode)
    assert house.run_as("alice", "cat", str(place / "choices.json")).returncode == 1
    house.stop()


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("victim", ["log", "supervisor"])
def test_kill_9_around_it_costs_no_choice_that_was_told_and_makes_none_that_was_not(
    house: House, victim: str, kills: int
) -> None:
    """Somebody changes his mind without a pause while the part is killed, again and again; then the daemon starts."""
    told: list[tuple[int, bool]] = []
    over = threading.Event()

    def choose() -> None:
        enabled = False
        while not over.is_set():
            done = house.cli("alice", "enable" if enabled else "disable", "worker")
            told.append((done.returncode, enabled))
            enabled = not enabled

    asking = threading.Thread(target=choose)
    asking.start()
    try:
        for _ in range(kills):
            before = len(told)
            house.until(lambda before=before: len(told) > before, "one more was answered")
            house.wait_back(victim, house.kill9(victim))
    finally:
        over.set()
        asking.join()
    assert {code for code, _ in told} <= {0, 1, 69, 75}, told
    assert any(code == 0 for code, _ in told)
    shown = states(house)["worker"][1]
    if told[-1][0] == 0:
        assert shown == told[-1][1], told
    house.until(lambda: not (house.run_dir / "supervisor" / "choosing").read_bytes(), "nothing is left to be put back")
    assert kept(house)["worker"][0] == shown, "the disk says what people see"
    assert states(house)["worker"][0] == "RUNNING"
    again(house)
    assert states(house)["worker"] == (("RUNNING", True) if shown else ("STOPPED", False))
    house.stop()


def test_a_log_that_hangs_is_not_waited_for_for_ever_and_what_it_does_later_is_taken_back(
    make_house: MakeHouse,
) -> None:
    """The decision cannot be recorded either: these settings let it go on all the same."""
    house = make_house(services=SERVICES, policy=POLICY, on_failure='"continue"').start()
    house.login("alice")
    assert house.cli("alice", "disable", "worker").returncode == 0
    before = (house.state / "choices" / "choices.json").stat().st_ino
    log = house.pid_of("log")
    os.kill(log, signal.SIGSTOP)
    try:
        refused = house.cli("alice", "enable", "worker")
        assert (refused.returncode, refused.stderr) == (
            75, "worker was not enabled: log, or its disk, does not answer\n",
        )  # fmt: skip
        assert states(house)["worker"] == ("RUNNING", False)
        assert (house.run_dir / "supervisor" / "choosing").read_bytes(), "it may be written yet"
    finally:
        os.kill(log, signal.SIGCONT)
    house.until(lambda: not (house.run_dir / "supervisor" / "choosing").read_bytes(), "it was put back")
    assert (house.state / "choices" / "choices.json").stat().st_ino != before
    assert kept(house)["worker"] == [False, ALICE]
    house.stop()
