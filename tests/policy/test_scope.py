"""What a personal token is for: always a part of what its owner may, for every policy, scope and command."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from examples import examples
from hypothesis import given, strategies as st
from msgspec import structs

from policy import explain
from policy.approval import may_approve
from policy.conditions import Asking
from policy.decide import Allow, Beyond, Deny, Unapproved, decide, rights, viewable, visible
from policy.identity import ROOT, Identity, person
from policy.messages import Decided, Refused
from policy.names import GLOBAL_ACTIONS, Action
from policy.parse import parse
from policy.rules import Policy
from policy.scope import MOST_ON, Scope, ScopeAction

SERVICES: dict[str, tuple[str, ...]] = {"site": ("web",), "shop": ("web", "money"), "jobs": ()}
OURS = "durward-api"
ENTRIES = ["site", "shop", "jobs", "nowhere", "*", "group:web", "group:money", "group:none", OURS]
ACTIONS = [action.value for action in Action]
SCOPES = st.builds(
    Scope,
    st.just("deploy"),
    st.lists(st.sampled_from(get_args(ScopeAction)), min_size=1, max_size=6, unique=True).map(tuple),
    st.lists(st.sampled_from(ENTRIES), max_size=4, unique=True).map(tuple),
)
EACH = sorted(set(ACTIONS) - GLOBAL_ACTIONS)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    text = ""
    for number in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["grant", "grant", "grant", "deny"]))
        may = draw(st.sampled_from([EACH, ["view", "restart"], ["stop"], ["reload", "audit"], ["approve"], ["view"]]))
        on = draw(st.lists(st.sampled_from(["site", "shop", "group:web", "*"]), min_size=1, max_size=2, unique=True))
        text += f'[[{kind}]]\nid = "r{number}"\nwho = ["{draw(st.sampled_from(["user:alice", "group:ops"]))}"]\n'
        text += f"may = {may}\n" + ("" if set(may) & GLOBAL_ACTIONS else f"on = {on}\n")
        if kind == "grant":
            more = ["", "reason = true\n", 'limit = "2 in 1h"\n']
            more += ['approval = { by = ["group:leads"], within = "5m" }\n'] * (may == ["stop"])
            text += draw(st.sampled_from(more))
    found = parse([("policy.d/10.toml", text)], SERVICES)
    return found if isinstance(found, Policy) else draw(policies())


def within(scope: Scope, action: str, service: str | None) -> bool:
    """The same question, answered naively."""
    if action not in scope.may or (service is None) != (action in GLOBAL_ACTIONS):
        return False
    if service is None or service in scope.on:
        return True
    if service == OURS:
        return False
    return "*" in scope.on or any(f"group:{group}" in scope.on for group in SERVICES.get(service, ()))


def everything() -> list[tuple[str, str | None]]:
    return [(action, service) for action in ACTIONS for service in (*SERVICES, "nowhere", OURS, None)]


@examples(25)
@given(policies(), SCOPES, st.sampled_from(["", "why"]))
def test_what_a_token_is_allowed_its_owner_is_and_it_is_within_its_scope(
    policy: Policy, scope: Scope, reason: str
) -> None:
    alice = person("alice", 1001, ["ops"], "0" * 64)
    token = structs.replace(alice, token=scope)
    asking = Asking(at=0.0, source="192.0.2.1", reason=reason)
    for action, service in everything():
        groups = SERVICES.get(service or "", ())
        own, said = (decide(policy, who, action, service, groups, asking) for who in (alice, token))
        if within(scope, action, service):
            assert said == own
        else:
            assert isinstance(said, Beyond)
            assert not isinstance(said, Unapproved)  # so nothing is left to wait for somebody's approval either


@examples(25)
@given(policies(), SCOPES)
def test_a_token_sees_no_more_than_its_owner_and_its_scope(policy: Policy, scope: Scope) -> None:
    alice, asking = person("alice", 1001, ["ops"], "0" * 64), Asking(at=0.0)
    token = structs.replace(alice, token=scope)
    services = {**SERVICES, OURS: ()}
    for service, groups in services.items():
        seen = visible(policy, alice, service, groups, asking) and within(scope, "view", service)
        assert visible(policy, token, service, groups, asking) == seen
        assert (service in viewable(policy, token, services, asking)) == seen
    told = {(right.service, action) for right in rights(policy, token, services, asking) for action in right.actions}
    owner = {(right.service, action) for right in rights(policy, alice, services, asking) for action in right.actions}
    assert told == {(service, action) for service, action in owner if within(scope, action, service or None)}


@examples(15)
@given(policies(), SCOPES)
def test_no_token_approves_whatever_its_owner_may(policy: Policy, scope: Scope) -> None:
    lead = Identity("bob", 1002, frozenset({"leads", "ops"}), "", token=scope)
    for rule in ("r0", "r1", "unknown"):
        assert isinstance(may_approve(policy, lead, rule, "alice", 1001, 1, Asking(at=0.0)), Beyond)


@pytest.mark.parametrize("action", ["approve", "revoke", "everything", "View", "view\n"])
def test_no_scope_has_an_action_that_is_for_people_or_none_at_all(action: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "x", "may": [action], "on": ["site"]}, Scope)


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "Deploy"}, {"name": ""}, {"name": "a b"}, {"may": []}, {"on": ["group:"]}, {"on": ["**"]},
        {"on": ["site*"]}, {"on": ["../x"]}, {"on": ["site\n"]}, {"on": ["a"] * (MOST_ON + 1)}, {"more": 1},
    ],
)  # fmt: skip
def test_a_scope_that_is_not_as_it_must_be_cannot_be_said(changed: dict[str, Any]) -> None:
    good = {"name": "deploy", "may": ["view"], "on": ["site"]}
    msgspec.convert(good, Scope)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**good, **changed}, Scope)


def test_a_scope_that_makes_no_sense_says_so() -> None:
    assert Scope("x", ("view",), ("site",)).wrong() == ""
    assert Scope("x", ("audit",)).wrong() == ""
    assert Scope("x", ("audit", "view"), ("site",)).wrong() == ""
    assert "on which" in Scope("x", ("view",)).wrong()
    assert "name no service" in Scope("x", ("audit",), ("site",)).wrong()


def test_a_scope_says_for_people_what_it_is_for() -> None:
    assert Scope("x", ("view", "restart"), ("site", "group:web")).text == "view, restart on site, group:web"
    assert Scope("x", ("audit",)).text == "audit"


GRANT = """
[[grant]]
id = "ops"
who = ["user:alice"]
may = ["view", "restart", "stop"]
on = ["site", "jobs"]
"""


def test_a_refusal_says_that_it_is_the_token_and_the_same_of_services_that_do_not_exist() -> None:
    policy = parse([("policy.d/10.toml", GRANT)], SERVICES)
    assert isinstance(policy, Policy)
    token = Identity("alice", 1001, token=Scope("deploy", ("view", "restart"), ("site",)))
    texts = set()
    for service, groups in (("jobs", ()), ("shop", SERVICES["shop"]), ("nowhere", None)):
        said = decide(policy, token, "stop", service, groups or ())
        assert isinstance(said, Deny)
        refused = explain.refuse(policy, token, said, service, groups)
        assert (refused.kind, refused.rule, refused.would_help) == ("forbidden", "", [])
        told = explain.explain(policy, token, "stop", service, groups)
        assert told == Decided(False, refused.text)
        texts.add(refused.text.replace(service, "X"))
    assert texts == {"denied: the token 'deploy' is not for that: stop X; it is for view, restart on site"}
    assert isinstance(explain.explain(policy, token, "restart", "site", SERVICES["site"]), Decided)
    assert isinstance(explain.explain(policy, token, "restart", "site", None), Refused)
    assert isinstance(decide(policy, token, "restart", "site", SERVICES["site"]), Allow)


def test_root_has_no_token() -> None:
    with pytest.raises(ValueError, match="root"):
        structs.replace(ROOT, token=Scope("x", ("view",), ("*",)))
