"""Logs."""

from __future__ import annotations

import os

import pytest

from policy import messages
from userapi.http.logs import followed


@pytest.fixture
def log(world, tmp_path):
    """A log of four lines, one of them rotated away."""
    (tmp_path / "1").write_bytes(b"a\n")
    (tmp_path / "0").write_bytes(b"b\n\x1b]52;c;AAAA\x07c\nd\n")

    def opened(command):
        try:
            descriptor = os.open(tmp_path / str(command.rotated), os.O_RDONLY)
        except FileNotFoundError:
            return messages.Refused(kind="unknown", text="no such file")
        return (messages.LogOpened(service="site", process="site", stream="stdout", size=1), descriptor)

    world.answers[messages.OpenLog] = opened
    return tmp_path


def test_the_last_lines_come_as_they_are(http, log):
    answer = http.get("/api/v1/services/site/logs?n=2")
    assert answer.data == b"\x1b]52;c;AAAA\x07c\nd\n"
    assert answer.mimetype == "text/plain"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_rotated_lines_come_too(http, log):
    assert http.get("/api/v1/services/site/logs").data.startswith(b"a\nb\n")


def test_stream_and_process_are_asked_for(http, log, world):
    http.get("/api/v1/services/site/logs?n=1&stream=stderr&process=site:1")
    assert world.commands() == [messages.OpenLog(service="site", stream="stderr", process="site:1")]


def test_a_reader_comes_back_to_its_place(http, log):
    answer = http.get("/api/v1/services/site/logs?n=1")
    inode, offset = answer.headers["Durward-Log-Position"].split(":")
    place = f"{inode}:{int(offset) + len(answer.data)}"
    with (log / "0").open("ab") as file:
        file.write(b"e\n")
    assert http.get(f"/api/v1/services/site/logs?after={place}").data == b"e\n"


@pytest.mark.parametrize("query", ["n=x", "n=-1", "n=", "stream=audit", "process=" + "x" * 90, "after=1", "follow=x"])
def test_a_question_that_is_wrong_is_400(http, world, query):
    assert http.get(f"/api/v1/services/site/logs?{query}").status_code == 400
    assert world.commands() == []


def test_a_refusal_is_a_problem_and_gives_its_permit_back(http, world):
    world.answers[messages.OpenLog] = messages.Refused(
        kind="forbidden", text="no rule lets alice read the logs of site"
    )
    for _ in range(10):
        assert http.get("/api/v1/services/site/logs").status_code == 403


def test_a_log_to_which_nothing_was_written_yet_is_empty_and_read_from_its_first_byte_on(http, log, world):
    opened = world.answers[messages.OpenLog]
    nothing = messages.LogOpened(service="site", process="site", stream="stdout", size=0)
    world.answers[messages.OpenLog] = lambda command: opened(command) if command.rotated else nothing
    (log / "1").rename(log / "renamed")
    answer = http.get("/api/v1/services/site/logs")
    assert (answer.status_code, answer.data) == (200, b"")
    world.answers[messages.OpenLog] = opened
    answer = http.get(f"/api/v1/services/site/logs?after={answer.headers['Durward-Log-Position']}")
    assert answer.data.startswith(b"b\n")


class Lines:
    """A tail that has a line each time it is asked, and is refused when it asks again whether it may."""

    def __init__(self):
        self.checks = []

    def more(self, check):
        self.checks.append(check)
        if check:
            from userapi.client import Refusal

            raise Refusal(messages.Refused(kind="no-session", text="over"))
        yield b"x\n"


def test_following_ends_when_the_session_does(monkeypatch):
    monkeypatch.setattr("userapi.http.logs.POLL", 0.0)
    monkeypatch.setattr("userapi.http.logs.CHECK", 0.0)
    assert list(followed(Lines(), lambda: False)) == [b"x\n"]


def test_following_ends_when_its_time_is_over(monkeypatch):
    monkeypatch.setattr("userapi.http.logs.POLL", 0.0)
    left = [False, False, True]
    assert len(list(followed(Lines(), lambda: left.pop(0)))) == 3
