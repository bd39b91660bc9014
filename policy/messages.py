"""What may be asked of the supervisor and what it may answer: one closed, typed union each.

Rule 1: no command names its own user; a request names a session, the supervisor looks it up.
Rule 2: unknown fields and unknown tags are errors (msgspec, forbid_unknown_fields).
Rule 3: a command that is not in `Command` does not exist; supervisor/dispatch has one row for each.

Every packet from a client is one Request; every packet to it is one Answer with the request's id. A client has
one request at a time on a connection. Each request ends with one final reply: `Services`, `Listed`, `Approvals`
or `Rights` with more=False, any other reply, or, for Watch, `Ended`, `Dropped` or the end of the connection. Times are
RFC 3339 in UTC.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

# part of the contract, and spelled messages.User, messages.Problem …
from policy.events import (
    Changed as Changed,
    Dropped as Dropped,
    Ended as Ended,
    Lapsed as Lapsed,
    Missed as Missed,
    Step as Step,
    Watching as Watching,
)
from policy.fields import (
    ActionName as ActionName,
    Mark as Mark,
    Number as Number,
    Process as Process,
    Processes as Processes,
    Reason as Reason,
    Service as Service,
    SessionId as SessionId,
    Signame as Signame,
    Source as Source,
    User as User,
)
from policy.shown import (
    ApprovalInfo as ApprovalInfo,
    OperationInfo as OperationInfo,
    Problem as Problem,
    ProcessInfo as ProcessInfo,
    Right as Right,
    ServiceInfo as ServiceInfo,
)


class _Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do"):
    pass


class Status(_Command, frozen=True, tag="status"):
    """All services that the asker may view, or the one named. Answered by `Services`, in several packets."""

    service: Service | None = None


class Describe(_Command, frozen=True, tag="describe"):
    service: Service


class Watch(_Command, frozen=True, tag="watch"):
    """Events as they happen, after `Watching` has said from which number on.

    With `after`, the number of the last event that was seen: first what has happened since, and `Missed` where that is
    not known any more. With `operation`: that operation's steps, from its beginning or after `after`, until `Ended`.
    """

    operation: Number = 0
    service: Service | None = None
    after: Number = 0  # 0: from now on


class ListOperations(_Command, frozen=True, tag="operations"):
    """What is under way of what the asker may view, of one service if it is named; answered by `Listed`, in packets.

    With `ended`: also the last ones that have ended, as many as are remembered.
    """

    service: Service | None = None
    ended: bool = False


class OpenLog(_Command, frozen=True, tag="open-log"):
    """Answered by `LogOpened` with one read-only descriptor, opened afresh for this request."""

    service: Service
    stream: Literal["stdout", "stderr"] = "stdout"
    process: Process = ""  # "" is the first
    rotated: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0  # 0 is the file being written, 1 the one before


class ClearLog(_Command, frozen=True, tag="clear-log"):
    """Remove all that a service, or one process of it, has written, rotated files too. Answered when it is done."""

    service: Service
    process: Process = ""  # "" is each


class ReopenLog(_Command, frozen=True, tag="reopen-log"):
    """Begin the files anew that somebody has renamed, so that nothing more is written to the old ones. As above."""

    service: Service
    process: Process = ""


class OpenAudit(_Command, frozen=True, tag="open-audit"):
    """The audit log: answered by `LogOpened`, its service "" and its process the file's name, and one descriptor."""

    rotated: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0


class ReadPolicy(_Command, frozen=True, tag="read-policy"):
    """The policy that counts, and what it is about: answered by `LogOpened`, its service "" and its stream "policy",
    and a sealed memfd with the JSON of policy.source.Source."""


class WhatMayI(_Command, frozen=True, tag="what-may-i"):
    """Who the asker is and what he may do; with action and service: the decision on that, explained."""

    action: ActionName | None = None
    service: Service | None = None


class Start(_Command, frozen=True, tag="start"):
    service: Service


class Stop(_Command, frozen=True, tag="stop"):
    """Refused while others that run require it, unless those are to be stopped too: the right is needed for each."""

    service: Service
    with_dependants: bool = False


class Restart(_Command, frozen=True, tag="restart"):
    service: Service
    hard: bool = False


class Signal(_Command, frozen=True, tag="signal"):
    service: Service
    signal: Signame


class Enable(_Command, frozen=True, tag="enable"):
    """Start it when the daemon starts, whatever its `autostart` says. Answered when that is on disk; starts nothing.

    A scheduled one runs at its times from now on.
    """

    service: Service


class Disable(_Command, frozen=True, tag="disable"):
    """Do not start it when the daemon starts, as above; stops nothing. A scheduled one runs at no time any more."""

    service: Service


class Scale(_Command, frozen=True, tag="scale"):
    """So many processes, as far as the service's max_processes allows; until `processes` is configured otherwise."""

    service: Service
    processes: Processes


class Cancel(_Command, frozen=True, tag="cancel"):
    """Take back an operation, as far as it has not begun, or nothing that serves ends by it.

    The right needed is that to what the operation does, on its service. Answered by `Done`; the operation's own end
    tells what became of it.
    """

    operation: Number


class ListApprovals(_Command, frozen=True, tag="approvals"):
    """What waits for a second person: what the asker may approve, and what he has asked for; by `Approvals`.

    changes: with what a reload among them would change, for which the files are looked at."""

    changes: bool = False


class Approve(_Command, frozen=True, tag="approve"):
    """Agree to what somebody else has asked for: exactly that is done then, as his. Answered by `Done`."""

    approval: Number


class Withdraw(_Command, frozen=True, tag="withdraw"):
    """Take back what the asker himself has asked for, and nobody has agreed to yet. Answered by `Done`.

    The right needed is that to what was asked for, on its service; what its rule demands besides is not asked again.
    """

    approval: Number


class Reload(_Command, frozen=True, tag="reload"):
    """shown: the mark of what a dry run has shown (`Ended`); what would be anything else by now changes nothing."""

    dry_run: bool = False
    shown: Mark = ""


class Revoke(_Command, frozen=True, tag="revoke"):
    """End the sessions of one user, or all of them (everyone is the default only when `everyone` says so)."""

    user: User | None = None
    everyone: bool = False


class Shutdown(_Command, frozen=True, tag="shutdown"):
    pass


class Upgrade(_Command, frozen=True, tag="upgrade"):
    """Replace all parts of ours by the program that is installed now. Root's alone, on root.sock."""


Command = (
    Status | Describe | Watch | ListOperations | OpenLog | ClearLog | ReopenLog | OpenAudit | ReadPolicy | WhatMayI
    | Start | Stop | Restart | Signal | Scale | Cancel | Enable | Disable
    | ListApprovals | Approve | Withdraw | Reload | Revoke | Shutdown | Upgrade
)  # fmt: skip


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One packet of a client. `session` is empty only on root.sock; `source` is the client's word, marked so.
    `reason`: why, in the asker's own words; for the audit log, and for rules that want one."""

    id: Number
    command: Command
    session: SessionId = ""
    source: Source = ""
    reason: Reason = ""


class _Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is"):
    pass


class Services(_Reply, frozen=True, tag="services"):
    services: list[ServiceInfo]
    more: bool = False
    trouble: str = ""  # of the daemon itself: that its audit log cannot be written, and what follows from that
    version: str = ""  # of the daemon


class Listed(_Reply, frozen=True, tag="operations"):
    operations: list[OperationInfo]
    more: bool = False


class Description(_Reply, frozen=True, tag="description"):
    """A service as it runs: `settings` are the configured keys, secrets and environment values left out."""

    service: ServiceInfo
    settings: dict[str, str]
    sockets: list[str]
    exits: list[str]  # the last exits, newest first
    chosen_by: str = ""  # whose choice `enabled` is; "": the configuration's autostart
    lost: list[str] = []  # output that could not be written, of each process and stream, since the machine was


class LogOpened(_Reply, frozen=True, tag="log"):
    service: str
    process: str
    stream: str
    size: int  # bytes at the time of opening


class Rights(_Reply, frozen=True, tag="rights", omit_defaults=True):
    """token: the name of the personal token by which it was asked, and whose `expires` this is; "": none."""

    user: str
    uid: int
    groups: list[str]
    expires: str
    rights: list[Right]
    token: str = ""
    more: bool = False


class Decided(_Reply, frozen=True, tag="decided"):
    """The answer to WhatMayI with an action: what would be decided for the asker, and by which rule."""

    allowed: bool
    text: str
    rule: str = ""
    file: str = ""
    line: int = 0


class Accepted(_Reply, frozen=True, tag="accepted"):
    """The operation has begun; Watch(operation) tells the rest."""

    operation: int
    text: str = ""


class Waits(_Reply, frozen=True, tag="waits"):
    """Nothing is done yet: somebody else must approve it, by this number."""

    approval: int
    text: str


class Approvals(_Reply, frozen=True, tag="approvals", omit_defaults=True):  # so that an api of before `more` reads it
    approvals: list[ApprovalInfo]
    more: bool = False


class Done(_Reply, frozen=True, tag="done", omit_defaults=True):  # what has "operation" is followed
    text: str
    operation: int = 0  # that has begun by it: what was approved


RefusalKind = Literal[
    "no-session",  # 401, exit 77: log in first
    "forbidden",  # 403, exit 77: no rule, or a deny
    "unknown",  # 404, exit 4: no such service that you may view
    "not-running",  # 409, exit 3
    "conflict",  # 409, exit 1: the state does not allow it now
    "invalid",  # 400, exit 2: the words are wrong
    "later",  # 503, exit 75: a limit, or a part of ours is being restarted
    "failed",  # 500, exit 1
]


class Refused(_Reply, frozen=True, tag="refused"):
    kind: RefusalKind
    text: str  # one sentence for the person who asked
    rule: str = ""  # the rule that denied
    file: str = ""
    line: int = 0
    would_help: list[str] = []  # rules that would allow it, and through what
    trouble: bool = False  # of "no-session": whether the audit log cannot be written, for whoever asks how we are


Reply = Services | Listed | Description | LogOpened | Rights | Decided | Accepted | Waits | Approvals | Done | Refused
Event = Changed | Step | Ended | Lapsed | Watching | Missed | Dropped


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One packet to a client."""

    id: int
    reply: Reply | Event
