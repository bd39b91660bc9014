"""The audit log as an auditor uses it: read with a right of its own, followed, and verified where the files are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest
from house import PREFIX, House
from people import People, Person
from space import Space
from templates import POLICY

from policy import messages

pytestmark = pytest.mark.root

ROOT = Person("root", 0, 0, "")
AUDITOR = """
[[grant]]
id = "carol-audits"
who = ["user:@carol@"]
may = ["audit"]
"""


@pytest.fixture(scope="module")
def house(people: People, space: Space) -> Iterator[House]:
    """carol may read the audit log, and nothing else."""
    with House(people, space, policy={**POLICY, "20-audit.toml": AUDITOR}).running() as house:
        for person in ("alice", "carol"):
            house.login(person)
        yield house


def records(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_auditor_reads_what_others_did_and_nobody_else_does(house: House) -> None:
    assert house.cli("alice", "restart", "site").returncode == 0
    found = house.cli("carol", "audit", "search", "--action", "restart", "--user", "*alice", "--json")
    assert found.returncode == 0, found
    decision = records(found.stdout)[0]
    assert (decision["kind"], decision["target"], decision["allowed"]) == ("decision", "site", True)
    refused = house.cli("alice", "audit", "search")
    assert (refused.returncode, refused.stdout) == (77, "")
    assert "audit" in refused.stderr
    assert house.cli("carol", "status", "site").returncode == 4, "he sees the log, and no service"
    denied = records(house.cli("carol", "audit", "search", "--action", "audit", "--outcome", "denied", "--json").stdout)
    assert [one["user"] for one in denied] == [house.people["alice"].name], "and that others tried to read it"


def test_the_last_records_are_told_and_root_reads_without_the_api(house: House) -> None:
    told = house.cli("carol", "audit", "tail", "-n", "3", "--json")
    assert len(records(told.stdout)) == 3, told
    socket = str(house.run_dir / "root.sock")
    told = house.run_as(ROOT, str(PREFIX / "bin" / "durward"), "--root", socket, "audit", "search", "--json")
    numbers = [one["n"] for one in records(told.stdout)]
    assert numbers == list(range(len(numbers))), told
    assert len(numbers) > 5


def test_one_request_is_one_story_from_its_decision_to_its_outcome_with_what_privileged_did(house: House) -> None:
    assert house.cli("alice", "restart", "site").returncode == 0
    found = house.cli("carol", "audit", "search", "--action", "restart", "--kind", "decision", "--json")
    request = str(records(found.stdout)[-1]["id"])
    story = records(house.cli("carol", "audit", "search", "--request", request, "--json").stdout)
    assert story[0]["kind"] == "decision"
    assert story[-1]["kind"] == "outcome"
    assert [one["n"] for one in story] == sorted(one["n"] for one in story)
    assert {one["id"] for one in story if one["kind"] == "step"} == {request}
    deeds = [one["deed"] for one in story if one["kind"] == "deed"]
    assert {"spawn", "signal"} <= set(deeds), story


def test_what_was_loaded_is_there_with_the_hash_of_each_file_and_a_reload_says_who_and_what(house: House) -> None:
    first = next(record for record in house.audit() if record["kind"] == "load")
    files = dict(first["files"])
    for name in ("durward.toml", "policy.d/20-audit.toml"):
        assert files[name] == hashlib.sha256((house.etc / name).read_bytes()).hexdigest()
    house.write("policy.d/20-audit.toml", AUDITOR + "# as before\n")
    house.operate(messages.Reload())
    loads = house.until(lambda: [one for one in house.audit() if one["kind"] == "load" and one["id"]], "it is recorded")
    load = loads[-1]
    changed = hashlib.sha256((house.etc / "policy.d/20-audit.toml").read_bytes()).hexdigest()
    assert load["files"] == {"policy.d/20-audit.toml": changed}
    asked = [record for record in house.audit() if record["kind"] == "decision" and record["id"] == load["id"]]
    assert [(one["user"], one["action"]) for one in asked] == [("root", "reload")]


def test_a_copy_of_the_log_is_verified_elsewhere_by_somebody_without_any_right(house: House) -> None:
    copy = house.folder / "people" / house.people["alice"].name
    for source in (house.log / "audit" / "audit.jsonl", house.state / "log" / "audit.initial"):
        (copy / source.name).write_bytes(source.read_bytes())
        (copy / source.name).chmod(0o644)
    words = ("audit", "verify", str(copy / "audit.jsonl"), "--key", str(copy / "audit.initial"))
    verified = house.cli("alice", *words)
    assert verified.returncode == 0, verified
    assert "unchanged with the first key" in verified.stdout
    text = (copy / "audit.jsonl").read_bytes()
    (copy / "audit.jsonl").write_bytes(text.replace(b'"allowed":true', b'"allowed":null', 1))
    verified = house.cli("alice", *words)
    assert verified.returncode == 1
    assert ": changed: record " in verified.stdout
