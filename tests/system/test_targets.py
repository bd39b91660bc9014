"""Several services in one command: each is decided and recorded on its own."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from house import House
from templates import WORKER, names

pytestmark = pytest.mark.root

SERVICES = {
    "work.toml": "\n".join(
        WORKER.replace("service.worker", f"service.{name}") + f'groups = ["{group}"]\n'
        for name, group in (("worker-a", "work"), ("worker-b", "work"), ("worker-hidden", "work"), ("cleaner", "night"))
    )
}
POLICY = {
    "10-work.toml": """\
[[grant]]
id = "alice-looks"
who = ["user:@alice@"]
may = ["view"]
on = ["worker-a", "worker-b", "cleaner"]

[[grant]]
id = "alice-restarts"
who = ["user:@alice@"]
may = ["restart"]
on = ["worker-a", "cleaner"]
"""
}


def test_who_may_restart_one_of_two_restarts_both_by_a_glob_and_sees_one_done_and_one_denied(
    make_house: Callable[..., House],
) -> None:
    house = make_house(services=SERVICES, policy=POLICY).start()
    house.login("alice")
    before = {name: house.pids(name) for name in house.status()}

    done = house.cli("alice", "restart", "worker-*")
    assert done.returncode == 77, done.stderr
    assert done.stdout.startswith("worker-a restarted in ")
    assert names("worker-b: denied: no rule lets @alice@ restart worker-b") in done.stderr
    assert done.stderr.endswith("\n1 of 2 done; 1 denied: worker-b\n")
    assert "worker-hidden" not in done.stdout + done.stderr
    after = {name: house.pids(name) for name in house.status()}
    assert [name for name in after if after[name] != before[name]] == ["worker-a"]
    decided = [
        (record["target"], record["allowed"])
        for record in house.audit()
        if record["kind"] == "decision" and record["user"] == names("@alice@") and record["action"] == "restart"
    ]
    assert decided == [("worker-a", True), ("worker-b", False)]

    by_group = house.cli("alice", "restart", "group:work", "cleaner", "--json")
    assert by_group.returncode == 77, by_group.stderr
    results = {result["service"]: result for result in json.loads(by_group.stdout)["results"]}
    assert list(results) == ["cleaner", "worker-a", "worker-b"]
    assert results["cleaner"]["ok"] is results["worker-a"]["ok"] is True
    assert results["worker-b"]["error"]["kind"] == "forbidden"

    shown = house.cli("alice", "status", "all", "--json")
    assert shown.returncode == 0
    assert [service["name"] for service in json.loads(shown.stdout)["services"]] == ["cleaner", "worker-a", "worker-b"]
    assert house.cli("alice", "restart", "site-*").returncode == 4
    house.stop()
