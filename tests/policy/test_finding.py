"""policy/finding: the table of what lint can find is whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policy.finding import KINDS, SEVERITIES, finding

LINT = Path(__file__).resolve().parents[2] / "policy"
WITH_OWN_TODO = {"amounts-to-root", "amounts-to-user", "writable"}


@pytest.mark.parametrize("code", KINDS)
def test_every_kind_says_how_grave_it_is_why_it_matters_and_what_to_do(code: str) -> None:
    kind = KINDS[code]
    assert kind.severity in SEVERITIES
    assert kind.why
    assert kind.todo or code in WITH_OWN_TODO
    assert re.fullmatch("[a-z]+(-[a-z]+)*", code)


def test_a_code_that_is_not_in_the_table_cannot_be_told() -> None:
    with pytest.raises(KeyError):
        finding("misspelt", "text")


def test_what_is_about_no_rule_has_no_file() -> None:
    one = finding("not-looked-at", "text", service="site")
    assert (one.severity, one.rule, one.file, one.line, one.service) == ("note", "", "", 0, "site")
