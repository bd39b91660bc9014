"""An audit log against another policy: which of the decisions in it would have been others.

Rule 1: pure, and in the order of the log: what a limit lets through depends on what came before. Of what was before the
        log's beginning nothing is known: limits begin unused.
Rule 2: what cannot be known is counted, and never guessed: a person's groups, where neither the log nor `groups_of`
        says them and the new policy asks for them; a service's, where the files do not say them.
Rule 3: the same questions are asked. What people would have asked otherwise, refused or let in, is not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Literal, NamedTuple

from msgspec import structs

from policy.conditions import Asking, Limit
from policy.decide import Allow, Decision, Unapproved, decide
from policy.identity import Identity, person
from policy.listing import about, principals
from policy.names import CHANGING, GLOBAL_ACTIONS, Action
from policy.rights import DAEMON, INSIDE, MEMBER, Book, groups_named, places, restricted
from policy.rules import Policy

Outcome = Literal["allow", "deny", "approval"]
TAKEN_BACK = ("cancel", "withdraw")  # commands of who takes back: no rule demands anything of them
WAITS = " waits for approval "  # in a record's `why`, of what somebody else must approve first
BY_TOKEN, BY_OTHERS = "denied: the token '", "denied: it would "  # begin one, of what no rule for this service denied
TAKEN_BACK = ("cancel", "withdraw")  # commands that need a right, and meet none of its demands

OWN = "about the asker himself, or about all that he may view: no single decision"
ROOTS = "root's own: no policy decides them"
SECONDS = "approvals of what somebody else had asked for: who may is the word of each rule's 'by'"
SCOPES = "what a personal token was not for: no policy decides that"
FURTHER = "stops that would have stopped something else too: what was said of each of those is a decision of its own"
COUNTED = "reads and refusals that were counted and not recorded one by one"
STRANGE = "records that are no decisions of this form"
GROUPS = "depend on groups of the person that neither the log nor this machine says"
PLACES = "depend on which service is in which group, which policy files alone do not say"


class Changed(NamedTuple):
    """times: records that are alike; n, time: of the first; text: what the new policy says to that."""

    user: str
    action: str
    service: str
    was: Outcome
    now: Outcome
    times: int
    n: int
    time: str
    text: str


class Report(NamedTuple):
    """decided: decisions that were asked again, `same` of them with the same outcome. unknown: of how many it cannot be
    said, and left_out: which were not asked again, each by why."""

    decided: int
    same: int
    changes: list[Changed]
    unknown: dict[str, int]
    left_out: dict[str, int]


class _Used:
    """What limits have let through so far, by the log's own clock."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, int, str], list[float]] = {}

    def wait(self, rule: str, limit: Limit, uid: int, service: str, at: float) -> float:
        recent = [time for time in self._times.get((rule, uid, service), ()) if at - time < limit.seconds]
        return recent[-limit.times] + limit.seconds - at if len(recent) >= limit.times else 0.0

    def charge(self, rule: str, limit: Limit, uid: int, service: str, at: float) -> None:
        times = self._times.setdefault((rule, uid, service), [])
        times.append(at)
        del times[: -limit.times]


class Replay:
    """One log, record by record."""

    def __init__(
        self,
        policy: Policy,
        services: Mapping[str, Collection[str]],
        groups_of: Callable[[str], Collection[str] | None] = lambda user: None,
        whole: bool = True,
    ) -> None:
        """services, whole: as policy.source.Source has them. groups_of: the groups of a user of whom the log does not
        say them, None where they are not known."""
        self._policy, self._services, self._groups_of = policy, services, groups_of
        self._book, self._places = Book(policy), places(services, groups_named(policy), whole)
        self._sessions: dict[str, frozenset[str]] = {}
        self._used = _Used()
        self._decided = self._same = 0
        self._changes: dict[tuple[str, str, str, Outcome, Outcome], Changed] = {}
        self._unknown, self._left_out = Counter[str](), Counter[str]()

    def feed(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Records as they are in the log, in its order; may be called again with what follows. Raises nothing: what is
        no record of ours is counted."""
        for record in records:
            try:
                self._record(record)
            except (KeyError, TypeError, ValueError, AttributeError):  # it is not ours, or of another form
                self._left_out[STRANGE] += 1

    def report(self) -> Report:
        """Of all that was fed so far: what changes most often first."""
        changes = sorted(self._changes.values(), key=lambda change: (-change.times, change.n))
        return Report(self._decided, self._same, changes, dict(self._unknown), dict(self._left_out))

    def _record(self, record: Mapping[str, Any]) -> None:
        match record.get("kind"):
            case "login" | "groups" if "groups" in record and "more_groups" not in record:
                self._sessions[record["session"]] = frozenset(record["groups"])
            case "logout":
                self._sessions.pop(record["session"], None)
            case "decisions":
                self._left_out[COUNTED] += int(record["count"])
            case "decision":
                why = _left_out(record)
                if why:
                    self._left_out[why] += 1
                else:
                    self._decision(record)

    def _decision(self, record: Mapping[str, Any]) -> None:
        action, service, user = Action(record["action"]), str(record["target"]), str(record["user"])
        was: Outcome = "allow" if record["allowed"] else "approval" if WAITS in record["why"] else "deny"
        groups = self._sessions.get(record["session"], None)
        found = groups if groups is not None else self._groups_of(user)
        if service and service not in self._services:
            return self._count(record, was, "deny", f"no service '{service}' is configured")
        unknown = self._open(action, service, user, found)
        if unknown:
            self._unknown[unknown] += 1
            return None
        who = person(user, int(record["uid"]), found or (), "")
        decision = self._decide(record, who, action, service)
        if isinstance(decision, Allow):
            text = f"by '{decision.rule}'" + (f", {decision.demands}" if decision.demands else "")
            return self._count(record, was, "allow", text)
        return self._count(record, was, "approval" if isinstance(decision, Unapproved) else "deny", decision.text)

    def _open(self, action: str, service: str, user: str, groups: Collection[str] | None) -> str:
        """Why it cannot be said; "" when it can."""
        formula = about(self._book.formula(action, self._places[service] if service else DAEMON), user)
        if groups is not None:
            formula = restricted(formula, principals(user, groups))
        kinds = {atom.kind for one in (*formula.grants, *formula.denies) for atom in one}
        return GROUPS if MEMBER in kinds else PLACES if INSIDE in kinds else ""

    def _decide(self, record: Mapping[str, Any], who: Identity, action: Action, service: str) -> Decision:
        at = datetime.fromisoformat(record["time"]).timestamp()
        asking = Asking(
            at, str(record["from"]), str(record.get("reason", "")), record["command"] not in TAKEN_BACK,
            partial(self._used.wait, uid=who.uid, service=service, at=at),
        )  # fmt: skip
        ask = partial(decide, self._policy, who, action, service or None, self._services.get(service, ()))
        decision: Decision = ask(asking)
        if isinstance(decision, Unapproved) and record.get("approved_by"):
            decision = ask(structs.replace(asking, approved=frozenset({decision.rule})))
        if isinstance(decision, Allow) and decision.limit and action in CHANGING:
            self._used.charge(decision.rule, decision.limit, who.uid, service, at)
        return decision

    def _count(self, record: Mapping[str, Any], was: Outcome, now: Outcome, text: str) -> None:
        self._decided += 1
        if was == now:
            self._same += 1
            return
        key = (str(record["user"]), str(record["action"]), str(record["target"]), was, now)
        known = self._changes.get(key) or Changed(*key, 0, int(record["n"]), str(record["time"]), text)
        self._changes[key] = known._replace(times=known.times + 1)


def _left_out(record: Mapping[str, Any]) -> str:
    """Why a decision is not asked again, "" when it is."""
    if record["rule"] == "root" or (record["user"] == "root" and not record["session"]):
        return ROOTS
    action = record["action"]
    if action not in list(Action) or (action not in GLOBAL_ACTIONS and not record["target"]):
        return OWN
    if record["why"].startswith(BY_TOKEN):
        return SCOPES
    if record["why"].startswith(BY_OTHERS):
        return FURTHER
    return SECONDS if record["command"] == "approve" else ""
