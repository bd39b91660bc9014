"""Who may read the audit log, and what he is handed."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from policy import messages
from rootd.supervisor.auditing import AGAIN, KEPT


def test_e6_the_audit_log_is_opened_afresh_and_read_only_file_by_file(room: Any) -> None:
    folder = room.path / "log" / "audit"
    (folder / "audit.jsonl").write_bytes(b"current\n")
    (folder / "audit-0000000000000000.jsonl").write_bytes(b"oldest\n")
    (folder / "audit-0000000000000100.jsonl").write_bytes(b"full\n")
    (folder / "audit.key").write_bytes(b"secret\n")
    client = room.client("root")
    for rotated, name, text in (
        (0, "audit.jsonl", b"current\n"), (1, "audit-0000000000000100.jsonl", b"full\n"),
        (2, "audit-0000000000000000.jsonl", b"oldest\n"),
    ):  # fmt: skip
        reply = client.ask(messages.OpenAudit(rotated), "")
        assert reply == messages.LogOpened("", name, "audit", len(text))
        assert os.read(client.fds[-1], 99) == text
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(client.fds[-1], b"x")
    assert client.ask(messages.OpenAudit(3), "").kind == "unknown"


def test_who_has_no_right_to_it_is_refused_and_that_is_recorded(room: Any, tokens: Any) -> None:
    client = room.client()
    reply = client.ask(messages.OpenAudit(), tokens[0])
    assert (reply.kind, client.fds) == ("forbidden", [])
    assert (room.decisions()[0]["action"], room.decisions()[0]["allowed"]) == ("audit", False)
    assert isinstance(client.ask(messages.OpenAudit(), tokens[1]), messages.LogOpened)
    assert (room.decisions()[1]["user"], room.decisions()[1]["allowed"]) == ("bob", True)


def test_one_operation_is_one_story_whose_records_share_the_requests_id(room: Any, tokens: Any) -> None:
    operation = room.client().ask(messages.Restart("site"), tokens[0]).operation
    begun = room.services.operations.find(operation)
    room.services.operations.step(begun, "new process started")
    begun.requests.append("another-request")
    room.services.operations.step(begun, "ready")
    room.services.end(operation)
    room.settle()
    request = room.decisions()[0]["id"]
    steps = [record for record in room.records if record["kind"] == "step"]
    assert {(one["id"], one["operation"], one["service"]) for one in steps} == {(request, operation, "site")}
    assert [one["text"] for one in steps][-3:-1] == ["new process started", "ready"]
    assert [one.get("ids") for one in steps][-3:-1] == [None, [request, "another-request"]], "who joined it is in it"
    assert room.outcomes()[0]["id"] == request


def test_steps_of_what_nobody_asked_for_and_steps_that_a_log_in_trouble_cannot_take_are_left_out(
    room: Any, tokens: Any
) -> None:
    crash = room.services.operations.begin("restart", "site", "", 0.0)
    room.services.operations.step(crash, "by itself")
    operation = room.client().ask(messages.Restart("site"), tokens[0]).operation
    room.log_answers = None
    for _ in range(KEPT // 4):
        room.audit.record({})
    room.services.operations.step(room.services.operations.find(operation), "too many wait for the log")
    texts = [record.get("text") for record in room.records]
    assert "by itself" not in texts
    assert "too many wait for the log" not in texts


def test_e4_the_status_says_that_the_audit_log_cannot_be_written_until_it_can(room: Any, tokens: Any) -> None:
    client = room.client()
    assert client.ask(messages.Status(), tokens[0]).trouble == ""
    room.log_answers = errno.ENOSPC
    assert client.ask(messages.Restart("site"), tokens[0]).kind == "later"
    told = client.ask(messages.Status(), tokens[0])
    assert told.services, "what changes nothing works"
    why = "the audit log cannot be written: No space left on device"
    assert told.trouble == f"{why}; what changes something is refused"
    room.log_answers = 0
    room.pass_time(AGAIN)
    room.settle()
    assert client.ask(messages.Status(), tokens[0]).trouble == ""
    assert isinstance(client.ask(messages.Restart("site"), tokens[0]), messages.Accepted)


def test_e4_what_goes_on_without_a_record_is_counted_and_the_number_is_recorded_afterwards(
    room: Any, tokens: Any
) -> None:
    room.desk.goes_on, room.log_answers = True, errno.ENOSPC
    client = room.client()
    for _ in range(3):
        assert isinstance(client.ask(messages.Signal("site", "HUP"), tokens[0]), messages.Accepted)
    assert client.ask(messages.Status(), tokens[0]).trouble.endswith("goes on without a record (3 so far)")
    room.log_answers = 0
    room.pass_time(AGAIN)
    room.settle()
    client.ask(messages.Signal("site", "HUP"), tokens[0])
    room.settle()
    assert [one["count"] for one in room.records if one["kind"] == "unrecorded"] == [3]
