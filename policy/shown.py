"""What replies are about: a process, a service, an operation, an approval that waits, a right, a mistake in a file."""

from __future__ import annotations

from typing import Literal

import msgspec


class ProcessInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str  # "site" or "site:0"
    state: str  # Supervisor's: STOPPED STARTING RUNNING BACKOFF STOPPING EXITED FATAL
    pid: int  # 0 when there is none
    since: str  # when this state began
    exit: str = ""  # the last exit in words: "exit status 1", "killed by SIGKILL"
    text: str = ""  # why, for BACKOFF and FATAL; the service's own STATUS= otherwise


class ServiceInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    state: str  # the processes' worst: FATAL, BACKOFF, STOPPING, STARTING, RUNNING, EXITED, STOPPED
    wanted: Literal["up", "down"]
    processes: list[ProcessInfo]
    groups: list[str] = []
    text: str = ""  # for example "configuration changed on disk"
    enabled: bool = True  # whether it is started when the daemon starts, or at its times
    next: str = ""  # when it runs next, of a scheduled one


class OperationInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: int
    kind: str  # start, stop, restart, signal, scale, shutdown, reload, upgrade
    service: str  # "" for the daemon as a whole
    user: str  # who asked first; "" when it followed from something else
    joined: int  # how many more have asked for the same, and wait for this one
    since: str
    step: str  # the last one
    ok: bool | None = None  # None while it is under way
    text: str = ""  # the outcome in words
    seconds: float = 0.0


class ApprovalInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: int
    user: str  # who asked
    text: str  # for what: "stop site"
    reason: str
    by: str  # who may approve: "group:leads"
    since: str
    until: str
    yours: bool = False  # whether it is the asker's own, which he cannot approve
    rule: str = ""  # the rule that wants it approved
    changes: str = ""  # of a reload, where that was asked for and the asker may approve it: what it would change
    stale: str = ""  # why it would change nothing any more, and be approved in vain


class Right(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    service: str  # "" for the daemon as a whole
    actions: list[str]
    demands: dict[str, str] = {}  # what the rule that gives an action demands besides, or when it does, in words


class Problem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that is wrong in a file. line is 1-based, 0 when unknown; key is like service.site.user."""

    file: str
    line: int
    key: str
    text: str
    source: str = ""  # the source line
