"""Everything is killed at random moments, under load, while people work: afterwards everything is as it was asked for.

DURWARD_TORTURE_SEED says what is killed and asked for, DURWARD_TORTURE_SECONDS for how long.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import templates
import torture
from house import House

from policy import messages
from userapi.audit import verify

pytestmark = pytest.mark.root

SEED = int(os.environ.get("DURWARD_TORTURE_SEED", "20261127"))
RESTART = 'restart = { policy = "always", backoff = "0.05s..0.2s", limit = "500 in 60s" }'
LINES = """\
[service.{name}]
command = ["@PREFIX@/bin/python3", "-I", "@SERVICES@/lines.py", "@FOLDER@/counts", "{each}"]
user = "@jobs@"
ready = {{ after = "0.05s" }}
log = {{ size = "16K", keep = 1000 }}
max_processes = 3
{restart}
"""
FRONT = """\
[socket.front]
listen = "0.0.0.0:8080"

[service.front]
command = ["@PREFIX@/bin/python3", "-I", "@SERVICES@/plain.py", "ready", "serve", "@FOLDER@/none"]
user = "@jobs@"
sockets = ["front"]
ready = { notify = true }
"""
TURN = """\
[service.turn]
command = ["@PREFIX@/bin/python3", "-I", "@SERVICES@/plain.py"]
user = "@jobs@"
ready = {{ after = "0.05s" }}
environment = {{ N = "{n}" }}
"""
MORE = {
    "once": ('kind = "oneshot"', ("say", "worked", "exit", "0")),
    "each": ('kind = "scheduled"\nschedule = "* * * * * *"', ("say", "came", "exit", "0")),
}


def services(count: int, each: float) -> dict[str, str]:
    found = {
        f"{name}.toml": LINES.format(name=name, each=each, restart=RESTART)
        for name in (f"lines{number}" for number in range(count))
    }
    more = {
        f"{name}.toml": templates.plain(name, *words, more=f"ready = {{}}\n{text}")
        for name, (text, words) in MORE.items()
    }
    return {
        "site.toml": templates.SITE,
        "front.toml": FRONT + RESTART,
        "turn.toml": TURN.format(n=0) + RESTART,
        **found,
        **more,
    }


def tortured(make_house: Callable[..., House], count: int, seconds: float, each: float) -> None:
    print(f"torture: DURWARD_TORTURE_SEED={SEED}, {count} services, {seconds:g} s")
    house = make_house(services(count, each), listen=f'["127.0.0.1:{templates.API_PORT}"]')
    counts = house.folder / "counts"
    counts.mkdir(mode=0o777)
    counts.chmod(0o777)
    house.start()
    assert house.daemon is not None
    names = [f"lines{number}" for number in range(count)]
    before = torture.descriptors(house.daemon.pid)
    over = threading.Event()
    killer = torture.Killer(house, SEED, over, frozenset({"exit"}))
    workers = [torture.Worker(house, SEED + 1 + at, over, names[at::3]) for at in range(2)]
    workers.append(torture.Worker(house, SEED + 3, over, ["front"]))
    reloader = torture.Reloader(house, over, "turn", TURN + RESTART.replace("{", "{{").replace("}", "}}"))
    workers.append(reloader)
    with house.load(interval=0.01) as load, house.load(interval=0.02, port=8080) as front:
        for one in (load, front):
            one.begun()
        for thread in (killer, *workers):
            thread.start()
        over.wait(seconds)
        over.set()
        for thread in (killer, *workers):
            thread.join(90.0)
            assert not thread.is_alive(), thread
        house.until(house.answers, "the house answers")
        house.until(lambda: torture.is_quiet(house), "nothing is on its way", timeout=60.0)
    print(f"killed {dict(killer.killed)}; {sum(len(one.ends) for one in workers)} operations")
    assert sum(killer.killed.values()) > seconds, killer.killed
    assert [worker.trouble for worker in workers] == [None] * 4
    assert (load.result["refused"], load.result["failed"]) == (0, {}), load.result
    assert front.result["refused"] == 0, front.result
    torture.wanted_is_so(house, workers)
    torture.retried(house, lambda: torture.every_outcome_is_recorded(house, workers))  # log may just be started again
    for claim in (torture.status_proc_and_cgroups_agree, torture.nothing_is_left_of_what_is_over):
        torture.retried(house, lambda claim=claim: claim(house))
    assert reloader.sure <= reloader.runs_with() <= reloader.number
    assert house.operate(messages.Reload())[1].ok
    assert reloader.runs_with() == reloader.number
    ended_well(house, names, counts, before)


def ended_well(house: House, names: list[str], counts: Path, before: object) -> None:
    """Put back as it began, then ended: the keeper holds what it held, every line is there, and the logs are whole."""
    assert house.daemon is not None
    for name in (*names, "front"):
        command = messages.Scale(name, 1) if name != "front" else messages.Start(name)
        for one in (command, messages.Start(name)):
            if isinstance(accepted := house.ask(one), messages.Accepted):
                torture.Worker(house, 0, threading.Event(), [name]).follow(accepted.operation)
    house.until(lambda: torture.is_quiet(house), "nothing is on its way", timeout=60.0)
    torture.retried(house, lambda: same(torture.descriptors(house.daemon.pid), before))  # type: ignore[union-attr]
    house.stop()
    assert torture.no_line_is_lost_or_doubled(house, names, counts) > 100
    keys = verify.parse_keys((house.state / "log" / "audit.initial").read_bytes())
    with (house.log / "audit" / "audit.jsonl").open("rb") as log:
        assert verify.verify(log, keys).problems == ()


def same(now: object, then: object) -> None:
    assert now == then


def test_a_house_of_which_everything_is_killed_is_as_it_was_asked_to_be(make_house: Callable[..., House]) -> None:
    tortured(make_house, 24, float(os.environ.get("DURWARD_TORTURE_SECONDS", "3")), 0.02)


@pytest.mark.slow
def test_a_large_house_of_which_everything_is_killed_for_long(make_house: Callable[..., House]) -> None:
    tortured(make_house, 200, float(os.environ.get("DURWARD_TORTURE_SECONDS", "60")), 0.2)
