"""Services, and the commands on them."""

from __future__ import annotations

import pytest

from policy import messages


def test_services_are_one_object(http):
    told = http.get("/api/v1/services").json
    assert (set(told), told["trouble"]) == ({"services", "version", "trouble"}, "")
    assert [service["name"] for service in told["services"]] == ["site", "worker"]
    assert told["services"][0]["processes"][0] == {
        "name": "site:0",
        "state": "RUNNING",
        "pid": 41,
        "since": "2026-11-23T12:00:00Z",
        "exit": "",
        "text": "",
    }


def test_one_service_may_be_asked_for(http, world):
    http.get("/api/v1/services?service=site")
    assert world.commands() == [messages.Status(service="site")]


def test_a_service_is_described(http, world):
    told = http.get("/api/v1/services/site").json
    assert set(told) == {"service", "settings", "sockets", "exits", "chosen_by", "lost"}
    assert world.commands() == [messages.Describe(service="site")]


@pytest.mark.parametrize(
    ("path", "body", "command"),
    [
        ("services/site/start", None, messages.Start(service="site")),
        ("services/site/stop", {}, messages.Stop(service="site")),
        ("services/site/stop", {"with_dependants": True}, messages.Stop(service="site", with_dependants=True)),
        ("services/site/restart", None, messages.Restart(service="site")),
        ("services/site/restart", {"hard": True}, messages.Restart(service="site", hard=True)),
        ("services/site/signal", {"signal": "HUP"}, messages.Signal(service="site", signal="HUP")),
        ("services/site/scale", {"processes": 5}, messages.Scale(service="site", processes=5)),
        ("reload", None, messages.Reload()),
        ("reload", {"dry_run": True}, messages.Reload(dry_run=True)),
        ("reload", {"shown": "0a" * 16}, messages.Reload(shown="0a" * 16)),
    ],
)
def test_a_command_is_202_with_its_operation(http, world, path, body, command):
    answer = http.post(f"/api/v1/{path}", json=body) if body is not None else http.post(f"/api/v1/{path}")
    assert answer.status_code == 202
    assert answer.json["operation"] == 7
    assert answer.headers["Location"] == "/api/v1/operations/7"
    assert world.commands() == [command]
    waited = http.post(f"/api/v1/{path}?wait=true", json=body or {})
    assert (waited.status_code, waited.json["ok"]) == (200, True)
    assert world.commands()[1:] == [command, messages.Watch(operation=7)]


@pytest.mark.parametrize(("word", "command"), [("enable", messages.Enable), ("disable", messages.Disable)])
def test_what_starts_with_the_daemon_is_chosen_and_answered_when_that_is_kept(http, world, word, command):
    answer = http.post(f"/api/v1/services/site/{word}")
    assert (answer.status_code, answer.json) == (200, {"text": f"site is {word}d"})
    assert world.commands() == [command("site")]
    assert http.get("/api/v1/services").json["services"][0]["enabled"] is True
    world.answers[command] = messages.Refused(kind="failed", text="it cannot be kept: No space left on device")
    assert http.post(f"/api/v1/services/site/{word}").status_code == 500


@pytest.mark.parametrize(("word", "command"), [("clear-log", messages.ClearLog), ("reopen-log", messages.ReopenLog)])
def test_logs_are_cleared_and_reopened_of_all_processes_or_of_one(http, world, word, command):
    assert http.post(f"/api/v1/services/site/{word}").json["text"].startswith("the log")
    assert http.post(f"/api/v1/services/site/{word}", json={"process": "site:1"}).status_code == 200
    assert world.commands() == [command("site"), command("site", "site:1")]
    assert http.post(f"/api/v1/services/site/{word}", json={"process": "../x"}).status_code == 400


@pytest.mark.parametrize(
    ("body", "command"),
    [({"user": "bob"}, messages.Revoke(user="bob")), ({"everyone": True}, messages.Revoke(everyone=True))],
)
def test_a_revocation_is_done_at_once(http, world, body, command):
    answer = http.post("/api/v1/revoke", json=body)
    assert (answer.status_code, answer.json) == (200, {"text": "2 sessions ended"})
    assert world.commands() == [command]


def test_a_shutdown_is_asked_for_as_any_operation_is_and_decided_by_the_supervisor(http, world):
    answer = http.post("/api/v1/shutdown")
    assert (answer.status_code, answer.json["operation"]) == (202, 7)
    assert world.commands() == [messages.Shutdown()]
    world.answers[messages.Shutdown] = messages.Refused(kind="forbidden", text="denied: no rule lets alice shutdown")
    assert http.post("/api/v1/shutdown").status_code == 403


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("services/site/signal", {}),
        ("services/site/signal", {"signal": "hup"}),
        ("services/site/signal", {"signal": "RTMIN"}),
        ("services/site/signal", {"signal": 9}),
        ("services/site/scale", {}),
        ("services/site/scale", {"processes": 0}),
        ("services/site/scale", {"processes": 1025}),
        ("services/site/scale", {"processes": "5"}),
        ("services/site/restart", {"hard": "yes"}),
        ("services/site/restart", {"user": "root"}),
        ("services/site/start", {"x": 1}),
        ("services/site/enable", {"now": True}),
        ("services/site/disable", {"x": 1}),
        ("services/site/stop", []),
        ("reload", {"dry_run": 1}),
        ("reload", {"shown": "anything"}),
        ("revoke", {}),
        ("revoke", {"user": "bob", "everyone": True}),
        ("revoke", {"user": "Bob\n"}),
        ("shutdown", {"now": True}),
    ],
)
def test_a_body_that_is_wrong_is_400_and_asks_nobody(http, world, path, body):
    answer = http.post(f"/api/v1/{path}", json=body)
    assert (answer.status_code, answer.json["kind"]) == (400, "invalid")
    assert world.commands() == []


@pytest.mark.parametrize("name", ["Site", "a b", "..", "a%00", "x" * 64, "site%0a", "%ef%bd%93ite"])
def test_a_name_that_cannot_be_is_unknown_and_asks_nobody(http, world, name):
    answer = http.post(f"/api/v1/services/{name}/stop")
    assert answer.status_code == 404
    assert world.commands() == []


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("no-session", 401),
        ("forbidden", 403),
        ("unknown", 404),
        ("not-running", 409),
        ("conflict", 409),
        ("invalid", 400),
        ("later", 503),
        ("failed", 500),
    ],
)
def test_each_refusal_has_its_status_and_says_all_it_knows(http, world, kind, status):
    world.answers[messages.Stop] = messages.Refused(
        kind=kind, text="no", rule="webops", file="10-web.toml", line=14, would_help=["leads"]
    )
    answer = http.post("/api/v1/services/site/stop")
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    told = answer.json
    assert (told["kind"], told["status"], told["detail"]) == (kind, status, "no")
    assert (told["rule"], told["file"], told["line"], told["would_help"]) == ("webops", "10-web.toml", 14, ["leads"])


def test_an_answer_of_another_kind_is_an_error(http, world):
    for command in (messages.Status, messages.Stop, messages.WhatMayI):
        world.answers[command] = messages.LogOpened(service="a", process="a", stream="stdout", size=1)
    assert http.get("/api/v1/services").status_code == 500
    assert http.post("/api/v1/services/site/stop").status_code == 500
    assert http.get("/api/v1/whoami").status_code == 500
    assert http.get("/api/v1/why?action=view").status_code == 500


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *((f"services/site/{word}", {}) for word in ("start", "stop", "restart", "enable", "disable")),
        ("services/site/signal", {"signal": "HUP"}),
        ("services/site/scale", {"processes": 2}),
        ("reload", {}),
        ("revoke", {"user": "bob"}),
        ("shutdown", {}),
        ("operations/7/cancel", {}),
    ],
)
def test_every_command_takes_a_reason(http, world, path, body):
    assert http.post(f"/api/v1/{path}", json={**body, "reason": "disk full"}).status_code < 300
    assert world.supervisor.asked[-1].reason == "disk full"
    told = http.post(f"/api/v1/{path}", json={**body, "reason": "two\nlines"})
    detail = "reason must be one line of at most 200 characters, not only blanks"
    assert (told.status_code, told.json["detail"]) == (400, detail)
