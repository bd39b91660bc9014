"""What may be a name, and that nothing else may (attack rows A10, C3)."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from policy import names
from policy.messages import ActionName

CANNOT_BE_USERS = [
    "",
    "Alice",
    "\uff41\uff4c\uff49\uff43\uff45",
    "1001",
    "\u0661\u0660\u0660\u0661",
    "alice\n",
    "\nalice",
    "alice\0x",
    "alice bob",
    "alice:x",
    "al\u0456ce",
    "../../x",
    "-alice",
    "a" * 300,
    "a" * 33,
]


@pytest.mark.parametrize("text", CANNOT_BE_USERS)
def test_a10_a_name_that_no_account_can_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a user name"):
        names.user_name(text)
    with pytest.raises(ValueError, match="is not the name of a Unix group"):
        names.unix_group(text)


@pytest.mark.parametrize("text", ["alice", "_durward", "www-data", "a" * 32, "x1"])
def test_a10_a_name_that_useradd_takes_is_taken(text: str) -> None:
    assert names.user_name(text) == names.unix_group(text) == text


NOT_SERVICES = ["", "../../etc/web", "web\n", "web\0", "Web", ".web", "-web", "a/b", "*", "group:x", "wéb", "w" * 64]


@pytest.mark.parametrize("text", NOT_SERVICES)
def test_c3_what_is_not_a_service_or_group_name_from_end_to_end_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a service name"):
        names.service_name(text)
    with pytest.raises(ValueError, match="is not a group name"):
        names.group_name(text)


def test_service_and_group_names_are_taken() -> None:
    assert names.service_name("site-2.web_a") == "site-2.web_a"
    assert names.group_name("0day") == "0day"


@pytest.mark.parametrize("text", ["", "root", "a b", "a\n", "é", "x'", "x" * 64])
def test_what_is_not_an_id_of_a_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an id"):
        names.rule_id(text)


def test_an_id_of_a_rule_is_taken() -> None:
    assert names.rule_id("Webops-restart.2") == "Webops-restart.2"


def test_a_signal_has_a_name_without_sig() -> None:
    assert names.signal_name("HUP") == "HUP"
    for text in ("SIGHUP", "hup", "1", "HUP\n", "", "SEGV"):
        with pytest.raises(ValueError, match="is not a signal"):
            names.signal_name(text)


def test_c3_every_pattern_is_anchored_at_both_ends_and_ascii() -> None:
    patterns = {name: value for name, value in vars(names).items() if name.endswith("_PATTERN")}
    assert len(patterns) == 7
    for name, pattern in patterns.items():
        assert re.match(r"\\A.*\\Z\Z", pattern), name
        assert not re.search(r"\\[dwsDWS]|\$|(?<!\[)\^", pattern), name


def test_a_process_is_named_by_its_service_and_a_number() -> None:
    for text in ("", "site", "site:0", "site:1023"):
        assert re.search(names.PROCESS_PATTERN, text) is not None
    for text in ("../site", "site/x", "site:", "site:12345", "site:0\n", "site:x", ":0"):
        assert re.search(names.PROCESS_PATTERN, text) is None


@pytest.mark.parametrize("text", ["", "disk full, ticket 4711", "wegen Störung «site»", " 👩\u200d🚒 ", "x" * 200])
def test_a_reason_is_one_line_of_any_language(text: str) -> None:
    assert names.reason(text) == text


@pytest.mark.parametrize(
    "text", ["x" * 201, "a\nb", "a\tb", "\x1b[2J", "\x7f", "\x9b", "a\u202eb", "a\u2066b", "a\u2028b", "\ufeff", "\x00"]
)
def test_a_reason_cannot_change_how_a_log_is_shown(text: str) -> None:
    with pytest.raises(ValueError, match="a reason is one line of at most 200 characters"):
        names.reason(text)


@pytest.mark.parametrize(
    "text", [" ", "   ", "\u00a0", "\u00ad", "\u200b", "\u3164", "\u2800 \u2800", "\ufe0f", "\U000e0041"]
)
def test_a_reason_says_something(text: str) -> None:
    with pytest.raises(ValueError, match="not only blanks"):
        names.reason(text)


def test_what_changes_something_is_all_but_what_reads_or_approves() -> None:
    assert set(names.Action) - names.CHANGING == {"view", "logs", "policy", "audit", "approve"}


def test_every_action_can_be_asked_about_and_the_global_ones_are_actions() -> None:
    assert {action.value for action in names.Action} == set(get_args(ActionName))
    assert set(names.Action) > names.GLOBAL_ACTIONS
