"""Each who asked gets one outcome in the audit log, whoever was there when it ended; a step tells of all of them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from policy.messages import Ended, Step
from rootd.supervisor.auditing import Audit, Then
from rootd.supervisor.control import Connection
from rootd.supervisor.operations import Asker, Operations
from rootd.supervisor.outcomes import JOINED, Outcomes


class Log:
    """The audit log, and who is told when a record is on disk."""

    is_crowded = False

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.then: list[Then] = []

    def record(self, body: dict[str, Any], then: Then | None = None) -> None:
        self.records.append(body)
        if then is not None:
            self.then.append(then)


class Hearing:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def over(self, ended: Ended) -> None:
        self.heard.append(ended.text)


ALICE, BOB = Asker("a", "site", "restart"), Asker("b", "site", "restart")


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def operations() -> Operations:
    return Operations(lambda _: None, lambda: "now")


@pytest.fixture
def outcomes(log: Log, operations: Operations) -> Outcomes:
    return Outcomes(operations, cast("Audit", log))


def test_each_gets_his_own_and_it_is_due_until_it_is_on_disk(
    log: Log, operations: Operations, outcomes: Outcomes
) -> None:
    operation = operations.begin("restart", "site", "a", 1.0)
    listens = [Hearing(), Hearing()]
    for asker, hearing in zip((ALICE, BOB), listens, strict=True):
        outcomes.accept(operation, asker, cast("Connection", hearing))
    assert log.records == []
    operations.end(operation, True, "site restarted", 2.0)
    outcomes.tell(operation)
    assert [(one["id"], one["operation"], one["ok"], one["result"]) for one in log.records] == [
        (asker.id, operation.number, True, "site restarted") for asker in (ALICE, BOB)
    ]
    assert [one.heard for one in listens] == [["site restarted"]] * 2
    log.then[0]("")
    log.then[1]("the disk is full")
    assert operation.askers == [BOB], "his is not known to be written: the next supervisor writes it"
    outcomes.tell(operation)
    assert [one["id"] for one in log.records] == ["a", "b", "b"]
    assert [one.heard for one in listens] == [["site restarted"]] * 2, "once"


def test_one_that_had_ended_when_it_was_asked_for_is_told_to_who_asked_alone(
    log: Log, operations: Operations, outcomes: Outcomes
) -> None:
    operation = operations.begin("start", "site", "a", 1.0)
    outcomes.accept(operation, ALICE, cast("Connection", Hearing()))
    operations.end(operation, False, "no", 2.0)
    outcomes.tell(operation)
    late = Hearing()
    outcomes.accept(operation, BOB, cast("Connection", late))
    assert ([one["id"] for one in log.records], late.heard) == (["a", "b"], ["no"])


def test_an_upgrade_is_called_so_and_not_by_the_right_that_it_takes(
    log: Log, operations: Operations, outcomes: Outcomes
) -> None:
    for kind, target in (("upgrade", ""), ("restart", "site")):
        operation = operations.begin(kind, target, "a", 1.0)
        outcomes.accept(operation, Asker("a", None, "shutdown"), cast("Connection", Hearing()))
        operations.end(operation, True, "done", 2.0)
        outcomes.tell(operation)
    assert [(one["action"], one.get("command")) for one in log.records] == [("shutdown", "upgrade"), ("shutdown", None)]


def test_a_step_tells_of_all_who_asked_and_is_left_out_first(
    log: Log, operations: Operations, outcomes: Outcomes
) -> None:
    operation = operations.begin("start", "site", "a", 1.0)
    step = Step(1, "now", operation.number, "site", "starting")
    outcomes.step(step)
    assert log.records[0] == {
        "kind": "step", "id": "a", "operation": operation.number, "service": "site", "text": "starting",
    }  # fmt: skip
    operation.requests += [str(number) for number in range(2 * JOINED)]
    outcomes.step(step)
    assert log.records[1]["ids"] == operation.requests[:JOINED]
    log.is_crowded = True
    outcomes.step(step)
    nobody = operations.begin("start", "other", "", 1.0)
    log.is_crowded = False
    outcomes.step(Step(1, "now", nobody.number, "other", "starting"))
    outcomes.step(Step(1, "now", 10_000, "other", "starting"))
    assert len(log.records) == 2
    outcomes.tell(None)
