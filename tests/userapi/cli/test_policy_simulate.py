"""durward policy simulate: a log against another policy."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policy import messages
from userapi.cli import accounts, policy_simulate
from userapi.cli.__main__ import main
from userapi.cli.failure import Failure

RULES = '[[grant]]\nid = "g"\nwho = ["group:webops"]\nmay = ["view"]\non = ["site"]\n'
Run = Callable[..., tuple[int, str, str]]


def line(n: int, **more: Any) -> str:
    record = {
        "n": n, "time": f"2026-11-23T12:{n:02}:00.000000Z", "kind": "decision", "user": "alice", "uid": 1001,
        "session": "5e55", "from": "", "action": "restart", "command": "restart", "target": "site", "allowed": True,
        "rule": "g", "why": "", **more,
    }  # fmt: skip
    return json.dumps(record, separators=(",", ":")) + "\n"


LOG = [line(0, kind="login", groups=["webops"]), line(1), line(2), line(3, action="view"), line(4, session="lost")]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    (tmp_path / "policy.toml").write_text(RULES)
    (tmp_path / "audit.jsonl").write_text("".join(LOG))

    def done(*words: str, log: str = "audit.jsonl") -> tuple[int, str, str]:
        given = str(tmp_path / log) if log != "-" else log
        code = main(["policy", "simulate", given, str(tmp_path / "policy.toml"), *words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return done


def test_what_would_change_and_what_cannot_be_known(run: Run, tmp_path: Path) -> None:
    code, out, err = run()
    assert code == 0
    assert out.splitlines() == [
        f"4 decisions by {tmp_path}/policy.toml: 1 the same, 3 others",
        "  alice restart site: allowed, now denied; 3 times, first record 1, 2026-11-23T12:01:00.000000Z",
        "    denied: no rule lets alice restart site",
    ]
    assert err == f"{policy_simulate.LIMITS}\n"
    assert run("--exit-code")[0] == 1


def test_as_json_all_of_it(run: Run) -> None:
    told = json.loads(run("--json")[1])
    assert (told["decided"], told["same"]) == (4, 1)
    assert told["changes"][0]["times"] == 3


def test_groups_are_asked_of_this_machine_where_it_is_wanted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not known" not in run()[1], "no rule of it is about restart, whatever the groups"
    assert policy_simulate._groups_of("nobody-at-all-here") is None
    monkeypatch.setattr(accounts, "groups_of", lambda user: ["webops"])
    assert policy_simulate._groups_of("alice") == ["webops"]


def test_what_the_log_does_not_say_is_not_guessed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "views.jsonl").write_text(line(4, session="lost", action="view") + line(5, action="self"))
    _, out, _ = run(log="views.jsonl")
    assert out.startswith("no decision by ")
    assert "not known: 1 depend on groups of the person" in out
    assert "left out: 1 about the asker himself" in out
    monkeypatch.setattr(accounts, "groups_of", lambda user: ["webops"])
    assert "1 decision by" in run("--local-groups", log="views.jsonl")[1]


def test_a_span_of_it(run: Run) -> None:
    assert json.loads(run("--from", "3", "--to", "3", "--json")[1])["unknown"] != {}, "the login is before it"
    assert json.loads(run("--to", "1", "--json")[1])["decided"] == 1


def test_many_kinds_of_changes_are_cut_for_people(run: Run, tmp_path: Path) -> None:
    (tmp_path / "many.jsonl").write_text("".join(line(n, user=f"user{n}") for n in range(30)))
    assert f"and {30 - policy_simulate.SHOWN} more kinds" in run(log="many.jsonl")[1]
    assert "alice" not in run(log="many.jsonl")[1]


def test_a_single_change_is_told_as_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text(line(7))
    assert "now denied; once, record 7" in run(log="one.jsonl")[1]


@pytest.mark.parametrize(("log", "code", "text"), [("gone", 2, "cannot be read"), (".", 0, "4 decisions")])
def test_files_and_folders(run: Run, log: str, code: int, text: str) -> None:
    ended, out, err = run(log=log)
    assert ended == code
    assert text in out + err


def test_a_folder_without_a_log_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run(log="empty")
    assert (code, "there is no audit log in" in err) == (2, True)


def test_the_running_log_is_asked_for(alice: Any, world: Any, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(RULES)
    (tmp_path / "log").write_text("".join(LOG))

    def opened(command: messages.OpenAudit) -> Any:
        if command.rotated:
            return messages.Refused(kind="unknown", text="none")
        return (messages.LogOpened("", "audit.jsonl", "audit", 1), os.open(tmp_path / "log", os.O_RDONLY))

    world.answers[messages.OpenAudit] = opened
    ended = alice("policy", "simulate", "-", str(tmp_path / "policy.toml"), "--json")
    assert json.loads(ended.stdout)["decided"] == 4


def test_what_breaks_off_while_it_is_told_is_no_fault_of_the_log(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise OSError(5, "it broke")

    monkeypatch.setattr("userapi.cli.audit.lines", broken)
    with pytest.raises(OSError, match="it broke"):
        policy_simulate.simulate(None, *_arguments(run))


def _arguments(run: Run) -> tuple[Any, Any]:
    from types import SimpleNamespace

    from userapi.cli.render import Screen

    assert run()[0] == 0 or Failure
    return Screen(), SimpleNamespace(new=os.devnull, log="x", since="", until="", local_groups=False)
