"""Tables, ages, colours."""

from __future__ import annotations

import pytest

from userapi.cli.failure import Failure
from userapi.cli.render import Screen, age

EVIL = "x\x1b]52;c;AAAA\x07\n\u202ey"


@pytest.fixture
def screen():
    return Screen()


@pytest.mark.parametrize(
    ("since", "now", "expected"),
    [
        ("1970-01-01T00:00:00Z", 59, "59s"),
        ("1970-01-01T00:00:00Z", 61, "1m"),
        ("1970-01-01T00:00:00Z", 2 * 3600 + 5 * 60, "2h05"),
        ("2026-11-23T12:00:00Z", 1795435200 + 86400 * 4, "4d"),
        ("2024-02-29T23:59:59Z", 1709251200, "1s"),
        ("2024-03-01T00:00:00Z", 1709251207, "7s"),
        ("2000-03-01T00:00:00.123Z", 951868801, "1s"),
        ("2099-01-01T00:00:00Z", 0, "0s"),
        ("", 0, ""),
        ("soon", 0, "soon"),
        ("2026-99-23T12:00:00Z", 0, "2026-99-23T12:00:00Z"),
    ],
)
def test_ages(since, now, expected):
    assert age(since, now) == expected


def test_colours_only_where_they_are_wanted(monkeypatch):
    assert not Screen().colour
    assert Screen(color="always").state("FATAL") == "\x1b[31;1mFATAL\x1b[0m"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Screen().colour
    assert not Screen(color="never").colour
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Screen().colour
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not Screen().colour


def test_a_reason_that_names_the_last_exit_says_it_once(screen, capsys):
    given_up = "failed 5 times in 60 s, the last time: exit status 1"
    reasons = (("exit status 1", given_up), ("exit status 1", "ok"), ("", ""))
    for exit_, text in reasons:
        process = {"name": "site", "state": "FATAL", "pid": 0, "since": "", "exit": exit_, "text": text}
        screen.services([{"name": "site", "state": "FATAL", "processes": [process]}])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("site")]
    assert [row.split("-", 1)[1].strip() for row in rows] == [
        "failed 5 times in 60 s, the last time: exit status 1", "exit status 1; ok", "",
    ]  # fmt: skip


def test_what_is_running_did_not_end_as_the_one_before_it(screen, capsys):
    process = {"name": "site", "state": "RUNNING", "pid": 7, "since": "", "exit": "exit status 3", "text": "ok"}
    screen.services([{"name": "site", "state": "RUNNING", "processes": [process]}])
    assert capsys.readouterr().out.rstrip().endswith("before: exit status 3; ok")


def test_what_runs_and_will_not_come_back_is_called_disabled_and_nothing_else_is(screen, capsys):
    for state, enabled in (("RUNNING", False), ("RUNNING", True), ("STOPPED", False), ("EXITED", False)):
        process = {"name": "site", "state": state, "pid": 0, "since": "", "exit": "", "text": "ok"}
        screen.services([{"name": "site", "state": state, "processes": [process], "enabled": enabled}])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("site")]
    assert [row.split("-", 1)[1].strip() for row in rows] == ["ok; disabled", "ok", "ok", "ok"]


def test_what_becomes_of_missed_runs_is_told_of_scheduled_services_alone(screen, capsys):
    process = {"name": "site", "state": "EXITED", "pid": 0, "since": "", "exit": "", "text": ""}
    service = {"name": "site", "state": "EXITED", "wanted": "up", "processes": [process]}
    for more in ({}, {"schedule": "@daily"}):
        screen.description({"service": service, "settings": {"missed": "skip", **more}, "sockets": [], "exits": []})
        assert ("missed" in capsys.readouterr().out) == bool(more)


@pytest.mark.parametrize(
    ("enabled", "by", "line"),
    [(True, "", "enabled  yes, by the configuration"), (False, "alice", "enabled  no, chosen by alice")],
)
def test_a_description_says_whose_choice_it_is_that_it_starts(screen, capsys, enabled, by, line):
    service = {"name": "site", "state": "STOPPED", "wanted": "down", "processes": [], "enabled": enabled}
    screen.description({"service": service, "settings": {}, "sockets": [], "exits": [], "chosen_by": by})
    assert line in capsys.readouterr().out.splitlines()


def test_a_description_says_each_thing_once_and_aligned(screen, capsys):
    service = {"name": "site", "state": "STOPPED", "wanted": "down", "processes": [], "groups": ["web", "eu"]}
    settings = {"groups": '["web", "eu"]', "no_new_privileges": "true", "sockets": '["http"]', "environment": "[]"}
    screen.description({"service": service, "settings": settings, "sockets": ["http"], "exits": []})
    assert capsys.readouterr().out.splitlines()[2:] == [
        "wanted             down", "groups             web, eu", "no_new_privileges  true", "sockets            http",
    ]  # fmt: skip


def test_how_often_is_not_told_of_probes_and_hooks_that_are_not_there(screen, capsys):
    service = {"name": "site", "state": "STOPPED", "wanted": "down", "processes": [], "groups": []}
    alone = {"live.interval": "10s", "live.action": "restart", "hooks.timeout": "30s"}
    screen.description({"service": service, "settings": alone, "sockets": [], "exits": []})
    told = capsys.readouterr().out
    assert not any(key in told for key in alone)
    used = alone | {"live.tcp": "127.0.0.1:80", "hooks.pre_start": '["/srv/check"]'}
    screen.description({"service": service, "settings": used, "sockets": [], "exits": []})
    told = capsys.readouterr().out
    assert all(key in told for key in used)


def test_e2_every_text_from_outside_is_made_harmless(screen, capsys):
    process = {"name": EVIL, "state": EVIL, "pid": 1, "since": EVIL, "exit": EVIL, "text": EVIL}
    service = {"name": EVIL, "state": EVIL, "wanted": EVIL, "processes": [process], "groups": [EVIL], "text": EVIL}
    screen.services([service])
    screen.description({"service": service, "settings": {EVIL: EVIL}, "sockets": [EVIL], "exits": [EVIL]})
    right = {"service": EVIL, "actions": [EVIL]}
    screen.rights({"user": EVIL, "uid": 1, "groups": [EVIL], "expires": EVIL, "rights": [right]})
    screen.problems([{"file": EVIL, "line": 1, "key": EVIL, "text": EVIL, "source": EVIL}])
    screen.failure(Failure("forbidden", EVIL, rule=EVIL, file=EVIL, would_help=[EVIL]))
    screen.progress(EVIL)
    step = {"is": "step", "time": EVIL, "service": EVIL, "operation": 1, "text": EVIL}
    screen.event(step)
    screen.event({"is": "changed", "time": EVIL, "process": EVIL, "state": EVIL, "pid": EVIL, "text": EVIL})
    screen.event({"is": "dropped", "text": EVIL})
    screen.event({"is": "missed", "text": EVIL})
    screen.json({EVIL: EVIL})
    shown = "".join(capsys.readouterr())
    assert not set(shown) & {"\x1b", "\x07", "\u202e"}


def test_a_problem_is_file_line_key_text_and_its_source(screen, capsys):
    problems = [
        {
            "file": "services.d/site.toml",
            "line": 3,
            "key": "service.site.user",
            "text": "no such user",
            "source": ' user = "x"',
        },
        {"file": "policy.d/10.toml", "line": 0, "key": "", "text": "cannot be read"},
    ]
    screen.problems(problems)
    assert capsys.readouterr().err == (
        'services.d/site.toml:3: service.site.user: no such user\n    user = "x"\npolicy.d/10.toml: cannot be read\n'
    )


def test_no_service_and_no_right_are_said(screen, capsys):
    screen.services([])
    screen.rights({"user": "bob", "uid": 2, "groups": [], "expires": "", "rights": []})
    out, err = capsys.readouterr()
    assert "no service that you may view" in err
    assert "no rule allows you anything" in out


def test_a_service_without_processes_is_a_line_too(screen, capsys):
    screen.services([{"name": "job", "state": "STOPPED", "wanted": "down", "processes": [], "text": "changed on disk"}])
    assert capsys.readouterr().out.splitlines()[1].split() == ["job", "STOPPED", "-", "changed", "on", "disk"]


def test_rights_say_what_each_demands_and_by_which_token_they_are_had(capsys):
    right = {"service": "site", "actions": ["view", "stop"], "demands": {"stop": "once group:leads approves"}}
    told = {"user": "alice", "uid": 1, "groups": [], "expires": "then", "token": "deploy", "rights": [right]}
    Screen().rights(told)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "by the token deploy, until then",
        "site: view, stop (once group:leads approves)",
    ]


def test_that_nothing_waits_any_more_is_an_event_of_its_own(capsys):
    Screen().event({"is": "lapsed", "number": 9, "time": "then", "approval": 3, "service": "", "text": "over"})
    assert capsys.readouterr().out == "then the daemon: over\n"
