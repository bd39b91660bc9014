"""Clearing the logs of services: who may, what is recorded, and what the person is told."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from policy import messages
from policy.parse import parse
from policy.rules import Policy
from rootd import ipc

READER = """
[[grant]]
id = "readers"
who = ["user:alice"]
may = ["view", "logs"]
on = ["*"]
"""


@pytest.mark.parametrize(
    ("kind", "scope", "action", "text"),
    [
        (messages.ClearLog, 0, "clear", "the logs of site are cleared"),
        (messages.ReopenLog, ipc.REOPEN, "logs", "the log files of site are opened anew"),
    ],
)
def test_it_is_told_when_log_has_done_it_and_recorded_as_it_went(
    room: Any, kind: Any, scope: int, action: str, text: str
) -> None:
    room.log_keeps = None
    client = room.client()
    client.send(kind("site"))
    assert client.quiet()
    assert [(one.op, one.scope, one.name) for one in room.kept] == [
        (ipc.CLEAR, scope, "site.0"),
        (ipc.CLEAR, scope, "site.1"),
    ]
    room.log_keeps = 0
    assert client.receive() == messages.Done(text)
    room.log_keeps = errno.EACCES
    refused = client.ask(kind("site"))
    assert refused.kind == "failed"
    assert refused.text.endswith(": Permission denied")
    outcomes = [(one["action"], one["target"], one["ok"], one["result"]) for one in room.outcomes()]
    assert outcomes == [(action, "site", True, text), (action, "site", False, refused.text)]


def test_a_process_can_be_named_and_one_that_is_not_there_is_unknown(room: Any) -> None:
    client = room.client()
    assert client.ask(messages.ClearLog("site", "site:1")) == messages.Done("the logs of site:1 are cleared")
    refused = client.ask(messages.ClearLog("site", "site:7"))
    assert (refused.kind, refused.text) == ("unknown", "'site' has no process 'site:7': it has site:0, site:1")


def test_who_may_read_logs_may_not_clear_them(room: Any) -> None:
    found = parse([("policy.d/10-web.toml", READER)], room.services.groups)
    assert isinstance(found, Policy)
    room.desk.policy = found
    client = room.client()
    refused = client.ask(messages.ClearLog("site"))
    assert (refused.kind, refused.text) == ("forbidden", "denied: no rule lets alice clear the logs of site")
    assert room.kept == []
    assert client.ask(messages.ReopenLog("site")) == messages.Done("the log files of site are opened anew")


def test_a_log_that_does_not_answer_is_later(room: Any) -> None:
    room.log_keeps = None
    client = room.client()
    client.send(messages.ClearLog("site"))
    assert client.quiet()
    room.pass_time(5.0)
    reply = client.receive()
    assert reply.kind == "later"
    assert reply.text == "the logs of site were not all cleared: log, or its disk, does not answer"
