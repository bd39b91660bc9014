"""A hook or a probe is about a run: its process is told which, and privileged only of a run of the same service."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
from privileged_house import House, entry, read_json

from rootd import ipc

pytestmark = pytest.mark.root

Build = Callable[..., House]
SHOW = "import json, os; print(json.dumps(dict(os.environ)), flush=True)"
STAY = "import time; time.sleep(1000)"


def about(house: House, slot: int, run: int) -> ipc.Message:
    house.ask(ipc.SPAWN, seq=77, generation=1, slot=slot, run=run)
    message, _ = house.hear(ipc.SPAWNED, ipc.DONE)
    if message.op == ipc.SPAWNED:
        house.spawned.append(message.arg)
    return message


def environment(house: House, spawned: ipc.Message) -> dict[str, Any]:
    found: dict[str, Any] = read_json(house.output(spawned.run)[1])
    return found


def test_a_hook_gets_the_pid_of_the_process_that_it_is_about(build: Build) -> None:
    house = build(entry(STAY), entry(SHOW))
    main = house.spawn()
    assert environment(house, about(house, 1024, main.run))["DURWARD_PID"] == str(main.arg)


def test_a_hook_that_is_about_none_gets_no_pid(build: Build) -> None:
    house = build(entry(STAY), entry(SHOW))
    assert "DURWARD_PID" not in environment(house, about(house, 1024, 0))


def test_a_hook_is_not_about_a_run_of_another_service_nor_one_that_is_over(build: Build) -> None:
    house = build(entry(STAY), entry(SHOW), entry(STAY, service="other"))
    other = house.spawn(2 * 1024)
    for run in (other.run, other.run + 1, 1):
        refused = about(house, 1024, run)
        assert (refused.op, refused.arg) == (ipc.DONE, errno.ESRCH)
    ended = house.spawn(1024)
    house.finish(ended.run)
    refused = about(house, 1024, ended.run)
    assert (refused.op, refused.arg) == (ipc.DONE, errno.ESRCH)


def test_a_post_stop_hook_of_an_older_configuration_can_follow_the_end_of_its_last_process(build: Build) -> None:
    entries = entry(STAY), entry(SHOW)
    house = build(*entries, start=False)
    house.store |= {f"generation/{number}": house.table(entries, ()) for number in (2, 3)}
    house.start()
    house.hear(ipc.FACTS_END)
    main = house.spawn()
    house.ask(ipc.SIGNAL, run=main.run, arg=9, scope=ipc.TREE)
    house.finish(main.run)
    hook = about(house, 1024, 0)
    assert hook.op == ipc.SPAWNED
    house.finish(hook.run)
