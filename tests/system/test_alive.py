"""Ready and alive, by real probes of real services: HTTP, TCP, a command, and the watchdog."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from house import House
from templates import plain

from policy import messages

pytestmark = pytest.mark.root

PORT = 8081
SERVE = ("http", str(PORT), "@FOLDER@/good")
URL = f"http://127.0.0.1:{PORT}/healthz"


def work(house: House) -> tuple[str, str]:
    shown = house.status()["work"]
    return shown.state, shown.processes[0].text


def made(make_house: Callable[..., House], *words: str, more: str, good: bool = False) -> House:
    house = make_house(services={"work.toml": plain("work", *words, more=more)}, policy={})
    if good:
        (house.folder / "good").touch()
    house.start(wait=False).until(house.answers, "root.sock answers")
    return house


def test_a_service_is_ready_when_it_answers_well(make_house: Callable[..., House]) -> None:
    house = made(make_house, *SERVE, more=f'ready = {{ http = "{URL}", interval = "0.1s" }}')
    house.until(lambda: work(house) == ("STARTING", "not ready: HTTP status 503"), "it answers, and not well")
    (house.folder / "good").touch()
    house.until(lambda: work(house) == ("RUNNING", ""), "it answers well")


def test_a_service_is_ready_when_it_takes_connections(make_house: Callable[..., House]) -> None:
    more = f'ready = {{ tcp = "127.0.0.1:{PORT}", interval = "0.1s" }}'
    house = made(make_house, "wait", "@FOLDER@/good", *SERVE, more=more)
    house.until(lambda: work(house) == ("STARTING", "not ready: connection refused"), "nobody listens")
    (house.folder / "good").touch()
    house.until(lambda: work(house) == ("RUNNING", ""), "it listens")


def test_a_service_is_ready_when_its_command_says_so(make_house: Callable[..., House]) -> None:
    argv = '["@PREFIX@/bin/python3", "-I", "@SERVICES@/plain.py", "tell", "need", "@FOLDER@/good", "exit", "0"]'
    house = made(make_house, more=f'ready = {{ command = {argv}, interval = "0.1s" }}')
    house.until(lambda: work(house) == ("STARTING", "not ready: exit status 1"), "its command says no")
    (house.folder / "good").touch()
    house.until(lambda: work(house) == ("RUNNING", ""), "its command says yes")
    said = house.until(lambda: house.service_log("work").splitlines(), "what it says is in the log")
    assert set(said) == {f"ready {house.pids('work')[0]} {house.people['jobs'].uid}"}


def test_a_service_that_answers_no_more_is_replaced_even_when_probe_is_killed(make_house: Callable[..., House]) -> None:
    more = f"""
ready = {{ http = "{URL}", interval = "0.1s" }}
live = {{ http = "{URL}", interval = "0.1s", failures = 2 }}
"""
    house = made(make_house, *SERVE, more=more, good=True)
    house.until(lambda: work(house)[0] == "RUNNING", "it runs")
    before = house.pids("work")
    house.wait_back("probe", house.kill9("probe"))
    assert house.pids("work") == before
    (house.folder / "good").unlink()
    house.until(lambda: work(house)[0] == "STARTING" and house.pids("work") not in (before, []), "it is replaced")
    (house.folder / "good").touch()
    house.until(lambda: work(house)[0] == "RUNNING", "the next one runs")
    assert house.status()["work"].processes[0].exit == "exit status 0"


def test_a_service_that_stays_silent_is_aborted_and_replaced(make_house: Callable[..., House]) -> None:
    more = 'ready = { notify = true }\nlive = { watchdog = "0.4s" }\nlimits = { core = 0 }'
    house = made(make_house, "ready", "alive", "8", more=more)
    house.until(lambda: work(house)[0] == "RUNNING", "it runs")
    [before] = house.pids("work")
    house.until(lambda: house.pids("work") not in ([before], []), "it was replaced")
    assert house.status()["work"].processes[0].exit == "killed by SIGABRT"


def test_what_a_service_says_of_itself_is_shown(make_house: Callable[..., House]) -> None:
    words = ("ready", "wait", "@FOLDER@/a", "state", "RELOADING=1", "wait", "@FOLDER@/b", "ready",
             "wait", "@FOLDER@/c", "state", "STOPPING=1")  # fmt: skip
    house = made(make_house, *words, more="ready = { notify = true }")
    for file, text in (("", ""), ("a", "reloading"), ("b", ""), ("c", "stopping")):
        if file:
            (house.folder / file).touch()
        house.until(lambda text=text: work(house) == ("RUNNING", text), f"it says {text!r}")


def test_a_new_process_takes_over_when_it_itself_has_answered_and_not_before(make_house: Callable[..., House]) -> None:
    more = """sockets = ["http"]
ready = { over = "probe", http = "/healthz", interval = "0.1s", timeout = "3s" }
[socket.http]
listen = "0.0.0.0:80"
"""
    house = made(make_house, "serve", "@FOLDER@/good", more=more, good=True)
    house.until(lambda: work(house)[0] == "RUNNING", "it runs")
    [before] = house.pids("work")
    own = house.run_dir / "probe"
    [path] = own.iterdir()
    load = house.load()
    (house.folder / "good").unlink()
    failed = house.operate(messages.Restart("work"))[1]
    assert "not ready in 3 s, its last probe: HTTP status 503; the old one keeps serving" in failed.text
    assert house.pids("work") == [before]
    (house.folder / "good").touch()
    done = house.operate(messages.Restart("work"))[1]
    assert done.ok, done
    result = load.stop()
    assert (result["refused"], result["failed"]) == (0, {}), result
    assert {str(before), str(house.pids("work")[0])} <= set(result["by"])
    house.until(lambda: len([*own.iterdir()]) == 1, "the sockets of the others are gone")
    assert path not in own.iterdir()
    assert house.run_as("jobs", "/usr/bin/test", "-w", str(next(own.iterdir()))).returncode == 1
