"""durward policy why: every rule that is about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from userapi.cli import accounts
from userapi.cli.__main__ import main
from userapi.cli.failure import Failure
from userapi.cli.policy_why import address, moment

RULES = """
[[grant]]
id = "webops"
who = ["group:webops"]
may = ["view", "restart"]
on = ["site"]
when = { days = "Mon-Fri", hours = "08:00-18:00", timezone = "Europe/Zurich" }
[[grant]]
id = "near"
who = ["group:webops"]
may = ["stop"]
on = ["site"]
from = ["10.0.0.0/8"]
approval = { by = ["group:leads"], within = "10m" }
[[grant]]
id = "with-reason"
who = ["user:dora"]
may = ["reload"]
reason = true
[[deny]]
id = "temps"
who = ["group:temps"]
may = ["restart"]
on = ["*"]
"""
MONDAY = ("--at", "2026-11-23T12:00:00+01:00")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    (tmp_path / "policy.d").mkdir()
    (tmp_path / "services.d").mkdir()
    (tmp_path / "policy.d/10.toml").write_text(RULES)
    (tmp_path / "services.d/site.toml").write_text('[service.site]\ncommand = ["/srv/site"]\nuser = "www"\n')

    def done(*words: str, place: str = "") -> tuple[int, str, str]:
        code = main(["policy", "why", *words, "--dir", str(tmp_path / place)])
        told = capsys.readouterr()
        return code, told.out, told.err

    return done


def test_root_asks_no_rule(run: Run) -> None:
    code, out, err = run("root", "restart", "site")
    assert (code, out) == (0, "allowed: root may restart site\n")
    assert "no rule is looked at" in err
    told = json.loads(run("root", "restart", "site", "--json")[1])
    assert (told["allowed"], told["seen"]) == (True, True)


def test_allowed_by_which_rule_and_why_the_others_do_not_count(run: Run) -> None:
    code, out, err = run("alice", "restart", "site", "--groups", "webops", *MONDAY)
    assert code == 0
    assert out.splitlines() == [
        "allowed: the rule 'webops' (10.toml:2) lets alice restart site",
        "  deny 'temps' (10.toml:20) does not count: is for group:temps",
        "  grant 'webops' (10.toml:2) this decides: through group:webops, Mon-Fri 08:00-18:00 Europe/Zurich",
    ]
    assert err == "2 other rules are about other actions or services\n"


def test_denied_by_which_rule(run: Run) -> None:
    code, out, _ = run("alice", "restart", "site", "--groups", "webops,temps", *MONDAY)
    assert code == 1
    assert "deny 'temps' (10.toml:20) this decides: through group:temps" in out
    assert "but 'temps' forbids it, and a deny wins" in out


def test_the_time_is_that_which_is_asked_for(run: Run) -> None:
    code, out, _ = run("alice", "restart", "site", "--groups", "webops", "--at", "2026-11-28T12:00:00Z")
    assert code == 1
    assert "counts Mon-Fri 08:00-18:00 Europe/Zurich; it next opens Mon 08:00" in out


def test_where_from_and_who_else_must_agree(run: Run) -> None:
    code, out, _ = run("alice", "stop", "site", "--groups", "webops", "--from", "10.1.2.3")
    assert code == 0, "once somebody approves, as it says"
    assert "once group:leads approves" in out
    code, out, _ = run("alice", "stop", "site", "--groups", "webops", "--from", "local")
    assert (code, "not from unix" in out) == (1, True)


def test_a_reason_is_taken_to_be_given_unless_it_is_empty(run: Run) -> None:
    assert run("dora", "reload", "--groups", "")[0] == 0
    assert run("dora", "reload", "--groups", "", "--reason", "new site")[0] == 0
    code, out, _ = run("dora", "reload", "--groups", "", "--reason", "")
    assert (code, "wants a reason" in out) == (1, True)


def test_groups_that_are_not_said_are_none_and_that_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = run("alice", "restart", "site", *MONDAY)
    assert code == 1
    assert "alice is taken to be in no group" in err
    assert "alice may not view site: to alice it is as if it did not exist" in err
    monkeypatch.setattr(accounts, "groups_of", lambda user: ["webops"])
    assert run("alice", "restart", "site", "--local-groups", *MONDAY)[0] == 0


def test_as_json(run: Run) -> None:
    code, out, _ = run("alice", "restart", "site", "--groups", "temps", *MONDAY, "--json")
    told = json.loads(out)
    assert (code, told["allowed"], told["seen"], told["groups"]) == (1, False, False, ["temps"])
    assert [(one["rule"], one["verdict"]) for one in told["looked"]] == [
        ("temps", "decides"), ("webops", "does not count"),
    ]  # fmt: skip
    assert (told["others"], told["at"]) == (2, "2026-11-23T11:00:00+00:00")
    told = json.loads(run("alice", "restart", "site", "--groups", "", *MONDAY, "--json")[1])
    assert told["would_help"] == ["webops (10.toml:2), through group webops"]


def test_of_policy_files_alone_it_says_what_is_not_known(run: Run) -> None:
    code, _, err = run("alice", "restart", "site", "--groups", "webops", *MONDAY, place="policy.d/10.toml")
    assert code == 0
    assert "no service is taken to be in a group" in err


def test_a_policy_of_one_rule_has_no_other(run: Run, tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text('[[grant]]\nid = "g"\nwho = ["user:dora"]\nmay = ["reload"]\n')
    assert "the policy has no other rule" in run("dora", "reload", "--groups", "", place="one.toml")[2]


@pytest.mark.parametrize("text", ["yesterday", "2026-11-23T12:00:00", "2026-11-23", "", "0001-01-01T00:00:00+23:59"])
def test_a_time_without_its_offset_is_no_time(text: str) -> None:
    with pytest.raises(Failure, match="is no time with its offset"):
        moment(text)


def test_times_and_addresses() -> None:
    assert moment("2026-11-23T12:00:00Z") == 1795435200.0
    assert moment(None) > 1795435200.0 - 10 * 365 * 86400
    assert (address(None), address("local"), address("192.0.2.7")) == ("", "unix", "192.0.2.7")
    with pytest.raises(Failure, match="is no address"):
        address("here")


def test_who_cannot_be_is_said(run: Run) -> None:
    code, _, err = run("Alice B", "restart", "site")
    assert (code, "is not a user name" in err) == (2, True)
