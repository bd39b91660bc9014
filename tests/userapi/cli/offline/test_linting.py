"""userapi/cli/offline/linting: durward policy check, test and lint, as people and CI run them."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from policy.parse import parse
from policy.rules import Policy
from userapi.cli import sources
from userapi.cli.__main__ import main
from userapi.cli.offline import linting

SITE = '[service.site]\ncommand = ["/srv/run"]\nuser = "www"\ngroups = ["web"]\n'
GRANT = '[[grant]]\nid = "a"\nwho = ["user:alice"]\nmay = ["restart"]\non = ["site"]\n'
DENY = GRANT.replace("grant", "deny").replace('"a"', '"d"')
TEST = '[[test]]\nuser = "alice"\nmay = "restart"\non = "site"\nexpect = "allow"\n'


@pytest.fixture
def place() -> Iterator[Path]:
    """A machine whose "/" it is beneath, with a configuration."""
    path = Path(tempfile.mkdtemp(prefix="durward-test-linting-"))
    path.chmod(0o755)
    for name, text in {
        "etc/passwd": "root:x:0:0::/:\nalice:x:61001:61001::/:\nwww:x:33:33::/:\n",
        "etc/group": "root:x:0:\nalice:x:61001:\nwww:x:33:\n",
        "srv/run": "",
        "etc/durward/durward.toml": "[api]\n",
        "etc/durward/services.d/site.toml": SITE,
        "etc/durward/policy.d/10.toml": GRANT + TEST,
    }.items():
        (path / name).parent.mkdir(exist_ok=True, mode=0o755)
        (path / name).write_text(text)
        (path / name).chmod(0o644)
    yield path / "etc" / "durward"
    shutil.rmtree(path)


def run(*words: str | Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(["policy", *map(str, words)])
    return status, out.getvalue(), err.getvalue()


def as_json(*words: str | Path) -> tuple[int, dict[str, Any]]:
    status, out, _ = run(*words, "--json")
    found: dict[str, Any] = json.loads(out)
    return status, found


def write(place: Path, text: str, name: str = "policy.d/10.toml") -> None:
    (place / name).write_text(text)


def test_check_says_that_there_is_no_mistake_and_what_it_has_not_checked(place: Path) -> None:
    status, out, err = run("check", place)
    assert (status, out) == (0, f"{place}: 1 service, 0 sockets, 1 rule: no mistake found\n")
    assert err.startswith("not checked here: whether the files are root's alone")
    assert "durward-rootd --check" in err
    assert as_json("check", "--dir", place)[1]["ok"] is True


def test_check_tells_every_mistake_with_its_place_and_exits_with_65(place: Path) -> None:
    write(place, GRANT.replace("restart", "reboot") + GRANT)
    status, out, err = run("check", place)
    assert (status, out) == (65, f"{place}: 2 mistakes: mend them; nothing of it would be used\n")
    assert "policy.d/10.toml:4: grant[0].may[0]: 'reboot' is not an action" in err
    assert 'may = ["reboot"]' in err
    status, told = as_json("check", place)
    assert (status, told["ok"], [one["line"] for one in told["problems"]]) == (65, False, [4, 7])
    write(place, GRANT + GRANT)
    assert "1 mistake: mend it;" in run("check", place)[1]


def test_check_says_which_environment_files_it_has_not_read(place: Path) -> None:
    write(place, SITE + 'environment_file = "/etc/none/env"\n', "services.d/site.toml")
    assert "what /etc/none/env says" in run("check", place)[2]


def test_check_looks_at_policy_files_alone_as_far_as_that_goes(place: Path) -> None:
    status, out, _ = run("check", place / "policy.d")
    assert (status, out) == (
        0, f"{place}/policy.d: 1 rule: no mistake found, as far as this can be said without services.d: tests were not"
        " run\n",
    )  # fmt: skip
    write(place, GRANT + "[[grant]]\n")
    assert as_json("check", place / "policy.d")[0] == 65


def test_check_of_what_is_not_there_is_usage(place: Path) -> None:
    assert run("check", place / "none")[0] == 2


@pytest.mark.parametrize("what", ["check", "test", "lint"])
def test_an_empty_word_is_not_taken_for_another_policy(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([""], ["--dir", ""]):
        with pytest.raises(SystemExit, match="2"):
            main(["policy", what, *words])
        assert "an empty word names nothing" in capsys.readouterr().err


def test_a_pipe_in_a_directory_holds_nobody_and_one_that_is_named_is_read(place: Path) -> None:
    os.mkfifo(place / "policy.d" / "20.toml")
    status, _, err = run("check", place)
    assert (status, "20.toml: it is no plain file" in err) == (65, True)
    for what in ("test", "lint"):
        assert run(what, place) == (2, "", f"{place}/policy.d/20.toml cannot be read: it is no plain file\n")
    ours, theirs = os.pipe()
    os.write(theirs, GRANT.encode())
    os.close(theirs)
    assert run("check", f"/dev/fd/{ours}")[0] == 0
    os.close(ours)


def test_test_shows_each_with_its_outcome_and_the_rule_that_decided(place: Path) -> None:
    write(place, GRANT + TEST + TEST.replace("restart", "stop").replace("allow", "deny"))
    status, out, err = run("test", place)
    assert (status, err) == (0, "")
    assert out == (
        "passed  policy.d/10.toml:6  alice restart site: allow, by 'a'\n"
        "passed  policy.d/10.toml:11  alice stop site: deny\n"
        f"{place}: 2 tests, 2 passed, 0 failed\n"
    )


def test_a_test_that_fails_says_why_and_ends_it_with_1(place: Path) -> None:
    more = 'groups = ["ops", "dev"]\nfrom = "10.0.0.1"\nreason = true\nat = 2026-11-23T12:00:00+01:00\n'
    write(place, GRANT + DENY + TEST + more)
    status, out, _ = run("test", place)
    assert status == 1
    assert out == (
        "FAILED  policy.d/10.toml:11  alice (in dev, ops) restart site from 10.0.0.1 at 2026-11-23T11:00:00+00:00"
        " with a reason: deny, by 'd'\n"
        "        this test expects allow, and came to: denied: the rule 'd' (10.toml:6) forbids restart on site to"
        " alice\n"
        f"{place}: 1 test, 0 passed, 1 failed\n"
    )
    status, told = as_json("test", place)
    assert (status, told["ok"]) == (1, False)
    assert told["tests"] == [{
        "file": "policy.d/10.toml", "line": 11, "user": "alice", "groups": ["dev", "ops"], "may": "restart",
        "on": "site", "expect": "allow", "came": "deny", "passed": False, "rule": "d",
        "why": "denied: the rule 'd' (10.toml:6) forbids restart on site to alice",
        "rule_file": "policy.d/10.toml", "rule_line": 6,
    }]  # fmt: skip


def test_quietly_only_failures_are_said(place: Path) -> None:
    assert run("test", "-q", place) == (0, "", "")
    write(place, GRANT + TEST + TEST.replace("allow", "deny"))
    status, out, _ = run("test", "-q", place)
    assert (status, out.count("passed  "), out.count("FAILED  ")) == (1, 0, 1)


def test_a_test_that_needs_a_time_is_unclear(place: Path) -> None:
    write(place, GRANT + 'when = { days = "Mon", timezone = "UTC" }\n' + TEST)
    status, out, _ = run("test", place)
    assert status == 1
    assert "alice restart site: unclear, by 'a'\n        the rule 'a' (policy.d/10.toml:1) depends on the time" in out


def test_tests_of_a_policy_with_other_mistakes_are_not_run(place: Path) -> None:
    write(place, GRANT + "[[grant]]\n" + TEST)
    assert run("test", place)[0] == 65


def test_tests_of_policy_files_alone_are_run_and_it_is_said_what_is_not_known(place: Path) -> None:
    write(place, GRANT.replace('"site"', '"group:web"') + TEST)
    status, _, err = run("test", place / "policy.d")
    assert status == 1
    assert "which service is in which group is not known" in err


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs real root to give files to others")


def lint(place: Path, *words: str) -> tuple[int, dict[str, Any]]:
    return as_json("lint", place, "--prefix", place.parent.parent, *words)


@needs_root
def test_lint_tells_what_amounts_to_more_and_the_exit_code_is_for_ci(place: Path) -> None:
    assert lint(place, "--fail-on", "note") == (
        0, {"place": str(place), "findings": [], "errors": 0, "warnings": 0, "notes": 0}
    )  # fmt: skip
    os.chown(place.parent.parent / "srv/run", 61001, 0)
    status, told = lint(place)
    assert (status, told["errors"]) == (1, 1)
    assert told["findings"] == [{
        "severity": "error", "code": "amounts-to-user", "rule": "a", "file": "policy.d/10.toml", "line": 1,
        "service": "site", "path": "/srv/run",
        "text": "alice may restart site, which runs as www, and may write /srv/run, which is its program",
        "why": "who can do both runs what he likes as the service's user, with its files, secrets and ports",
        "todo": "let root alone write /srv/run (chown, chmod go-w, setfacl), or take restart on site out of the rule",
    }]  # fmt: skip
    assert lint(place, "--fail-on", "never")[0] == 0


@needs_root
def test_lint_is_read_by_people_too(place: Path) -> None:
    write(place, GRANT.replace("alice", "zoe"))
    status, out, _ = run("lint", place, "--prefix", place.parent.parent)
    assert (status, out) == (
        0,
        "policy.d/10.toml:1: warning: there is no user zoe here [unknown-user]\n"
        "    why: whoever gets this name later gets the right\n"
        "    to do: mend the name, or take it out\n"
        f"{place}: 0 errors, 1 warning, 0 notes\n",
    )
    assert run("lint", place, "--prefix", place.parent.parent, "--fail-on", "warning")[0] == 1
    assert "\x1b[33mwarning" in run("lint", place, "--color", "always")[1]


@needs_root
def test_lint_looks_at_the_installed_files_themselves_and_says_when_they_are_a_copy(place: Path) -> None:
    os.chown(place / "services.d" / "site.toml", 61001, 0)
    [one] = lint(place)[1]["findings"]
    assert (one["code"], one["path"]) == ("amounts-to-user", "/etc/durward/services.d/site.toml")
    os.chown(place, 61001, 0)
    [one] = lint(place)[1]["findings"]
    assert one["code"] == "not-looked-at"
    assert "taken for a copy" in one["text"]


@needs_root
def test_lint_of_policy_files_alone_says_that_it_does_not_know_the_services(place: Path) -> None:
    write(place, GRANT.replace('"site"', '"group:web"'))
    _, told = as_json("lint", place / "policy.d", "--prefix", place.parent.parent)
    assert [one["code"] for one in told["findings"]] == ["not-looked-at"]


def test_lint_of_a_policy_with_mistakes_tells_them(place: Path) -> None:
    write(place, GRANT + GRANT)
    assert run("lint", place)[0] == 65


def test_a_prefix_that_is_no_machine_is_usage(place: Path) -> None:
    status, _, err = run("lint", place, "--prefix", place)
    assert status == 2
    assert "etc/passwd: No such file or directory" in err


def test_the_running_policy_is_asked_for_without_a_directory(place: Path) -> None:
    for what in ("test", "lint"):
        assert run(what, "--url", f"unix:{place}/none.sock")[0] == 69


def test_of_a_daemon_behind_the_network_this_machine_says_nothing(place: Path) -> None:
    found = sources.of_directory(str(place))
    policy = parse([(one.name, one.text) for one in found.policy], {"site": ("web",)})
    assert isinstance(policy, Policy)
    [one] = linting.examine(policy, found, None, "", here=False)
    assert (one.code, one.text.partition(":")[0]) == ("not-looked-at", "the daemon is reached over the network")
