"""A restart that hangs is taken back by the user who asked for it, and the old process has served all the time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from house import House
from templates import SITE, names

from policy import messages

pytestmark = pytest.mark.root

SERVICES = {"site.toml": SITE.replace('timeout = "15s" }\nstop', 'timeout = "120s" }\nstop').replace('"15s"', '"3s"')}


def test_a_rolling_restart_whose_new_process_never_becomes_ready_is_cancelled(make_house: Callable[..., House]) -> None:
    house = make_house(services=SERVICES).start()
    house.login("alice")
    house.login("bob")
    house.login("carol")
    old = house.pids("site")
    program = house.programs / "door.py"
    good = program.read_text()
    program.write_text("import time\ntime.sleep(600)\n")

    with house.load(interval=0.005) as load:
        asked = house.cli("alice", "restart", "site", "--no-wait")
        number = int(asked.stdout.rpartition("operation ")[2].rstrip(")\n"))
        house.until(lambda: len(house_children(house)) > len(old), "the new process is there")

        looked = house.cli("bob", "cancel", str(number))
        assert looked.returncode == 77, looked
        assert "restart site" in looked.stderr
        hidden = house.cli("carol", "cancel", str(number))
        missing = house.cli("carol", "cancel", str(number + 50))
        assert (hidden.returncode, hidden.stderr) == (4, f"no operation {number} that you may view\n")
        assert (missing.returncode, missing.stderr) == (4, f"no operation {number + 50} that you may view\n")

        done = house.cli("alice", "cancel", str(number))
        assert (done.returncode, done.stdout) == (
            0, f"operation {number} is cancelled; it ends when what has begun of it is over\n",
        )  # fmt: skip
        with house.root() as events:
            events.send(messages.Watch(operation=number))
            while not isinstance(event := events.receive(), messages.Ended):
                pass
        assert not event.ok
        assert event.text == names("site was not restarted: cancelled by @alice@; the old process keeps serving")
        assert house.pids("site") == old
    program.write_text(good)
    assert (load.result["refused"], load.result["failed"]) == (0, {})
    assert load.result["answered"] == load.result["tried"]
    house.until(lambda: house_children(house) == old, "nothing is left of the new one")

    late = house.cli("alice", "cancel", str(number))
    assert late.returncode == 1
    assert late.stderr.startswith(f"operation {number} has ended already: site was not restarted")
    records = house.audit()
    asked_by = [one for one in records if one["kind"] == "decision" and one.get("command") == "cancel"]
    assert [(one["user"], one["action"], one["target"], one["allowed"]) for one in asked_by[:2]] == [
        (names("@bob@"), "restart", "site", False),
        (names("@carol@"), "restart", "site", False),
    ]
    outcomes = [one for one in records if one["kind"] == "outcome" and one["operation"] == number]
    assert sorted((one["action"], one["ok"]) for one in outcomes) == [("restart", False), ("restart", True)]
    assert house.cli("alice", "restart", "site").returncode == 0
    house.stop()


def house_children(house: House) -> list[int]:
    """The main processes of the site that there are, whoever serves: of www, and no child of another of www."""
    found = []
    for pid in house.strangers():
        with contextlib.suppress(OSError):  # it has just ended
            if _uid(pid) == house.people["www"].uid != _uid(int(_field(pid, "PPid"))):
                found.append(pid)
    return sorted(found)


def _field(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2] for line in lines if line.startswith(f"{name}:"))


def _uid(pid: int) -> int:
    return int(_field(pid, "Uid").split()[0])
