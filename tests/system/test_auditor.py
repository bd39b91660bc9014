"""Auditors in a running house: who reads the policy in rights, who may not, and all that the role of an auditor shows.

carol has the rights `policy` and `audit`, and no other. alice and bob work.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import templates
from house import PREFIX, House
from people import People, Person
from space import Space

pytestmark = pytest.mark.root

IN_ENVIRONMENT, IN_FILE, IN_COMMAND = "hunter2-environment", "hunter2-file", "hunter2-command"
SECRETS = (IN_ENVIRONMENT, IN_FILE, IN_COMMAND)
POLICY = """\
[[grant]]
id = "auditors"
who = ["user:@carol@"]
may = ["policy", "audit"]

[[grant]]
id = "webops"
who = ["group:@webops@"]
may = ["view", "logs", "restart"]
on = ["worker"]

[[grant]]
id = "sight"
who = ["user:@bob@"]
may = ["view"]
on = ["worker"]
"""
MORE = f'environment = {{ TOKEN = "{IN_ENVIRONMENT}" }}\nenvironment_file = "@FOLDER@/worker.env"\ngroups = ["back"]\n'
ROOT = Person("root", 0, 0, "")


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    services = {"worker.toml": templates.plain("worker", "say", IN_COMMAND, more=MORE)}
    house = House(people, space, services, {"10-web.toml": POLICY})
    (house.folder / "worker.env").write_text(f"PASSWORD={IN_FILE}\n")
    (house.folder / "worker.env").chmod(0o600)
    with house.running():
        house.until(lambda: len(house.api_workers()) == 2, "the api has its workers")
        for short in ("alice", "bob", "carol"):
            assert house.login(short).returncode == 0
        yield house


def does(house: House, short: str, *words: str) -> subprocess.CompletedProcess[str]:
    return house.cli(house.people[short], *words)


def test_who_has_the_right_asks_the_running_policy_in_rights_and_who_has_not_is_refused(house: House) -> None:
    alice, webops = house.people["alice"].name, house.people.name("webops")
    told = does(house, "carol", "policy", "who-can", "restart", "worker")
    assert (told.returncode, f"group:{webops}  always" in told.stdout) == (0, True), told
    told = does(house, "carol", "policy", "why", alice, "restart", "worker", "--local-groups")
    assert told.returncode == 0, told
    assert f"grant 'webops' (10-web.toml:6) this decides: through group:{webops}" in told.stdout
    assert does(house, "carol", "policy", "why", alice, "stop", "worker", "--local-groups").returncode == 1
    told = does(house, "bob", "policy", "who-can", "restart", "worker")
    assert told.returncode == 77
    assert f"no rule lets {house.people['bob'].name} read the policy" in told.stderr
    assert webops not in told.stdout + told.stderr
    asked = [one for one in house.audit() if one.get("command") == "read-policy"]
    assert [one["allowed"] for one in asked][-2:] == [True, False]


def test_root_asks_on_its_own_socket(house: House) -> None:
    socket = str(house.run_dir / "root.sock")
    told = house.run_as(ROOT, str(PREFIX / "bin" / "durward"), "--root", socket, "policy", "matrix", "--json")
    rows = json.loads(told.stdout)["rows"]
    assert {action for row in rows for action in row["actions"]} == {"policy", "audit", "view", "logs", "restart"}


def test_what_has_been_decided_is_asked_again_of_another_policy(house: House, tmp_path: Path) -> None:
    assert does(house, "alice", "restart", "worker").returncode == 0
    assert does(house, "bob", "restart", "worker").returncode == 77
    new = house.folder / "new.toml"  # bob in place of alice's group
    new.write_text(house.fill(POLICY).replace('may = ["view"]', 'may = ["view", "restart"]').replace("group:", "user:"))
    new.chmod(0o644)
    told = does(house, "carol", "policy", "simulate", "-", str(new), "--json")
    assert told.returncode == 0, told
    report = json.loads(told.stdout)
    changed = {(one["user"], one["action"], one["was"], one["now"]) for one in report["changes"]}
    assert (house.people["alice"].name, "restart", "allow", "deny") in changed
    assert (house.people["bob"].name, "restart", "deny", "allow") in changed
    assert report["unknown"] == {}, "the log says at each login in which groups somebody is"


def test_an_auditor_sees_policy_audit_and_the_configuration_and_nothing_else(house: House) -> None:
    shown = does(house, "carol", "policy", "show")
    audit = does(house, "carol", "audit", "search", "--json")
    rights = does(house, "carol", "whoami", "--json")
    for told in (shown, audit, rights):
        assert told.returncode == 0, told
    assert 'id = "webops"' in shown.stdout
    assert "[service.worker]" in shown.stdout
    assert 'environment = { TOKEN = "(hidden)" }' in shown.stdout
    assert 'groups = ["back"]' in shown.stdout
    assert '"kind": "load"' in audit.stdout
    assert json.loads(rights.stdout)["rights"] == [{"service": "", "actions": ["policy", "audit"], "demands": {}}]
    refused = {
        ("status",): 0, ("status", "worker"): 4, ("describe", "worker"): 4, ("logs", "worker"): 4,
        ("restart", "worker"): 4, ("stop", "worker"): 4, ("why", "restart", "worker"): 4, ("reload",): 77,
        ("revoke", "--all"): 77, ("operations",): 0, ("approve",): 0,
    }  # fmt: skip
    seen = [shown.stdout, shown.stderr, audit.stdout, audit.stderr, rights.stdout]
    for words, code in refused.items():
        told = does(house, "carol", *words)
        assert told.returncode == code, told
        seen += [told.stdout, told.stderr]
        assert "RUNNING" not in told.stdout
    assert json.loads(does(house, "carol", "status", "--json").stdout) == {"services": []}
    token = house.token("carol")
    for path in ("/policy", "/audit", "/whoami", "/services", "/operations", "/services/worker", "/approvals"):
        answer = house.api("GET", path, token)
        assert answer.status == (404 if path == "/services/worker" else 200), (path, answer)
        seen.append(answer.body.decode())
    for secret in SECRETS:
        assert not [text for text in seen if secret in text], secret
    house.until(lambda: IN_COMMAND in house.service_log("worker"), "so that it would have been seen")
