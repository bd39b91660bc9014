"""Who may read the audit log, and what he is handed."""

from __future__ import annotations

import os
from typing import Any

import pytest

from policy import messages


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
