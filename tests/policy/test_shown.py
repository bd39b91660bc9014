"""What replies are about: nothing is taken for one that has a field more, or one too few."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from policy import shown

ONES: list[Any] = [
    shown.ProcessInfo("site:0", "RUNNING", 1, "T"),
    shown.ServiceInfo("site", "RUNNING", "up", [shown.ProcessInfo("site", "RUNNING", 1, "T")]),
    shown.OperationInfo(1, "start", "site", "alice", 0, "T", "starting"),
    shown.ApprovalInfo(1, "alice", "stop site", "why", "group:leads", "T", "T"),
    shown.Right("site", ["view"]),
    shown.Problem("services.d/site.toml", 3, "service.site.user", "is missing"),
]


@pytest.mark.parametrize("one", ONES, ids=lambda one: type(one).__name__)
def test_what_is_sent_is_what_arrives_and_a_field_more_or_less_is_an_error(one: Any) -> None:
    sent = msgspec.to_builtins(one)
    assert msgspec.convert(sent, type(one)) == one
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**sent, "more": 1}, type(one))
    first = next(iter(sent))
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({name: value for name, value in sent.items() if name != first}, type(one))
