"""Hooks and stop commands as real processes: as whom, when, how long, and what follows when they fail or are killed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from house import House
from templates import SITE, plain

from policy import messages

pytestmark = pytest.mark.root


def run(*words: str) -> str:
    argv = "".join(f', "{word}"' for word in words)
    return f'["@PREFIX@/bin/python3", "-I", "@SERVICES@/plain.py"{argv}]'


def lines(house: House, process: str = "work") -> list[list[str]]:
    return [line.split() for line in house.service_log(process).splitlines()]


def made(make_house: Callable[..., House], *words: str, more: str) -> House:
    """A house with the service "work", as soon as it answers."""
    house = make_house(services={"work.toml": plain("work", *words, more=more)}, policy={}).start(wait=False)
    house.until(house.answers, "root.sock answers")
    return house


def state(house: House) -> str:
    return house.status()["work"].state


def test_hooks_run_as_the_services_user_around_its_process_and_speak_in_its_log(
    make_house: Callable[..., House],
) -> None:
    more = f"""
ready = {{ after = "0.1s" }}
stop = {{ command = {run("tell", "signal", "TERM", "exit", "0")} }}
[service.work.hooks]
pre_start = {run("tell", "exit", "0")}
post_start = {run("tell", "exit", "0")}
post_stop = {run("tell", "exit", "0")}
"""
    house = made(make_house, "say", "begun", more=more)
    house.until(lambda: state(house) == "RUNNING", "it runs")
    [pid] = house.pids("work")
    ended = house.operate(messages.Stop("work"))[1]
    assert ended.ok, ended
    uid = str(house.people["jobs"].uid)
    house.until(lambda: len(lines(house)) == 5, "every hook has spoken")
    assert lines(house) == [
        ["pre-start", "None", uid], ["begun"], ["post-start", str(pid), uid], ["stop", str(pid), uid],
        ["post-stop", "None", uid],
    ]  # fmt: skip
    assert house.status()["work"].processes[0].exit == "exit status 0"
    deeds = [one for one in house.audit() if one.get("deed") == "spawn"]
    assert len({one["slot"] for one in deeds}) == len(deeds), "each hook is an entry of its own"
    told = [one["process"] for one in deeds if str(one["process"]).startswith("work")]
    assert told == ["work pre-start", "work", "work post-start", "work stop", "work post-stop"]


def test_what_its_pre_start_hook_refuses_is_never_started(make_house: Callable[..., House]) -> None:
    more = f'restart = {{ limit = "2 in 1m" }}\nhooks = {{ pre_start = {run("say", "no", "exit", "7")} }}'
    house = made(make_house, "say", "begun", more=more)
    house.until(lambda: state(house) == "FATAL", "it is given up")
    text = house.status()["work"].processes[0].text
    assert text == "failed 2 times in 60 s, the last time: its pre-start hook: exit status 7"
    house.until(lambda: len(lines(house)) == 2, "the log has what the hook said")
    assert lines(house) == [["no"], ["no"]]


def test_a_rolling_restart_that_its_post_start_hook_refuses_goes_back_and_nobody_notices(
    make_house: Callable[..., House],
) -> None:
    good = "@FOLDER@/good"
    house = make_house(services={"site.toml": f"{SITE}\nhooks = {{ post_start = {run('need', good, 'exit', '0')} }}"})
    (house.folder / "good").touch()
    house.start()
    house.until(lambda: house.status()["site"].state == "RUNNING", "the site runs")
    before = house.pids("site")
    (house.folder / "good").unlink()
    load = house.load()
    house.login("alice")
    failed = house.cli("alice", "restart", "site")
    assert failed.returncode == 1
    assert "its post-start hook: exit status 1; the old one keeps serving" in failed.stderr
    assert house.pids("site") == before
    (house.folder / "good").touch()
    done = house.cli("alice", "restart", "site")
    assert done.returncode == 0, done.stderr
    assert house.pids("site") != before
    result = load.stop()
    assert (result["refused"], result["failed"]) == (0, {}), result
    assert result["answered"] == result["tried"] > 0


def test_a_hook_that_takes_too_long_is_killed_with_what_it_has_begun(make_house: Callable[..., House]) -> None:
    hook = f'hooks = {{ pre_start = {run("setsid", "deaf")}, timeout = "0.5s" }}'
    more = f'restart = {{ limit = "1 in 1m" }}\n{hook}'
    house = made(make_house, more=more)
    house.until(lambda: state(house) == "FATAL", "it is given up")
    assert house.status()["work"].processes[0].text.endswith("its pre-start hook: it took more than 0.5 s")
    uid = f"(uid {house.people['jobs'].uid})"
    left = [name for name in house.strangers().values() if uid in name]
    assert not left


@pytest.mark.parametrize("role", ["supervisor", "privileged"])
def test_kill_9_of_a_part_of_ours_is_a_non_event_for_a_hook(make_house: Callable[..., House], role: str) -> None:
    hooks = f"""
hooks = {{ pre_start = {run("tell", "wait", "@FOLDER@/go", "exit", "0")} }}
ready = {{ after = "0.1s" }}
"""
    house = made(make_house, "say", "begun", more=hooks)
    house.until(lambda: lines(house), "the hook runs")
    house.wait_back(role, house.kill9(role))
    house.until(lambda: state(house) == "STARTING", "it is known again")
    (house.folder / "go").touch()
    house.until(lambda: state(house) == "RUNNING", "the service runs")
    house.until(lambda: len(lines(house)) > 1, "it has spoken")
    assert [line[0] for line in lines(house)] == ["pre-start", "begun"]


def test_where_a_stop_command_fails_the_signal_follows(make_house: Callable[..., House]) -> None:
    more = f'ready = {{ after = "0.1s" }}\nstop = {{ command = {run("exit", "1")}, timeout = "30s" }}'
    house = made(make_house, more=more)
    house.until(lambda: state(house) == "RUNNING", "it runs")
    steps, ended = house.operate(messages.Stop("work"))
    assert ended.ok
    assert "its stop command: exit status 1" in steps
    assert "did not end in time, sent SIGTERM" in steps
