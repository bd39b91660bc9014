"""Many services at once: started, shown, restarted and stopped by somebody without root, and nothing is lost.

With -m slow, a thousand of them; -rP prints how long each took, which is the machine's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from house import House

pytestmark = pytest.mark.root

FEW, MANY = 60, 1_000
ONE = """
[service.{name}]
command = ["/bin/sleep", "100000"]
user = "@jobs@"
groups = ["many"]
ready = {{ after = "0s" }}
autostart = false
"""
POLICY = """
[[grant]]
id = "alice-many"
who = ["user:@alice@"]
may = ["view", "start", "stop", "restart"]
on = ["group:many"]
"""


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_many_services_are_started_shown_restarted_and_stopped(make_house: Callable[..., House], count: int) -> None:
    names = [f"s{number:04}" for number in range(count)]
    services = {"many.toml": "".join(ONE.format(name=name) for name in names)}
    house = make_house(services=services, policy={"10.toml": POLICY}).start()
    house.login("alice")

    def ask(*words: str) -> dict[str, int]:
        """As alice; then the pid of each service, 0 where there is none."""
        begun = time.monotonic()
        done = house.cli("alice", *words)
        assert done.returncode == 0, done.stderr[-2000:]
        print(f"{count} services, {words[0]}: {time.monotonic() - begun:.2f} s")
        shown = json.loads(house.cli("alice", "status", "--json").stdout)["services"]
        assert [service["name"] for service in shown] == names
        return {service["name"]: service["processes"][0]["pid"] for service in shown}

    first = ask("start", "all")
    assert 0 not in first.values()
    assert len(set(first.values())) == count
    second = ask("restart", "group:many")
    assert 0 not in second.values()
    assert not set(first.values()) & set(second.values())
    assert set(ask("stop", "s*").values()) == {0}
    uid = f"(uid {house.people['jobs'].uid})"
    assert not [name for name in house.strangers().values() if uid in name]
