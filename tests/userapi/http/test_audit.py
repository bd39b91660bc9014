"""The audit log over HTTP."""

from __future__ import annotations

import json
import os

import pytest

from policy import messages


def line(n):
    return f'{{"n":{n},"time":"2026-11-23T12:{n:02}:00.000000Z","kind":"x"}}\n'


@pytest.fixture
def log(world, tmp_path):
    """Six records in two files."""
    (tmp_path / "1").write_text("".join(map(line, range(3))))
    (tmp_path / "0").write_text("".join(map(line, range(3, 6))))

    def opened(command):
        try:
            descriptor = os.open(tmp_path / str(command.rotated), os.O_RDONLY)
        except FileNotFoundError:
            return messages.Refused(kind="unknown", text="no such file")
        return (messages.LogOpened(service="", process="audit.jsonl", stream="audit", size=1), descriptor)

    world.answers[messages.OpenAudit] = opened
    return tmp_path


def numbers(answer):
    assert answer.status_code == 200
    assert answer.mimetype == "application/x-ndjson"
    return [json.loads(one)["n"] for one in answer.data.splitlines()]


def test_all_of_it_comes_oldest_first_as_it_is(http, log):
    answer = http.get("/api/v1/audit")
    assert numbers(answer) == list(range(6))
    assert answer.text == "".join(map(line, range(6)))


def test_a_span_by_number_or_time(http, log, world):
    assert numbers(http.get("/api/v1/audit?from=4")) == [4, 5]
    assert world.commands() == [messages.OpenAudit()], "the older file was not asked for"
    assert numbers(http.get("/api/v1/audit?from=2026-11-23T12:01&to=2026-11-23T12:03")) == [1, 2, 3]


def test_the_last_records_and_those_after_a_place(http, log):
    answer = http.get("/api/v1/audit?n=2")
    assert numbers(answer) == [4, 5]
    inode, offset = answer.headers["Durward-Log-Position"].split(":")
    with (log / "0").open("a") as file:
        file.write(line(6))
    assert numbers(http.get(f"/api/v1/audit?after={inode}:{int(offset) + len(answer.data)}")) == [6]


def test_who_may_not_read_it_is_told_before_anything_is_sent(http, world):
    world.answers[messages.OpenAudit] = messages.Refused(kind="forbidden", text="denied: no rule lets alice audit")
    for query in ("", "?n=5", "?n=5&follow=true"):
        answer = http.get(f"/api/v1/audit{query}")
        assert (answer.status_code, answer.json["detail"]) == (403, "denied: no rule lets alice audit")


@pytest.mark.parametrize(
    "query",
    [
        "n=x",
        "from=yesterday",
        "from=5&to=3",
        "to=-1",
        "after=1",
        "follow=x",
        "from=1&n=2",
        "to=1&follow=true",
        "user=alice",
    ],
)
def test_a_question_that_is_wrong_is_400(http, world, query):
    assert http.get(f"/api/v1/audit?{query}").status_code == 400
    assert world.commands() == []


def test_a_permit_is_given_back_whatever_happens(http, log, world, app):
    for _ in range(50):
        assert numbers(http.get("/api/v1/audit?from=3")) == [3, 4, 5]
    world.answers[messages.OpenAudit] = messages.Refused(kind="forbidden", text="no")
    for _ in range(50):
        assert http.get("/api/v1/audit").status_code == 403
