"""The language of the policy in a running house: groups, windows, networks, reasons, limits and approvals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import templates
from house import House
from people import People
from space import Space

pytestmark = pytest.mark.root

POLICY = """\
[group.crew]
people = ["group:@webops@"]
[group.daily]
actions = ["restart", "signal"]

[[grant]]
id = "sight"
who = ["@crew", "user:@bob@"]
may = ["view"]
on = ["*"]
when = { days = "Mon-Sun", timezone = "Asia/Kathmandu" }
from = ["local"]

[[grant]]
id = "daily"
who = ["@crew"]
may = ["@daily"]
on = ["worker"]
reason = true
limit = "2 in 1h"

[[grant]]
id = "two"
who = ["@crew"]
may = ["stop"]
on = ["worker"]
approval = { by = ["user:@bob@"], within = "10m" }

[[grant]]
id = "files"
who = ["@crew"]
may = ["reload"]
approval = { by = ["user:@bob@"], within = "10m" }

[[grant]]
id = "elsewhere"
who = ["user:@bob@"]
may = ["restart"]
on = ["worker"]
from = ["203.0.113.0/24"]

[[grant]]
id = "over"
who = ["user:@bob@"]
may = ["stop"]
on = ["worker"]
expires = 2026-01-01
"""


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    services = {"worker.toml": templates.WORKER}
    with House(people, space, services, {"10-web.toml": POLICY}).running() as house:
        house.until(lambda: len(house.api_workers()) == 2, "the api has its workers")
        for short in ("alice", "bob"):
            assert house.login(short).returncode == 0
        yield house


def does(house: House, short: str, *words: str) -> tuple[int, str]:
    ended = house.cli(house.people[short], *words)
    return ended.returncode, ended.stdout + ended.stderr


def decisions(house: House, **fields: Any) -> list[dict[str, Any]]:
    return [
        one for one in house.audit() if one["kind"] == "decision" and all(one.get(k) == v for k, v in fields.items())
    ]


def test_groups_windows_and_networks_let_in_whom_they_name(house: House) -> None:
    for short in ("alice", "bob"):
        code, text = does(house, short, "status")
        assert code == 0
        assert "worker" in text
    code, text = does(house, "bob", "restart", "worker")
    assert code == 77
    assert "the rule 'elsewhere' would, from 203.0.113.0/24" in text
    code, text = does(house, "bob", "stop", "worker")
    assert code == 77
    assert "the rule 'over' did, until 2026-01-01" in text


def test_a_reason_is_asked_for_and_kept_and_a_limit_counts_through_kill_9_of_each_part(house: House) -> None:
    code, text = does(house, "alice", "restart", "worker")
    assert code == 77
    assert "with a reason only: say why, by --reason TEXT" in text
    assert does(house, "alice", "restart", "worker", "--reason", "new libraries")[0] == 0
    assert decisions(house, reason="new libraries", rule="daily", allowed=True)
    for role in ("supervisor", "privileged", "log"):
        house.wait_back(role, house.kill9(role))
    house.until(lambda: does(house, "alice", "status")[0] == 0, "alice is known again")
    assert does(house, "alice", "restart", "worker", "--reason", "again")[0] == 0
    code, text = does(house, "alice", "restart", "worker", "--reason", "and again")
    assert code == 77
    assert "2 in 1h, which is used up: again in 3" in text


def test_what_a_second_person_must_approve_waits_through_kill_9_of_each_part(house: House) -> None:
    (before,) = house.pids("worker")
    code, text = does(house, "alice", "stop", "worker", "--reason", "moved away")
    assert code == 75
    assert "stop worker waits for approval 1 by user:" in text
    code, text = does(house, "alice", "approve", "1")
    assert code == 77
    assert "nobody approves what he has asked for himself" in text
    for role in ("supervisor", "privileged", "auth", "log"):
        house.wait_back(role, house.kill9(role))
    assert house.pids("worker") == [before]
    house.until(lambda: does(house, "bob", "status")[0] == 0, "bob is known again")
    code, text = does(house, "bob", "approve")
    assert code == 0
    assert "stop worker (moved away); by user:" in text
    code, text = does(house, "bob", "approve", "1", "--reason", "seen")
    assert (code, "stop worker has begun, as operation" in text) == (0, True)
    house.until(lambda: not house.pids("worker"), "it is stopped")
    asked, done = decisions(house, action="stop", user=house.people["alice"].name)[-2:]
    assert (asked["allowed"], done["allowed"], asked["id"]) == (False, True, done["id"])
    assert done["approved_by"] == house.people["bob"].name
    assert done["reason"] == "moved away"
    assert does(house, "bob", "approve", "1")[0] == 77


def test_a_reload_waits_as_what_it_would_change_which_is_shown_to_who_approves_it_and_changes_nothing_else(
    house: House,
) -> None:
    extra = templates.WORKER.replace("[service.worker]", "[service.extra]")
    house.write("services.d/extra.toml", extra)
    code, text = does(house, "alice", "reload")
    assert (code, "reload waits for approval " in text) == (75, True), text
    number = text.rpartition(" ")[2].strip()
    assert "\n   would change: added: extra\n" in does(house, "bob", "approve")[1]
    house.write("services.d/extra.toml", extra + 'environment = { COLOUR = "blue" }\n')
    assert does(house, "bob", "approve", number)[0] == 0
    told = "nothing was changed: since it was shown"
    house.until(lambda: told in does(house, "alice", "operations", "--all")[1], "it has changed nothing")
    assert "extra" not in house.status()
