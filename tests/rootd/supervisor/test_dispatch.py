"""The one table: who gets which answer, what is recorded before, and what is done."""

from __future__ import annotations

import errno
import os
import time
from typing import Any, get_args

import msgspec
import pytest
from second_person import waiting

from policy import login, messages
from policy.names import Action
from policy.parse import parse
from policy.rules import Policy
from rootd.supervisor import sessions
from rootd.supervisor.desk import spoken
from rootd.supervisor.dispatch import DISPATCH
from rootd.supervisor.reload import NOBODY

EVERY: dict[type[Any], messages.Command] = {
    messages.Status: messages.Status("site"),
    messages.Describe: messages.Describe("site"),
    messages.Watch: messages.Watch(service="site"),
    messages.ListOperations: messages.ListOperations("site"),
    messages.OpenLog: messages.OpenLog("site"),
    messages.ClearLog: messages.ClearLog("site"),
    messages.ReopenLog: messages.ReopenLog("site"),
    messages.OpenAudit: messages.OpenAudit(),
    messages.ReadPolicy: messages.ReadPolicy(),
    messages.WhatMayI: messages.WhatMayI(),
    messages.Start: messages.Start("site"),
    messages.Stop: messages.Stop("site"),
    messages.Restart: messages.Restart("site"),
    messages.Signal: messages.Signal("site", "HUP"),
    messages.Enable: messages.Enable("site"),
    messages.Disable: messages.Disable("site"),
    messages.Scale: messages.Scale("site", 3),
    messages.Cancel: messages.Cancel(1),
    messages.ListApprovals: messages.ListApprovals(),
    messages.Approve: messages.Approve(1),
    messages.Withdraw: messages.Withdraw(1),
    messages.Reload: messages.Reload(),
    messages.Revoke: messages.Revoke(everyone=True),
    messages.Shutdown: messages.Shutdown(),
    messages.Upgrade: messages.Upgrade(),
}
GLOBAL = {Action.AUDIT, Action.POLICY, Action.RELOAD, Action.REVOKE, Action.SHUTDOWN, Action.APPROVE}
DENY = """
[[grant]]
id = "all"
who = ["user:alice"]
may = ["view", "restart"]
on = ["*"]
[[deny]]
id = "never"
who = ["user:alice"]
may = ["restart"]
on = ["site"]
"""


def test_b9_every_command_has_a_row() -> None:
    assert set(DISPATCH) == set(get_args(messages.Command)) == set(EVERY)
    assert {row.action for row in DISPATCH.values()} >= {Action.VIEW, Action.LOGS, Action.SHUTDOWN}


def test_b9_what_changes_something_is_said_to() -> None:
    reads = {
        messages.Status, messages.Describe, messages.Watch, messages.ListOperations, messages.OpenLog,
        messages.OpenAudit, messages.ReadPolicy, messages.WhatMayI, messages.ListApprovals,
    }  # fmt: skip
    assert {kind for kind, row in DISPATCH.items() if not row.changes} == reads


@pytest.mark.parametrize("command", EVERY.values(), ids=spoken)
def test_b9_every_command_is_denied_by_an_empty_policy(room: Any, command: messages.Command) -> None:
    room.desk.policy = NOBODY
    reply = room.client().ask(command)
    if isinstance(command, messages.WhatMayI):
        assert reply.rights == []
    elif isinstance(command, messages.ListApprovals):
        assert reply.approvals == []
    else:
        assert reply.kind == ("forbidden" if DISPATCH[type(command)].action in GLOBAL else "unknown")
        assert room.decisions()[0]["allowed"] is False
    assert (room.services.asked, room.sent, room.told) == ([], [], [])


def test_b9_an_empty_policy_shows_nothing(room: Any) -> None:
    room.desk.policy = NOBODY
    client = room.client()
    assert client.ask(messages.Status()) == messages.Services([], version="0.1")
    assert client.ask(messages.Watch()) == messages.Watching(0)
    room.services.changed("site")
    assert client.quiet()


@pytest.mark.parametrize("command", EVERY.values(), ids=spoken)
@pytest.mark.parametrize("session", ["", "f" * 64], ids=["none", "unknown"])
def test_a_command_without_a_session_does_nothing_and_says_nothing(
    room: Any, command: messages.Command, session: str
) -> None:
    reply = room.client().ask(command, session)
    assert (reply.kind, reply.text) == ("no-session", "log in first: there is no such session")
    assert (room.services.asked, room.records, room.sent) == ([], [], [])


@pytest.mark.parametrize("command", EVERY.values(), ids=spoken)
def test_a8_a_session_that_auth_no_longer_confirms_is_refused(room: Any, command: messages.Command) -> None:
    room.now += 180.0
    assert room.client().ask(command).kind == "no-session"
    assert room.services.asked == []


def test_a6_who_asks_is_the_sessions_person_whatever_else_is_said(room: Any, tokens: Any) -> None:
    room.client().ask(messages.Start("site"), tokens[0])
    assert room.decisions()[0]["user"] == "alice"
    assert room.decisions()[0]["uid"] == 1001


def test_root_sock_takes_no_session(room: Any, tokens: Any) -> None:
    assert room.client("root").ask(messages.Status(), tokens[0]).kind == "invalid"


@pytest.mark.parametrize("command", EVERY.values(), ids=spoken)
def test_root_may_do_everything_whatever_the_policy_says(room: Any, command: messages.Command) -> None:
    room.services.operations.begin("restart", "site", "", 0.0)  # which Cancel is about
    room.desk.approvals.add(waiting)
    room.desk.policy = NOBODY
    (room.path / "log" / "site.0").mkdir()
    (room.path / "log" / "site.0" / "stdout.log").write_text("x")
    client = room.client("root")
    client.send(command, "")
    told = client.receive()  # alice may do nothing here, so nothing of hers is done
    assert not isinstance(told, messages.Refused) or told.text.startswith("approved, and alice's")
    assert room.decisions()[0]["user"] == "root"
    about_root = isinstance(command, messages.WhatMayI | messages.ListApprovals)
    assert room.decisions()[0]["rule"] == ("" if about_root else "root")


def test_root_may_restart_our_own_api_and_nobody_else_knows_of_it(room: Any) -> None:
    assert isinstance(room.client("root").ask(messages.Restart("durward-api"), ""), messages.Accepted)
    assert room.client().ask(messages.Restart("durward-api")).kind == "unknown"


# -- forbidden and unknown ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [messages.Status, messages.Describe, messages.Watch, messages.ListOperations, messages.OpenLog, messages.Start,
     messages.Stop, messages.Restart, messages.Signal, messages.Scale, messages.Enable, messages.Disable,
     messages.ClearLog, messages.ReopenLog],
    ids=lambda kind: kind.__name__,
)  # fmt: skip
def test_b10_what_one_may_not_view_is_answered_like_what_does_not_exist(room: Any, kind: Any) -> None:
    more = {messages.Signal: {"signal": "HUP"}, messages.Scale: {"processes": 3}}.get(kind, {})
    client = room.client()
    hidden, missing = (client.ask(kind(service=name, **more)) for name in ("vault", "vapor"))
    assert missing.text == "no service 'vapor' that you may view"
    assert hidden == messages.Refused("unknown", missing.text.replace("vapor", "vault"))


def test_b10_one_who_may_view_is_told_why_not_and_what_would_help(room: Any, tokens: Any) -> None:
    reply = room.client().ask(messages.Restart("site"), tokens[1])
    assert reply.kind == "forbidden"
    assert reply.text.startswith("denied: no rule lets bob restart site")
    assert reply.would_help == ["ops (10-web.toml:2), through group webops"]


def test_a_deny_names_its_rule_file_and_line(room: Any, tokens: Any) -> None:
    found = parse([("policy.d/10-web.toml", DENY)], room.services.groups)
    assert isinstance(found, Policy)
    room.desk.policy = found
    reply = room.client().ask(messages.Restart("site"))
    assert (reply.kind, reply.rule, reply.file) == ("forbidden", "never", "policy.d/10-web.toml")
    assert reply.line > 0


def test_b10_status_and_rights_are_ones_own_alone(room: Any, tokens: Any) -> None:
    client = room.client()
    assert [info.name for info in client.ask(messages.Status()).services] == ["site", "jobs"]
    rights = client.ask(messages.WhatMayI())
    assert (rights.user, rights.uid, rights.groups) == ("alice", 1001, ["webops"])
    assert [right.service for right in rights.rights] == ["jobs", "site"]
    assert rights.expires == "at 9e+09"
    assert [right.service for right in client.ask(messages.WhatMayI(), tokens[1]).rights] == ["", "site"]
    assert client.ask(messages.WhatMayI(), tokens[2]).rights == []
    assert room.client("root").ask(messages.WhatMayI(), "").expires == ""


def test_a_wildcard_grant_on_what_does_not_exist_is_unknown_and_not_done(room: Any) -> None:
    assert room.client("root").ask(messages.Start("vapor"), "").kind == "unknown"
    assert room.services.asked == []
    assert room.decisions()[0]["allowed"] is False


def test_why_is_explained_for_oneself(room: Any) -> None:
    client = room.client()
    yes = client.ask(messages.WhatMayI("restart", "site"))
    assert (yes.allowed, yes.rule) == (True, "ops")
    assert client.ask(messages.WhatMayI("shutdown")).allowed is False
    hidden, missing = (client.ask(messages.WhatMayI("restart", name)) for name in ("vault", "vapor"))
    assert hidden.text.replace("vault", "vapor") == missing.text
    assert client.ask(messages.WhatMayI(service="site")).kind == "invalid"


# -- each answer -------------------------------------------------------------------------------------------------


def test_status_of_a_thousand_services_comes_in_packets_and_quickly(room: Any) -> None:
    room.services.groups = names = {f"service-{number}": () for number in range(1000)}
    client = room.client("root")
    begun = time.perf_counter()
    client.send(messages.Status(), "")
    found: list[str] = []
    packets = 0
    while True:
        reply = client.receive()
        packets += 1
        found += [info.name for info in reply.services]
        if not reply.more:
            break
    assert found == list(names)
    assert packets > 2
    assert time.perf_counter() - begun < 2.0
    assert len(room.decisions()) == 1


@pytest.mark.parametrize("processes", [1, 75, 300, 1024])
@pytest.mark.parametrize("text", ["", "\U0001f600" * 200], ids=["quiet", "talking"])
def test_a_service_of_very_many_processes_that_talk_is_listed_and_described(
    room: Any, monkeypatch: pytest.MonkeyPatch, processes: int, text: str
) -> None:
    """A text is at most 200 characters, of four bytes each."""
    room.services.processes["jobs"] = [f"jobs:{number}" for number in range(processes)]
    found = room.services.info("jobs")
    told = [msgspec.structs.replace(one, text=text, exit="e" * 100) for one in found.processes]
    exits = ["2026-11-23T12:00:00Z exit status 1"] * 10 * processes
    info = msgspec.structs.replace(found, processes=told)
    monkeypatch.setattr(room.services, "info", lambda name: info)
    monkeypatch.setattr(room.services, "description", lambda name: messages.Description(info, {}, [], exits))
    listed, described = room.client().ask(messages.Status("jobs")), room.client().ask(messages.Describe("jobs"))
    for shown in (listed.services[0], described.service):
        count = len(shown.processes)
        assert shown.processes == told[:count]
        assert shown.text == ("" if count == processes else f"{processes} processes, of which {count} are shown. ")
        assert count >= min(processes, 40)
    assert described.exits == exits[: len(described.exits)]
    assert len(described.exits) >= min(10 * processes, 400)


def test_b10_operations_are_listed_to_those_who_may_view_their_service(room: Any, tokens: Any) -> None:
    alice, root = room.client(), room.client("root")
    alice.ask(messages.Restart("site"))
    room.services.operations.step(room.services.operations.find(1), "starting")
    root.ask(messages.Start("vault"), "")
    room.client().ask(messages.Shutdown(), tokens[1])
    room.services.operations.begin("stop", "jobs", "", 0.0)
    [first, last] = alice.ask(messages.ListOperations()).operations
    since = "2026-11-23T12:00:00Z"
    assert first == messages.OperationInfo(1, "restart", "site", "alice", 0, since, "starting")
    assert (last.service, last.user) == ("jobs", ""), "nobody asked for what follows from something else"
    assert [one.kind for one in room.client().ask(messages.ListOperations(), tokens[1]).operations] == [
        "restart", "shutdown",
    ]  # fmt: skip
    assert [one.number for one in root.ask(messages.ListOperations(), "").operations] == [1, 2, 3, 4]
    assert room.client().ask(messages.ListOperations(), tokens[2]).operations == []


def test_what_has_ended_is_listed_when_that_is_asked_for(room: Any) -> None:
    alice = room.client()
    number = alice.ask(messages.Restart("site")).operation
    room.services.end(number, ok=False)
    assert alice.ask(messages.ListOperations()).operations == []
    [ended] = alice.ask(messages.ListOperations("site", ended=True)).operations
    assert (ended.ok, ended.text, ended.seconds) == (False, "restarted", 2.0)
    assert alice.ask(messages.ListOperations("jobs", ended=True)).operations == []


def test_more_operations_than_fit_into_a_packet_come_in_several(room: Any) -> None:
    for _ in range(1000):
        room.services.operations.begin("start", "site", "", 0.0)
    client = room.client()
    client.send(messages.ListOperations())
    found: list[int] = []
    more = True
    while more:
        reply = client.receive()
        found += [one.number for one in reply.operations]
        more = reply.more
    assert found == list(range(1, 1001))


def test_a_service_is_described(room: Any) -> None:
    assert room.client().ask(messages.Describe("site")).settings == {"user": "www"}


def test_e6_a_log_is_opened_afresh_for_each_grant(room: Any) -> None:
    folder = room.path / "log" / "site.1"
    folder.mkdir()
    (folder / "stderr.log.2").write_bytes(b"one\ntwo\n")
    client = room.client()
    for _ in range(2):
        reply = client.ask(messages.OpenLog("site", "stderr", "site:1", 2))
        assert reply == messages.LogOpened("site", "site:1", "stderr", 8)
    first, second = client.fds
    assert os.read(first, 4) == b"one\n"
    assert os.read(second, 4) == b"one\n"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(first, b"x")


def test_e6_only_the_names_of_the_configuration_become_paths(room: Any) -> None:
    (room.path / "log" / "jobs" / "stderr.log").mkdir(parents=True)
    (room.path / "log" / "jobs" / "stdout.log").write_bytes(b"x")
    client = room.client()
    assert client.ask(messages.OpenLog("jobs")).process == "jobs"
    assert "'site' has no process 'x': it has site:0, site:1" in client.ask(messages.OpenLog("site", process="x")).text
    missing = client.ask(messages.OpenLog("jobs", rotated=3))
    assert (missing.kind, missing.text) == ("unknown", "there is no such log of 'jobs': No such file or directory")
    assert client.ask(messages.OpenLog("site", process="site:1")) == messages.LogOpened("site", "site:1", "stdout", 0)
    for key, value, why in (("target", "journald", "goes elsewhere"), ("stderr", "stdout", "is in that of stdout")):
        room.services.settings = {f"log.{key}": value}
        assert f'{why}, log.{key} = "{value}"' in client.ask(messages.OpenLog("site", "stderr")).text
    room.services.settings = {}
    assert "is not a file" in client.ask(messages.OpenLog("jobs", "stderr")).text


def test_sessions_are_revoked_at_once_and_auth_is_told(room: Any, tokens: Any) -> None:
    client = room.client()
    assert client.ask(messages.Revoke("alice"), tokens[1]) == messages.Done("1 session of alice ended")
    assert room.told == [login.RevokeSessions("alice", 1)]
    assert client.ask(messages.WhatMayI()).kind == "no-session"
    room.auth_is_there = False
    reply = client.ask(messages.Revoke(everyone=True), tokens[1])
    assert reply.text == "2 sessions ended; auth is being started again and will be told"
    assert client.ask(messages.WhatMayI(), tokens[1]).kind == "no-session"
    assert len(room.outcomes()) == 2


def test_a_revocation_that_auth_has_no_room_for_is_refused_and_that_of_everybody_is_not(
    room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "REVOKING_LIMIT", 1)
    client = room.client("root")
    assert isinstance(client.ask(messages.Revoke("alice"), ""), messages.Done)
    assert client.ask(messages.Revoke("eve"), "").kind == "later"
    assert isinstance(client.ask(messages.Revoke(everyone=True), ""), messages.Done)


@pytest.mark.parametrize("command", [messages.Enable("site"), messages.Disable("site")], ids=spoken)
def test_what_starts_with_the_daemon_is_told_when_log_has_it_and_recorded_as_it_went(room: Any, command: Any) -> None:
    word = f"{spoken(command)}d"
    room.log_keeps = None
    client = room.client()
    client.send(command)
    assert client.quiet()
    assert len(room.kept) == 1
    assert room.client().ask(messages.Describe("site")).chosen_by == ""
    room.log_keeps = 0
    assert client.receive() == messages.Done(f"site is {word}")
    assert client.ask(command) == messages.Done(f"site is already {word}")
    assert client.ask(messages.Describe("site")).chosen_by == "alice"
    room.log_keeps = errno.ENOSPC
    refused = client.ask(messages.Enable("jobs"))
    assert (refused.kind, refused.text) == (
        "failed", "jobs was not enabled: it cannot be kept: No space left on device",
    )  # fmt: skip
    assert [(one["action"], one["ok"], one["result"]) for one in room.outcomes()] == [
        ("enable", True, f"site is {word}"), ("enable", True, f"site is already {word}"),
        ("enable", False, refused.text),
    ]  # fmt: skip


def test_the_api_is_nobodys_choice(room: Any) -> None:
    assert room.client("root").ask(messages.Disable("durward-api"), "").kind == "conflict"
    assert room.kept == []


@pytest.mark.parametrize("command", [messages.Revoke(), messages.Revoke("alice", everyone=True)])
def test_a_revoke_says_whom_it_means(room: Any, command: messages.Revoke) -> None:
    assert room.client("root").ask(command, "").kind == "invalid"


def test_a_reload_is_an_operation_that_only_those_with_the_right_may_watch(room: Any, tokens: Any) -> None:
    client = room.client()
    number = client.ask(messages.Reload(dry_run=True), tokens[1]).operation
    assert len(room.sent) == 1
    client.send(messages.Watch(operation=number), tokens[1])
    assert client.receive().text == "reading and checking the files"
    assert room.client().ask(messages.Watch(operation=number)).kind == "unknown"


def test_shutdown_stops_everything(room: Any, tokens: Any) -> None:
    assert isinstance(room.client().ask(messages.Shutdown(), tokens[1]), messages.Accepted)
    assert room.services.asked == [("shutdown", "")]
