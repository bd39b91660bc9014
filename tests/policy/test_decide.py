"""Decisions: against a second, naive evaluator, and in the words that people see (attack rows A9, B7, B10)."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from examples import examples
from hypothesis import given, strategies as st

from policy.decide import HINTS, Allow, Deny, decide, rights, tellable, unknown_text, viewable, visible
from policy.identity import ROOT, Identity, person
from policy.messages import Right
from policy.names import GLOBAL_ACTIONS, Action
from policy.parse import parse
from policy.rules import Policy

SERVICES: dict[str, tuple[str, ...]] = {"site": ("web",), "shop": ("web", "money"), "worker": ()}
WHOLE = [action.value for action in Action if action in GLOBAL_ACTIONS]
EACH = [action.value for action in Action if action not in GLOBAL_ACTIONS]
Row = dict[str, Any]  # kind, id, who, may, on: as written in a file


def text_of(rows: Sequence[Row]) -> str:
    return "".join(
        f"[[{row['kind']}]]\n"
        + "".join(f"{key} = {json.dumps(row[key])}\n" for key in ("id", "who", "may", "on") if key in row)
        for row in rows
    )


def policy_of(*files: Sequence[Row]) -> Policy:
    policy = parse([(f"policy.d/{n}0.toml", text_of(rows)) for n, rows in enumerate(files, 1)], SERVICES)
    assert isinstance(policy, Policy), policy
    return policy


# The naive evaluator: nothing of policy/ but the rows as they are written.


def applies(row: Row, user: str, groups: frozenset[str], action: str, service: str | None) -> bool:
    if f"user:{user}" not in row["who"] and not any(f"group:{group}" in row["who"] for group in groups):
        return False
    if action not in row["may"]:
        return False
    if service is None:
        return action in WHOLE
    if service in row["on"]:
        return True
    if service not in SERVICES:
        return False
    return "*" in row["on"] or any(f"group:{group}" in row["on"] for group in SERVICES[service])


def naive(rows: Sequence[Row], user: str, groups: frozenset[str], action: str, service: str | None) -> bool:
    mine = [row["kind"] for row in rows if applies(row, user, groups, action, service)]
    return "grant" in mine and "deny" not in mine


PEOPLE = [
    Identity(user, 1001, frozenset(groups))
    for user in ("alice", "bob")
    for size in range(3)
    for groups in itertools.combinations(("webops", "leads"), size)
]
ASKED: list[tuple[str, str | None]] = [*((action, None) for action in ("reload", "shutdown"))]
ASKED += [(action, service) for action in ("view", "restart", "stop") for service in SERVICES]

WHO = st.lists(
    st.sampled_from(["user:alice", "user:bob", "group:webops", "group:leads", "group:alice"]),
    min_size=1,
    max_size=3,
    unique=True,
)
ON_SERVICES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["grant", "grant", "deny"]),
        "who": WHO,
        "may": st.lists(st.sampled_from(["view", "restart", "stop"]), min_size=1, max_size=3, unique=True),
        "on": st.lists(
            st.sampled_from(["site", "shop", "worker", "group:web", "group:money", "*"]),
            min_size=1,
            max_size=3,
            unique=True,
        ),
    }
)
ON_ALL = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["grant", "grant", "deny"]),
        "who": WHO,
        "may": st.lists(st.sampled_from(["view", "reload", "shutdown"]), min_size=1, max_size=3, unique=True),
        "on": st.just(["*"]),
    }
)
ROWS = st.lists(st.one_of(ON_SERVICES, ON_ALL), max_size=7).map(
    lambda rows: [{**row, "id": f"r{number}"} for number, row in enumerate(rows)]
)


def allowed(policy: Policy, identity: Identity, action: str, service: str | None) -> bool:
    return isinstance(decide(policy, identity, action, service, SERVICES.get(service or "", ())), Allow)


def all_allowed(policy: Policy) -> set[tuple[Identity, str, str | None]]:
    return {(who, *asked) for who in PEOPLE for asked in ASKED if allowed(policy, who, *asked)}


@examples(25)
@given(rows=ROWS)
def test_b7_every_decision_is_what_the_rows_say(rows: list[Row]) -> None:
    policy = policy_of(rows)
    for who, (action, service) in itertools.product(PEOPLE, ASKED):
        decision = decide(policy, who, action, service, SERVICES.get(service or "", ()))
        assert isinstance(decision, Allow) == naive(rows, who.user, who.groups, action, service)
        named = [row for row in rows if row["id"] == decision.rule]
        if named:  # the rule that is named is one that applies, of the right kind, and the first of them
            kind = "grant" if isinstance(decision, Allow) else "deny"
            assert named[0] == next(
                row for row in rows if row["kind"] == kind and applies(row, who.user, who.groups, action, service)
            )
            lines = text_of(rows).split("\n")
            assert lines[decision.line - 1 : decision.line + 1] == [f"[[{kind}]]", f'id = "{decision.rule}"']
            assert decision.file == "policy.d/10.toml"
        else:
            assert isinstance(decision, Deny)
            assert (decision.rule, decision.file, decision.line) == ("", "", 0)


@examples(25)
@given(rows=ROWS, seed=st.integers(0, 1000), cut=st.integers(0, 7))
def test_b7_the_order_of_rules_and_files_does_not_matter(rows: list[Row], seed: int, cut: int) -> None:
    shuffled = rows.copy()
    random.Random(seed).shuffle(shuffled)
    assert all_allowed(policy_of(rows)) == all_allowed(policy_of(shuffled[:cut], shuffled[cut:]))


@examples(25)
@given(rows=ROWS)
def test_b7_rules_that_do_not_name_the_person_the_action_and_the_service_change_nothing(rows: list[Row]) -> None:
    policy = policy_of(rows)
    for who, (action, service) in itertools.product(PEOPLE[:3], ASKED[::3]):
        mine = policy_of([row for row in rows if applies(row, who.user, who.groups, action, service)])
        assert allowed(policy, who, action, service) == allowed(mine, who, action, service)


@examples(25)
@given(rows=ROWS, added=st.one_of(ON_SERVICES, ON_ALL))
def test_b7_a_further_grant_takes_no_right_and_a_further_deny_gives_none(rows: list[Row], added: Row) -> None:
    before = all_allowed(policy_of(rows))
    after = all_allowed(policy_of([*rows, {**added, "id": "added"}]))
    assert before <= after if added["kind"] == "grant" else before >= after


@examples(25)
@given(rows=ROWS)
def test_b10_lists_say_what_decide_says_and_nothing_else(rows: list[Row]) -> None:
    policy = policy_of(rows)
    for who in [*PEOPLE, ROOT]:
        expected = [Right("", [action for action in WHOLE if allowed(policy, who, action, None)])]
        expected += [
            Right(service, [action for action in EACH if allowed(policy, who, action, service)])
            for service in sorted(SERVICES)
        ]
        assert rights(policy, who, SERVICES) == [right for right in expected if right.actions]
        seen = [service for service in SERVICES if allowed(policy, who, "view", service)]
        assert viewable(policy, who, SERVICES) == seen
        assert [service for service, groups in SERVICES.items() if visible(policy, who, service, groups)] == seen


@examples(25)
@given(rows=ROWS)
def test_what_is_said_to_help_would_help(rows: list[Row]) -> None:
    policy = policy_of(rows)
    by_id = {row["id"]: row for row in rows}
    for who, (action, service) in itertools.product(PEOPLE, ASKED):
        decision = decide(policy, who, action, service, SERVICES.get(service or "", ()))
        if isinstance(decision, Allow):
            continue
        helping = {
            group
            for group in ("webops", "leads", "alice")
            if allowed(policy, Identity(who.user, who.uid, who.groups | {group}), action, service)
        }
        assert bool(decision.would_help) == bool(helping)
        for hint in decision.would_help:
            rule, _, through = hint.partition(", through group ")
            groups = set(through.split(" or "))
            assert groups <= helping
            assert groups == {group for group in helping if f"group:{group}" in by_id[rule.split()[0]]["who"]}


EXAMPLE = [
    {
        "kind": "grant",
        "id": "webops-restart",
        "who": ["group:webops", "user:alice"],
        "may": ["view", "restart"],
        "on": ["site"],
    },
    {
        "kind": "grant",
        "id": "leads-everything",
        "who": ["group:webops", "group:leads"],
        "may": ["restart", "stop"],
        "on": ["*"],
    },
    {
        "kind": "deny",
        "id": "contractors-never-stop",
        "who": ["group:contractors"],
        "may": ["stop", "shutdown"],
        "on": ["*"],
    },
    {"kind": "grant", "id": "carol-reloads", "who": ["user:carol"], "may": ["reload"]},
]
BOB = person("bob", 1002, [], "")


def denied(who: Identity, action: str, service: str | None) -> Deny:
    decision = decide(policy_of(EXAMPLE), who, action, service, SERVICES.get(service or "", ()))
    assert isinstance(decision, Deny)
    return decision


def test_a_refusal_names_the_rule_that_would_help_and_through_what() -> None:
    assert denied(BOB, "restart", "site") == Deny(
        "denied: no rule lets bob restart site; the rule 'webops-restart' would, through group webops",
        would_help=(
            "webops-restart (10.toml:1), through group webops",
            "leads-everything (10.toml:6), through group webops or leads",
        ),
    )


def test_a_refusal_that_nothing_helps_says_only_that_there_is_no_rule() -> None:
    assert denied(BOB, "scale", "site") == Deny("denied: no rule lets bob scale site")
    assert denied(BOB, "shutdown", None) == Deny("denied: no rule lets bob shut the daemon down")
    assert denied(BOB, "logs", "site") == Deny("denied: no rule lets bob read the logs of site")
    assert denied(BOB, "clear", "site") == Deny("denied: no rule lets bob clear the logs of site")
    assert denied(BOB, "enable", "site") == Deny("denied: no rule lets bob enable or disable site")
    assert denied(BOB, "audit", None) == Deny("denied: no rule lets bob read the audit log")
    assert denied(BOB, "policy", None) == Deny("denied: no rule lets bob read the policy")


def test_a_refusal_by_a_rule_names_it_with_its_place() -> None:
    bob = person("bob", 1002, ["webops", "contractors"], "")
    assert denied(bob, "stop", "site") == Deny(
        "denied: the rule 'contractors-never-stop' (10.toml:11) forbids stop on site to bob",
        "contractors-never-stop",
        "policy.d/10.toml",
        11,
    )
    assert denied(bob, "shutdown", None).text == (
        "denied: the rule 'contractors-never-stop' (10.toml:11) forbids shutdown to bob"
    )


def test_an_answer_that_allows_names_the_rule_and_its_place() -> None:
    decision = decide(policy_of(EXAMPLE), person("alice", 1001, [], ""), "restart", "site", ("web",))
    assert decision == Allow("webops-restart", "policy.d/10.toml", 1)


def test_b10_a_refusal_does_not_say_which_other_person_has_the_right() -> None:
    assert denied(BOB, "reload", None) == Deny("denied: no rule lets bob reload")
    assert "alice" not in repr(denied(BOB, "view", "site"))


def test_a_group_that_a_deny_stops_is_no_help() -> None:
    rows = [*EXAMPLE, {"kind": "deny", "id": "x", "who": ["group:webops"], "may": ["restart"], "on": ["group:web"]}]
    decision = decide(policy_of(rows), BOB, "restart", "site", ("web",))
    assert isinstance(decision, Deny)
    assert decision.would_help == ("leads-everything (10.toml:6), through group leads",)


def test_rules_that_would_help_are_named_in_the_order_of_their_lines() -> None:
    rows = [
        {"kind": "grant", "id": f"on-{target}", "who": ["group:leads"], "may": ["stop"], "on": [on]}
        for target, on in (("all", "*"), ("web", "group:web"), ("site", "site"))
    ]
    decision = decide(policy_of(rows), BOB, "stop", "site", ("web",))
    assert isinstance(decision, Deny)
    assert [hint.split()[0] for hint in decision.would_help] == ["on-all", "on-web", "on-site"]


def test_a_refusal_names_a_few_rules_that_would_help_and_no_more() -> None:
    rows = [
        {"kind": "grant", "id": f"r{number}", "who": ["group:leads"], "may": ["stop"], "on": ["site"]}
        for number in range(HINTS + 2)
    ]
    decision = decide(policy_of(rows), BOB, "stop", "site", ())
    assert isinstance(decision, Deny)
    assert [hint.split()[0] for hint in decision.would_help] == ["r0", "r1", "r2"]


def test_root_is_always_allowed_even_what_a_rule_forbids() -> None:
    rows = [{"kind": "deny", "id": "x", "who": ["user:root"], "may": EACH + WHOLE, "on": ["*"]}]
    for action, service in [*itertools.product(EACH, SERVICES), *((action, None) for action in WHOLE)]:
        assert decide(policy_of(rows), ROOT, action, service) == Allow("root")


@pytest.mark.parametrize("uid", [0, 1, 2**31, 4_000_000_000, 2**32 - 2])
def test_a9_a_uid_gives_no_right(uid: int) -> None:
    for user in ("root", "bob"):
        assert all(
            not allowed(policy_of(EXAMPLE), Identity(user, uid), *asked)
            for asked in [*itertools.product(EACH, SERVICES), *((action, None) for action in WHOLE)]
        )


def test_every_service_means_the_configured_ones_and_never_our_own() -> None:
    rows = [{"kind": "grant", "id": "all", "who": ["user:bob"], "may": EACH, "on": ["*", "group:web"]}]
    policy = policy_of(rows)
    assert allowed(policy, BOB, "restart", "worker")
    for groups in ((), ("web",)):
        assert decide(policy, BOB, "restart", "durward-api", groups) == Deny(
            "denied: no rule lets bob restart durward-api"
        )
        assert not visible(policy, BOB, "durward-api", groups)


def test_a_service_of_our_own_is_granted_by_its_name_only() -> None:
    text = text_of([{"kind": "grant", "id": "api", "who": ["user:bob"], "may": ["restart"], "on": ["durward-api"]}])
    policy = parse([("a.toml", text)], {"durward-api": ()})
    assert isinstance(policy, Policy)
    assert decide(policy, BOB, "restart", "durward-api") == Allow("api", "a.toml", 1)


@pytest.mark.parametrize(
    ("action", "service"),
    [
        ("restart", None),
        ("reload", "site"),
        ("restart", "*"),
        ("restart", "group:web"),
        ("restart", "site\n"),
        ("restart", ""),
        ("", "site"),
        ("become-root", "site"),
        ("RESTART", "site"),
    ],
)
def test_what_cannot_be_asked_is_denied_to_those_who_may_do_everything(action: str, service: str | None) -> None:
    rows = [{"kind": "grant", "id": "all", "who": ["user:bob"], "may": EACH + WHOLE, "on": ["*"]}]
    rows += [{"kind": "grant", "id": "web", "who": ["user:bob"], "may": EACH, "on": ["group:web", "site"]}]
    decision = decide(policy_of(rows), BOB, action, service, ("web",))
    assert isinstance(decision, Deny)
    assert decision.rule == ""


def test_a_decision_cannot_be_taken_for_a_bool() -> None:
    for decision in (Allow("x"), Deny("no")):
        with pytest.raises(TypeError, match="not a truth value"):
            bool(decision)


def test_b10_an_unknown_service_is_unknown_in_one_way() -> None:
    assert unknown_text("shop") == "no service 'shop' that you may view"


def test_the_name_of_what_is_not_configured_is_told_to_who_might_view_it_in_the_worst_case() -> None:
    see = {"kind": "grant", "id": "see", "who": ["user:alice"], "may": ["view"], "on": ["*"]}
    web = {"kind": "grant", "id": "web", "who": ["user:bob"], "may": ["view"], "on": ["group:web", "site"]}
    no = {"kind": "deny", "id": "no", "who": ["group:night"], "may": ["view"], "on": ["group:money"]}
    policy = policy_of([see, web, no])
    day, night, bob = (
        Identity(user, 1, frozenset(groups)) for user, groups in (("alice", ""), ("alice", ["night"]), ("bob", ""))
    )
    told = {
        (who.user, len(who.groups), service, groups): tellable(policy, who)(service, groups)
        for who in (day, night, bob)
        for service, groups in (("new", None), ("new", ()), ("new", ("web",)), ("new", ("money",)), ("site", None))
    }
    assert [key for key, is_told in told.items() if not is_told] == [
        ("alice", 1, "new", None), ("alice", 1, "new", ("money",)), ("alice", 1, "site", None),
        ("bob", 0, "new", None), ("bob", 0, "new", ()), ("bob", 0, "new", ("money",)),
    ]  # fmt: skip
    assert tellable(policy, ROOT)("/", None)
    assert not tellable(policy, day)("/", None), "no name of a service"
