"""The types of single fields that the contract is made of: what a name, a number or a word may be."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from policy.names import PROCESS_PATTERN, REASON_PATTERN, SERVICE_PATTERN, SIGNAL_PATTERN, SOURCE_PATTERN, USER_PATTERN

Service = Annotated[str, msgspec.Meta(pattern=SERVICE_PATTERN)]
User = Annotated[str, msgspec.Meta(pattern=USER_PATTERN)]
Signame = Annotated[str, msgspec.Meta(pattern=SIGNAL_PATTERN)]
Process = Annotated[str, msgspec.Meta(pattern=PROCESS_PATTERN)]
Reason = Annotated[str, msgspec.Meta(pattern=REASON_PATTERN)]
Source = Annotated[str, msgspec.Meta(pattern=SOURCE_PATTERN)]
ActionName = Literal[
    "view", "logs", "clear", "start", "stop", "restart", "signal", "scale", "enable",
    "reload", "policy", "audit", "approve", "revoke", "shutdown",
]  # fmt: skip
SessionId = Annotated[str, msgspec.Meta(pattern=r"\A(?:(?:durward_)?[0-9a-f]{64})?\Z")]  # or a personal token
Processes = Annotated[int, msgspec.Meta(ge=1, le=1024)]  # none is a stop, which is another right
Mark = Annotated[str, msgspec.Meta(pattern=r"\A(?:[0-9a-f]{32})?\Z")]  # of what a dry run has shown; "": of nothing
Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
