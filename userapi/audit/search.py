"""Which records of an audit log somebody means, and how they read. Pure.

Rule 1: words are compared as they are; * and ? stand for anything, as in a shell. All that is asked must hold.
Rule 2: a record that cannot be read is left out here: whether the log is whole is verify's business.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

OUTCOMES = ("allowed", "denied", "ok", "failed")
KINDS = (
    "decision", "decisions", "outcome", "step", "deed", "login", "logout", "groups", "token", "load", "files", "rights",
    "start", "stop", "lost", "unrecorded",
)  # fmt: skip
# what the column of actions can have: rights ("self": none is needed), commands, deeds, and what becomes of tokens
ACTIONS = (
    "view", "logs", "clear", "start", "stop", "restart", "signal", "scale", "enable", "reload", "policy", "audit",
    "approve", "revoke", "shutdown", "self", "status", "describe", "watch", "operations", "open-log", "clear-log",
    "reopen-log", "open-audit", "read-policy", "what-may-i", "disable", "cancel", "approvals", "withdraw", "upgrade",
    "spawn", "exited", "commit", "adopt", "made", "revoked", "damaged", "wrong",
)  # fmt: skip
DEEDS = 10_000  # between two records of one request
COLUMNS = ("n", "time", "kind", "id", "user", "from", "action", "target", "outcome", "text")


class Query(NamedTuple):
    """What is asked for; "" asks for nothing."""

    user: str = ""
    action: str = ""
    target: str = ""  # a service, or a process of one: of deeds
    outcome: str = ""  # one of OUTCOMES
    kind: str = ""
    request: str = ""
    text: str = ""  # a regular expression over the whole line
    token: str = ""  # the name of the personal token by which somebody asked

    def check(self) -> None:
        """Raises ValueError."""
        if self.outcome and self.outcome not in OUTCOMES:
            raise ValueError(f"an outcome is one of {', '.join(OUTCOMES)}")
        _some("kind", self.kind, KINDS)
        _some("action", self.action, ACTIONS)
        try:
            re.compile(self.text.encode())  # a log is bytes
        except re.error as error:
            raise ValueError(f"'{self.text}' is no regular expression: {error}") from None


def _some(what: str, pattern: str, there_are: tuple[str, ...]) -> None:
    """Raises ValueError for what no record can be, so that nobody takes a slip for "there was none"."""
    if pattern and not fnmatch.filter(there_are, pattern):
        raise ValueError(f"no record can be of the {what} '{pattern}'; there are {', '.join(there_are)}")


def records(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("n"), int):
            yield record


def found(query: Query, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """What matches, in order; of a request all of its story."""
    wanted = re.compile(query.text.encode()) if query.text else None
    if wanted is not None:
        lines = (line for line in lines if wanted.search(line))
    every = records(lines)
    if query.request:
        every = story(query.request, every)
    return (record for record in every if matches(query, record))


def matches(query: Query, record: dict[str, Any]) -> bool:
    def fits(pattern: str, *names: str) -> bool:
        return not pattern or any(fnmatch.fnmatchcase(str(record.get(name, "")), pattern) for name in names)

    return (
        fits(query.user, "user", "asker")
        and fits(query.action, "action", "command", "deed", "what")
        and (fits(query.target, "target") or (bool(record.get("process")) and _is_of(record, query.target)))
        and fits(query.kind, "kind")
        and fits(query.token, "token")
        and (not query.outcome or outcome(record) == query.outcome)
    )


def _is_of(record: dict[str, Any], target: str) -> bool:
    process = str(record["process"])
    return any(fnmatch.fnmatchcase(name, target) for name in (process, service_of(process)))


def service_of(process: str) -> str:
    """Of a deed's "site.1", "site pre-start": site. A service's own name may have a dot."""
    name = process.partition(" ")[0]
    base, dot, number = name.rpartition(".")
    return base if dot and number.isdigit() else name


def outcome(record: dict[str, Any]) -> str:
    if "allowed" in record:
        return "allowed" if record["allowed"] else "denied"
    return ("ok" if record["ok"] else "failed") if "ok" in record else ""


def story(request: str, every: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All that belongs to one request: its records, the steps of its operation, and what privileged did meanwhile to
    the processes of the services that they name."""
    begun, ended = False, False
    services = set[str]()
    deeds: list[dict[str, Any]] = []  # since the record before, of which it is not known yet whose they are
    for record in every:
        if record.get("id") == request or request in _listed(record, "ids"):
            services |= {str(record[name]) for name in ("target", "service") if record.get(name)}
            if record.get("operation"):
                yield from (deed for deed in deeds if service_of(str(deed.get("process"))) in services)
            deeds.clear()
            begun, ended = True, ended or record.get("kind") == "outcome" or record.get("allowed") is False
            yield record
        elif begun and not ended and record.get("kind") == "deed" and len(deeds) < DEEDS:
            deeds.append(record)


def _listed(record: dict[str, Any], name: str) -> list[Any]:
    """Of a supervisor that was taken over, a record says what it likes: it must not hide the others by that."""
    value = record.get(name)
    return value if isinstance(value, list) else []


def rights(record: dict[str, Any]) -> Iterator[str]:
    """The rights that a load has changed, each in words."""
    for kind in ("gained", "lost"):
        for line in (one for one in _listed(record, kind) if isinstance(one, dict)):
            told = {name: str(line.get(name, "")) for name in ("who", "may", "on", "if", "unless", "other")}
            more = f" unless {told['unless']}" if told["unless"] else ""
            more += f" ({told['other']})" if told["other"] else ""
            yield f"{kind}: {told['who']} may {told['may']} on {told['on']}, {told['if']}{more}"
    if record.get("all"):
        yield str(record["all"])


def row(record: dict[str, Any]) -> list[str]:
    """The columns of COLUMNS, for a table or CSV."""
    kind = str(record.get("kind", ""))
    told = ("why", "result", "text", "reason", "for", "changed")
    text = next((str(record[name]) for name in told if record.get(name)), "")
    if not text and kind == "decision":
        text = f"by {record['rule']}" if record.get("rule") else ""
    if kind == "deed":
        text = f"run {record.get('run')}, slot {record.get('slot')}, {record.get('arg')}"
    if kind == "rights":
        text = "; ".join([text, *rights(record)])
    action = next((str(record[name]) for name in ("command", "action", "deed", "what") if record.get(name)), "")
    target = next((str(record[name]) for name in ("target", "service", "process") if record.get(name)), "")
    user = str(record.get("user", record.get("asker", "")))
    user += f" (token {record['token']})" if record.get("token") else ""
    return [
        str(record["n"]), str(record.get("time", "")), kind, str(record.get("id", "")), user,
        str(record.get("from", "")), action, target, outcome(record),
        text,
    ]  # fmt: skip
