"""Kinds, exit codes and hints."""

from __future__ import annotations

from typing import get_args

import pytest

from policy.messages import RefusalKind
from userapi.cli.failure import EXIT, Failure


def test_every_refusal_of_the_contract_has_an_exit_code():
    assert set(get_args(RefusalKind)) <= set(EXIT)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("forbidden", 77),
        ("no-session", 77),
        ("unknown", 4),
        ("not-running", 3),
        ("conflict", 1),
        ("invalid", 2),
        ("later", 75),
        ("failed", 1),
        ("unreachable", 69),
        ("something new", 1),
    ],
)
def test_the_exit_code_is_the_kind_s(kind, code):
    assert Failure(kind, "x").exit == code


def test_a_denial_by_the_rules_says_whom_to_ask_and_no_other_does():
    told = Failure("forbidden", "denied: no rule lets bob restart site")
    assert told.hints() == ["ask root or the people who keep the policy"]
    for text in ("/etc/durward may not be read by you", "denied: nobody approves what he has asked for himself"):
        assert Failure("forbidden", text).hints() == []


def test_what_the_text_says_already_is_not_said_twice():
    text = "denied: no rule lets bob restart site; the rule 'webops-restart' would, through group webops"
    failure = Failure("forbidden", text, would_help=["webops-restart through group webops"], rule="", file="")
    assert failure.hints() == ["ask root or the people who keep the policy"]


def test_the_rule_that_denied_is_named_with_its_place():
    failure = Failure("forbidden", "denied", rule="no-stop", file="10-web.toml", line=14, would_help=["leads"])
    assert failure.hints()[:2] == ["the rule is 'no-stop', 10-web.toml:14", "this would allow it: leads"]


def test_the_document_holds_what_is_known():
    assert Failure("forbidden", "no", rule="r", file="", line=0).document() == {
        "error": {"kind": "forbidden", "text": "no", "exit": 77, "rule": "r"}
    }
    assert Failure("no-session", "the session has ended").hints() == ["log in first: durward login"]
