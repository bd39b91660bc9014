"""The one table: who gets which answer, what is recorded before, and what is done."""

from __future__ import annotations

import errno
import os
import time
from typing import Any, get_args

import pytest

from policy import login, messages
from policy.names import Action
from policy.parse import parse
from policy.rules import Policy
from rootd.supervisor.auditing import KEPT, PATIENCE
from rootd.supervisor.dispatch import DISPATCH, in_packets, spoken
from rootd.supervisor.operations import Already, Refusal
from rootd.supervisor.reload import NOBODY

EVERY: dict[type[Any], messages.Command] = {
    messages.Status: messages.Status("site"),
    messages.Describe: messages.Describe("site"),
    messages.Watch: messages.Watch(service="site"),
    messages.OpenLog: messages.OpenLog("site"),
    messages.WhatMayI: messages.WhatMayI(),
    messages.Start: messages.Start("site"),
    messages.Stop: messages.Stop("site"),
    messages.Restart: messages.Restart("site"),
    messages.Signal: messages.Signal("site", "HUP"),
    messages.Reload: messages.Reload(),
    messages.Revoke: messages.Revoke(everyone=True),
    messages.Shutdown: messages.Shutdown(),
}
GLOBAL = {Action.RELOAD, Action.REVOKE, Action.SHUTDOWN}
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
CHANGES = [command for kind, command in EVERY.items() if DISPATCH[kind].changes]


def test_b9_every_command_has_a_row() -> None:
    assert set(DISPATCH) == set(get_args(messages.Command)) == set(EVERY)
    assert {row.action for row in DISPATCH.values()} >= {Action.VIEW, Action.LOGS, Action.SHUTDOWN}


def test_b9_what_changes_something_is_said_to() -> None:
    reads = {messages.Status, messages.Describe, messages.Watch, messages.OpenLog, messages.WhatMayI}
    assert {kind for kind, row in DISPATCH.items() if not row.changes} == reads


@pytest.mark.parametrize("command", EVERY.values(), ids=spoken)
def test_b9_every_command_is_denied_by_an_empty_policy(room: Any, command: messages.Command) -> None:
    room.desk.policy = NOBODY
    reply = room.client().ask(command)
    if isinstance(command, messages.WhatMayI):
        assert reply.rights == []
    else:
        assert reply.kind == ("forbidden" if DISPATCH[type(command)].action in GLOBAL else "unknown")
        assert room.decisions()[0]["allowed"] is False
    assert room.services.asked == []
    assert room.sent == []
    assert room.told == []


def test_b9_an_empty_policy_shows_nothing(room: Any) -> None:
    room.desk.policy = NOBODY
    client = room.client()
    assert client.ask(messages.Status()) == messages.Services([])
    client.send(messages.Watch())
    room.settle()
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
    room.desk.policy = NOBODY
    (room.path / "log" / "site.0").mkdir()
    (room.path / "log" / "site.0" / "stdout.log").write_text("x")
    client = room.client("root")
    client.send(command, "")
    if isinstance(command, messages.Watch):
        assert client.quiet()
    else:
        assert not isinstance(client.receive(), messages.Refused)
    assert room.decisions()[0]["user"] == "root"
    assert room.decisions()[0]["rule"] == ("" if isinstance(command, messages.WhatMayI) else "root")


def test_root_may_restart_our_own_api_and_nobody_else_knows_of_it(room: Any) -> None:
    assert isinstance(room.client("root").ask(messages.Restart("durward-api"), ""), messages.Accepted)
    assert room.client().ask(messages.Restart("durward-api")).kind == "unknown"


# -- forbidden and unknown ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [messages.Status, messages.Describe, messages.Watch, messages.OpenLog, messages.Start, messages.Stop,
     messages.Restart, messages.Signal],
    ids=lambda kind: kind.__name__,
)  # fmt: skip
def test_b10_what_one_may_not_view_is_answered_like_what_does_not_exist(room: Any, kind: Any) -> None:
    more = {"signal": "HUP"} if kind is messages.Signal else {}
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


# -- the audit log -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", CHANGES, ids=spoken)
def test_nothing_is_done_before_its_record_is_on_disk(room: Any, command: messages.Command) -> None:
    room.log_answers = None
    client = room.client("root")
    client.send(command, "")
    assert client.quiet()
    assert (room.services.asked, room.sent, room.told) == ([], [], [])
    assert room.decisions()[0]["allowed"] is True
    room.log_answers = 0
    assert not isinstance(client.receive(), messages.Refused)


@pytest.mark.parametrize(
    "command", [command for kind, command in EVERY.items() if not DISPATCH[kind].changes], ids=spoken
)
def test_what_only_reads_is_recorded_and_waits_for_nothing(room: Any, command: messages.Command) -> None:
    room.log_answers = None
    (room.path / "log" / "site.0").mkdir()
    (room.path / "log" / "site.0" / "stdout.log").write_text("x")
    client = room.client()
    client.send(command)
    assert client.quiet() == isinstance(command, messages.Watch)
    assert room.decisions()[0]["allowed"] is True


@pytest.mark.parametrize("way", ["away", "full disk", "dies", "hangs"])
@pytest.mark.parametrize("command", CHANGES, ids=spoken)
def test_e4_what_cannot_be_recorded_is_not_done(room: Any, tokens: Any, command: messages.Command, way: str) -> None:
    token = tokens[1] if DISPATCH[type(command)].action in GLOBAL else tokens[0]
    room.log_is_there = way != "away"
    room.log_answers = errno.ENOSPC if way == "full disk" else None
    client = room.client()
    client.send(command, token)
    room.settle()
    if way == "dies":
        room.audit.lost()
    elif way == "hangs":
        room.pass_time(PATIENCE)
    reply = client.receive()
    assert reply.kind == "later"
    assert reply.text.startswith("the audit log cannot be written: ")
    assert reply.text.endswith("; nothing was done")
    assert (room.services.asked, room.sent, room.told) == ([], [], [])
    room.log_is_there, room.log_answers = True, 0
    room.audit.linked()
    room.settle()
    assert [outcome["ok"] for outcome in room.outcomes()][-1:] == [False]
    assert room.outcomes()[-1]["result"].startswith("not begun: ")
    assert (room.services.asked, room.sent, room.told) == ([], [], []), "nor later"


@pytest.mark.parametrize("command", CHANGES, ids=spoken)
def test_e4_root_may_still_stop_things(room: Any, command: messages.Command) -> None:
    room.log_is_there = False
    reply = room.client("root").ask(command, "")
    assert isinstance(reply, messages.Accepted) == isinstance(command, messages.Stop | messages.Shutdown)


def test_e4_where_the_settings_say_so_it_goes_on_unrecorded(room: Any) -> None:
    room.desk.goes_on = True
    room.log_is_there = False
    assert isinstance(room.client().ask(messages.Start("site")), messages.Accepted)


def test_reads_are_refused_too_when_records_pile_up(room: Any) -> None:
    room.log_answers = None
    for _ in range(KEPT // 2):
        room.audit.record({})
    assert room.client().ask(messages.Status()).kind == "later"
    room.log_is_there = False
    assert isinstance(room.client("root").ask(messages.Stop("site"), ""), messages.Accepted)


def test_a_decision_says_who_from_where_what_and_by_which_rule(room: Any) -> None:
    room.client().ask(messages.Restart("site"))
    record = room.decisions()[0]
    assert len(record.pop("id")) == 16
    assert len(record.pop("session")) == 12
    assert len(record.pop("policy")) == 12
    assert record == {
        "kind": "decision", "user": "alice", "uid": 1001, "from": "198.51.100.7", "action": "restart",
        "command": "restart", "target": "site", "allowed": True, "rule": "ops", "file": "policy.d/10-web.toml",
        "line": 2, "why": "",
    }  # fmt: skip


def test_a_denial_is_recorded_with_its_reason(room: Any, tokens: Any) -> None:
    room.client().ask(messages.Stop("site"), tokens[1])
    assert room.decisions()[0]["allowed"] is False
    assert "no rule lets bob stop site" in room.decisions()[0]["why"]


def test_the_end_of_an_operation_is_recorded_for_each_who_asked(room: Any) -> None:
    number = room.client().ask(messages.Restart("site", hard=True)).operation
    assert room.services.asked == [("restart", "site", True)]
    assert room.outcomes() == []
    room.services.end(number, ok=False)
    outcome = room.outcomes()[0]
    assert outcome["id"] == room.decisions()[0]["id"]
    assert (outcome["operation"], outcome["ok"], outcome["seconds"]) == (number, False, 2.0)
    assert (outcome["action"], outcome["target"], outcome["result"]) == ("restart", "site", "restarted")


def test_an_operation_that_ends_at_once_is_recorded_too(room: Any) -> None:
    room.services.ends_at_once = True
    room.client().ask(messages.Signal("site", "HUP"))
    assert room.services.asked == [("signal", "site", "HUP")]
    assert [outcome["ok"] for outcome in room.outcomes()] == [True]


def test_what_cannot_be_done_now_is_refused_and_recorded(room: Any) -> None:
    room.services.refusal = Refusal("not-running", "site does not run")
    reply = room.client().ask(messages.Stop("site"))
    assert reply == messages.Refused("not-running", "site does not run")
    assert room.outcomes()[0]["result"] == "site does not run"
    assert room.outcomes()[0]["ok"] is False


def test_what_is_so_already_is_done(room: Any) -> None:
    room.services.refusal = Already("site runs already")
    assert room.client().ask(messages.Start("site")) == messages.Done("site runs already")
    assert room.outcomes()[0]["ok"] is True


# -- after the wait ----------------------------------------------------------------------------------------------


def test_a14_a_session_that_ended_while_the_record_was_written_does_nothing(room: Any, tokens: Any) -> None:
    room.log_answers = None
    client = room.client()
    client.send(messages.Start("site"))
    room.settle()
    room.sessions.revoke("alice", room.now)
    room.log_answers = 0
    assert client.receive().kind == "no-session"
    assert room.services.asked == []
    assert room.outcomes()[0]["result"] == "not begun: the session is over"


@pytest.mark.parametrize("change", ["policy", "groups", "service"])
def test_a13_a_right_that_was_lost_while_the_record_was_written_does_nothing(
    room: Any, tokens: Any, change: str
) -> None:
    room.log_answers = None
    client = room.client()
    client.send(messages.Start("site"))
    room.settle()
    if change == "policy":
        room.desk.policy = NOBODY
    elif change == "groups":
        room.login(tokens[0], "alice", 1001, [])
    else:
        del room.services.groups["site"]
    room.log_answers = 0
    assert client.receive().kind == "unknown"
    assert room.services.asked == []
    assert [decision["allowed"] for decision in room.decisions()] == [True, False]


def test_a_use_is_told_to_auth_now_and_then(room: Any) -> None:
    client = room.client()
    client.ask(messages.WhatMayI())
    room.now += 31.0
    client.ask(messages.WhatMayI())
    assert [type(pull) for pull in room.told] == [login.Touched]


# -- each answer -------------------------------------------------------------------------------------------------


def test_status_of_a_thousand_services_comes_in_packets_and_quickly(room: Any) -> None:
    names = {f"service-{number}": () for number in range(1000)}
    room.services.groups = names
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


def test_a_service_of_very_many_processes_still_fits_into_a_packet() -> None:
    many = [messages.ProcessInfo(f"site:{n}", "RUNNING", n, "2026", text="x" * 100) for n in range(1024)]
    packets = list(in_packets(iter([messages.ServiceInfo("site", "RUNNING", "up", many, text="so be it")])))
    assert [len(packet) for packet in packets] == [1]
    shown = packets[-1][0]
    assert len(shown.processes) == 100
    assert shown.text == "1024 processes, of which 100 are shown. so be it"


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
    (room.path / "log" / "jobs").mkdir()
    (room.path / "log" / "jobs" / "stdout.log").write_bytes(b"x")
    client = room.client()
    assert client.ask(messages.OpenLog("jobs")).process == "jobs"
    other = client.ask(messages.OpenLog("site", process="jobs"))
    assert (other.kind, other.text) == ("unknown", "'site' has no process 'jobs': it has site:0, site:1")
    missing = client.ask(messages.OpenLog("jobs", rotated=3))
    assert (missing.kind, missing.text) == ("unknown", "there is no such log of 'jobs': No such file or directory")
    (room.path / "log" / "jobs" / "stderr.log").mkdir()
    assert "is not a file" in client.ask(messages.OpenLog("jobs", "stderr")).text


def test_sessions_are_revoked_at_once_and_auth_is_told(room: Any, tokens: Any) -> None:
    client = room.client()
    assert client.ask(messages.Revoke("alice"), tokens[1]) == messages.Done("1 sessions ended")
    assert room.told == [login.RevokeSessions("alice")]
    assert client.ask(messages.WhatMayI()).kind == "no-session"
    room.auth_is_there = False
    reply = client.ask(messages.Revoke(everyone=True), tokens[1])
    assert reply.text == "2 sessions ended; auth is being started again and will be told"
    assert client.ask(messages.WhatMayI(), tokens[1]).kind == "no-session"
    assert len(room.outcomes()) == 2


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
