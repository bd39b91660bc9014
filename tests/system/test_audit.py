"""The audit log as an auditor uses it: read with a right of its own, followed, and verified where the files are."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator

import pytest
from house import PATIENCE, PREFIX, House
from people import People, Person
from space import Space
from templates import POLICY

from policy import messages
from userapi.audit import verify

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


def grant(name: str, who: str) -> str:
    return f'[[grant]]\nid = "{name}"\nwho = ["{who}"]\nmay = ["restart"]\non = ["site"]\n'


def rights(house: House, since: int, timeout: float = PATIENCE) -> list[dict[str, object]]:
    """What has changed in them by the loads from this record on, when something is told of it."""

    def found() -> list[dict[str, object]]:
        loads = [one["id"] for one in house.audit()[since:] if one["kind"] == "load"]
        return [one for one in house.audit()[since:] if one["kind"] == "rights" and one["id"] in loads]

    return house.until(found, "it is told what changed in rights", timeout)


def test_what_a_reload_changes_in_rights_is_told_as_part_of_its_story_and_shown_in_words(house: House) -> None:
    house.write("policy.d/30-more.toml", grant("more", "group:@staff@"))
    since = len(house.audit())
    house.operate(messages.Reload())
    (told,) = rights(house, since)
    group = house.fill("group:@staff@")
    assert (told["user"], told["text"]) == ("root", "1 gained")
    assert told["gained"] == [{"who": group, "may": "restart", "on": "site", "if": "always"}]
    story = records(house.cli("carol", "audit", "search", "--request", str(told["id"]), "--json").stdout)
    kinds = [one["kind"] for one in story]
    assert kinds.index("decision") < kinds.index("load") < kinds.index("rights")
    load = story[kinds.index("load")]
    assert (load["policy"], load["user"]) == (told["policy"], "root")
    line = f"1 gained; gained: {group} may restart on site, always"
    assert line in house.cli("carol", "audit", "search", "--kind", "rights", "--user", "root").stdout
    assert line in house.cli("carol", "audit", "tail", "-n", "50").stdout
    (house.etc / "policy.d" / "30-more.toml").unlink()
    since = len(house.audit())
    house.operate(messages.Reload())
    assert [one["text"] for one in rights(house, since)] == ["1 lost"]


def test_a_kill_9_of_the_supervisor_is_no_change_and_hides_none(house: House) -> None:
    house.write("policy.d/30-more.toml", "".join(grant(f"r{n}", f"user:somebody{n}") for n in range(60)))
    since = len(house.audit())
    house.operate(messages.Reload())
    load = house.until(lambda: [one for one in house.audit()[since:] if one["kind"] == "load"], "it is loaded")[0]
    kept = house.run_dir / "supervisor" / "loaded.json"
    house.until(lambda: json.loads(kept.read_bytes())["policy"] == load["policy"], "the next supervisor knows of it")
    house.wait_back("supervisor", house.kill9("supervisor"))
    told = rights(house, since)
    (_, *others) = [one for one in house.audit()[since:] if one["kind"] == "load"]
    assert {(one["id"], one["text"]) for one in told} == {(load["id"], "25 gained, and 35 more")}
    assert [(one["changed"], one["files"]) for one in others] == [("no change", {})]


def test_what_was_edited_while_the_daemon_was_down_is_told_when_it_is_started(house: House) -> None:
    house.stop()
    (house.etc / "policy.d" / "30-more.toml").unlink()
    since = len(house.audit())
    house.start()
    (told,) = rights(house, since)
    (load,) = [one for one in house.audit()[since:] if one["kind"] == "load"]
    assert (load["changed"], load["files"]) == ("files removed: policy.d/30-more.toml", {"policy.d/30-more.toml": ""})
    assert (told["id"], told["text"]) == ("", "25 lost, and 35 more")
    for person in ("alice", "carol"):
        house.login(person)


@pytest.mark.slow
def test_a_change_that_is_too_large_to_be_compared_is_said_and_holds_nobody_up(house: House) -> None:
    for word in ("old", "new"):
        house.write("policy.d/30-more.toml", "".join(grant(f"r{n}", f"group:{word}{n}") for n in range(5_000)))
        since = len(house.audit())
        house.operate(messages.Reload())
    assert house.cli("alice", "restart", "site").returncode == 0
    assert house.status()
    told = rights(house, since, 400)
    restarted = next(one for one in house.audit()[since:] if one.get("action") == "restart")
    assert int(str(restarted["n"])) < int(str(told[-1]["n"])), "what was asked meanwhile did not wait for it"
    assert str(told[-1]["text"]).startswith("not known: it took more than ")
    assert str(told[-1]["all"]).startswith("durward policy diff OLD NEW")


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


def test_e4_a_full_disk_refuses_changes_is_said_everywhere_and_recovers_by_itself(
    make_house: Callable[..., House],
) -> None:
    house = make_house()
    place = house.log / "audit"
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "durward-test", place], check=True)
    try:
        house.start()
        house.login("alice")
        ballast = place / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        refused = house.until(lambda: (ended := house.cli("alice", "restart", "site")).returncode == 75 and ended, "no")
        assert "the audit log cannot be written: No space left on device; nothing was done" in refused.stderr
        before = house.pids("site")
        told = house.cli("alice", "status")
        assert told.returncode == 0, "what changes nothing works"
        assert "RUNNING" in told.stdout
        assert (
            "the audit log cannot be written: No space left on device; what changes something is refused" in told.stderr
        )
        assert house.pids("site") == before
        ballast.unlink()
        house.until(
            lambda: "audit" not in house.cli("alice", "status").stderr, "it is written again, and nobody says so"
        )
        assert house.cli("alice", "restart", "site").returncode == 0
        house.stop()
        keys = verify.parse_keys((house.state / "log" / "audit.initial").read_bytes())
        with (place / "audit.jsonl").open("rb") as log:
            assert verify.verify(log, keys).problems == ()
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
