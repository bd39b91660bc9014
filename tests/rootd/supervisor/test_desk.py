"""What is recorded before something is done, and what is not done when it cannot be."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from second_person import waiting

from policy import login, messages
from policy.names import Action
from rootd.supervisor import inflight
from rootd.supervisor.auditing import KEPT, MINUTE, PATIENCE, SINGLY
from rootd.supervisor.desk import spoken
from rootd.supervisor.dispatch import DISPATCH
from rootd.supervisor.operations import Already, Refusal
from rootd.supervisor.reload import NOBODY

GLOBAL = {Action.AUDIT, Action.RELOAD, Action.REVOKE, Action.SHUTDOWN}
READS: list[messages.Command] = [
    messages.Status("site"),
    messages.Describe("site"),
    messages.Watch(service="site"),
    messages.ListOperations("site"),
    messages.OpenLog("site"),
    messages.OpenAudit(),
    messages.ReadPolicy(),
    messages.WhatMayI(),
    messages.ListApprovals(),
]
CHANGES: list[messages.Command] = [
    messages.Start("site"),
    messages.Stop("site"),
    messages.Restart("site"),
    messages.Signal("site", "HUP"),
    messages.Enable("site"),
    messages.Disable("site"),
    messages.Scale("site", 3),
    messages.ClearLog("site"),
    messages.ReopenLog("site"),
    messages.Cancel(1),
    messages.Approve(1),
    messages.Withdraw(1),
    messages.Reload(),
    messages.Revoke(everyone=True),
    messages.Shutdown(),
    messages.Upgrade(),
]


def test_every_command_is_among_these() -> None:
    assert {type(command) for command in READS + CHANGES} == set(DISPATCH)


@pytest.mark.parametrize("command", CHANGES, ids=spoken)
def test_nothing_is_done_before_its_record_is_on_disk(room: Any, command: messages.Command) -> None:
    room.services.operations.begin("restart", "site", "", 0.0)  # which Cancel is about
    room.desk.approvals.add(waiting)
    room.log_answers = None
    client = room.client("root")
    client.send(command, "")
    assert client.quiet()
    assert (room.services.asked, room.sent, room.told, room.kept) == ([], [], [], [])
    assert room.decisions()[0]["allowed"] is True
    room.log_answers = 0
    assert not isinstance(client.receive(), messages.Refused)


@pytest.mark.parametrize("command", READS, ids=spoken)
def test_what_only_reads_is_recorded_and_waits_for_nothing(room: Any, command: messages.Command, tokens: Any) -> None:
    room.log_answers = None
    (room.path / "log" / "site.0").mkdir()
    (room.path / "log" / "site.0" / "stdout.log").write_text("x")
    client = room.client()
    client.send(command, tokens[isinstance(command, messages.OpenAudit | messages.ReadPolicy)])
    assert not client.quiet()
    assert room.decisions()[0]["allowed"] is True


@pytest.mark.parametrize("way", ["away", "full disk", "dies", "hangs"])
@pytest.mark.parametrize("command", [one for one in CHANGES if not isinstance(one, messages.Approve)], ids=spoken)
def test_e4_what_cannot_be_recorded_is_not_done(room: Any, tokens: Any, command: messages.Command, way: str) -> None:
    room.services.operations.begin("restart", "site", "", 0.0)  # which Cancel is about
    room.desk.approvals.add(waiting)
    token = tokens[1] if DISPATCH[type(command)].action in GLOBAL else tokens[0]
    room.log_is_there = way != "away"
    room.log_answers = errno.ENOSPC if way == "full disk" else None
    client = room.client()
    client.send(command, token)
    room.settle()
    if way == "dies":
        room.audit.lost()
    elif way == "hangs":
        room.pass_time(PATIENCE)
    reply = client.receive()
    assert reply.kind == "later"
    assert reply.text.startswith("the audit log cannot be written: ")
    assert reply.text.endswith("; nothing was done")
    assert (room.services.asked, room.sent, room.told, room.kept) == ([], [], [], [])
    room.log_is_there, room.log_answers = True, 0
    room.audit.linked()
    room.settle()
    assert [outcome["ok"] for outcome in room.outcomes()][-1:] == [False]
    assert room.outcomes()[-1]["result"].startswith("not begun: ")
    assert (room.services.asked, room.sent, room.told, room.kept) == ([], [], [], []), "nor later"


@pytest.mark.parametrize("command", CHANGES, ids=spoken)
def test_e4_root_may_still_stop_things(room: Any, command: messages.Command) -> None:
    room.log_is_there = False
    reply = room.client("root").ask(command, "")
    assert isinstance(reply, messages.Accepted) == isinstance(command, messages.Stop | messages.Shutdown)


def test_e4_where_the_settings_say_so_it_goes_on_unrecorded(room: Any) -> None:
    room.desk.goes_on = True
    room.log_is_there = False
    assert isinstance(room.client().ask(messages.Start("site")), messages.Accepted)


def test_reads_are_refused_too_when_records_pile_up(room: Any) -> None:
    room.log_answers = None
    for _ in range(KEPT // 4):
        room.audit.record({})
    assert room.client().ask(messages.Status()).kind == "later"
    assert isinstance(room.client("root").ask(messages.Status(), ""), messages.Services), "root comes after the others"
    for _ in range(KEPT // 4):
        room.audit.record({})
    assert room.client("root").ask(messages.Status(), "").kind == "later"
    room.log_is_there = False
    assert isinstance(room.client("root").ask(messages.Stop("site"), ""), messages.Accepted)


def test_e4_a_disk_that_was_full_lets_everybody_in_again_when_it_is_not(room: Any) -> None:
    room.log_answers = errno.ENOSPC
    for _ in range(KEPT // 4):
        room.audit.record({})
    room.settle()
    assert room.client().ask(messages.Status()).kind == "later"
    room.pass_time(1.0)
    room.settle()
    assert room.client().ask(messages.Status()).kind == "later"
    room.log_answers = 0
    room.pass_time(1.0)
    room.settle()
    assert isinstance(room.client().ask(messages.Status()), messages.Services), "without root's help"


def test_a_decision_says_who_from_where_what_and_by_which_rule(room: Any) -> None:
    room.client().ask(messages.Restart("site"))
    record = room.decisions()[0]
    assert len(record.pop("id")) == 16
    assert len(record.pop("session")) == 12
    assert len(record.pop("policy")) == 12
    assert record == {
        "kind": "decision", "user": "alice", "uid": 1001, "from": "198.51.100.7", "action": "restart",
        "command": "restart", "target": "site", "asked": {}, "allowed": True, "rule": "ops",
        "file": "policy.d/10-web.toml", "line": 2, "why": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        (messages.Restart("site", hard=True), {"hard": True}),
        (messages.Signal("site", "HUP"), {"signal": "HUP"}),
        (messages.Scale("site", 3), {"processes": 3}),
        (messages.OpenLog("site", "stderr", rotated=2), {"stream": "stderr", "rotated": 2}),
        (messages.Reload(dry_run=True), {"dry_run": True}),
        (messages.Revoke("eve"), {"user": "eve"}),
        (messages.Revoke(everyone=True), {"everyone": True}),
    ],
)
def test_a_decision_says_all_that_was_asked_for(room: Any, command: messages.Command, asked: dict[str, Any]) -> None:
    room.client("root").send(command, "")
    room.settle()
    assert room.decisions()[0]["asked"] == asked


def test_a_denial_is_recorded_with_its_reason(room: Any, tokens: Any) -> None:
    room.client().ask(messages.Stop("site"), tokens[1])
    assert room.decisions()[0]["allowed"] is False
    assert "no rule lets bob stop site" in room.decisions()[0]["why"]


def test_the_end_of_an_operation_is_recorded_for_each_who_asked(room: Any) -> None:
    number = room.client().ask(messages.Restart("site", hard=True)).operation
    assert room.services.asked == [("restart", "site", True)]
    assert room.outcomes() == []
    room.services.end(number, ok=False)
    outcome = room.outcomes()[0]
    assert outcome["id"] == room.decisions()[0]["id"]
    assert (outcome["operation"], outcome["ok"], outcome["seconds"]) == (number, False, 2.0)
    assert (outcome["action"], outcome["target"], outcome["result"]) == ("restart", "site", "restarted")


def test_an_operation_that_ends_at_once_is_recorded_too(room: Any) -> None:
    room.services.ends_at_once = True
    room.client().ask(messages.Signal("site", "HUP"))
    assert room.services.asked == [("signal", "site", "HUP")]
    assert [outcome["ok"] for outcome in room.outcomes()] == [True]


def test_what_cannot_be_done_now_is_refused_and_recorded(room: Any) -> None:
    room.services.refusal = Refusal("not-running", "site does not run")
    reply = room.client().ask(messages.Stop("site"))
    assert reply == messages.Refused("not-running", "site does not run")
    assert room.outcomes()[0]["result"] == "site does not run"
    assert room.outcomes()[0]["ok"] is False


def test_what_is_so_already_is_done(room: Any) -> None:
    room.services.refusal = Already("site runs already")
    assert room.client().ask(messages.Start("site")) == messages.Done("site runs already")
    assert room.outcomes()[0]["ok"] is True


# -- after the wait ----------------------------------------------------------------------------------------------


def test_a14_a_session_that_ended_while_the_record_was_written_does_nothing(room: Any, tokens: Any) -> None:
    room.log_answers = None
    client = room.client()
    client.send(messages.Start("site"))
    room.settle()
    room.sessions.revoke("alice")
    room.log_answers = 0
    assert client.receive().kind == "no-session"
    assert room.services.asked == []
    assert room.outcomes()[0]["result"] == "not begun: the session is over"


@pytest.mark.parametrize("change", ["policy", "groups", "service"])
def test_a13_a_right_that_was_lost_while_the_record_was_written_does_nothing(
    room: Any, tokens: Any, change: str
) -> None:
    room.log_answers = None
    client = room.client()
    client.send(messages.Start("site"))
    room.settle()
    if change == "policy":
        room.desk.policy = NOBODY
    elif change == "groups":
        room.login(tokens[0], "alice", 1001, [])
    else:
        del room.services.groups["site"]
    room.log_answers = 0
    assert client.receive().kind == "unknown"
    assert room.services.asked == []
    assert [decision["allowed"] for decision in room.decisions()] == [True, False]


def test_a_use_is_told_to_auth_now_and_then(room: Any) -> None:
    client = room.client()
    client.ask(messages.WhatMayI())
    room.now += 31.0
    client.ask(messages.WhatMayI())
    assert [type(pull) for pull in room.told] == [login.Touched]


# -- how often -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["control", "root"])
def test_whoever_asks_without_end_does_not_make_the_log_grow_without_end(room: Any, tokens: Any, door: str) -> None:
    client, token, user = room.client(door), *((tokens[0], ("alice", 1001)) if door == "control" else ("", ("root", 0)))
    for _ in range(SINGLY + 7):
        assert not isinstance(client.ask(messages.WhatMayI(), token), messages.Refused), "it is answered all the same"
    assert len(room.records) == SINGLY
    room.now += MINUTE
    client.ask(messages.WhatMayI(), token)
    assert room.records[SINGLY] == {
        "kind": "decisions", "user": user[0], "uid": user[1], "count": 7, "since": "at 1000",
    }  # fmt: skip
    assert room.records[SINGLY + 1]["kind"] == "decision"
    assert len(room.records) == SINGLY + 2


def test_refusals_are_counted_with_the_reads_even_of_what_would_change_something(room: Any, tokens: Any) -> None:
    client = room.client()
    for _ in range(SINGLY):
        assert client.ask(messages.Stop("site"), tokens[1]).kind == "forbidden"
    assert [record["allowed"] for record in room.records] == [False] * SINGLY
    assert client.ask(messages.Stop("site"), tokens[1]).kind == "forbidden"
    client.ask(messages.WhatMayI(), tokens[1])
    assert len(room.records) == SINGLY
    client.ask(messages.WhatMayI(), tokens[2])
    assert room.records[-1]["user"] == "eve", "each has his own rate"


def test_what_changes_something_always_has_its_own_records(room: Any) -> None:
    room.services.refusal = Already("site runs already")
    client = room.client()
    for _ in range(SINGLY + 1):
        client.ask(messages.WhatMayI())
    for _ in range(SINGLY + 1):
        client.ask(messages.Start("site"))
    assert len(room.decisions()) == SINGLY + SINGLY + 1
    assert len(room.outcomes()) == SINGLY + 1


def test_a_no_after_a_recorded_yes_is_recorded_whatever_the_rate(room: Any) -> None:
    client = room.client()
    for _ in range(SINGLY + 1):
        client.ask(messages.WhatMayI())
    room.log_answers = None
    client.send(messages.Start("site"))
    room.settle()
    room.desk.policy = NOBODY
    room.log_answers = 0
    assert client.receive().kind == "unknown"
    assert [decision["allowed"] for decision in room.decisions()[SINGLY:]] == [True, False]


# -- signals to the daemon -----------------------------------------------------------------------------------------


def test_what_root_asks_by_a_signal_is_recorded_with_its_outcome_like_any_request(room: Any) -> None:
    room.desk.signalled(messages.Shutdown(), room.notes.append)
    assert room.services.asked == [], "its record is not on disk"
    room.settle()
    assert room.services.asked == [("shutdown", "")]
    room.services.end(1)
    decision, outcome = (record for record in room.records if record["kind"] != "step")
    assert (decision["kind"], decision["user"], decision["from"], decision["rule"]) == (
        "decision", "root", "a signal", "root",
    )  # fmt: skip
    assert (outcome["kind"], outcome["id"], outcome["ok"]) == ("outcome", decision["id"], True)
    assert len(decision["id"]) == 16
    assert room.notes == ["asked for by a signal: restarted"]


def test_what_root_asks_by_a_signal_and_is_refused_has_that_for_its_outcome_and_is_noted(room: Any) -> None:
    for _ in range(2):
        room.desk.signalled(messages.Reload(), room.notes.append)
        room.settle()
    assert len(room.sent) == 1
    assert room.outcomes() == [
        {
            "kind": "outcome", "id": room.decisions()[1]["id"], "operation": 0, "action": "reload", "target": "",
            "ok": False, "result": "a reload is under way: operation 1", "seconds": 0.0,
        }
    ]  # fmt: skip
    assert room.notes == ["a signal asked for what is refused: a reload is under way: operation 1"]


def test_e4_root_may_stop_everything_by_a_signal_when_it_cannot_be_recorded_and_nothing_else(room: Any) -> None:
    room.log_is_there = False
    for _ in range(KEPT):
        room.audit.record({})
    room.desk.signalled(messages.Reload(), room.notes.append)
    assert room.sent == []
    assert "the audit log cannot be written" in room.notes[-1]
    room.desk.signalled(messages.Shutdown(), room.notes.append)
    assert room.services.asked == [("shutdown", "")]


def test_what_ends_while_it_is_being_asked_for_has_its_outcome(room: Any) -> None:
    """Also after restarts that spread, and starts of what is required, which nobody has asked for."""
    for _ in range(600):
        room.services.end(room.services._begin("restart", "site"))
    room.services.ends_at_once = True
    assert room.client().ask(messages.Start("site")) == messages.Accepted(601)
    assert room.outcomes()[-1]["result"] == "done"


def test_an_outcome_that_log_has_not_written_is_told_again_by_the_next_supervisor(room: Any) -> None:
    operations = room.services.operations
    room.log_answers = 0
    assert isinstance(room.client().ask(messages.Start("site")), messages.Accepted)
    room.log_answers = None
    operation = operations.find(1)
    room.services.end(1)
    room.settle()
    assert [one.id for one in operation.askers] == [room.outcomes()[-1]["id"]]
    (kept,), _ = inflight.read_ends(inflight.save_ends(operations.over()))
    room.log_answers, ends = 0, operations.ends
    room.desk.outcomes.tell(kept)
    room.settle()
    assert len(room.outcomes()) == 2
    assert room.outcomes()[0] == room.outcomes()[1]
    assert (kept.askers, operations.ends > ends) == ([], True), "and then no more"


def test_who_may_do_much_is_told_all_of_it_however_many_services_there_are(room: Any) -> None:
    room.services.groups |= {f"service-{number:04}": () for number in range(1000)}
    client, found = room.client("root"), []
    client.send(messages.WhatMayI(), "")
    while not found or found[-1].more:
        found.append(client.receive())
    assert {one.user for one in found} == {"root"}
    assert sum(right.service.startswith("service-") for one in found for right in one.rights) == 1000
