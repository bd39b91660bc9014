"""What is taken back of an operation, and what goes on: nobody gets a stop by it who may only start or restart."""

from __future__ import annotations

from typing import Any

import pytest

from rootd.supervisor.services import Already, Refusal

WHY = "cancelled by alice"
NOTIFY = {"ready_kind": "notify", "shared": True}


def cancel(house: Any, number: int) -> None:
    house.services.cancel(house.services.operations.find(number), WHY, house.now)


def last(house: Any, number: int) -> str:
    said: str = house.said(number)[-1]
    return said


def ready(house: Any, *runs: int) -> None:
    house.deliver()
    for run in runs:
        house.services.notified(run, {"READY": "1"}, house.now)


def test_a_rolling_restart_leaves_the_old_process_serving(House: Any, spec: Any) -> None:
    house = House(spec(**NOTIFY)).begin()
    ready(house, 1)
    operation = house.services.restart("site", house.now, "r")
    house.later(1.0)
    cancel(house, operation)
    assert not house.services.operations.find(operation).ended, "the new one is being stopped"
    house.later(1.0)
    assert last(house, operation) == f"failed: site was not restarted: {WHY}; the old process keeps serving"
    assert (house.pids(), house.states()) == ([1001], ["RUNNING"])
    assert [run.number for run in house.privileged.runs.values()] == [1]


def test_one_whose_new_process_is_only_being_spawned_too(House: Any, spec: Any) -> None:
    house = House(spec(**NOTIFY)).begin()
    ready(house, 1)
    operation = house.services.restart("site", house.now, "r")
    cancel(house, operation)
    house.later(1.0)
    assert last(house, operation) == f"failed: site was not restarted: {WHY}; the old process keeps serving"
    assert (house.pids(), list(house.privileged.runs)) == ([1001], [1])


def test_what_has_not_begun_of_a_restart_is_not_begun(House: Any, spec: Any) -> None:
    house = House(spec(processes=3, **NOTIFY)).begin()
    ready(house, 1, 2, 3)
    operation = house.services.restart("site", house.now, "r")
    ready(house, 4)
    house.later(1.0)
    assert house.pids() == [1004, 1002, 1003], "and the second one has begun"
    cancel(house, operation)
    house.later(20.0)
    what = f"{WHY}; the old process keeps serving; 1 process was restarted"
    assert last(house, operation) == f"failed: site was not restarted: {what}"
    assert house.pids() == [1004, 1002, 1003]


def test_several_that_are_replaced_at_once_are_all_taken_back(House: Any, spec: Any) -> None:
    house = House(spec(processes=3, max_unavailable=2, **NOTIFY)).begin()
    ready(house, 1, 2, 3)
    operation = house.services.restart("site", house.now, "r")
    house.later(1.0)
    cancel(house, operation)
    house.later(20.0)
    assert last(house, operation) == f"failed: site was not restarted: {WHY}; the old ones keep serving"
    assert house.pids() == [1001, 1002, 1003]


def test_a_process_that_was_told_to_end_is_replaced_all_the_same(House: Any, spec: Any) -> None:
    house = House(spec(processes=2)).begin().later(2.0)
    operation = house.services.restart("site", house.now, "r", hard=True)
    cancel(house, operation)
    house.later(5.0)
    assert last(house, operation) == f"failed: site was not restarted: {WHY}; 1 process was restarted"
    assert (house.pids(), house.states()) == ([1003, 1002], ["RUNNING", "RUNNING"])


@pytest.mark.parametrize("shared", [True, False])
def test_when_nothing_is_left_to_take_back_it_is_refused(House: Any, spec: Any, shared: bool) -> None:
    house = House(spec(shared=shared)).begin().later(2.0)
    house.privileged.stubborn = True
    operation = house.services.restart("site", house.now, "r")
    house.later(1.5)
    with pytest.raises(Refusal, match="site is being restarted already, and nothing of that can be taken") as refused:
        cancel(house, operation)
    assert refused.value.kind == "conflict"
    house.later(30.0)
    assert last(house, operation) == "ok: site restarted"


def test_a_restart_that_waits_for_another_is_not_begun_and_the_other_goes_on(House: Any, spec: Any) -> None:
    house = House(spec(**NOTIFY)).begin()
    ready(house, 1)
    first = house.services.restart("site", house.now, "r1")
    second = house.services.restart("site", house.now, "r2")
    assert second != first
    cancel(house, second)
    assert last(house, second) == f"failed: site was not restarted: {WHY}"
    ready(house, 2)
    house.later(1.0)
    assert last(house, first) == "ok: site restarted"
    assert house.pids() == [1002]


def test_one_that_is_asked_after_it_was_cancelled_does_not_join_it(House: Any, spec: Any) -> None:
    house = House(spec(**NOTIFY)).begin()
    ready(house, 1)
    first = house.services.restart("site", house.now, "r1")
    house.later(1.0)
    cancel(house, first)
    second = house.services.restart("site", house.now, "r2")
    assert second != first
    house.later(1.0)
    ready(house, 3)
    house.later(1.0)
    assert last(house, second) == "ok: site restarted"
    assert house.pids() == [1003]


def test_a_start_of_what_is_taken_back_ends_that_and_has_its_own_end(House: Any, spec: Any) -> None:
    house = House(spec(**NOTIFY)).begin()
    ready(house, 1)
    first = house.services.restart("site", house.now, "r1")
    house.later(1.0)
    house.privileged.stubborn = True
    cancel(house, first)
    start = house.services.start("site", house.now, "r2")
    assert last(house, first) == "failed: site was not restarted: start was asked for meanwhile"
    house.later(20.0)
    assert last(house, start) == "ok: site started"
    assert house.pids() == [1001]


@pytest.fixture
def chain(House: Any, spec: Any) -> Any:
    """site comes after db, which is not ready; the site may have several processes."""
    db = spec(name="db", ready_kind="notify", autostart=False)
    site = spec(name="site", entry=1, processes=2, max_processes=4, requires=("db",), autostart=False, digest="s")
    return House(db, site).begin()


@pytest.mark.parametrize("what", ["start", "restart"])
def test_what_waits_for_its_turn_comes_to_rest(chain: Any, what: str) -> None:
    operation = getattr(chain.services, what)("site", chain.now, "r")
    chain.deliver()
    assert chain.states() == ["STARTING", "STARTING" if what == "start" else "STOPPED"]
    cancel(chain, operation)
    assert last(chain, operation) == f"failed: site was not {what}ed: {WHY}"
    assert chain.states() == ["STOPPED", "STOPPED"]
    ready(chain, 1)
    assert chain.later(5.0).states() == ["STOPPED", "STOPPED"], "and does not start by itself then"
    assert chain.states("db") == ["RUNNING"]


def test_what_would_have_run_anyhow_is_not_taken_back(chain: Any) -> None:
    """Who may start gets no stop by starting it and taking that back."""
    chain.services.start("site", chain.now, "r1")
    operation = chain.services.restart("site", chain.now, "r2")
    chain.deliver()
    cancel(chain, operation)
    assert chain.states() == ["STARTING", "STARTING"], "both were to start before that restart"
    ready(chain, 1)
    assert chain.later(5.0).states() == ["RUNNING", "RUNNING"]


def test_a_pre_start_hook_is_ended_and_its_start_taken_back(House: Any, spec: Any) -> None:
    house = House(spec(autostart=False, parts=(("pre-start", 5),), hook_timeout=300.0)).begin()
    operation = house.services.start("site", house.now, "r")
    house.later(1.0)
    assert len(house.privileged.errands()) == 1
    cancel(house, operation)
    house.later(1.0)
    assert last(house, operation) == f"failed: site was not started: {WHY}"
    assert (house.states(), house.privileged.runs) == (["STOPPED"], {})


def test_what_has_been_spawned_of_a_start_is_let_be(House: Any, spec: Any) -> None:
    house = House(spec(autostart=False)).begin()
    operation = house.services.start("site", house.now, "r")
    with pytest.raises(Refusal, match="site is starting already: it can be stopped"):
        cancel(house, operation)
    house.later(2.0)
    assert last(house, operation) == "ok: site started"


def test_a_stop_that_waits_for_dependants_is_not_begun_and_one_that_was_told_goes_on(chain: Any) -> None:
    chain.services.start("site", chain.now, "r")
    ready(chain, 1)
    chain.later(3.0)
    chain.privileged.stubborn = True
    stop = chain.services.stop("db", chain.now, "r", chain.services.order.dependants("db"))
    assert last(chain, stop) == "waits until the service that requires it has stopped"
    dependant = next(
        one.number for one in chain.services.operations.all() if (one.kind, one.service) == ("stop", "site")
    )
    with pytest.raises(Refusal, match="site is told to end already: it can be started"):
        cancel(chain, dependant)
    cancel(chain, stop)
    assert last(chain, stop) == f"failed: db was not stopped: {WHY}"
    chain.later(30.0)
    assert (chain.states("db"), chain.states()) == (["RUNNING"], ["STOPPED", "STOPPED"])


def test_further_processes_that_wait_for_their_turn_are_no_longer_to_be(chain: Any) -> None:
    chain.services.start("site", chain.now, "r")
    ready(chain, 1)
    chain.later(3.0)
    chain.services.restart("db", chain.now, "r")
    chain.deliver()
    operation = chain.services.scale("site", 4, chain.now, "r")
    assert chain.states() == ["RUNNING", "RUNNING", "STARTING", "STARTING"]
    cancel(chain, operation)
    assert last(chain, operation) == f"failed: site was not scaled: {WHY}; it is to have 2 processes"
    assert chain.states() == ["RUNNING", "RUNNING"]
    assert chain.services.info("site").text == ""


def test_processes_that_are_told_to_start_or_end_are_not_taken_back(House: Any, spec: Any) -> None:
    house = House(spec(max_processes=3)).begin().later(2.0)
    operation = house.services.scale("site", 3, house.now, "r")
    with pytest.raises(Refusal, match="the processes of site are told to start already: scale it again then"):
        cancel(house, operation)
    house.later(2.0)
    house.privileged.stubborn = True
    operation = house.services.scale("site", 1, house.now, "r")
    with pytest.raises(Refusal, match="the processes of site are told to end already"):
        cancel(house, operation)
    house.later(30.0)
    assert last(house, operation) == "ok: site: 1 process"


def test_a_signal_and_a_shutdown_are_not_taken_back(House: Any) -> None:
    house = House().begin().later(2.0)
    signal = house.services.signal("site", "HUP", house.now, "r")
    with pytest.raises(Refusal, match="a signal cannot be cancelled"):
        cancel(house, signal)
    shutdown = house.services.stop_all(house.now, "r")
    with pytest.raises(Refusal, match="a shutdown cannot be cancelled"):
        cancel(house, shutdown)


def test_a_scaling_that_was_cancelled_is_not_joined(chain: Any) -> None:
    chain.services.start("site", chain.now, "r")
    ready(chain, 1)
    chain.later(3.0)
    chain.services.restart("db", chain.now, "r")
    chain.deliver()
    operation = chain.services.scale("site", 4, chain.now, "r")
    cancel(chain, operation)
    with pytest.raises(Already, match="site has 2 processes already"):
        chain.services.scale("site", 2, chain.now, "r")
