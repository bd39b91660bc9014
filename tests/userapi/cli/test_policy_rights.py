"""who-can, what-can, matrix and diff, as auditors type them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from userapi.cli import accounts
from userapi.cli.__main__ import main

RULES = """
[[grant]]
id = "webops"
who = ["group:webops"]
may = ["view", "restart"]
on = ["group:web"]
reason = true
[[grant]]
id = "leads"
who = ["user:dora"]
may = ["reload"]
[[deny]]
id = "temps"
who = ["group:temps"]
may = ["restart"]
on = ["*"]
"""
SITE = '[service.{0}]\ncommand = ["/srv/{0}"]\nuser = "www"\ngroups = ["web"]\n'
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Words after `durward policy`; a name of a directory of the test's stands for it."""
    write(tmp_path / "now", RULES)

    def done(*words: str) -> tuple[int, str, str]:
        given = [str(tmp_path / word) if word and (tmp_path / word).exists() else word for word in words]
        code = main(["policy", *given])
        told = capsys.readouterr()
        return code, told.out, told.err

    return done


def write(directory: Path, rules: str, *services: str) -> None:
    (directory / "policy.d").mkdir(parents=True)
    (directory / "services.d").mkdir()
    (directory / "policy.d/10.toml").write_text(rules)
    for name in services or ("site", "shop"):
        (directory / f"services.d/{name}.toml").write_text(SITE.format(name))


def test_who_can(run: Run) -> None:
    code, out, err = run("who-can", "restart", "site", "--dir", "now")
    assert code == 0
    assert out.splitlines() == [
        "WHO           IF             UNLESS       RULES",
        "group:webops  with a reason  group:temps  webops (10.toml:2)",
    ]
    assert err.startswith("complete: every name in the rules")
    assert run("who-can", "reload", "--dir", "now")[1].splitlines()[1].startswith("user:dora  always")
    assert run("who-can", "stop", "site", "--dir", "now")[1] == "nobody but root may stop site\n"
    assert "who may agree is said by 'by' of each rule" in run("who-can", "approve", "--dir", "now")[2]
    assert "group:webops" not in run("who-can", "restart", "*", "--dir", "now")[1].splitlines()[0]


def test_who_can_as_json(run: Run) -> None:
    told = json.loads(run("who-can", "restart", "site", "--dir", "now", "--json")[1])
    assert told["rows"] == [
        {
            "who": ["group:webops"], "actions": ["restart"], "services": ["site"], "inside": [],
            "if": ["with a reason"], "unless": [["group:temps"]], "rules": ["webops (10.toml:2)"],
        }
    ]  # fmt: skip
    assert told["whole"] is True
    assert told["complete"].startswith("complete: ")
    assert "people" not in told


def test_which_people_that_are_is_told_by_this_machine_where_it_is_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = {"alice": ["webops"], "bob": ["webops", "temps"], "eve": []}
    monkeypatch.setattr(accounts, "everybody", lambda: people)
    _, out, err = run("who-can", "restart", "site", "--dir", "now", "--local-groups")
    assert out.splitlines()[2:] == ["on this machine: alice (with a reason)"]
    assert "of the people that this machine lists" in err
    told = json.loads(run("who-can", "restart", "site", "--dir", "now", "--local-groups", "--json")[1])
    assert told["people"] == [{"user": "alice", "if": "with a reason"}]


def test_what_can_without_groups_and_with_them(run: Run) -> None:
    _, out, err = run("what-can", "alice", "--dir", "now")
    assert "group:webops  view     every service in group:web  always" in out
    assert "through a group: if alice is in it" in err
    _, out, _ = run("what-can", "alice", "--groups", "webops", "--dir", "now")
    assert out.splitlines()[0].startswith("MAY      ON")
    assert run("what-can", "alice", "--groups", "webops,temps", "--dir", "now")[1].count("restart") == 0
    assert run("what-can", "alice", "--groups", "", "--dir", "now")[1] == "alice, in no group, may do nothing\n"
    told = json.loads(run("what-can", "dora", "--groups", "", "--dir", "now", "--json")[1])
    assert (told["user"], told["groups"], [row["actions"] for row in told["rows"]]) == ("dora", [], [["reload"]])


def test_what_can_by_the_groups_of_this_machine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "groups_of", lambda user: ["webops"])
    assert "restart" in run("what-can", "alice", "--local-groups", "--dir", "now")[1]


def test_the_matrix_as_a_table_as_csv_and_as_json(run: Run) -> None:
    _, out, _ = run("matrix", "--dir", "now")
    assert [line.split("  ")[0] for line in out.splitlines()[1:]] == ["user:dora", "group:webops", "group:webops"]
    rows = list(csv.reader(run("matrix", "--csv", "--dir", "now")[1].splitlines()))
    assert rows[0] == ["who", "may", "on", "if", "unless", "rules"]
    assert ["group:webops", "restart", "shop", "with a reason", "group:temps", "webops (10.toml:2)"] in rows
    assert ["group:webops", "view", "any other service, if in group:web", "always", "", "webops (10.toml:2)"] in rows
    told = json.loads(run("matrix", "--json", "--dir", "now")[1])
    assert len(told["rows"]) == len(rows) - 1


def test_what_is_gained_and_lost(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "new", RULES.replace("reason = true\n", 'limit = "6 in 10m"\n'))
    write(tmp_path / "who", RULES.replace("group:temps", "user:bob"))
    code, out, _ = run("diff", "now", "new")
    assert code == 0
    lines = [line.split("  ")[0] + ": " + line.split()[1] for line in out.splitlines()[1:-1]]
    assert lines[0].startswith("lost")
    assert any(line.startswith("gained") for line in lines)
    assert "now: at most 6 in 10m" in out
    _, swapped, _ = run("diff", "now", "who")
    assert [" ".join(line.split()[:8]) for line in swapped.splitlines()[1:-1]] == [
        "lost user:bob and group:webops at once restart every",
        "gained group:temps and group:webops at once restart every",
    ]
    assert out.splitlines()[-1].startswith(f"from {tmp_path}/now to {tmp_path}/new: ")
    assert run("diff", "now", "new", "--exit-code")[0] == 1
    told = json.loads(run("diff", "now", "new", "--json")[1])
    assert {change["change"] for change in told["changes"]} == {"lost", "gained"}
    assert told["complete"].startswith("complete: ")


def test_a_limit_that_counts_apart_from_now_on_is_gained_by_who_is_both_and_the_help_says_how(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = '[[grant]]\nid = "{}"\nwho = [{}]\nmay = ["restart"]\non = ["site"]\nlimit = "6 in 10m"\n'
    write(tmp_path / "together", rule.format("r", '"group:a", "group:b"'))
    write(tmp_path / "apart", rule.format("r", '"group:a"') + rule.format("s", '"group:b"'))
    code, out, _ = run("diff", "together", "apart", "--exit-code")
    assert code == 1
    (line,) = out.splitlines()[1:-1]
    told = ["gained", "group:a and group:b at once", "restart", "site", "at most 6 in 10m (by another rule)"]
    assert [cell.strip() for cell in line.split("  ") if cell.strip()] == told
    for word in ("diff", "matrix"):
        with pytest.raises(SystemExit):
            main(["policy", word, "--help"])
        assert "A limit is counted by rule" in capsys.readouterr().out


def test_where_nothing_changes_that_is_said(run: Run) -> None:
    code, out, _ = run("diff", "now", "now", "--exit-code")
    assert (code, out.endswith(": no right is gained or lost\n")) == (0, True)


def test_policy_files_alone_are_compared_by_the_services_of_the_other_side(run: Run, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/10.toml").write_text(RULES)
    for words in (("now", "files"), ("files", "now")):
        assert run("diff", *words)[1].endswith(": no right is gained or lost\n")
    _, out, err = run("who-can", "view", "*", "--dir", "files")
    assert "group:webops" in out
    assert err.startswith("these are policy files alone")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["who-can", "fly", "site"], 2, "action must be one of the policy's: view, "),
        (["who-can", "reload", "site"], 2, "reload is about the daemon as a whole"),
        (["who-can", "restart"], 2, "restart is about a service"),
        (["who-can", "restart", "sit"], 4, "no service 'sit' is configured in"),
        (["who-can", "restart", "vapor"], 4, "no service 'vapor' is configured in"),
        (["what-can", "alice", "--groups", "a b"], 2, "is not the name of a Unix group"),
    ],
)
def test_what_cannot_be_answered_is_said(run: Run, words: list[str], code: int, text: str) -> None:
    ended, out, err = run(*words, "--dir", "now")
    assert (ended, out) == (code, "")
    assert text in err
    assert ("did you mean 'site'?" in err) == ("sit" in words)


def test_no_cell_is_a_formula_of_a_spreadsheet(capsys: pytest.CaptureFixture[str]) -> None:
    from userapi.cli import policy_rights

    policy_rights._csv([["=1+1", "a\x1b[2J"]])
    assert next(csv.reader([capsys.readouterr().out])) == ["'=1+1", r"a\x1b[2J"]


def test_any_is_what_the_arguments_are(run: Run) -> None:
    told: Any = run("what-can", "nobody-at-all", "--groups", "x", "--dir", "now")
    assert told[1] == "nobody-at-all, in x, may do nothing\n"


def test_a_user_is_one_that_can_be_and_root_is_above_the_rules(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("what-can", "root", "--dir", "now")[:2] == (
        0,
        "root may do everything, by durward --root: no rule is looked at\n",
    )
    code, out, err = run("what-can", "Al!ce", "--dir", "now")
    assert (code, out, "is not a user name" in err) == (2, "", True)
    with pytest.raises(SystemExit, match="2"):
        run("what-can", "", "--dir", "now")
    assert "an empty word names nothing" in capsys.readouterr().err


def test_a_matrix_is_one_of_csv_and_json(run: Run) -> None:
    assert run("matrix", "--csv", "--json", "--dir", "now")[0] == 2
