"""A second evaluator of policies, as simple as can be, over rules as they are written; and all there is to ask it.

Nothing here is of policy/ but the types that its functions are handed.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

from policy.conditions import Asking
from policy.identity import Identity
from policy.parse import parse
from policy.rights import OTHER, Atom
from policy.rules import Policy

SERVICES: dict[str, tuple[str, ...]] = {"site": ("web",), "shop": ("web", "money"), "worker": ()}
USERS, GROUPS = ("alice", "bob", "anyone"), ("webops", "leads", "night")
CHANGING = ("restart", "reload")
Rule = dict[str, Any]  # kind, id, who, may, on, and perhaps when, expires, from, reason, limit, approval

WINDOWS = {  # as in a file, and in the words that they are told in
    "weekdays": ('{ days = "Mon-Fri", hours = "08:00-18:00" , timezone = "UTC" }', "Mon-Fri 08:00-18:00 UTC"),
    "weekend": ('{ days = "Sat,Sun", timezone = "UTC" }', "Sat-Sun 00:00-24:00 UTC"),
}
EXPIRES, UNTIL = "2027-01-31", "2027-02-01 00:00:00 UTC"
FROM = "10.0.0.0/8"
APPROVAL, APPROVED = '{ by = ["user:carol"], within = "10m" }', "user:carol within 10m"

MONDAY, SATURDAY, LATE = (1795435200.0, 1795867200.0, 1804507200.0)  # at noon; the last is after EXPIRES


class Point(NamedTuple):
    """Who asks for what, and all that is so. used: texts of limits that are used up."""

    user: str
    groups: frozenset[str]
    action: str
    service: str  # "" for a global action; OTHER for one that is not configured, which is in `inside`
    inside: tuple[str, ...]
    at: float
    source: str
    reason: bool
    used: frozenset[str]
    approved: bool

    @property
    def identity(self) -> Identity:
        return Identity(self.user, 1001, self.groups)

    @property
    def asked(self) -> tuple[str, str | None, tuple[str, ...]]:
        """As decide has them."""
        return self.action, {"": None, OTHER: "newcomer"}.get(self.service, self.service), self.inside

    def asking(self, rules: Sequence[Rule]) -> Asking:
        agreed = frozenset(rule["id"] for rule in rules) if self.approved else frozenset()
        wait = lambda rule, limit: 60.0 if limit.text in self.used else 0.0  # noqa: E731
        return Asking(self.at, self.source, "x" if self.reason else "", wait=wait, approved=agreed)

    def atoms(self) -> set[Atom]:
        """All that holds here, in the words of policy/rights.py."""
        found = {Atom("user", self.user), *(Atom("group", group) for group in self.groups)}
        found |= {Atom("in", group) for group in self.inside}
        found |= {Atom("when", words) for name, (_, words) in WINDOWS.items() if in_window(name, self.at)}
        found |= {Atom("until", UNTIL)} if self.at < LATE else set()
        found |= {Atom("from", FROM)} if self.source.startswith("10.") else set()
        found |= {Atom("reason", "")} if self.reason else set()
        found |= {Atom("approval", APPROVED)} if self.approved else set()
        return found | {Atom("limit", limit, nth) for limit in LIMITS if limit not in self.used for nth in range(1, 9)}


LIMITS = ("1 in 10m", "2 in 10m", "3 in 10m")


def in_window(name: str, at: float) -> bool:
    return (name == "weekend") == (at == SATURDAY)


def is_about(rule: Rule, point: Point) -> bool:
    """Whether its who, may and on are."""
    people = {f"user:{point.user}", *(f"group:{group}" for group in point.groups)}
    if people.isdisjoint(rule["who"]) or point.action not in rule["may"]:
        return False
    return not {point.service, "*", *(f"group:{group}" for group in point.inside)}.isdisjoint(rule.get("on", ["*"]))


def counts(rule: Rule, point: Point) -> bool:
    """Whether it is about this, now and from there, and what it demands is met."""
    if not is_about(rule, point):
        return False
    if rule.get("when") and not in_window(rule["when"], point.at):
        return False
    if rule.get("expires") and point.at >= LATE:
        return False
    if rule.get("from") and not point.source.startswith("10."):
        return False
    if point.action not in CHANGING:
        return True
    if (rule.get("reason") and not point.reason) or (rule.get("approval") and not point.approved):
        return False
    return rule.get("limit") not in point.used


def allowed(rules: Sequence[Rule], point: Point) -> bool:
    mine = {rule["kind"] for rule in rules if counts(rule, point)}
    return mine == {"grant"}


def text_of(rules: Sequence[Rule]) -> str:
    text = ""
    for rule in rules:
        text += f"[[{rule['kind']}]]\n"
        text += "".join(f"{key} = {json.dumps(rule[key])}\n" for key in ("id", "who", "may", "on") if key in rule)
        text += f"when = {WINDOWS[rule['when']][0]}\n" if rule.get("when") else ""
        text += f"expires = {EXPIRES}\n" if rule.get("expires") else ""
        text += f'from = ["{FROM}"]\n' if rule.get("from") else ""
        text += "reason = true\n" if rule.get("reason") else ""
        text += f'limit = "{rule["limit"]}"\n' if rule.get("limit") else ""
        text += f"approval = {APPROVAL}\n" if rule.get("approval") else ""
    return text


def policy_of(*files: Sequence[Rule]) -> Policy:
    named = [(f"policy.d/{n}0.toml", text_of(rules)) for n, rules in enumerate(files, 1)]
    policy = parse(named, SERVICES)
    assert isinstance(policy, Policy), policy
    return policy


WHO = [f"user:{user}" for user in USERS[:2]] + [f"group:{group}" for group in GROUPS]


def _pick(names: Sequence[str], most: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), min_size=1, max_size=most, unique=True)


def _made(kind: str, who: list[str], may: list[str], on: list[str], more: dict[str, Any]) -> Rule:
    rule = {"kind": kind, "who": who, "may": may, "on": on, **{key: value for key, value in more.items() if value}}
    if "reload" in may:
        rule["on"] = ["*"]
    demands = ("from", "reason", "limit", "approval") if kind == "deny" else ()
    if kind == "grant" and not set(CHANGING) & set(may):
        demands = ("reason", "limit", "approval")
    rule = {key: value for key, value in rule.items() if key not in demands}
    if "approval" in rule:  # or another grant that needs none would be refused
        rule["expires"] = True
    return rule


MORE = st.fixed_dictionaries(
    {
        "when": st.sampled_from([None, None, None, *WINDOWS]),
        "expires": st.sampled_from([False, False, False, True]),
        "from": st.sampled_from([False, False, False, True]),
        "reason": st.sampled_from([False, False, True]),
        "limit": st.sampled_from([None, None, None, *LIMITS]),
        "approval": st.sampled_from([False, False, False, True]),
    }
)
ON = ["site", "shop", "worker", "group:web", "group:money", "*"]
RULE = st.builds(
    _made, st.sampled_from(["grant", "grant", "deny"]), _pick(WHO, 2), _pick(["view", "restart", "reload"], 2),
    _pick(ON, 2), MORE,
)  # fmt: skip


def named(rules: Sequence[Rule]) -> list[Rule]:
    """With ids; an approval that another grant would make none is left out of."""
    plain = any(rule["kind"] == "grant" and not rule.keys() & {"expires", "when", "from", "approval"} for rule in rules)
    left = [{key: value for key, value in rule.items() if not (plain and key == "approval")} for rule in rules]
    return [{**rule, "id": f"r{number}"} for number, rule in enumerate(left)]


RULES = st.lists(RULE, max_size=6).map(named)
CIRCUMSTANCES = st.tuples(
    st.sampled_from([MONDAY, SATURDAY, LATE]), st.sampled_from(["10.1.2.3", "192.0.2.1"]), st.booleans(),
    st.frozensets(st.sampled_from(LIMITS)), st.booleans(),
)  # fmt: skip


def people() -> Iterator[tuple[str, frozenset[str]]]:
    for user in USERS:
        for size in range(len(GROUPS) + 1):
            for groups in itertools.combinations(GROUPS, size):
                yield user, frozenset(groups)


def places() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each service and its groups; one that is not configured, in each combination of groups."""
    yield from SERVICES.items()
    yield from ((OTHER, inside) for inside in ((), ("web",), ("money",), ("web", "money")))


def points(circumstances: tuple[Any, ...]) -> Iterator[Point]:
    """Every question that there is, under these circumstances."""
    for user, groups in people():
        yield Point(user, groups, "reload", "", (), *circumstances)
        for service, inside in places():
            for action in ("view", "restart"):
                yield Point(user, groups, action, service, inside, *circumstances)
