"""durward logs."""

from __future__ import annotations

import json
import os

import pytest

from policy import messages

EVIL = b"a\n\x1b]52;c;AAAA\x07\x9b31m\xe2\x80\xaeb\r\nc\n"


@pytest.fixture
def log(alice, world, tmp_path):
    (tmp_path / "0").write_bytes(EVIL)

    def opened(command):
        if command.rotated:
            return messages.Refused(kind="unknown", text="none")
        told = messages.LogOpened(service="site", process="site", stream="stdout", size=4)
        return (told, os.open(tmp_path / "0", os.O_RDONLY))

    world.answers[messages.OpenLog] = opened
    world.answers[messages.Status] = messages.Services([])  # alice may read them without seeing the service
    return tmp_path / "0"


def test_an_empty_log_says_where_the_rest_may_be(alice, log):
    log.write_bytes(b"")
    assert alice("logs", "site").stderr == "nothing on stdout; for the rest: --stream stderr\n"
    assert alice("logs", "site", "--stream", "stderr").stderr == "nothing on stderr; for the rest: --stream stdout\n"
    assert alice("logs", "site", "--json").stderr == alice("logs", "site", "-n", "0").stderr == ""


def test_e2_terminal_escapes_are_made_harmless(alice, log):
    assert alice("logs", "site").stdout == "a\n\\x1b]52;c;AAAA\\x07\\x9b31m\\u202eb\nc\n"


def test_e2_in_json_too(alice, log):
    out = alice("logs", "site", "--json").stdout
    assert json.loads(out) == {
        "service": "site",
        "stream": "stdout",
        "lines": ["a", "\\x1b]52;c;AAAA\\x07\\x9b31m\\u202eb", "c"],
    }


def test_raw_is_the_bytes_as_they_are(alice, log):
    assert alice.raw("logs", "--raw", "site") == EVIL
    assert alice("logs", "--raw", "--json", "site").returncode == 2


def test_as_many_lines_as_asked_for(alice, log):
    assert alice("logs", "-n", "1", "site").stdout == "c\n"
    assert alice("logs", "-n", "0", "site").stdout == ""
    assert alice("logs", "-n", "-1", "site").returncode == 2


def test_stream_and_process_can_be_named(alice, log, world):
    alice("logs", "-n", "1", "--stream", "stderr", "site:1")
    assert world.commands() == [messages.OpenLog(service="site", stream="stderr", process="site:1")]


@pytest.mark.parametrize("words", [["-f"], ["-f", "--json"]])
def test_following_shows_what_comes(alice, log, words):
    process = alice.start("logs", "-n", "1", *words, "site")
    assert process.stdout is not None
    spelled = (lambda text: f'{{"line": "{text}"}}\n') if "--json" in words else (lambda text: f"{text}\n")
    assert process.stdout.readline() == spelled("c")
    with log.open("ab") as file:
        file.write(b"d\n")
    assert process.stdout.readline() == spelled("d")
    process.kill()
    process.communicate()


def test_a_reader_that_goes_away_is_no_error_message(alice, log):
    log.write_bytes(b"x" * 79 + b"\n")
    log.write_bytes(log.read_bytes() * 5000)
    process = alice.start("logs", "-n", "5000", "site")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 1


def test_over_root_sock_they_are_the_same(alice, root, log):
    assert alice("--root", "logs", "site").stdout == alice("logs", "site").stdout


def test_a_denial_is_a_denial(alice, world):
    world.answers[messages.OpenLog] = messages.Refused(kind="forbidden", text="denied: no rule lets alice read logs")
    assert alice("logs", "site").returncode == 77


@pytest.mark.parametrize("word", ["site:x", "site:", "site:0:1", "../x:0"])
def test_a_process_that_cannot_be_is_4_with_an_example(alice, log, world, word):
    ended = alice("logs", word)
    assert ended.returncode == 4
    assert ended.stderr.startswith(f"no service '{word}' that you may view; ")
    assert "such as site:0" in ended.stderr
    assert messages.OpenLog not in map(type, world.commands())


@pytest.fixture
def two(alice, world, log, tmp_path):
    """db has a stderr too; worker has no log."""
    (tmp_path / "stdout").write_bytes(b"2026-01-02T03:00:00Z one\n2026-01-02T04:00:00Z two \x1b[31m\n")
    (tmp_path / "stderr").write_bytes(b"oops\n")

    def opened(command):
        if command.rotated or command.service == "worker":
            return messages.Refused(kind="unknown", text="none")
        told = messages.LogOpened(service=command.service, process="", stream=command.stream, size=4)
        return (told, os.open(tmp_path / command.stream, os.O_RDONLY))

    world.answers[messages.OpenLog] = opened
    world.answers[messages.Status] = messages.Services([])
    return tmp_path


def test_lines_of_several_logs_say_whose_they_are(alice, two):
    ended = alice("logs", "site", "db")
    one, red = "2026-01-02T03:00:00Z one", "2026-01-02T04:00:00Z two \\x1b[31m"
    assert ended.stdout == f"db   | {one}\ndb   | {red}\nsite | {one}\nsite | {red}\n"
    assert "\x1b[36mdb  \x1b[0m | " in alice("--color", "always", "logs", "site", "db").stdout


def test_both_streams_of_one_service_are_two_logs(alice, two):
    assert alice("logs", "--stream", "both", "-n", "1", "db").stdout.splitlines()[1] == "db stderr | oops"
    found = [
        json.loads(line) for line in alice("logs", "--stream", "both", "-n", "1", "db", "--json").stdout.splitlines()
    ]
    assert found[1] == {"service": "db", "stream": "stderr", "line": "oops"}


def test_one_that_has_no_log_does_not_keep_the_others_from_being_told(alice, two):
    ended = alice("logs", "db", "worker", "-n", "1")
    assert ended.returncode == 4
    assert ended.stdout.startswith("db     | 2026")
    assert ended.stderr == "worker: none\n"


def test_the_logs_of_a_service_with_several_processes_are_those_of_each(alice, two, world):
    its = [messages.ProcessInfo(name=f"site:{index}", state="RUNNING", pid=7, since="") for index in (0, 1)]
    site = messages.ServiceInfo(name="site", state="RUNNING", wanted="up", processes=its)
    world.answers[messages.Status] = messages.Services([site])
    ended = alice("logs", "-n", "1", "--grep", "two", "site")
    assert [line.split(" | ")[0] for line in alice("logs", "site").stdout.splitlines()] == 2 * ["site:0"] + 2 * [
        "site:1"
    ]
    assert [line.split(" ")[0] for line in ended.stdout.splitlines()] == ["site:0", "site:1"]
    found = [json.loads(line) for line in alice("logs", "-n", "1", "--json", "site").stdout.splitlines()]
    assert [(one["service"], one["process"], one["stream"]) for one in found] == [
        ("site", "site:0", "stdout"), ("site", "site:1", "stdout"),
    ]  # fmt: skip
    assert [line[:6] for line in alice("logs", "-n", "1", "site", "db").stdout.splitlines()] == [
        "db    ",
        "site:0",
        "site:1",
    ]
    assert alice("logs", "-n", "1", "site:1").stdout.startswith("2026"), "one process alone needs no name"
    refused = alice("logs", "--raw", "site")
    assert (refused.returncode, refused.stderr.split("; ")[1:]) == (2, ["of one process: site:0\n"])


def test_since_and_grep_choose_lines(alice, two):
    assert alice("logs", "db", "--since", "2026-01-02T03:30:00Z").stdout == "2026-01-02T04:00:00Z two \\x1b[31m\n"
    assert (
        alice("logs", "db", "--grep", "one$", "--json").stdout
        == json.dumps({"service": "db", "stream": "stdout", "lines": ["2026-01-02T03:00:00Z one"]}) + "\n"
    )
    unknown = alice("logs", "db", "--stream", "stderr", "--since", "1h")
    assert (unknown.stdout, unknown.stderr.split(":")[0]) == ("", "db")
    assert alice("logs", "db", "--since", "soon").returncode == 2
    assert alice("logs", "db", "--raw", "--grep", "x").returncode == 2


def test_several_are_followed_at_once(alice, two):
    process = alice.start("logs", "-f", "-n", "1", "site", "db")
    assert process.stdout is not None
    assert {process.stdout.readline()[:6] for _ in range(2)} == {"db   |", "site |"}
    with (two / "stdout").open("ab") as file:
        file.write(b"more\n")
    assert {process.stdout.readline() for _ in range(2)} == {"db   | more\n", "site | more\n"}
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("option", "command"), [("--clear", messages.ClearLog), ("--reopen", messages.ReopenLog)])
def test_logs_can_be_cleared_and_files_begun_anew(alice, world, option, command):
    assert alice("logs", option, "site").stdout.startswith("the log")
    assert alice("logs", option, "site:1").returncode == 0
    assert world.commands() == [command("site"), command("site", "site:1")]
    assert json.loads(alice("logs", option, "site", "--json").stdout).keys() == {"text"}
    told = alice("logs", option, "all")
    assert told.returncode == 0
    assert [one for one in world.commands()[3:] if isinstance(one, command)] == [command("site"), command("worker")]
    world.answers[command] = messages.Refused(kind="forbidden", text="denied: no rule lets alice clear site")
    assert alice("logs", option, "site").returncode == 77


@pytest.mark.parametrize("more", [["-f"], ["-n", "3"], ["--since", "10m"], ["--stream", "both"], ["--clear"]])
def test_reopening_takes_no_option_of_reading(alice, world, more):
    assert alice("logs", "--reopen", *more, "site").returncode == 2
    assert world.commands() == []


def test_what_can_be_no_process_is_not_asked_for(alice, world):
    assert alice("logs", "--clear", "site:x").returncode == 4
    assert not any(isinstance(one, messages.ClearLog) for one in world.commands())
