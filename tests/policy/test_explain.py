"""What a person is told never says more than he may view (attack row B10)."""

from __future__ import annotations

import pytest

from policy.decide import Deny, decide
from policy.explain import explain, refuse, unknown
from policy.identity import ROOT, Identity, person
from policy.messages import Decided, Refused
from policy.parse import parse
from policy.rules import Policy

SERVICES = {"site": ("web",), "shop": (), "hidden": ()}
TEXT = """\
[[grant]]
id = "webops"
who = ["group:webops"]
may = ["view", "restart"]
on = ["site", "shop"]
[[grant]]
id = "bob-looks"
who = ["user:bob"]
may = ["view"]
on = ["group:web"]
[[grant]]
id = "bob-stops"
who = ["user:bob"]
may = ["stop"]
on = ["shop"]
[[deny]]
id = "never-start"
who = ["user:bob"]
may = ["start"]
on = ["*"]
[[grant]]
id = "leads"
who = ["group:leads"]
may = ["reload", "audit"]
[[grant]]
id = "auditors"
who = ["user:dora"]
may = ["view"]
on = ["*"]
"""
BOB = person("bob", 1002, [], "")
DORA = person("dora", 1004, [], "")


@pytest.fixture
def policy() -> Policy:
    made = parse([("policy.d/10-web.toml", TEXT)], SERVICES)
    assert isinstance(made, Policy)
    return made


def refusal(policy: Policy, who: Identity, action: str, service: str | None) -> Refused:
    decision = decide(policy, who, action, service, SERVICES.get(service or "", ()))
    assert isinstance(decision, Deny)
    return refuse(policy, who, decision, service, SERVICES.get(service or ""))


def test_who_may_view_a_service_is_told_why_not_and_what_would_help(policy: Policy) -> None:
    assert refusal(policy, BOB, "restart", "site") == Refused(
        "forbidden",
        "denied: no rule lets bob restart site; the rule 'webops' would, through group webops",
        would_help=["webops (10-web.toml:1), through group webops"],
    )
    assert refusal(policy, BOB, "start", "site") == Refused(
        "forbidden",
        "denied: the rule 'never-start' (10-web.toml:16) forbids start on site to bob",
        "never-start",
        "policy.d/10-web.toml",
        16,
    )


def test_a_refusal_about_the_daemon_is_told_to_anybody(policy: Policy) -> None:
    told = refusal(policy, BOB, "reload", None)
    assert (told.kind, told.would_help) == ("forbidden", ["leads (10-web.toml:21), through group leads"])
    assert told.text == "denied: no rule lets bob reload; the rule 'leads' would, through group leads"


@pytest.mark.parametrize("action", ["view", "logs", "start", "restart", "scale"])
def test_b10_a_forbidden_service_and_one_that_does_not_exist_are_answered_alike(policy: Policy, action: str) -> None:
    for hidden in ("hidden", "shop"):
        there = refusal(policy, BOB, action, hidden)
        nowhere = refusal(policy, BOB, action, "nowhere")
        assert there == unknown(hidden)
        assert nowhere == unknown("nowhere")
        assert (there.kind, there.text) == ("unknown", f"no service '{hidden}' that you may view")
        assert (there.rule, there.file, there.line, there.would_help) == ("", "", 0, [])


def test_b10_who_may_view_all_services_is_told_that_a_name_is_none(policy: Policy) -> None:
    assert refusal(policy, DORA, "restart", "nowhere") == unknown("nowhere")
    assert refusal(policy, DORA, "restart", "hidden").kind == "forbidden"


def test_an_explanation_is_the_decision_with_its_rule(policy: Policy) -> None:
    webops = person("carol", 1003, ["webops"], "")
    assert explain(policy, webops, "restart", "site", ("web",)) == Decided(
        True, "allowed: the rule 'webops' (10-web.toml:1) lets carol restart site", "webops", "policy.d/10-web.toml", 1
    )
    assert explain(policy, BOB, "restart", "site", ("web",)) == Decided(
        False, "denied: no rule lets bob restart site; the rule 'webops' would, through group webops"
    )
    assert explain(policy, BOB, "start", "site", ("web",)) == Decided(
        False,
        "denied: the rule 'never-start' (10-web.toml:16) forbids start on site to bob",
        "never-start",
        "policy.d/10-web.toml",
        16,
    )


def test_an_explanation_of_a_global_action_needs_no_service(policy: Policy) -> None:
    lead = person("erin", 1005, ["leads"], "")
    assert explain(policy, lead, "reload", None, None).text == (
        "allowed: the rule 'leads' (10-web.toml:21) lets erin reload"
    )
    refused = explain(policy, BOB, "reload", None, None)
    assert isinstance(refused, Decided)
    assert not refused.allowed


def test_a_right_without_view_is_explained_to_who_has_it(policy: Policy) -> None:
    assert explain(policy, BOB, "stop", "shop", ()).rule == "bob-stops"


def test_b10_an_explanation_does_not_tell_a_forbidden_service_from_none(policy: Policy) -> None:
    for action in ("view", "start", "restart"):
        there = explain(policy, BOB, action, "hidden", ())
        assert there == Refused("unknown", "no service 'hidden' that you may view")
        assert explain(policy, BOB, action, "nowhere", None) == Refused(
            "unknown", "no service 'nowhere' that you may view"
        )
    for who in (DORA, ROOT):
        assert explain(policy, who, "view", "nowhere", None).text == "no service 'nowhere' that you may view"


def test_root_is_told_that_root_may(policy: Policy) -> None:
    assert explain(policy, ROOT, "stop", "hidden", ()) == Decided(True, "allowed: root may stop hidden", "root")
    assert explain(policy, ROOT, "shutdown", None, None).text == "allowed: root may shut the daemon down"


def test_a_question_that_is_none_is_answered_with_what_is_missing(policy: Policy) -> None:
    for who in (BOB, ROOT):
        assert explain(policy, who, "restart", None, None) == Decided(False, "restart is about a service: name one")
        assert explain(policy, who, "reload", "site", ("web",)) == Decided(
            False, "reload is about the daemon as a whole: name no service"
        )
