"""What waits for a second person."""

from __future__ import annotations

import pytest

from policy import messages

WAITS = messages.Waits(3, "stop site waits for approval 3 by group:leads, until then: durward approve 3")


def test_what_waits_is_listed(http, world):
    info = messages.ApprovalInfo(3, "bob", "stop site", "disk full", "group:leads", "a", "b", rule="two")
    world.answers[messages.ListApprovals] = messages.Approvals([info])
    assert http.get("/api/v1/approvals").json == {
        "approvals": [
            {"number": 3, "user": "bob", "text": "stop site", "reason": "disk full", "by": "group:leads", "since": "a",
             "until": "b", "yours": False, "rule": "two", "changes": "", "stale": ""}
        ]
    }  # fmt: skip
    world.answers[messages.ListApprovals] = messages.Done("x")
    assert http.get("/api/v1/approvals").status_code == 500


def test_an_approval_is_a_number_and_a_reason_and_nothing_else(http, world):
    world.answers[messages.Approve] = messages.Done("approved: bob's stop site has begun, as operation 7")
    told = http.post("/api/v1/approvals/3", json={"reason": "seen"})
    assert (told.status_code, told.json) == (200, {"text": "approved: bob's stop site has begun, as operation 7"})
    assert (world.supervisor.asked[-1].command, world.supervisor.asked[-1].reason) == (messages.Approve(3), "seen")
    assert http.post("/api/v1/approvals/3").status_code == 200
    assert http.post("/api/v1/approvals/3", json={"as": "bob"}).status_code == 400
    assert http.post(f"/api/v1/approvals/{1 << 53}").status_code == 404
    assert http.post("/api/v1/approvals/-1").status_code == 404


@pytest.mark.parametrize("wait", ["", "?wait=true"])
def test_a_command_that_must_be_approved_is_202_with_the_number_and_is_not_waited_for(http, world, wait):
    world.answers[messages.Stop] = WAITS
    told = http.post(f"/api/v1/services/site/stop{wait}")
    assert (told.status_code, told.json) == (202, {"approval": 3, "text": WAITS.text})
    assert "Location" not in told.headers


def test_who_has_asked_takes_it_back_by_its_number(http, world):
    world.answers[messages.Withdraw] = messages.Done("approval 3 taken back by alice: stop site")
    told = http.delete("/api/v1/approvals/3", json={"reason": "not needed"})
    assert (told.status_code, told.json) == (200, {"text": "approval 3 taken back by alice: stop site"})
    assert (world.supervisor.asked[-1].command, world.supervisor.asked[-1].reason) == (
        messages.Withdraw(3),
        "not needed",
    )
    assert http.delete("/api/v1/approvals/3").status_code == 200
    assert http.delete(f"/api/v1/approvals/{1 << 53}").status_code == 404
