"""durward audit, as people run it: without a daemon, on files that they may read."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from policy import messages
from rootd.log import chain

KEY = bytes(range(32))
TIME = "2026-11-23T12:0{}:00.000000Z"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of ten records in two files, its first key, and an anchor of the last one."""
    lines, head, key = [], chain.NO_HEAD, KEY
    for n in range(10):
        members = chain.canonical({"kind": "start", "reason": "first"} if n == 0 else {"kind": "step", "i": n})
        line = chain.make(n, TIME.format(n), members, head, key)
        lines.append(line + b"\n")
        head, key = chain.digest(line), chain.next_key(key)
    (tmp_path / "audit-0000000000000000.jsonl").write_bytes(b"".join(lines[:4]))
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines[4:]))
    (tmp_path / "audit.initial").write_text(f"0 {KEY.hex()}\n")
    (tmp_path / "anchors").write_text(f"Nov 27 host log[1]: audit anchor number=9 head={head.hex()} time={TIME}\n")
    return tmp_path


def test_an_unchanged_log_is_said_to_be_so_with_exit_0(durward: Any, log: Path) -> None:
    ended = durward("audit", "verify", str(log), "--key", str(log / "audit.initial"), "--anchors", str(log / "anchors"))
    assert ended.returncode == 0, ended
    assert ended.stdout.startswith("10 records, 0 to 9: unchanged with the first key, 1 of 1 anchors compared; it ends")
    assert ended.stderr == ""


def test_without_key_and_anchors_it_says_that_it_proves_less(durward: Any, log: Path) -> None:
    ended = durward("audit", "verify", str(log))
    assert ended.returncode == 0
    assert "unchanged as a chain" in ended.stdout
    assert "without --key this proves less" in ended.stderr
    assert "without --anchors" in ended.stderr


def test_the_first_bad_record_and_its_damage_are_named_with_file_and_line_and_exit_1(durward: Any, log: Path) -> None:
    file = log / "audit.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"i":6', b'"i":9'))
    ended = durward("audit", "verify", str(log), "--key", str(log / "audit.initial"))
    assert ended.returncode == 1
    first, last = ended.stdout.splitlines()
    assert first.startswith(f"{file}:3: changed: record 6 was changed")
    assert last == "10 records, 0 to 9: NOT as written; the first bad record is 6"


def test_a_log_shorter_than_an_anchor_fails(durward: Any, log: Path) -> None:
    file = log / "audit.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-2]))
    key = ("--key", str(log / "audit.initial"))
    assert durward("audit", "verify", str(log), *key).returncode == 0, "which is what anchors are for"
    ended = durward("audit", "verify", str(log), *key, "--anchors", str(log / "anchors"))
    assert ended.returncode == 1
    assert "truncated: the log ends before record 9" in ended.stdout


def test_a_file_that_is_missing_between_or_before_the_others_is_found(durward: Any, log: Path) -> None:
    ended = durward("audit", "verify", str(log / "audit.jsonl"))
    assert ended.returncode == 1
    assert "removed: records 0 to 3 were removed" in ended.stdout


def test_a_span_is_verified_by_itself(durward: Any, log: Path) -> None:
    key = ("--key", str(log / "audit.initial"))
    ended = durward("audit", "verify", str(log / "audit.jsonl"), *key, "--from", "4", "--to", "7")
    assert (ended.returncode, ended.stdout.split(":")[0]) == (0, "4 records, 4 to 7")
    ended = durward("audit", "verify", str(log), *key, "--from", "2026-11-23T12:03", "--to", "2026-11-23T12:05")
    assert (ended.returncode, ended.stdout.split(":")[0]) == (0, "3 records, 3 to 5")
    ended = durward("audit", "verify", str(log), *key, "--from", "2", "--to", "12")
    assert (ended.returncode, "truncated: the log ends before record 12" in ended.stdout) == (1, True)
    ended = durward("audit", "verify", str(log), *key, "--from", "20")
    assert (ended.returncode, "truncated" in ended.stdout) == (1, True)
    ended = durward("audit", "verify", str(log), *key, "--from", "2027-01")
    assert (ended.returncode, "no record is of 2027-01 or later" in ended.stderr) == (2, True)


def test_json_is_one_object_with_each_problem(durward: Any, log: Path) -> None:
    (log / "audit-0000000000000000.jsonl").write_bytes(
        (log / "audit-0000000000000000.jsonl").read_bytes().replace(b'"i":2', b'"i":3')
    )
    ended = durward("audit", "verify", "--json", str(log), "--key", str(log / "audit.initial"))
    assert ended.returncode == 1
    told = json.loads(ended.stdout)
    assert (told["ok"], told["records"], told["first"], told["next_n"]) == (False, 10, 0, 10)
    assert [(one["line"], one["record"], one["damage"]) for one in told["problems"]] == [(3, 2, "changed")]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["/nonexistent"], "cannot be read: No such file"),
        (["--from", "yesterday"], "is no number of a record"),
        (["--from", "5", "--to", "3"], "'to' (3) is before 'from' (5)"),
        (["/dev/null"], "there is no record of an audit log in /dev/null: nothing was verified"),
        (["--key", "/dev/null"], "has no key of an audit log"),
        (["--anchors", "/dev/null"], "there is no anchor in it"),
    ],
)
def test_what_cannot_be_used_is_said_and_exit_2(durward: Any, words: list[str], text: str) -> None:
    ended = durward("audit", "verify", *words)
    assert ended.returncode == 2
    assert text in ended.stderr


# --- search and tail


@pytest.fixture
def served_log(world: Any, log: Path) -> Path:
    """The supervisor opens it."""

    def opened(command: messages.OpenAudit) -> Any:
        name = ("audit.jsonl", "audit-0000000000000000.jsonl")[command.rotated : command.rotated + 1]
        if not name:
            return messages.Refused(kind="unknown", text="none")
        reply = messages.LogOpened(service="", process=name[0], stream="audit", size=1)
        return (reply, os.open(log / name[0], os.O_RDONLY))

    world.answers[messages.OpenAudit] = opened
    return log


def found(ended: Any) -> list[int]:
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    return [json.loads(line)["n"] for line in ended.stdout.splitlines()]


def test_records_are_found_through_the_api(alice: Any, served_log: Path) -> None:
    assert found(alice("audit", "search", "--json")) == list(range(10))
    assert found(alice("audit", "search", "--json", "--kind", "start")) == [0]
    assert found(alice("audit", "search", "--json", "--grep", '"i":[67],')) == [6, 7]
    assert found(alice("audit", "search", "--json", "--from", "3", "--to", "5")) == [3, 4, 5]


def test_records_are_found_in_files_without_a_daemon(durward: Any, log: Path) -> None:
    assert found(durward("audit", "search", "--json", str(log), "--kind", "step", "--to", "3")) == [1, 2, 3]


def test_a_table_has_titles_and_csv_is_for_spreadsheets_and_nothing_is_a_formula(durward: Any, tmp_path: Path) -> None:
    record = {"n": 1, "time": "t", "kind": "decision", "user": "=cmd()", "allowed": False, "why": 'a,\x1b[2J\n"b"'}
    (tmp_path / "audit.jsonl").write_text(json.dumps(record) + "\n")
    ended = durward("audit", "search", str(tmp_path))
    title, row = ended.stdout.splitlines()
    assert title.split() == "N TIME KIND ID USER FROM ACTION TARGET OUTCOME TEXT".split()
    assert "denied" in row
    assert "\x1b" not in row
    rows = list(csv.reader(durward("audit", "search", "--csv", str(tmp_path)).stdout.splitlines()))
    assert rows[0][:4] == ["n", "time", "kind", "id"]
    assert rows[1][4] == "'=cmd()"
    assert len(rows) == 2


def test_nothing_found_is_said_and_is_no_error(durward: Any, log: Path) -> None:
    ended = durward("audit", "search", str(log), "--user", "nobody")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "no record is like that\n")


@pytest.mark.parametrize(
    ("option", "wrong", "there_is"),
    [("--kind", "desicion", "decision"), ("--action", "restrat", "restart"), ("--outcome", "denid", "denied")],
)
def test_what_no_record_can_be_is_a_usage_error_that_names_what_there_is(
    durward: Any, log: Path, option: str, wrong: str, there_is: str
) -> None:
    ended = durward("audit", "search", str(log), option, wrong)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert wrong in ended.stderr
    assert there_is in ended.stderr


def test_the_last_records_are_shown(alice: Any, served_log: Path) -> None:
    assert found(alice("audit", "tail", "-n", "2", "--json")) == [8, 9]
    ended = alice("audit", "tail", "-n", "1")
    assert ended.stdout.split() == ["9", "2026-11-23T12:09:00.000000Z", "step"]


def test_who_may_not_read_it_is_told_why_with_exit_77(alice: Any, world: Any) -> None:
    world.answers[messages.OpenAudit] = messages.Refused(kind="forbidden", text="denied: no rule lets alice audit")
    for words in (["search"], ["tail"], ["tail", "-f"]):
        ended = alice("audit", *words)
        assert ended.returncode == 77
        assert "denied: no rule lets alice audit" in ended.stderr


@pytest.mark.parametrize("words", [["search", "--csv", "--json"], ["search", "--grep", "("], ["tail", "-n", "-1"], []])
def test_what_makes_no_sense_is_a_usage_error(durward: Any, words: list[str]) -> None:
    assert durward("audit", *words).returncode == 2
