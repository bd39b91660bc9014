"""status, describe, whoami, why, events."""

from __future__ import annotations

import json

import pytest

from policy import messages


def test_status_shows_a_line_a_process(alice):
    ended = alice("status")
    assert ended.returncode == 0
    assert [line.split()[:3] for line in ended.stdout.splitlines()] == [
        ["NAME", "STATE", "PID"],
        ["site:0", "RUNNING", "41"],
        ["site:1", "RUNNING", "42"],
        ["worker", "FATAL", "-"],
    ]


def test_status_as_json_is_the_documented_object(alice):
    told = json.loads(alice("status", "--json").stdout)
    assert set(told) == {"services"}
    assert set(told["services"][0]) >= {"name", "state", "processes"}
    assert set(told["services"][0]["processes"][0]) >= {"name", "pid", "state", "since"}
    assert json.loads(alice("--json", "status").stdout) == told


@pytest.mark.parametrize(
    ("state", "code"), [("RUNNING", 0), ("STARTING", 0), ("STOPPED", 3), ("EXITED", 3), ("FATAL", 3), ("BACKOFF", 3)]
)
def test_the_status_of_one_service_is_3_when_it_is_not_running(alice, world, state, code):
    service = messages.ServiceInfo(name="site", state=state, wanted="down", processes=[])
    world.answers[messages.Status] = messages.Services(services=[service])
    assert alice("status", "site").returncode == code
    assert world.commands() == [messages.Status(service="site")]


def test_a_service_that_is_not_there_is_4_and_looks_like_one_that_may_not_be_seen(alice, world):
    world.answers[messages.Status] = messages.Refused(kind="unknown", text="no service db that you may view")
    refused = alice("status", "db")
    assert (refused.returncode, refused.stderr) == (4, "no service db that you may view\n")
    world.answers[messages.Status] = messages.Services(services=[])
    assert alice("status", "db").returncode == 4
    assert alice("status", "../x").returncode == 4


def test_no_command_is_status(alice):
    assert alice().stdout == alice("status").stdout


def test_describe_and_whoami(alice):
    assert "www" in alice("describe", "site").stdout
    told = json.loads(alice("describe", "site", "--json").stdout)
    assert set(told) == {"service", "settings", "sockets", "exits", "chosen_by", "lost"}
    assert "site: view, restart" in alice("whoami").stdout
    assert json.loads(alice("whoami", "--json").stdout)["uid"] == 1001


@pytest.mark.parametrize(("allowed", "code"), [(True, 0), (False, 1)])
def test_why_prints_the_reason_and_the_rule_s_place(alice, world, allowed, code):
    world.answers[messages.WhatMayI] = messages.Decided(
        allowed=allowed, text="because", rule="webops", file="10-web.toml", line=14
    )
    ended = alice("why", "restart", "site")
    assert (ended.returncode, ended.stdout) == (code, "because\nthe rule is 'webops', 10-web.toml:14\n")
    assert json.loads(alice("why", "restart", "site", "--json").stdout)["allowed"] is allowed


def test_why_names_no_place_for_what_no_file_says(alice, world):
    world.answers[messages.WhatMayI] = messages.Decided(allowed=True, text="allowed: root may", rule="root")
    assert alice("why", "restart", "site").stdout == "allowed: root may\n"


def test_why_says_which_actions_there_are(alice):
    ended = alice("why", "fly", "site")
    assert ended.returncode == 2
    assert "view, logs, clear, start, stop, restart, signal, " in ended.stderr


@pytest.mark.parametrize("way", [[], ["--root"]], ids=["api", "root"])
def test_why_is_2_for_a_question_that_is_none_and_4_for_a_service_that_is_none(alice, root, world, way):
    for words, text in (
        (["restart"], "restart is about a service: durward why restart SERVICE\n"),
        (["reload", "site"], "reload is about the daemon as a whole: durward why reload\n"),
        (["fly", "site"], "action must be one of the policy's: view, logs, "),
    ):
        ended = alice(*way, "why", *words)
        assert ended.returncode == 2
        assert ended.stderr.startswith(text)
    assert world.commands() == root.asked == []
    world.answers[messages.WhatMayI] = messages.Refused(kind="unknown", text="no service 'db' that you may view")
    ended = alice(*way, "why", "view", "db")
    assert (ended.returncode, ended.stderr) == (4, "no service 'db' that you may view\n")


@pytest.mark.parametrize("way", [(), ("--root",)])
def test_operations_are_shown_with_who_asked_and_how_far_they_are(alice, root, world, way):
    ended = alice(*way, "operations", "--all")
    assert ended.returncode == 0
    assert [line.split() for line in ended.stdout.splitlines()] == [
        ["NUMBER", "KIND", "SERVICE", "USER", "SINCE"],
        ["6", "start", "db", "-", ended.stdout.split()[9], "failed:", "db", "was", "not", "started:", "no"],
        ["7", "restart", "site", "alice", "+2", ended.stdout.split()[9], "starting", "the", "new", "process"],
    ]
    alice(*way, "operations", "site")
    told = json.loads(alice(*way, "operations", "--json").stdout)["operations"]
    assert (told[1]["number"], told[1]["ok"]) == (7, None)
    asked = world.commands() or [request.command for request in root.asked]
    assert asked[:2] == [messages.ListOperations(ended=True), messages.ListOperations(service="site")]


def test_that_nothing_is_under_way_is_said(alice, world):
    world.answers[messages.ListOperations] = messages.Listed([])
    ended = alice("operations")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == "nothing is under way that you may view\n"


def test_events_of_an_operation_end_with_its_outcome(alice, world):
    ended = alice("events", "--operation", "7")
    assert ended.returncode == 0
    assert ended.stdout.splitlines()[-1].endswith("site (operation 7): site restarted")
    failed = messages.Ended(number=1, time=world.now, operation=7, service="site", ok=False, text="no", seconds=1)
    world.answers[messages.Watch] = failed
    as_json = alice("events", "--operation", "7", "--json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["is"] == "ended"


def test_one_command_after_another_is_not_told_that_the_one_before_still_waits(alice, app, world):
    assert app.extensions["durward"].waits._each == 1
    for _ in range(5):
        assert alice("events", "--operation", "7").returncode == 0


def test_events_are_shown_as_they_come(alice, world):
    event = messages.Changed(number=9, time=world.now, service="site", process="site:0", state="RUNNING", pid=4)
    world.answers[messages.Watch] = [event, world.open]
    process = alice.start("events")
    assert process.stdout is not None
    assert process.stdout.readline() == f"{world.now} site:0 RUNNING pid 4\n"
    process.kill()
    process.communicate()


def test_what_is_missing_is_said_beside_the_events_and_is_one_of_them_as_json(alice, world):
    gone = messages.Missed(96, "event 40 is too old: only later ones than event 96 are kept. Look at the status")
    event = messages.Changed(number=98, time=world.now, service="site", process="site:0", state="RUNNING", pid=4)
    world.answers[messages.Watch] = [gone, event, messages.Watching(99), messages.Refused("no-session", "it is over")]
    ended = alice("events", "site", "--after", "40")
    assert ended.stdout == f"{world.now} site:0 RUNNING pid 4\n"
    assert ended.stderr.splitlines()[0] == f"some events are missing: {gone.text}"
    assert world.commands() == [messages.Watch(service="site", after=40)]
    as_json = [json.loads(line) for line in alice("events", "site", "--after", "40", "--json").stdout.splitlines()]
    assert [told.get("is") for told in as_json] == ["missed", "changed", None]
    assert as_json[0] == {"is": "missed", "number": 96, "text": gone.text}


def test_an_operation_is_shown_after_the_step_that_was_seen(alice, world):
    assert alice("events", "--operation", "7", "--after", "1").returncode == 0
    assert world.commands() == [messages.Watch(operation=7, after=1)]


@pytest.mark.parametrize("option", ["--after", "--operation"])
@pytest.mark.parametrize("wrong", ["x", "-1", "9007199254740992", ""])
def test_what_can_be_no_number_is_usage(alice, world, option, wrong):
    ended = alice("events", f"{option}={wrong}")
    assert ended.returncode == 2
    assert f"'{wrong}' is no number of an operation or an event" in ended.stderr
    assert world.commands() == []


@pytest.mark.parametrize(
    ("words", "names", "code"),
    [
        (["group:frontend"], ["site:0", "site:1"], 0),
        (["w*", "site"], ["site:0", "site:1", "worker"], 3),
        (["all"], ["site:0", "site:1", "worker"], 3),
        (["worker", "db"], ["worker"], 4),
    ],
)
def test_the_status_of_several_is_of_those_alone_and_its_code_the_gravest(alice, world, words, names, code):
    ended = alice("status", *words)
    assert ended.returncode == code
    assert [line.split()[0] for line in ended.stdout.splitlines()[1:]] == names
    assert world.commands() == [messages.Status()]


def test_the_status_of_what_is_not_there_says_so_beside_the_rest(alice):
    ended = alice("status", "site", "db", "x*")
    assert (ended.returncode, ended.stderr) == (
        4,
        "no service that you may view is called 'x*'\nno service 'db' that you may view\n",
    )
    told = json.loads(alice("status", "site", "db", "--json").stdout)
    assert [service["name"] for service in told["services"]] == ["site"]
    assert [(error["service"], error["error"]["exit"]) for error in told["errors"]] == [("db", 4)]
    assert alice("status", "group:x").stderr == "no service that you may view is in the group 'x'\n"
