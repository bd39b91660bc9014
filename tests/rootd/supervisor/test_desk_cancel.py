"""Who may take back an operation, and what is recorded of it: the right is that to what the operation does."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from policy import messages
from policy.names import Action
from rootd import ipc
from rootd.supervisor.operations import Kind, Operation, Refusal


def begin(room: Any, kind: str, service: str) -> int:
    number: int = room.services.operations.begin(kind, service, "", 0.0).number
    return number


def test_every_kind_of_operation_is_an_action_so_that_each_has_its_right() -> None:
    assert set(get_args(Kind)) - {"upgrade"} <= {str(action) for action in Action}
    assert {Operation(1, kind, "", "", 0.0).action for kind in get_args(Kind)} <= {*Action}


def test_an_upgrade_goes_on_to_its_end(room: Any, tokens: Any) -> None:
    number = begin(room, "upgrade", "")
    reply = room.client("root").ask(messages.Cancel(number), "")
    assert (reply.kind, reply.text) == ("conflict", "an upgrade goes on to its end, which is near")
    assert room.client().ask(messages.Cancel(number), tokens[0]).kind in ("forbidden", "unknown")


def test_it_is_decided_and_recorded_with_the_action_and_the_target_of_the_operation(room: Any, tokens: Any) -> None:
    number = begin(room, "restart", "site")
    reply = room.client().ask(messages.Cancel(number), tokens[0])
    assert reply == messages.Done(f"operation {number} is cancelled; it ends when what has begun of it is over")
    assert room.services.asked == [("cancel", number, "cancelled by alice")]
    [decision], [outcome] = room.decisions(), room.outcomes()
    assert (decision["command"], decision["action"], decision["target"]) == ("cancel", "restart", "site")
    assert (decision["allowed"], decision["rule"], decision["asked"]) == (True, "ops", {"operation": number})
    assert (outcome["id"], outcome["action"], outcome["target"]) == (decision["id"], "restart", "site")
    assert (outcome["operation"], outcome["ok"]) == (number, True)


def test_the_right_to_another_action_is_not_enough(room: Any, tokens: Any) -> None:
    number = begin(room, "restart", "site")
    reply = room.client().ask(messages.Cancel(number), tokens[1])  # bob may view site
    assert reply.kind == "forbidden"
    assert "restart site" in reply.text
    assert room.decisions()[0]["allowed"] is False
    assert room.decisions()[0]["action"] == "restart"
    assert room.services.asked == []


@pytest.mark.parametrize(
    ("kind", "service"), [("restart", "vault"), ("stop", "vault"), ("reload", ""), ("shutdown", ""), ("stop", "gone")]
)
def test_one_that_may_not_be_viewed_looks_like_one_that_is_not_there(
    room: Any, tokens: Any, kind: str, service: str
) -> None:
    number = begin(room, kind, service)
    client = room.client()
    hidden = client.ask(messages.Cancel(number), tokens[0])
    missing = client.ask(messages.Cancel(number + 1), tokens[0])
    assert hidden == messages.Refused("unknown", f"no operation {number} that you may view")
    assert missing == messages.Refused("unknown", f"no operation {number + 1} that you may view")
    assert room.services.asked == room.sent == []
    assert [decision["allowed"] for decision in room.decisions()] == [False, False]
    assert room.decisions()[0]["action"] == kind, "for whoever reads the audit log"


def test_root_may_cancel_but_not_what_has_ended_or_is_no_longer_known(room: Any) -> None:
    number = begin(room, "stop", "vault")
    room.services.ends_at_once = True
    client = room.client("root")
    assert client.ask(messages.Cancel(number), "") == messages.Done(f"operation {number} is cancelled")
    late = client.ask(messages.Cancel(number), "")
    assert (late.kind, late.text) == (
        "conflict", f"operation {number} has ended already: it was not done: cancelled by root",
    )  # fmt: skip
    assert client.ask(messages.Cancel(99), "").kind == "unknown"


def test_one_that_is_forgotten_while_the_record_is_written_is_unknown(room: Any, tokens: Any) -> None:
    number = begin(room, "restart", "site")
    room.log_answers = None
    client = room.client()
    client.send(messages.Cancel(number), tokens[0])
    assert client.quiet()
    del room.services.operations._known[number]
    room.log_answers = 0
    assert client.receive().kind == "unknown"


def test_twice_is_done_already_and_what_cannot_be_is_refused_and_recorded(room: Any, tokens: Any) -> None:
    number = begin(room, "restart", "site")
    client = room.client()
    client.ask(messages.Cancel(number), tokens[0])
    again = client.ask(messages.Cancel(number), tokens[0])
    assert again == messages.Done(f"operation {number} is cancelled already: cancelled by alice")
    other = begin(room, "start", "site")
    room.services.refusal = Refusal("conflict", "site is starting already")
    assert client.ask(messages.Cancel(other), tokens[0]).kind == "conflict"
    assert [(one["ok"], one["result"]) for one in room.outcomes()][-1] == (False, "site is starting already")


def test_all_who_wait_for_it_have_the_same_outcome_in_the_audit_log(room: Any, tokens: Any) -> None:
    client = room.client()
    number = client.ask(messages.Restart("site"), tokens[0]).operation
    room.services.ends_at_once = True
    client.ask(messages.Cancel(number), tokens[0])
    room.settle()
    told = {one["id"]: (one["ok"], one["result"]) for one in room.outcomes()}
    restart, cancel = (decision["id"] for decision in room.decisions())
    assert told[restart] == (False, "it was not done: cancelled by alice")
    assert told[cancel] == (True, f"operation {number} is cancelled")


def test_a_reload_is_cancelled_by_who_may_reload_until_it_is_taken(room: Any, tokens: Any) -> None:
    client = room.client()
    number = client.ask(messages.Reload(), tokens[1]).operation
    reply = client.ask(messages.Cancel(number), tokens[1])
    assert reply == messages.Done(f"operation {number} is cancelled")
    assert [message.op for message in room.sent] == [ipc.STAGE, ipc.ABORT]
    assert room.services.operations.find(number).info().text == "nothing was changed: cancelled by bob"
    again = client.ask(messages.Reload(), tokens[1]).operation
    room.reloads._replacing = True
    late = client.ask(messages.Cancel(again), tokens[1])
    assert (late.kind, late.text) == (
        "conflict", "the new configuration is being taken already: it goes on to its end",
    )  # fmt: skip
