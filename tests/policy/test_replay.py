"""An audit log against another policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from naive import Rule, policy_of

from policy import replay
from policy.decide import beyond
from policy.replay import Replay, Report
from policy.scope import Scope

SERVICES = {"site": ("web",), "shop": ("web", "money"), "worker": ()}
TIME = "2026-11-23T12:{:02}:00.000000Z"


def decision(n: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "n": n, "time": TIME.format(n), "kind": "decision", "user": "alice", "uid": 1001, "session": "5e55",
        "from": "10.1.2.3", "action": "restart", "command": "restart", "target": "site", "allowed": True, "rule": "r",
        "why": "", **more,
    }  # fmt: skip


LOGIN = {"n": 0, "time": TIME.format(0), "kind": "login", "session": "5e55", "groups": ["webops"]}
GRANT: Rule = {"kind": "grant", "id": "r", "who": ["group:webops"], "may": ["restart"], "on": ["site"]}


def replayed(rules: list[Rule], *records: Any, groups: Any = None, whole: bool = True) -> Report:
    made = Replay(policy_of(rules), SERVICES, groups or (lambda user: None), whole)
    made.feed(records)
    return made.report()


def test_the_same_policy_changes_nothing() -> None:
    assert replayed([GRANT], LOGIN, decision(), decision(2, target="shop", allowed=False)) == Report(2, 2, [], {}, {})


def test_what_would_be_refused_is_told_with_its_first_record_and_how_often() -> None:
    found = replayed([], LOGIN, decision(1), decision(2), decision(3, allowed=False))
    [change] = found.changes
    assert (change.user, change.action, change.service, change.was, change.now) == (
        "alice", "restart", "site", "allow", "deny",
    )  # fmt: skip
    assert (change.times, change.n, change.time) == (2, 1, TIME.format(1))
    assert change.text == "denied: no rule lets alice restart site"
    assert (found.decided, found.same) == (3, 1)


def test_what_would_be_allowed_is_told_with_the_rule_and_what_it_demands() -> None:
    [change] = replayed([{**GRANT, "reason": True}], LOGIN, decision(allowed=False, reason="why not")).changes
    assert (change.was, change.now, change.text) == ("deny", "allow", "by 'r', with a reason")
    assert replayed([{**GRANT, "reason": True}], LOGIN, decision(allowed=False)).changes == []
    [change] = replayed([GRANT], LOGIN, decision(allowed=False)).changes
    assert change.text == "by 'r'"


def test_a_limit_is_counted_through_the_log_in_its_order() -> None:
    rules = [{**GRANT, "limit": "2 in 10m"}]
    records = [decision(n) for n in (1, 2, 3, 4, 12, 13)]
    [change] = replayed(rules, LOGIN, *records).changes
    assert (change.now, change.times, change.n) == ("deny", 2, 3), "the third and fourth within ten minutes"
    assert "used up" in change.text
    bobs = [decision(n, user="bob", uid=1002) for n in (3, 4)]
    assert replayed(rules, LOGIN, *records[:2], *bobs).changes == [], "each person has a counter of his own"


def test_who_takes_back_needs_no_reason_and_what_changes_nothing_has_no_limit() -> None:
    rules = [{**GRANT, "reason": True}]
    for command in ("cancel", "withdraw"):
        assert replayed(rules, LOGIN, decision(command=command)).changes == []
        assert replayed([{**GRANT, "approval": True}], LOGIN, decision(command=command)).changes == []
    looks = [{**GRANT, "may": ["view", "restart"], "limit": "1 in 10m"}]
    assert replayed(looks, LOGIN, *(decision(n, action="view", command="status") for n in (1, 2, 3))).changes == []


def test_what_waited_for_a_second_person_is_a_third_outcome() -> None:
    waits = decision(allowed=False, why="restart site waits for approval 3 by user:carol, until later")
    rules = [{**GRANT, "approval": True}]
    assert replayed(rules, LOGIN, waits, decision(2, approval=3, approved_by="carol")).changes == []
    [change] = replayed([GRANT], LOGIN, waits).changes
    assert (change.was, change.now) == ("approval", "allow")
    [change] = replayed(rules, LOGIN, decision()).changes
    assert (change.was, change.now) == ("allow", "approval")


def test_what_a_token_was_not_for_and_what_would_have_reached_further_is_not_told_as_a_change() -> None:
    token = decision(
        allowed=False, rule="", why="denied: the token 'deploy' is not for that: restart site; it is for view"
    )
    also = decision(2, allowed=False, why="denied: it would stop shop too, and no rule lets alice stop that")
    assert replayed([GRANT], LOGIN, token, also) == Report(0, 0, [], {}, {replay.SCOPES: 1, replay.FURTHER: 1})


def test_the_words_by_which_records_are_told_apart_are_those_of_who_writes_them() -> None:
    said = beyond(Scope("deploy", ("view",), ("site",)), "stop", "site").text
    assert said.startswith(replay.BY_TOKEN)
    desk = (Path(__file__).parents[2] / "rootd/supervisor/desk.py").read_text()
    assert f'f"{replay.BY_OTHERS}{{row.action}}' in desk


def test_groups_are_those_of_the_session_then() -> None:
    others = {**LOGIN, "kind": "groups", "groups": []}
    found = replayed([GRANT], LOGIN, decision(1), others, decision(2))
    assert [(change.n, change.now) for change in found.changes] == [(2, "deny")]


@pytest.mark.parametrize(
    "before",
    [[], [{**LOGIN, "session": "other"}], [{**LOGIN, "more_groups": 3}], [LOGIN, {"kind": "logout", "session": "5e55"}],
     [{"n": 0, "time": "", "kind": "login", "session": "5e55"}]],
)  # fmt: skip
def test_groups_that_nobody_says_are_not_guessed(before: list[Any]) -> None:
    assert replayed([GRANT], *before, decision()).unknown == {replay.GROUPS: 1}
    assert replayed([GRANT], *before, decision(), groups=lambda user: ["webops"]) == Report(1, 1, [], {}, {})
    assert replayed([{**GRANT, "who": ["user:alice"]}], *before, decision()) == Report(1, 1, [], {}, {})


def test_groups_of_services_that_nobody_knows_are_not_guessed() -> None:
    rules = [{**GRANT, "on": ["group:web"]}]
    assert replayed(rules, LOGIN, decision(), whole=False).unknown == {replay.PLACES: 1}


def test_a_service_that_is_not_configured_any_more_is_refused() -> None:
    [change] = replayed([{**GRANT, "on": ["*"]}], LOGIN, decision(target="gone")).changes
    assert (change.now, change.text) == ("deny", "no service 'gone' is configured")


def test_what_no_policy_decides_is_left_out_and_counted() -> None:
    left = [
        decision(rule="root", user="root", session=""), decision(action="self"), decision(action="view", target=""),
        decision(action="approve", command="approve", target=""), {"kind": "decisions", "count": 40},
        {"kind": "outcome"}, {"kind": "decision"}, decision(user="not a name"), decision(uid="x"),
        decision(time="then"), {},
    ]  # fmt: skip
    found = replayed([{**GRANT, "who": ["user:alice"]}], *left)
    assert (found.decided, found.unknown) == (0, {})
    assert found.left_out == {
        replay.ROOTS: 1, replay.OWN: 2, replay.SECONDS: 1, replay.COUNTED: 40, replay.STRANGE: 4,
    }  # fmt: skip


def test_what_is_about_the_daemon_is_decided_too() -> None:
    rules = [{"kind": "grant", "id": "r", "who": ["user:alice"], "may": ["reload"]}]
    assert replayed(rules, decision(action="reload", command="reload", target="")) == Report(1, 1, [], {}, {})


def test_what_changes_most_often_is_told_first() -> None:
    found = replayed([], LOGIN, decision(1, target="shop"), decision(2), decision(3), decision(4, target="worker"))
    assert [(change.service, change.times) for change in found.changes] == [("site", 2), ("shop", 1), ("worker", 1)]
