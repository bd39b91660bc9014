"""durward token, and asking by one."""

from __future__ import annotations

import json
import os

import pytest

from policy import login, messages
from policy.scope import Scope

CREATE = ("token", "create", "deploy", "--may", "view,restart", "--on", "site,group:web", "--expires", "90d")


def test_a_token_is_alone_on_stdout_and_what_is_said_of_it_is_not(alice, world):
    ended = alice(*CREATE)
    assert (ended.returncode, ended.stdout) == (0, f"{world.personal}\n")
    assert ended.stderr == f"the token deploy, until {world.now}; it is not shown again:\n"
    asked = world.auth.asked[-1]
    assert (asked.token, asked.seconds) == (world.token, 90 * 86400.0)
    assert asked.scope == Scope("deploy", ("view", "restart"), ("site", "group:web"))
    told = json.loads(alice(*CREATE, "--json").stdout)
    assert told == {"token": world.personal, "name": "deploy", "expires": world.now}


def test_who_leaves_out_view_is_told_what_that_means(alice):
    assert "without view" in alice("token", "create", "x", "--may", "restart", "--on", "site", "--expires", "1h").stderr
    assert "without view" not in alice("token", "create", "x", "--may", "audit", "--expires", "1h").stderr


def test_who_means_all_and_names_a_service_of_that_name_is_told(alice):
    for on, told in (("all", True), ("site,all", True), ("*", False)):
        asked = alice("token", "create", "x", "--may", "view", "--on", on, "--expires", "1h")
        assert (asked.returncode, "'*' is all that you may" in asked.stderr) == (0, told)


def test_the_list_says_what_each_is_for_and_whether_it_works(alice, world):
    assert alice("token", "list").stderr == "you have no token: durward token create\n"
    scope = Scope("deploy", ("view",), ("site",))
    world.tokens = {
        "a": login.TokenInfo(scope, "m", "e", "u", ""),
        "b": login.TokenInfo(Scope("watch", ("audit",)), "m", "e", "", "locked"),
    }
    assert alice("token", "list").stdout == (
        "deploy  view on site; made m, expires e, last used u\n"
        "watch  audit; made m, expires e, never used; does not work: locked\n"
    )
    assert [one["name"] for one in json.loads(alice("token", "list", "--json").stdout)["tokens"]] == ["deploy", "watch"]


def test_one_is_revoked_by_its_name(alice, world):
    alice(*CREATE)
    assert alice("token", "revoke", "deploy").stdout == "the token deploy is revoked\n"
    ended = alice("token", "revoke", "deploy")
    assert (ended.returncode, ended.stderr) == (4, "you have no token 'deploy'\n")
    assert alice("token", "revoke", "../session").returncode == 4
    assert json.loads(alice("token", "revoke", "x", "--json").stdout)["error"]["kind"] == "unknown"


@pytest.mark.parametrize(
    "words",
    [
        ("token",), ("token", "create"), ("token", "create", "x", "--may", "view", "--on", "site"),
        ("token", "create", "x", "--may", "view,", "--on", "site", "--expires", "1d"), ("--root", "token", "list"),
        ("--root", *CREATE), ("token", "create", "x", "--may", "approve", "--expires", "1d"),
    ],
)  # fmt: skip
def test_what_is_missing_or_makes_no_sense_is_2(alice, words):
    assert alice(*words).returncode == 2


def test_a_script_asks_by_the_token_of_the_environment_or_of_a_file(durward, world, tmp_path):
    world.live.add(world.personal)
    file = tmp_path / "token"
    file.write_text(f"{world.personal}\n")
    file.chmod(0o600)
    assert durward("status").returncode == 77
    assert durward("status", env={"DURWARD_TOKEN": world.personal}).returncode == 0
    assert durward("restart", "site", "--token-file", str(file)).returncode == 0
    assert {asked.session for asked in world.supervisor.asked} == {world.personal}
    reader, writer = os.pipe()
    os.write(writer, world.personal.encode())
    os.close(writer)
    assert durward("status", "--token-file", f"/dev/fd/{reader}", pass_fds=[reader]).returncode == 0
    os.close(reader)


def test_a_token_at_hand_is_used_before_a_session_but_for_what_takes_a_login(alice, world):
    world.live.add(world.personal)
    environ = {"DURWARD_TOKEN": world.personal}
    assert alice("status", env=environ).returncode == 0
    assert world.supervisor.asked[-1].session == world.personal
    assert alice(*CREATE, env=environ).returncode == 0
    assert alice("logout", env=environ).stdout == "logged out\n"


@pytest.mark.parametrize("text", ["", "x", "durward_", "c0ffee00" * 8, "durward_" + "C0FFEE00" * 8])
def test_what_is_no_token_is_said_and_sent_to_nobody(durward, world, tmp_path, text):
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(0o600)
    ended = durward("status", "--token-file", str(file))
    assert (ended.returncode, "there is no personal token" in ended.stderr) == (2, True)
    if text:
        assert durward("status", env={"DURWARD_TOKEN": text}).returncode == 2
    assert world.supervisor.asked == []


def test_a_token_file_that_others_can_read_or_nobody_is_refused(durward, world, tmp_path):
    file = tmp_path / "token"
    file.write_text(world.personal)
    file.chmod(0o640)
    assert "others can read the token file" in durward("status", "--token-file", str(file)).stderr
    assert durward("status", "--token-file", str(tmp_path / "none")).returncode == 2
    assert world.supervisor.asked == []


def test_a_refusal_because_of_the_token_sends_nobody_to_the_policys_people(durward, world):
    world.live.add(world.personal)
    text = "denied: the token 'deploy' is not for that: stop site; it is for view on site"
    world.answers[messages.Stop] = messages.Refused("forbidden", text)
    ended = durward("stop", "site", env={"DURWARD_TOKEN": world.personal})
    assert (ended.returncode, ended.stderr) == (77, f"{text}\n")
