"""Something that waits for a second person, for the tests of the desk."""

from __future__ import annotations

import hashlib
from typing import Any

from policy import messages
from rootd.supervisor.approvals import Waiting


def waiting(number: int = 1, until: float = 9e9, **changed: Any) -> Waiting:
    """alice has asked for a restart of site, by the rule "ops"."""
    info = messages.ApprovalInfo(number, "alice", "restart site", "", "group:leads", "", "")
    usual: dict[str, Any] = {
        "request": "00", "command": messages.Restart("site"), "also": (), "user": "alice", "uid": 1001, "source": "",
        "session": hashlib.sha256(("1" * 64).encode()).hexdigest(), "reason": "", "rule": "ops", "info": info,
    }  # fmt: skip
    return Waiting(**{**usual, "number": number, "until": until, **changed})
