"""Personal tokens at the desk: every command by one is what its owner may and what it is for; wrong ones wait."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from policy import login, messages
from policy.names import Action
from policy.parse import parse
from policy.rules import Policy
from policy.scope import Scope, ScopeAction
from rootd.supervisor.dispatch import DISPATCH

ALICE, BOB, CAROL = (str(number) * 64 for number in (1, 2, 4))
TOKEN = "durward_" + "a" * 64
KNOWN = hashlib.sha256(TOKEN.encode()).hexdigest()
SCOPE = Scope("deploy", ("view", "restart"), ("site",))
ALL = """
[[grant]]
id = "all"
who = ["user:alice"]
may = ["view", "logs", "clear", "start", "stop", "restart", "signal", "scale", "enable"]
on = ["*"]
[[grant]]
id = "daemon"
who = ["user:alice"]
may = ["audit", "reload", "revoke", "shutdown", "approve", "policy"]
"""
COMMANDS: list[messages.Command] = [
    make(service)  # type: ignore[operator]
    for make in (
        messages.Status, messages.Describe, messages.OpenLog, messages.ClearLog, messages.ReopenLog, messages.Start,
        messages.Stop, messages.Restart, messages.Enable, messages.Disable,
    )
    for service in ("site", "jobs")
] + [
    messages.Signal("site", "HUP"), messages.Scale("jobs", 2), messages.OpenAudit(), messages.Reload(),
    messages.Revoke(everyone=True), messages.Revoke("bob"), messages.Shutdown(), messages.Approve(1),
]  # fmt: skip
PARTS = st.tuples(
    st.sets(st.sampled_from(get_args(ScopeAction)), min_size=1), st.sets(st.sampled_from(["site", "group:back", "*"]))
)


def done(room: Any) -> tuple[int, ...]:
    """How much has been asked of the others."""
    revoked = [pull for pull in room.told if isinstance(pull, login.RevokeSessions)]
    return len(room.services.asked), len(room.sent), len(room.kept), len(revoked)


def let_in(room: Any, scope: Scope = SCOPE, token: str = TOKEN, user: str = "alice") -> None:
    known = hashlib.sha256(token.encode()).hexdigest()
    up = login.SessionUp(known, user, 1001, ["webops"], 9e9, 1e12, 1, scope)
    assert room.sessions.push(up, room.now) == login.Seen(1)


def use(room: Any, text: str = ALL) -> Any:
    policy = parse([("policy.d/10-web.toml", text)], room.services.groups)
    assert isinstance(policy, Policy), policy
    room.desk.policy = policy
    return room


@pytest.fixture
def open_room(room: Any) -> Iterator[Any]:
    """alice may everything, and has a token for a part of it."""
    let_in(use(room))
    return room


def test_each_use_is_recorded_as_the_persons_through_that_token(open_room: Any) -> None:
    assert isinstance(open_room.client().ask(messages.Restart("site"), TOKEN), messages.Accepted)
    record = open_room.decisions()[-1]
    assert (record["user"], record["token"], record["allowed"]) == ("alice", "deploy", True)
    assert record["session"] == KNOWN[:12]
    open_room.client().ask(messages.Restart("site"), ALICE)
    assert "token" not in open_room.decisions()[-1]
    assert not any(TOKEN in str(record) or "a" * 20 in str(record) for record in open_room.records)


def test_another_service_and_another_action_are_refused_in_the_tokens_name(open_room: Any) -> None:
    for command, what in (
        (messages.Restart("jobs"), "restart jobs"), (messages.Stop("site"), "stop site"), (messages.Reload(), "reload"),
        (messages.Restart("nowhere"), "restart nowhere"), (messages.Status("jobs"), "view jobs"),
    ):  # fmt: skip
        told = open_room.client().ask(command, TOKEN)
        text = f"denied: the token 'deploy' is not for that: {what}; it is for view, restart on site"
        assert (told.kind, told.text) == ("forbidden", text)
        assert open_room.decisions()[-1]["token"] == "deploy"
    assert open_room.services.asked == []


def test_a_token_for_a_group_of_services_does_not_tell_which_its_owner_may_not_view_are_in_it(room: Any) -> None:
    use(room, '[[grant]]\nid = "see"\nwho = ["user:alice"]\nmay = ["view", "restart"]\non = ["site"]\n')
    let_in(room, Scope("deploy", ("view", "restart"), ("group:back",)))
    for ask, words in (
        (lambda name: messages.Restart(name), "no service '{}' that you may view"),
        (lambda name: messages.Status(name), "no service '{}' that you may view"),
        (lambda name: messages.WhatMayI("restart", name), "no service '{}' that you may view"),
        (lambda name: messages.Stop(name), "denied: the token 'deploy' is not for that: stop {}; it is for"
         " view, restart on group:back"),
    ):  # fmt: skip
        for name in ("jobs", "site", "nowhere"):  # in the group, not in it, and not there at all
            assert room.client().ask(ask(name), TOKEN).text == words.format(name)
    assert room.services.asked == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(parts=PARTS)
def test_every_command_by_a_token_does_what_its_owner_and_its_scope_allow_and_nothing_else(
    open_room: Any, parts: tuple[set[Any], set[str]]
) -> None:
    scope = Scope("deploy", tuple(sorted(parts[0])), tuple(sorted(parts[1])))
    open_room.sessions.push(login.SessionDown(KNOWN, "expired"), open_room.now)
    let_in(open_room, scope)
    for command in COMMANDS:
        before = done(open_room)
        action = str(DISPATCH[type(command)].action)
        service = getattr(command, "service", None)
        entries = {"site": {"site", "*"}, "jobs": {"group:back", "*"}, None: {"*"}}[service]
        may = action in scope.may and (service is None or not entries.isdisjoint(scope.on))
        if not may:
            told = open_room.client().ask(command, TOKEN)
            by_groups = service is not None and action in scope.may and "group:back" in scope.on
            text = f"no service '{service}' that you may view" if by_groups else "the token 'deploy' is not for that"
            assert (told.kind, text in told.text) == ("unknown" if by_groups else "forbidden", True), command
            assert done(open_room) == before
        elif action in (Action.VIEW, Action.RESTART):
            assert not isinstance(open_room.client().ask(command, TOKEN), messages.Refused)
        for client in open_room.clients:
            client.sock.close()
        open_room.clients.clear()


def test_a_token_sees_what_it_is_for_in_lists_events_and_rights(open_room: Any) -> None:
    ask = open_room.client().ask
    assert [one.name for one in ask(messages.Status(), TOKEN).services] == ["site"]
    told = ask(messages.WhatMayI(), TOKEN)
    assert (told.token, told.user) == ("deploy", "alice")
    assert [(right.service, right.actions) for right in told.rights] == [("site", ["view", "restart"])]
    assert ask(messages.WhatMayI("stop", "site"), TOKEN).allowed is False
    watcher = open_room.client()
    assert isinstance(watcher.ask(messages.Watch(), TOKEN), messages.Watching)
    open_room.services.changed("jobs")
    assert watcher.quiet()
    open_room.services.changed("site")
    assert watcher.receive().service == "site"


def test_a_token_whose_owner_loses_the_right_has_lost_it_too(open_room: Any) -> None:
    use(open_room, '[[grant]]\nid = "see"\nwho = ["user:alice"]\nmay = ["view"]\non = ["site"]\n')
    told = open_room.client().ask(messages.Restart("site"), TOKEN)
    assert (told.kind, "no rule lets alice restart site" in told.text) == ("forbidden", True)


TWO = """
[[grant]]
id = "two"
who = ["user:alice"]
may = ["view", "restart", "stop"]
on = ["site"]
approval = { by = ["user:carol"], within = "10m" }
"""


def test_a_token_asks_for_approval_within_its_scope_and_neither_gives_nor_sees_others(room: Any) -> None:
    let_in(use(room, TWO))
    room.login(CAROL, "carol", 1004, [])
    let_in(room, Scope("lead", ("view", "restart"), ("*",)), "durward_" + "c" * 64, "carol")
    ask = lambda command, who: room.client().ask(command, who)  # noqa: E731
    assert isinstance(ask(messages.Stop("site"), ALICE), messages.Waits)
    assert ask(messages.Stop("site"), TOKEN).kind == "forbidden"
    assert isinstance(ask(messages.Restart("site"), TOKEN), messages.Waits)
    assert [one.number for one in ask(messages.ListApprovals(), TOKEN).approvals] == [2]
    assert [one.number for one in ask(messages.ListApprovals(), ALICE).approvals] == [1, 2]
    assert ask(messages.ListApprovals(), "durward_" + "c" * 64).approvals == []
    assert "the token 'lead' is not for that" in ask(messages.Approve(2), "durward_" + "c" * 64).text
    assert ask(messages.Withdraw(1), TOKEN).kind == "unknown"
    assert isinstance(ask(messages.Approve(2), CAROL), messages.Done)
    assert room.services.asked[0][:2] == ("restart", "site")
    assert room.decisions()[-1]["token"] == "deploy"


def test_wrong_tokens_make_their_source_wait_and_are_recorded_now_and_then(open_room: Any) -> None:
    def knock(number: int, source: str = "198.51.100.7") -> Any:
        request = messages.Request(1, messages.Status(), f"durward_{number:064x}", source)
        return open_room.desk.admission.session(request)

    found = [knock(number) for number in range(30)]
    assert [one.kind for one in found] == ["no-session"] * 10 + ["later"] * 20
    assert found[-1].text.startswith("too many wrong tokens came from there: try again in ")
    assert knock(99, "203.0.113.1").kind == "no-session"
    records = [record for record in open_room.records if record["kind"] == "token"]
    assert [record["why"] for record in records] == ["no such token (1 such so far)", "no such token (10 such so far)"]
    assert records[0]["from"] == "198.51.100.7"


def test_nobody_keeps_a_right_token_out_by_sending_wrong_ones_from_where_it_is_used(open_room: Any) -> None:
    for source in ("198.51.100.7", "127.0.0.1", "unix:1001", ""):
        asked = [messages.Request(1, messages.Status(), f"durward_{number:064x}", source) for number in range(60)]
        assert open_room.desk.admission.session(asked[0]).kind == "no-session"
        assert [open_room.desk.admission.session(one).kind for one in asked][-1] == "later"
        right = messages.Request(1, messages.Status(), TOKEN, source)  # for the first time from there
        assert open_room.desk.admission.session(right).identity.user == "alice"


def test_a_token_that_is_no_more_is_a_401_of_its_own_words(open_room: Any) -> None:
    open_room.sessions.push(login.SessionDown(KNOWN, "revoked"), open_room.now)
    told = open_room.client().ask(messages.Status(), TOKEN)
    assert (told.kind, told.text) == ("no-session", "there is no such token: it was revoked, has expired, or never was")


def test_revoking_somebody_tells_how_many_tokens_went_with_his_sessions(open_room: Any) -> None:
    told = open_room.client().ask(messages.Revoke("alice"), BOB)
    assert told.kind == "forbidden"
    told = open_room.client("root").ask(messages.Revoke("alice"), "")
    assert told == messages.Done("1 session and 1 personal token of alice ended")
    assert open_room.client().ask(messages.Status(), TOKEN).kind == "no-session"


def test_who_has_no_session_hears_whether_the_audit_log_is_in_trouble_and_nothing_else(room: Any) -> None:
    assert room.client().ask(messages.Status(), "").trouble is False
    room.log_answers = 28
    room.client().ask(messages.Status(), ALICE)
    room.settle()
    told = room.client().ask(messages.Status(), "")
    assert (told.kind, told.trouble) == ("no-session", True)


def test_a_stop_that_would_reach_further_needs_the_token_for_each(room: Any) -> None:
    room.services.above = {"site": ["jobs"]}
    let_in(use(room), Scope("deploy", ("view", "stop"), ("site",)))
    told = room.client().ask(messages.Stop("site", with_dependants=True), TOKEN)
    assert told.kind == "forbidden"
    assert told.text == "denied: it would stop another service too, and neither may this token of alice stop that"
    assert room.services.asked == []
