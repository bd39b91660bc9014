"""One command for several services."""

from __future__ import annotations

import json
import signal

import pytest

from policy import messages
from userapi.cli import several
from userapi.cli.failure import Failure
from userapi.cli.render import Screen

NUMBERS = {"db": 5, "site": 7, "worker": 8}
DENIED = "denied: no rule lets alice restart worker; the rule 'ops' would, through group ops"


def events(world, service, ok=True, text=""):
    number = NUMBERS[service]
    step = messages.Step(number=1, time=world.now, operation=number, service=service, text="starting")
    text = text or f"{service} restarted"
    end = messages.Ended(number=2, time=world.now, operation=number, service=service, ok=ok, text=text, seconds=0.28)
    return [step, end]


@pytest.fixture
def told(world):
    """What is answered for a service: an operation that ends well, or what a test puts here."""
    told = {}

    def answer(command):
        return told.get(command.service, messages.Accepted(operation=NUMBERS[command.service]))

    def watch(command):
        service = next(name for name, number in NUMBERS.items() if number == command.operation)
        return told.get(f"{service} goes on", events(world, service))

    for command in (messages.Start, messages.Stop, messages.Restart, messages.Signal, messages.Scale):
        world.answers[command] = answer
    world.answers[messages.Watch] = watch
    return told


def test_all_are_asked_for_before_the_first_is_followed_and_told_in_the_order_of_names(alice, world, told):
    ended = alice("restart", "worker", "site")
    assert (ended.returncode, ended.stdout) == (0, "site restarted in 0.28 s\nworker restarted in 0.28 s\n")
    assert ended.stderr == "site: starting\nworker: starting\n"
    assert world.commands() == [
        messages.Status(),
        messages.Restart(service="site"),
        messages.Restart(service="worker"),
        messages.Watch(operation=7),
        messages.Watch(operation=8),
    ]


@pytest.mark.parametrize(
    ("words", "commands"),
    [
        (["start", "group:frontend"], [messages.Start(service="site")]),
        (["stop", "all"], [messages.Stop(service="site"), messages.Stop(service="worker")]),
        (["disable", "all"], [messages.Disable(service="site"), messages.Disable(service="worker")]),
        (["enable", "group:frontend", "--now"], [messages.Enable(service="site")]),
        (["enable", "all", "--now"], [messages.Start(service="site"), messages.Start(service="worker")]),
        (["restart", "w*", "--hard"], [messages.Restart(service="worker", hard=True)]),
        (["scale", "worker=3", "site=2"], [messages.Scale("site", 2), messages.Scale("worker", 3)]),
        (["signal", "site", "w*", "hup"], [messages.Signal("site", "HUP"), messages.Signal("worker", "HUP")]),
    ],
)
def test_each_service_that_is_meant_is_one_ordinary_command(alice, world, told, words, commands):
    assert alice(*words).returncode == 0
    assert [command for command in world.commands() if type(command) is type(commands[0])] == commands


def test_root_may_ask_for_several_as_everybody(alice, root, told):
    ended = alice("--root", "restart", "all")
    assert (ended.returncode, ended.stdout) == (0, "site restarted in 0.28 s\nworker restarted in 0.28 s\n")
    assert [asked.command for asked in root.asked][1:3] == [messages.Restart("site"), messages.Restart("worker")]


@pytest.mark.parametrize("word", ["site", "hidden"])
def test_one_plain_name_is_asked_for_without_asking_which_there_are(alice, world, word):
    alice("restart", word, "--no-wait")
    assert world.commands() == [messages.Restart(service=word)]


def test_one_that_is_denied_stops_no_other_and_is_told_in_its_turn(alice, told):
    told["worker"] = messages.Refused(kind="forbidden", text=DENIED)
    told["db"] = messages.Refused(kind="not-running", text="db is not running")
    ended = alice("restart", "db", "site", "worker")
    assert (ended.returncode, ended.stdout) == (77, "site restarted in 0.28 s\n")
    assert ended.stderr.splitlines() == [
        "db: not running",
        "site: starting",
        f"worker: {DENIED}",
        "ask root or the people who keep the policy",
        "1 of 3 done; 1 denied: worker; 1 not running: db",
    ]


def test_where_the_rule_is_is_told_once_for_all(alice, told):
    for service in NUMBERS:
        told[service] = messages.Refused(kind="forbidden", text="denied", rule="never", file="10.toml", line=4)
    ended = alice("stop", "db", "site", "worker")
    assert ended.stderr.count("the rule is 'never', 10.toml:4") == 1
    assert ended.stderr.endswith("\n0 of 3 done; 3 denied: db, site, worker\n")


def test_an_operation_that_fails_is_1_and_the_next_is_followed_all_the_same(alice, world, told):
    told["site goes on"] = events(world, "site", ok=False, text="cannot execute /srv/x")
    ended = alice("restart", "all")
    assert (ended.returncode, ended.stdout) == (1, "worker restarted in 0.28 s\n")
    assert "\nsite: cannot execute /srv/x\n" in ended.stderr
    assert ended.stderr.endswith("\n1 of 2 done; 1 failed: site\n")


def test_as_json_it_is_one_object_with_what_each_command_alone_would_print(alice, world, told):
    told["worker"] = messages.Refused(kind="forbidden", text=DENIED)
    told["db"] = messages.Done(text="db is already running")
    ended = alice("start", "*", "db", "--json")
    assert ended.returncode == 77
    db, site, worker = json.loads(ended.stdout)["results"]
    assert db == {"service": "db", "text": "db is already running"}
    assert set(site) == {"operation", "service", "ok", "text", "seconds", "steps", "problems"}
    assert worker == {"service": "worker", "error": {"kind": "forbidden", "text": DENIED, "exit": 77}}


def test_what_is_done_already_is_done(alice, told):
    told["worker"] = messages.Done(text="worker is not running")
    ended = alice("stop", "all")
    assert (ended.returncode, ended.stdout.splitlines()[1]) == (0, "worker: not running")


def test_they_need_not_be_waited_for(alice, world, told):
    ended = alice("restart", "all", "--no-wait")
    assert (ended.returncode, ended.stdout) == (0, "site: begun (operation 7)\nworker: begun (operation 8)\n")
    assert messages.Watch not in map(type, world.commands())
    results = json.loads(alice("restart", "all", "--no-wait", "--json").stdout)["results"]
    assert [(result["service"], result["operation"]) for result in results] == [("site", 7), ("worker", 8)]


def test_a_glob_that_means_nothing_is_4_and_nothing_is_asked_for(alice, world):
    ended = alice("restart", "wrk-*")
    assert (ended.returncode, ended.stderr) == (4, "no service that you may view is called 'wrk-*'\n")
    assert world.commands() == [messages.Status()]
    assert json.loads(alice("restart", "wrk-*", "--json").stdout)["error"]["exit"] == 4


def test_a_glob_that_means_nothing_stops_no_other(alice, told):
    ended = alice("restart", "wrk-*", "site")
    assert (ended.returncode, ended.stdout) == (4, "site restarted in 0.28 s\n")
    assert ended.stderr.startswith("no service that you may view is called 'wrk-*'\n")
    assert ended.stderr.endswith("\n1 of 2 done; 1 unknown: wrk-*\n")


def test_who_is_not_logged_in_is_told_once(durward, world):
    ended = durward("restart", "site", "worker")
    assert (ended.returncode, ended.stderr) == (77, "log in first: durward login\n")


def test_a_session_that_ends_in_between_is_told_and_no_more_is_asked_for(alice, world):
    def last(command):
        world.live.clear()
        return messages.Accepted(operation=NUMBERS[command.service])

    world.answers[messages.Restart] = last
    ended = alice("restart", "db", "site", "worker")
    assert ended.returncode == 77
    lines = ended.stderr.splitlines()
    assert lines[0].startswith("db: begun as operation 5, but nobody tells how it goes on: log in first")
    assert lines[1:3] == ["site: log in first", "worker: not asked for: log in first"]
    assert lines[-1] == "0 of 3 done; 2 denied: site, worker; 1 not followed: db"
    asked = [command.service for command in world.commands() if isinstance(command, messages.Restart)]
    assert asked == ["db", "site"]


def test_a_supervisor_that_knows_an_operation_no_more_is_75_for_that_one(alice, told):
    told["site goes on"] = messages.Refused(kind="unknown", text="no operation 7 that you may view")
    ended = alice("restart", "all", "--json")
    assert ended.returncode == 75
    site, worker = json.loads(ended.stdout)["results"]
    assert (site["operation"], site["error"]["kind"]) == (7, "later")
    assert worker["ok"]
    assert ended.stderr.endswith("\n1 of 2 done; 1 not followed: site\n")


def test_ctrl_c_tells_what_is_known_and_what_goes_on(alice, world, told):
    told["db"] = messages.Refused(kind="conflict", text="a stop is under way")
    told["site goes on"] = [events(world, "site")[0], world.open]
    process = alice.start("restart", "db", "site", "worker")
    assert process.stderr is not None
    assert process.stderr.readline() == "db: a stop is under way\n"
    assert process.stderr.readline() == "site: starting\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert err == (
        "without you go on: site (operation 7), worker (operation 8); to follow one: durward events --operation 7\n"
    )


def test_ctrl_c_while_they_are_asked_for_says_which_one_is_in_doubt_and_which_were_not_asked_for(capsys):
    class Asked:
        def status(self, service):
            return [{"name": name} for name in "abcd"]

    def command(name):
        if name == "a":
            raise Failure("forbidden", "denied")
        if name == "c":
            raise KeyboardInterrupt
        return {"operation": 7, "text": ""}

    assert several.Several(Asked(), Screen(as_json=True), False, command).run(["all"]) == 130
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        "a: denied",
        "without you go on: b (operation 7); to follow one: durward events --operation 7",
        "c was just being asked for: see durward status",
        "not asked for: d",
    ]
    assert [result["service"] for result in json.loads(out)["results"]] == ["a", "b"]


def test_of_very_many_no_more_are_asked_for_ahead_than_the_daemon_remembers(monkeypatch, capsys):
    monkeypatch.setattr(several, "AHEAD", 2)
    done = []

    class Asked:
        def status(self, service):
            return [{"name": name} for name in "abc"]

        def operation(self, number):
            done.append(number)
            ended = {"is": "ended", "operation": number, "service": "a", "ok": True, "text": "yes", "seconds": 1.0}
            return iter([ended])

    def command(name):
        done.append(name)
        return {"operation": ord(name)}

    assert several.Several(Asked(), Screen(), False, command).run(["?"]) == 0
    assert done == ["a", "b", 97, 98, "c", 99]
    assert capsys.readouterr().out == "a: yes in 1.00 s\nb: yes in 1.00 s\nc: yes in 1.00 s\n"
