"""A deploy script with a personal token, in a running house: what it may, and how it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import templates
from house import PREFIX, House
from people import People
from space import Space

pytestmark = pytest.mark.root

POLICY = """\
[[grant]]
id = "ops"
who = ["group:@webops@"]
may = ["view", "start", "stop", "restart"]
on = ["*"]
"""


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    services = {"site.toml": templates.plain("site", "say", "begun"), "worker.toml": templates.WORKER}
    with House(people, space, services, {"10-web.toml": POLICY}).running() as house:
        house.until(lambda: len(house.api_workers()) == 2, "the api has its workers")
        assert house.login("alice").returncode == 0
        yield house


def made(house: House, name: str, *words: str) -> str:
    ended = house.cli("alice", "token", "create", name, "--expires", "30d", *words)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def script(house: House, token: str, *words: str) -> tuple[int, str]:
    """As bob's cron would run it: nobody there has logged in."""
    ended = house.run_as("bob", str(PREFIX / "bin" / "durward"), *words, env={"DURWARD_TOKEN": token})
    return ended.returncode, ended.stdout + ended.stderr


def decisions(house: House, token: str) -> list[dict[str, Any]]:
    return [one for one in house.audit() if one["kind"] == "decision" and one.get("token") == token]


def test_a_deploy_script_restarts_its_site_and_nothing_else_whoever_of_ours_is_killed(house: House) -> None:
    token = made(house, "deploy", "--may", "view,restart", "--on", "site")
    for role in ("", "auth", "supervisor"):
        if role:
            house.wait_back(role, house.kill9(role))
        code, said = script(house, token, "restart", "site")
        assert (code, "site restarted" in said) == (0, True), said
    for words, what in ((("restart", "worker"), "restart worker"), (("stop", "site"), "stop site")):
        code, said = script(house, token, *words)
        assert code == 77
        assert said == f"denied: the token 'deploy' is not for that: {what}; it is for view, restart on site\n"
    assert script(house, token, "token", "list")[0] == 77
    alice = house.people["alice"].name
    refused = lambda: [one["target"] for one in decisions(house, "deploy") if not one["allowed"]]  # noqa: E731
    house.until(lambda: refused() == ["worker", "site"], "both refusals are in the audit log")
    records = decisions(house, "deploy")
    assert {one["user"] for one in records} == {alice}
    done = [one for one in records if one["command"] == "restart" and one["allowed"]]
    assert len(done) == 3
    listed = house.cli("alice", "token", "list").stdout
    assert "last used 20" in listed

    assert house.cli("alice", "token", "revoke", "deploy").returncode == 0
    assert house.api("GET", "/services", token).status == 401
    expected = ["made", "revoked", "wrong"]  # what changes nothing is answered before its record is on disk
    told = lambda: [one["what"] for one in house.audit() if one["kind"] == "token"] == expected  # noqa: E731
    house.until(told, "all of it is in the audit log")

    secret = token.removeprefix("durward_").encode()
    for folder in (house.run_dir, house.log, house.state, house.folder):
        for path in folder.rglob("*"):
            if path.is_file():
                assert secret not in path.read_bytes(), path
    assert secret.decode() not in house.stderr()


def test_what_its_owner_loses_it_loses_and_has_again_when_he_has(house: House, people: People) -> None:
    token = made(house, "nightly", "--may", "view,restart", "--on", "site,worker")
    assert script(house, token, "status", "site")[0] == 0
    webops = people.name("webops")
    people.leave_group("alice", webops)
    try:
        house.wait_back("auth", house.kill9("auth"))  # whose first check is at once; else it is within a minute
        refused = "no service 'site' that you may view\n"  # one that is under way ends otherwise
        house.until(lambda: script(house, token, "restart", "site")[1] == refused, "it is refused")
    finally:
        people.join_group("alice", webops)
    house.wait_back("auth", house.kill9("auth"))
    house.until(lambda: script(house, token, "restart", "site")[0] == 0, "it works again")


def test_a_damaged_file_ends_all_tokens_and_nothing_else(house: House) -> None:
    assert house.login("alice").returncode == 0
    token = made(house, "lost", "--may", "view", "--on", "*")
    file = house.state / "auth" / "tokens.json"
    assert os.stat(file).st_mode & 0o7777 == 0o600
    file.write_bytes(b"\0" * 100)
    house.wait_back("auth", house.kill9("auth"))
    house.until(lambda: house.api("GET", "/services", token).status == 401, "the token is not known any more")
    assert house.cli("alice", "status", "site").returncode == 0
    assert file.with_name("tokens.json.damaged").read_bytes() == b"\0" * 100
    assert "no personal token works" in house.stderr()
    house.until(lambda: "damaged" in [one.get("what") for one in house.audit()], "it is in the audit log")
    made(house, "lost", "--may", "view", "--on", "*")
