"""The main job: a person who is not root restarts the site on port 80, and somebody without the right is refused."""

from __future__ import annotations

import json

import pytest
from house import House
from people import PREFIX

pytestmark = pytest.mark.root

ALICE, BOB, CAROL = (PREFIX + short for short in ("alice", "bob", "carol"))


def site(house: House) -> str:
    answer = house.http("/")
    assert answer.status == 200
    return answer.body.decode()


def decisions(house: House, user: str) -> list[dict[str, object]]:
    return [record for record in house.audit() if record["kind"] == "decision" and record["user"] == user]


def test_a_start_starts_each_part_once(house: House) -> None:
    assert "ended" not in house.stderr(), "the supervisor begins before there is anything, and waits for it"


def test_the_site_answers_on_port_80_as_its_own_user(house: House) -> None:
    assert f"uid={house.people['www'].uid} " in site(house)


def test_alice_logs_in_with_her_password(house: House) -> None:
    done = house.login("alice")
    assert done.returncode == 0, done.stderr
    assert house.people["alice"].password not in done.stdout + done.stderr
    assert any(
        record["kind"] == "login" and record["user"] == ALICE and record["ok"] is True for record in house.audit()
    )


def test_alice_sees_the_service_she_may_see_and_no_other(house: House) -> None:
    house.login("alice")
    done = house.cli("alice", "status", "--json")
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert [(service["name"], service["state"]) for service in services] == [("site", "RUNNING")]
    assert services[0]["processes"][0]["pid"] == house.pids("site")[0]


def test_alice_restarts_the_site(house: House) -> None:
    house.login("alice")
    before, other = house.pids("site"), house.pids("worker")
    done = house.cli("alice", "restart", "site")
    assert done.returncode == 0, done.stderr
    after = house.pids("site")
    assert len(after) == len(before)
    assert not set(after) & set(before)
    assert house.pids("worker") == other
    assert str(after[0]) == site(house).split()[1]  # the workers' parent is the process that was started


def test_alices_restart_is_in_the_audit_log_with_its_rule_and_its_outcome(house: House) -> None:
    house.login("alice")
    assert house.cli("alice", "restart", "site").returncode == 0
    decided = next(record for record in reversed(decisions(house, ALICE)) if record["action"] == "restart")
    assert decided["allowed"] is True
    assert (decided["target"], decided["rule"]) == ("site", "webops-restart")
    assert str(decided["file"]).endswith("10-web.toml")
    assert decided["line"] == 1
    outcome = house.until(
        lambda: [record for record in house.audit() if record["kind"] == "outcome" and record["id"] == decided["id"]],
        "the outcome is written",
    )
    assert outcome[0]["ok"] is True
    deeds = [record["deed"] for record in house.audit() if record["kind"] == "deed" and record["n"] > decided["n"]]
    assert {"spawn", "signal"} <= set(deeds)


def test_bob_sees_the_site_but_is_refused_with_the_reason(house: House) -> None:
    house.login("bob")
    assert house.cli("bob", "status", "site").returncode == 0
    before = house.pids("site")
    done = house.cli("bob", "restart", "site")
    assert done.returncode == 77
    assert (
        f"denied: no rule lets {BOB} restart site; the rule 'webops-restart' would, through group {PREFIX}webops"
        in done.stderr
    )
    assert house.pids("site") == before
    refused = [record for record in decisions(house, BOB) if record["action"] == "restart"]
    assert refused
    assert refused[-1]["allowed"] is False


def test_carol_is_told_the_same_about_the_site_and_about_what_does_not_exist(house: House) -> None:
    house.login("carol")
    done = house.cli("carol", "status", "--json")
    assert json.loads(done.stdout)["services"] == []
    there = house.cli("carol", "restart", "site")
    nowhere = house.cli("carol", "restart", "nothing")
    assert there.returncode == nowhere.returncode == 4
    assert "no service 'site' that you may view" in there.stderr
    assert there.stderr.replace("site", "nothing") == nowhere.stderr
    asked = [record for record in decisions(house, CAROL) if record["command"] == "restart"]
    assert [record["allowed"] for record in asked] == [False, False]


def test_a_wrong_password_lets_nobody_in_and_is_written_down(house: House) -> None:
    done = house.login("carol", password="not her password")
    assert done.returncode == 77
    failed = [record for record in house.audit() if record["kind"] == "login" and record["ok"] is False]
    assert failed
    assert failed[-1]["user"] == CAROL
    assert "not her password" not in json.dumps(failed)


def test_without_a_session_nothing_is_said(house: House) -> None:
    house.cli("bob", "logout")
    done = house.cli("bob", "status")
    assert done.returncode == 77
    assert "site" not in done.stdout + done.stderr


def test_the_same_by_http(house: House) -> None:
    alice, bob = house.token("alice"), house.token("bob")
    before = house.pids("site")
    refused = house.api("POST", "/services/site/restart?wait=true", bob)
    assert refused.status == 403
    assert f"denied: no rule lets {BOB} restart site" in str(refused.json["detail"])
    assert house.api("POST", "/services/site/restart?wait=true", alice).status == 200
    assert not set(house.pids("site")) & set(before)
    assert house.api("DELETE", "/session", alice).status in (200, 204)
    assert house.api("GET", "/services", alice).status == 401


def test_restarts_under_load_refuse_no_connection_and_fail_no_request(house: House) -> None:
    house.login("alice")
    with house.load(interval=0.005) as load:
        for _ in range(3):
            assert house.cli("alice", "restart", "site").returncode == 0
    result = load.result
    assert result["refused"] == 0
    assert result["failed"] == {}
    assert result["answered"] == result["tried"]
    assert result["tried"] > 100
