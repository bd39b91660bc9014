"""Hooks and probes' commands as runs: asked, spawned, ended in time, told once, and found again."""

from __future__ import annotations

from typing import Any

import pytest

from rootd import ipc
from rootd.config.specs import Probe
from rootd.supervisor import states
from rootd.supervisor.exits import SHORT

BEFORE, LAST, STOP = (("pre-start", 5),), (("post-stop", 5),), (("stop", 5),)


def one(house: Any) -> Any:
    [errand] = house.privileged.errands()
    return errand


def text(house: Any) -> str:
    found: str = house.services.info("site").processes[0].text
    return found


def test_a_hook_is_a_slot_of_its_own_and_what_it_leaves_is_killed(House: Any, spec: Any) -> None:
    house = House(spec(parts=BEFORE)).begin().deliver()
    hook = one(house)
    assert (hook.slot, hook.generation) == (5 * 1024, 1)
    assert text(house) == "its pre-start hook runs"
    assert house.states() == ["STARTING"]
    house.privileged.exit(hook.number, 0)
    house.deliver()
    assert hook.number not in house.privileged.runs
    assert house.later(1.0).states() == ["RUNNING"]


@pytest.mark.parametrize(
    ("status", "failure", "words"),
    [
        (3, 0, "exit status 3"),
        (-9, 0, "killed by SIGKILL"),
        (127, 2 << 8 | ipc.STEPS.index("exec"), "cannot execute /srv/check: No such file or directory"),
    ],
)
def test_how_a_hook_ended_is_said(House: Any, spec: Any, status: int, failure: int, words: str) -> None:
    shown = (("hooks.pre_start", '["/srv/check", "-t"]'),)
    house = House(spec(parts=BEFORE, limit_count=1, settings=shown)).begin().deliver()
    house.privileged.exit(one(house).number, status, failure)
    house.deliver()
    assert house.states() == ["FATAL"]
    assert text(house) == f"failed once in 60 s, the last time: its pre-start hook: {words}"


def test_a_hook_that_takes_too_long_is_killed_and_counts_as_failed(House: Any, spec: Any) -> None:
    house = House(spec(parts=BEFORE, hook_timeout=3.0, limit_count=1)).begin().deliver()
    assert house.later(2.9).states() == ["STARTING"]
    assert house.later(0.2).states() == ["FATAL"]
    assert text(house).endswith("its pre-start hook: it took more than 3 s")
    assert house.privileged.runs == {}


@pytest.mark.parametrize("saved", ["before its end", "after it"])
def test_a_post_stop_hook_that_was_not_spawned_yet_is_run_by_the_next_supervisor(
    House: Any, spec: Any, saved: str
) -> None:
    house = House(spec(parts=LAST, restart_policy="never")).begin().later(2.0)
    state = house.services.state()
    house.privileged.exit(1, 0)
    house.deliver(1)
    house.privileged.heard = False  # the supervisor dies when it has heard that nothing is left
    house.deliver()
    assert house.privileged.errands() == []
    house.reborn(state if saved == "before its end" else None).deliver()
    assert one(house).slot == 5 * 1024
    house.privileged.exit(one(house).number, 0)
    house.later(20.0)
    if saved == "after it":
        assert (house.states(), house.privileged.last) == (["EXITED"], 2)
    else:
        assert house.states() == ["RUNNING"]
    assert house.privileged.errands() == []


def test_a_hook_that_cannot_be_spawned_fails_with_the_reason(House: Any, spec: Any) -> None:
    house = House(spec(parts=BEFORE, limit_count=1))
    house.privileged.failing = (11, "fork")
    house.begin().deliver()
    assert text(house).endswith(
        f"its pre-start hook: cannot start a process: Resource temporarily unavailable; {SHORT[11]}"
    )


def test_a_hook_that_not_even_sigkill_ends_is_given_up_and_killed_again_when_it_shows(House: Any, spec: Any) -> None:
    house = House(spec(parts=BEFORE, hook_timeout=3.0, limit_count=1)).begin().deliver()
    number = one(house).number
    undying, house.privileged.exit = house.privileged.exit, lambda *_: None
    house.later(20.0)
    assert house.states() == ["FATAL"]
    assert text(house).endswith("it took more than 3 s, and does not end, even by SIGKILL")
    house.privileged.exit = undying
    house.privileged.exit(number, -9)
    house.deliver()
    assert house.privileged.runs == {}


def test_a_hook_that_is_ended_before_it_was_spawned_is_killed_as_soon_as_it_is(House: Any, spec: Any) -> None:
    house = House(spec(parts=BEFORE)).begin()
    house.services.stop("site", house.now, "r")
    assert house.deliver().states() == ["STOPPED"]
    assert house.privileged.runs == {}


def test_a_stop_command_has_the_time_of_the_stop(House: Any, spec: Any) -> None:
    house = House(spec(parts=STOP, stop_timeout=4.0)).begin().later(2.0)
    house.privileged.stubborn = True
    house.services.stop("site", house.now, "r")
    house.deliver()
    assert one(house).slot == 5 * 1024
    house.later(4.1)
    assert house.privileged.errands() == []
    assert house.states() == ["STOPPING"]
    assert house.later(4.0).states() == ["STOPPED"]


# -- kill -9 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answered", [True, False], ids=["spawned", "asked"])
def test_a_hook_goes_on_under_a_new_privileged(House: Any, spec: Any, answered: bool) -> None:
    house = House(spec(parts=BEFORE)).begin().deliver(1_000 if answered else 0)
    number = one(house).number
    house.lose().link().deliver()
    assert one(house).number == number
    house.privileged.exit(number, 0)
    assert house.later(1.0).states() == ["RUNNING"]
    assert house.privileged.last == 2


def test_a_hook_that_was_never_spawned_is_asked_for_again(House: Any, spec: Any) -> None:
    house = House(spec(parts=BEFORE))
    house.begin().lose()
    house.privileged.runs.clear()
    house.link().deliver()
    house.privileged.exit(one(house).number, 0)
    assert house.later(1.0).states() == ["RUNNING"]


def test_a_hook_that_ended_unseen_is_over(House: Any, spec: Any) -> None:
    house = House(spec(parts=BEFORE, limit_count=1)).begin().deliver()
    house.lose().privileged.runs.clear()
    house.link().deliver()
    assert text(house).endswith("its pre-start hook: ended, nobody saw how")


@pytest.mark.parametrize("parts", [BEFORE, LAST, (*BEFORE, *LAST)], ids=["pre-start", "post-stop", "both"])
def test_what_follows_from_a_hook_that_ended_as_privileged_did_is_done_once(House: Any, spec: Any, parts: Any) -> None:
    house = House(spec(parts=parts, restart_policy="never")).begin().deliver()
    while parts[0][0] == "pre-start" and house.states() == ["STARTING"] and house.privileged.errands():
        house.privileged.exit(one(house).number, 0)
        house.deliver(1).lose()  # it is to be forgotten, and that it is cannot be said any more
        house.link().deliver()
    house.later(2.0).services.stop("site", house.now, "r")
    house.deliver().services.start("site", house.now, "r")
    if parts[-1][0] == "post-stop":
        house.privileged.exit(one(house).number, 0)
        house.deliver(1).lose()
        house.link().deliver()
    for _ in range(3):
        for errand in house.privileged.errands():
            house.privileged.exit(errand.number, 0)
        house.later(2.0)
    assert house.states() == ["RUNNING"]
    assert len(house.privileged.mains()) == 1


def test_a_hook_that_nobody_knows_is_killed(House: Any, spec: Any) -> None:
    house = House(spec(parts=BEFORE)).begin().deliver()
    house.privileged.exit(one(house).number, 0)
    house.later(2.0)
    house.stray(77, 5 * 1024)
    house.lose().link().deliver()
    assert 77 not in house.privileged.runs
    assert house.states() == ["RUNNING"]


@pytest.mark.parametrize(("part", "state"), [("pre-start", "STARTING"), ("post-start", "STARTING")])
def test_a_hook_goes_on_under_a_new_supervisor(House: Any, spec: Any, part: str, state: str) -> None:
    house = House(spec(parts=((part, 5),), ready_after=0.0)).begin().deliver()
    number, last = one(house).number, house.privileged.last
    house.reborn()
    assert house.states() == [state]
    assert (one(house).number, house.privileged.last) == (number, last)
    house.privileged.exit(number, 0)
    assert house.later(1.0).states() == ["RUNNING"]


def test_a_post_stop_hook_goes_on_under_a_new_supervisor_and_the_service_comes_to_rest(House: Any, spec: Any) -> None:
    house = House(spec(parts=LAST, stop_timeout=1.0)).begin().later(2.0)
    house.services.stop("site", house.now, "r")
    house.deliver()
    number = one(house).number
    house.reborn()
    assert house.states() == ["STOPPING"]
    house.privileged.exit(number, 0)
    assert house.deliver().states() == ["STOPPED"]
    assert house.privileged.last == number


def test_a_stop_command_is_not_run_twice_by_a_new_supervisor(House: Any, spec: Any) -> None:
    house = House(spec(parts=STOP)).begin().later(2.0)
    house.services.stop("site", house.now, "r")
    house.deliver()
    last = house.privileged.last
    house.reborn().deliver()
    assert house.privileged.last == last
    house.privileged.exit(house.privileged.mains()[0].number, 0)
    assert house.later(20.0).states() == ["STOPPED"]
    assert house.privileged.runs == {}


def test_in_a_rolling_restart_hooks_go_on_under_a_new_supervisor(House: Any, spec: Any) -> None:
    parts = (*BEFORE, ("post-start", 6), ("post-stop", 7))
    house = House(spec(parts=parts, shared=True, ready_after=0.0)).begin().deliver()
    for _ in range(2):
        house.privileged.exit(one(house).number, 0)
        house.deliver()
    assert house.states() == ["RUNNING"]
    house.services.restart("site", house.now, "r")
    for entry in (5, 6, 7):
        house.deliver()
        hook = one(house)
        assert hook.slot == entry * 1024
        house.reborn().deliver()
        assert one(house) is hook
        house.privileged.exit(hook.number, 0)
    house.deliver()
    assert house.states() == ["RUNNING"]
    assert len(house.privileged.mains()) == 1
    assert house.privileged.last == 7


def test_a_probes_command_of_the_last_supervisor_is_killed_and_run_anew(House: Any, spec: Any) -> None:
    kinds = {"ready_kind": "probe", "ready_probe": Probe("command")}
    house = House(spec(parts=(("ready", 5),), **kinds)).begin().later(0.1)
    number = one(house).number
    house.reborn().later(0.1)
    assert one(house).number != number
    house.privileged.exit(one(house).number, 0)
    assert house.deliver().states() == ["RUNNING"]


def test_a_hook_of_a_slot_that_is_gone_keeps_it_until_it_has_ended(House: Any, spec: Any) -> None:
    gone = spec(name="gone", parts=LAST, entry=1)
    house = House(spec(), gone).begin().later(2.0)
    house.reload(spec())
    hook = one(house.deliver())
    house.lose()
    other = house.services = house.supervisor()
    other.known(1, (spec(), gone))
    other.load((spec(),), 2, house.now)
    house.link()
    assert one(house) is hook
    house.privileged.exit(hook.number, 0)
    house.deliver()
    assert ("gone", 0) not in other._slots.instances
    assert states.runs(other._slots.instances["site", 0].slot.state)
