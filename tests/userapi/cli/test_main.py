"""The command as a whole."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import userapi

ROOT = Path(userapi.__path__[0]).parent  # what is installed; a checkout is left as it is
CODE = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from userapi.cli.__main__ import main; sys.exit(main())"
HEAVY = {
    "ssl",
    "http.client",
    "getpass",
    "msgspec",
    "dataclasses",
    "subprocess",
    "urllib",
    "logging",
    "tomllib",
    "asyncio",
}


def test_the_hot_path_imports_the_standard_library_only_and_little_of_it(alice):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from userapi.cli.__main__ import main; code = main();"
        " print(*sorted(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-I", "-S", "-c", code, "status"]
    ended = subprocess.run(command, env=alice.environ, capture_output=True, text=True, check=True)
    imported = set(ended.stderr.split())
    assert not {name for name in imported if name.partition(".")[0] in HEAVY or name in HEAVY}
    ours = {name for name in imported if name.partition(".")[0] in ("policy", "rootd", "userapi", "flask", "gunicorn")}
    assert all(name == "userapi" or name.startswith("userapi.cli") for name in ours)


def test_a_status_costs_little_more_than_an_interpreter(alice):
    """In one run, each time one after the other: a budget in seconds would be the machine's, not ours."""

    def seconds(command: list[str]) -> float:
        begun = time.perf_counter()
        subprocess.run(command, env=alice.environ, capture_output=True, check=True)
        return time.perf_counter() - begun

    pairs = [
        (seconds([sys.executable, "-I", "-c", CODE, "status"]), seconds([sys.executable, "-I", "-c", "pass"]))
        for _ in range(10)
    ]
    assert min(status / bare for status, bare in pairs) < 5


def test_nobody_there_is_69(durward):
    ended = durward("status", env={"DURWARD_URL": "unix:/nonexistent/api.sock"})
    assert ended.returncode == 69
    assert "/nonexistent/api.sock" in ended.stderr
    assert durward("--root", "/nonexistent/root.sock", "status").returncode == 69


def test_not_logged_in_is_77_and_says_what_to_do(durward):
    ended = durward("status")
    assert (ended.returncode, ended.stderr) == (77, "log in first: durward login\n")


def test_a_session_that_has_ended_is_77_and_says_what_to_do(alice, world):
    world.live.clear()
    assert "log in" in alice("status").stderr


def test_a_supervisor_that_is_away_is_75(alice, world):
    world.supervisor.script = lambda _: world.die
    assert alice("stop", "site").returncode == 75


@pytest.mark.parametrize("language", ["C", "C.UTF-8", "de_DE.ISO-8859-1"])
def test_any_language_can_be_shown(alice, world, language):
    from policy import messages

    service = messages.ServiceInfo(name="site", state="RUNNING", wanted="up", processes=[], text="größe → \ud800"[:8])
    world.answers[messages.Status] = messages.Services(services=[service])
    assert alice("status", env={"LC_ALL": language, "PYTHONUTF8": "0"}).returncode == 0


def test_colours_only_on_a_terminal_that_wants_them(alice, terminal):
    assert "\x1b[32mRUNNING" in terminal(alice, "status")[1]
    assert "\x1b" not in terminal(alice, "status", NO_COLOR="1")[1]
    assert "\x1b" not in terminal(alice, "status", "--color", "never")[1]
    assert "\x1b" not in alice("status").stdout
    assert "\x1b[32mRUNNING" in alice("--color", "always", "status").stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine has no /dev/full")
def test_output_that_cannot_be_written_is_a_failure_in_one_line(alice):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-I", "-c", CODE, "status"]
        ended = subprocess.run(command, env=alice.environ, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "cannot go on: No space left on device\n")


def test_a_reader_that_has_seen_enough_is_no_error(alice):
    command = [sys.executable, "-I", "-c", CODE, "status"]
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as reader:
        reader.wait()
        ended = subprocess.run(
            command, env=alice.environ, stdout=reader.stdin, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ended.returncode, ended.stderr) == (1, "")
