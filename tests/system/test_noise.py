"""A service that says whatever can be said, without end, from all of its processes, is a nuisance to itself alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hostage import descriptors
from house import House
from templates import SITE

from policy import messages

pytestmark = pytest.mark.root

NOISE = """
[service.noise]
command = ["@PREFIX@/bin/python3", "-I", "@SERVICES@/noise.py"]
user = "@jobs@"
ready = { notify = true }
live = { watchdog = "10s" }
processes = 1
max_processes = 5
stop = { timeout = "0.5s" }
"""


@pytest.mark.parametrize("rounds", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_c8_one_that_says_everything_without_end_is_scaled_restarted_and_stopped_like_any_other(
    make_house: Callable[..., House], rounds: int
) -> None:
    house = make_house(services={"site.toml": SITE, "noise.toml": NOISE}, policy={}).start()
    parts = {role: house.pid_of(role) for role in ("supervisor", "privileged", "log", "probe", "auth")}
    open_before = descriptors(parts["supervisor"])
    [site] = house.pids("site")
    for number in range(rounds):
        for command in (messages.Scale("noise", 5), messages.Restart("noise", hard=True), messages.Scale("noise", 1)):
            steps, end = house.operate(command)
            assert end.ok, (number, steps, end)
    _, end = house.operate(messages.Stop("noise"))
    assert end.ok
    assert house.status()["noise"].state == "STOPPED"
    assert house.pids("site") == [site]
    assert {role: house.pid_of(role) for role in parts} == parts, "no part of ours has ended"
    house.until(lambda: descriptors(parts["supervisor"]) <= open_before, "nothing that was sent is kept")
    adopted = [one for one in house.audit() if one.get("deed") == "adopt"]
    assert len(adopted) < rounds * 5 * 8
