"""Services that need each other, as real processes: started, stopped and ended in their order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from house import House
from templates import names, plain

from policy import messages

pytestmark = pytest.mark.root

READY = 'ready = { notify = true, timeout = "15s" }'
SERVICES = {
    "web.toml": plain("web", "say", "begun", more='requires = ["app"]\nready = { after = "0.1s" }'),
    "app.toml": plain("app", "say", "begun", more='requires = ["db"]\nready = { after = "0.1s" }\ngroups = ["back"]'),
    "db.toml": plain("db", "ready", more=f'{READY}\ngroups = ["back"]\nautostart = false'),
}
POLICY = {
    "10.toml": """\
[[grant]]
id = "alice-back"
who = ["user:@alice@"]
may = ["view", "start", "stop"]
on = ["group:back"]
"""
}


def begun(house: House, name: str) -> float:
    """When its process was started, in clock ticks since boot: proc(5), stat."""
    [pid] = house.pids(name)
    with open(f"/proc/{pid}/stat") as stat:
        return float(stat.read().rpartition(")")[2].split()[19])


def test_what_is_required_is_started_first_and_stopped_last(make_house: Callable[..., House]) -> None:
    house = make_house(services=SERVICES, policy=POLICY).start()
    house.until(lambda: house.status()["web"].state == "RUNNING", "the last of the chain runs")
    assert begun(house, "db") <= begun(house, "app") <= begun(house, "web")

    house.login("alice")
    refused = house.cli("alice", "stop", "db")
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        "db is required by app and 1 service that you may not view: stop that too, by --with-dependants"
    )
    denied = house.cli("alice", "stop", "db", "--with-dependants")
    assert denied.returncode == 77
    assert names("denied: it would stop another service too, and no rule lets @alice@ stop that") in denied.stderr
    assert {one.state for one in house.status().values()} == {"RUNNING"}

    assert house.operate(messages.Stop("web"))[1].ok
    done = house.cli("alice", "stop", "db", "--with-dependants")
    assert done.returncode == 0, done.stderr
    assert "waits until the service that requires it has stopped" in done.stderr
    assert {name: one.state for name, one in house.status().items()} == dict.fromkeys(("web", "app", "db"), "STOPPED")
    decided = [
        (record["target"], record["allowed"])
        for record in house.audit()
        if record["kind"] == "decision" and record["user"] == names("@alice@") and record["action"] == "stop"
    ]
    assert decided[-2:] == [("app", True), ("db", True)]

    started = house.cli("alice", "start", "app")
    assert started.returncode == 0, started.stderr
    assert {name: one.state for name, one in house.status().items()} == {
        "web": "STOPPED", "app": "RUNNING", "db": "RUNNING"
    }  # fmt: skip


def test_a_shutdown_ends_a_chain_in_reverse_for_who_has_the_right_over_http(make_house: Callable[..., House]) -> None:
    may = '[[grant]]\nid = "alice-ends"\nwho = ["user:@alice@"]\nmay = ["shutdown"]\n'
    house = make_house(services=SERVICES, policy=POLICY | {"20.toml": may}).start()
    house.until(lambda: house.status()["web"].state == "RUNNING", "the last of the chain runs")
    for name, code in (("bob", 77), ("alice", 0)):
        house.login(name)
        done = house.cli(name, "shutdown")
        assert done.returncode == code, done
    assert house.daemon is not None
    assert house.daemon.wait(60) == 0
    house.stop()
    names = [*sorted(SERVICES), "durward-api"]  # the entries of the table are in the order of the files
    ends = [names[int(str(one["slot"])) // 1024] for one in house.audit() if one.get("deed") == "exited"]
    assert ends == ["web.toml", "app.toml", "db.toml", "durward-api"]
