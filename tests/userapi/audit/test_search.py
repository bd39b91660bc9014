"""Finding records, and the story of one request."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import rootd
from policy import login, messages, names
from rootd.log.main import DEEDS
from userapi.audit import search
from userapi.audit.search import Query

RECORDS: list[dict[str, Any]] = [
    {"n": 0, "time": "t0", "kind": "start", "reason": "first"},
    {"n": 1, "time": "t1", "kind": "decision", "id": "aa", "user": "alice", "from": "192.0.2.1", "action": "restart",
     "command": "restart", "target": "site", "allowed": True, "rule": "ops", "why": ""},
    {"n": 2, "time": "t2", "kind": "deed", "deed": "spawn", "process": "other.0", "run": 6, "slot": 0, "arg": 0},
    {"n": 3, "time": "t3", "kind": "deed", "deed": "spawn", "process": "site.1", "run": 7, "slot": 1, "arg": 0},
    {"n": 4, "time": "t4", "kind": "step", "id": "aa", "operation": 5, "service": "site", "text": "starting"},
    {"n": 5, "time": "t5", "kind": "decision", "id": "bb", "user": "bob", "action": "stop", "command": "stop",
     "target": "db", "allowed": False, "rule": "", "why": "denied: no rule lets bob stop db"},
    {"n": 6, "time": "t6", "kind": "decision", "id": "cc", "user": "carol", "action": "restart", "command": "restart",
     "target": "site", "allowed": True, "rule": "ops", "why": ""},
    {"n": 7, "time": "t7", "kind": "deed", "deed": "signal", "process": "site pre-start", "run": 3, "slot": 1,
     "arg": 15},
    {"n": 8, "time": "t8", "kind": "step", "id": "aa", "ids": ["aa", "cc"], "operation": 5, "service": "site",
     "text": "ready"},
    {"n": 9, "time": "t9", "kind": "outcome", "id": "aa", "operation": 5, "action": "restart", "target": "site",
     "ok": True, "result": "site restarted", "seconds": 1.0},
    {"n": 10, "time": "t10", "kind": "outcome", "id": "cc", "operation": 5, "action": "restart", "target": "site",
     "ok": False, "result": "no", "seconds": 1.0},
    {"n": 11, "time": "t11", "kind": "deed", "deed": "spawn", "process": "site.1", "run": 9, "slot": 1, "arg": 0},
]  # fmt: skip
LINES = [json.dumps(record).encode() + b"\n" for record in RECORDS]


def numbers(**asked: str) -> list[int]:
    return [record["n"] for record in search.found(Query(**asked), LINES)]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, list(range(12))),
        ({"user": "alice"}, [1]),
        ({"user": "*o*"}, [5, 6]),
        ({"target": "db"}, [5]),
        ({"target": "site", "kind": "deed"}, [3, 7, 11]),
        ({"action": "restart", "outcome": "allowed"}, [1, 6]),
        ({"outcome": "denied"}, [5]),
        ({"outcome": "ok"}, [9]),
        ({"outcome": "failed"}, [10]),
        ({"action": "signal"}, [7]),
        ({"text": "no rule lets b.b"}, [5]),
        ({"text": "192[.]0"}, [1]),
        ({"user": "alice", "target": "db"}, []),
    ],
)
def test_all_that_is_asked_must_hold(asked: dict[str, str], expected: list[int]) -> None:
    assert numbers(**asked) == expected


def test_a_request_is_told_with_its_decision_its_steps_what_was_done_and_its_outcome() -> None:
    assert numbers(request="aa") == [1, 3, 4, 7, 8, 9], "and not what was done to others, or later"
    assert numbers(request="cc") == [6, 7, 8, 10], "who joined it has the rest of it"
    assert numbers(request="bb") == [5]
    assert numbers(request="dd") == []


def test_a_service_whose_name_has_a_dot_is_itself() -> None:
    assert [search.service_of(name) for name in ("site.1", "site", "a.b.0", "a.b", "site.0 stop")] == [
        "site", "site", "a.b", "a.b", "site",
    ]  # fmt: skip


def test_lines_that_are_no_records_are_left_out() -> None:
    rubbish = [b"", b"\n", b"[]", b'{"n":"1"}', b"\xff", b'{"a":' + b"[" * 100_000]
    assert list(search.found(Query(), rubbish)) == []


@pytest.mark.parametrize("asked", [{"outcome": "yes"}, {"text": "("}, {"text": r"\u00e9"}])
def test_what_cannot_be_asked_is_said(asked: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"one of|no regular expression"):
        Query(**asked).check()
    Query(outcome="ok", text="a|b").check()


@pytest.mark.parametrize(
    "asked", [{"kind": "Decision"}, {"kind": "x*"}, {"action": "restar"}, {"kind": "read"}, {"action": "RESTART"}]
)
def test_what_no_record_can_be_is_told_with_what_there_is(asked: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"there are .*(decision|restart), "):
        Query(**asked).check()
    Query(kind="dec*", action="*-log").check()
    Query(kind="deed", action="exited").check()


def test_every_kind_that_is_written_can_be_asked_for_and_no_other() -> None:
    root = Path(rootd.__file__).parent
    texts = [path.read_text() for part in ("supervisor", "log") for path in sorted((root / part).glob("*.py"))]
    written = {kind for text in texts for kind in re.findall(r'"kind": "([a-z]+)"', text)}
    assert written == set(search.KINDS)
    commands = {str(command.__struct_config__.tag) for command in get_args(messages.Command)}
    tokens = {*get_args(get_type_hints(login.TokenNoted)["what"]), "wrong"}
    assert {*names.Action, "self", *commands, *DEEDS.values(), *tokens} == set(search.ACTIONS)


def test_what_stands_in_the_column_of_actions_is_found_by_it() -> None:
    record = {"n": 1, "kind": "token", "what": "revoked", "user": "alice", "token": "deploy"}
    assert search.row(record)[6] == "revoked"
    assert [*search.found(Query(action="revoked"), [json.dumps(record).encode()])] == [record]


def test_each_record_is_a_row_of_all_columns() -> None:
    rows = [search.row(record) for record in RECORDS]
    assert {len(row) for row in rows} == {len(search.COLUMNS)}
    assert rows[1] == ["1", "t1", "decision", "aa", "alice", "192.0.2.1", "restart", "site", "allowed", "by ops"]
    assert rows[3][5:] == ["", "spawn", "site.1", "", "run 7, slot 1, 0"]
    assert rows[9][6:] == ["restart", "site", "ok", "site restarted"]
    load = {"n": 2, "time": "t", "kind": "load", "changed": "added: site", "files": {}}
    assert search.row(load) == ["2", "t", "load", "", "", "", "", "", "", "added: site"]


def test_what_a_load_changes_in_rights_is_told_in_words() -> None:
    gained = {"who": "group:ops", "may": "restart", "on": "site", "if": "with a reason", "unless": "group:new"}
    lost = {"who": "user:eve", "may": "view, logs", "on": "every service", "if": "always", "other": "now: until x"}
    told = {"n": 3, "time": "t", "kind": "rights", "id": "aa", "user": "root", "text": "1 gained, 1 lost, and 7 more"}
    told |= {"gained": [gained], "lost": [lost], "more": 7, "all": "durward policy diff OLD NEW"}
    assert search.row(told)[2:5] == ["rights", "aa", "root"]
    assert search.row(told)[9] == (
        "1 gained, 1 lost, and 7 more; gained: group:ops may restart on site, with a reason unless group:new;"
        " lost: user:eve may view, logs on every service, always (now: until x); durward policy diff OLD NEW"
    )
    assert search.row({"n": 4, "kind": "rights", "text": "no right changed"})[9] == "no right changed"
    assert search.row({"n": 5, "kind": "rights", "text": "x", "gained": "damaged"})[9] == "x"


def test_e3_no_record_hides_the_others_whatever_a_supervisor_that_was_taken_over_says_in_it() -> None:
    dice = random.Random(6)
    names = ("id", "ids", "user", "kind", "allowed", "ok", "process", "deed", "gained", "lost", "all", "service")
    values = (None, True, 7, "", "aa", "rights", "deed", [], ["aa"], [7, None], {}, {"who": 1}, [{"may": []}])
    for _ in range(300):
        found = [{dice.choice(names): dice.choice(values) for _ in range(5)} for _ in range(4)]
        told = [json.dumps({"n": number, **record}).encode() for number, record in enumerate(found)]
        assert len([search.row(record) for record in search.found(Query(), told)]) == len(found)
        list(search.found(Query(user="a*", target="s", outcome="ok", request="aa"), told))


def test_what_was_done_through_a_token_is_found_by_its_name_and_shown_with_it() -> None:
    record = {**RECORDS[1], "token": "deploy"}
    lines = [*LINES, json.dumps({**record, "n": 12}).encode()]
    assert [one["n"] for one in search.found(Query(token="dep*"), lines)] == [12]
    assert search.row(record)[4] == "alice (token deploy)"
    made = {"n": 1, "kind": "token", "what": "made", "user": "alice", "token": "deploy", "for": "view on site"}
    assert search.row(made)[4:] == ["alice (token deploy)", "", "made", "", "", "view on site"]
