"""What changes something."""

from __future__ import annotations

import json
import signal

import msgspec
import pytest

from policy import messages


def test_a_restart_tells_its_steps_and_its_outcome(alice):
    ended = alice("restart", "site")
    assert (ended.returncode, ended.stdout) == (0, "site restarted in 0.42 s\n")
    assert ended.stderr == "site: starting\nsite: ready\n"


def test_as_json_it_is_one_object(alice):
    told = json.loads(alice("restart", "site", "--json").stdout)
    assert set(told) == {"operation", "service", "ok", "text", "seconds", "steps", "problems"}
    assert [step["text"] for step in told["steps"]] == ["starting", "ready"]


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["start", "site"], messages.Start(service="site")),
        (["stop", "site"], messages.Stop(service="site")),
        (["stop", "--with-dependants", "site"], messages.Stop(service="site", with_dependants=True)),
        (["restart", "--hard", "site"], messages.Restart(service="site", hard=True)),
        (["signal", "site", "HUP"], messages.Signal(service="site", signal="HUP")),
        (["signal", "site", "sigusr1"], messages.Signal(service="site", signal="USR1")),
        (["signal", "site", "15"], messages.Signal(service="site", signal="TERM")),
        (["scale", "site=5"], messages.Scale(service="site", processes=5)),
        (["scale", "site", "5"], messages.Scale(service="site", processes=5)),
        (["scale", "site=05"], messages.Scale(service="site", processes=5)),
        (["reload"], messages.Reload()),
        (["reload", "--dry-run"], messages.Reload(dry_run=True)),
    ],
)
def test_each_command_is_sent_and_not_waited_for_when_told_so(alice, world, words, command):
    ended = alice(*words, "--no-wait")
    assert ended.returncode == 0
    assert "(operation 7)" in ended.stdout
    assert world.commands() == [command]
    assert json.loads(alice(*words, "--no-wait", "--json").stdout)["operation"] == 7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["site=0"], "to have no process of it, stop it: durward stop site"),
        (["site", "0"], "to have no process of it, stop it: durward stop site"),
        (["site"], "'site' must be SERVICE=N, with N from 1 to 1024"),
        (["site=1025"], "'site=1025' must be SERVICE=N, with N from 1 to 1024"),
        (["site=-1"], "'site=-1' must be SERVICE=N, with N from 1 to 1024"),
        (["=3"], "'=3' must be SERVICE=N, with N from 1 to 1024"),
        (["site=2", "worker"], "'worker' must be SERVICE=N, with N from 1 to 1024"),
        (["site=2", "site=3"], "site cannot have 2 processes and 3 too"),
        (["all=2"], "'all' may mean several services: name each with its number"),
        (["w*", "2"], "'w*' may mean several services: name each with its number"),
    ],
)
def test_a_number_of_processes_that_cannot_be_is_2_and_nobody_is_asked(alice, world, words, said):
    ended = alice("scale", *words)
    assert (ended.returncode, ended.stderr) == (2, f"{said}\n")
    assert world.commands() == []


def test_a_denial_is_printed_as_it_comes_and_says_whom_to_ask(alice, world):
    text = "denied: no rule lets bob restart site; the rule 'webops-restart' would, through group webops"
    world.answers[messages.Restart] = messages.Refused(kind="forbidden", text=text)
    ended = alice("restart", "site")
    assert ended.returncode == 77
    assert ended.stderr == f"{text}\nask root or the people who keep the policy\n"
    told = json.loads(alice("restart", "site", "--json").stdout)
    assert told == {"error": {"kind": "forbidden", "text": text, "exit": 77}}


@pytest.mark.parametrize(("kind", "code"), [("not-running", 3), ("conflict", 1), ("later", 75), ("unknown", 4)])
def test_refusals_have_their_exit_codes(alice, world, kind, code):
    world.answers[messages.Stop] = messages.Refused(kind=kind, text="no")
    assert alice("stop", "site").returncode == code


def ended(world, **more):
    told = {
        "number": 1,
        "time": world.now,
        "operation": 7,
        "service": "site",
        "ok": False,
        "text": "no",
        "seconds": 1.0,
    }
    return messages.Ended(**{**told, **more})


def test_an_operation_that_fails_is_1_and_says_why(alice, world):
    world.answers[messages.Watch] = ended(world, text="cannot execute /srv/x: No such file or directory")
    failed = alice("start", "site")
    assert (failed.returncode, failed.stderr) == (1, "cannot execute /srv/x: No such file or directory\n")


@pytest.mark.parametrize("why", ["exit status 1", "killed by SIGSEGV", "not ready in 30 s"])
def test_whoever_has_started_what_then_failed_is_told_where_it_has_said_why(alice, world, why):
    world.answers[messages.Watch] = ended(world, text=f"site was not started: {why}")
    said = alice("start", "site").stderr
    assert said == f"site was not started: {why}\nits log may say why: durward logs --stream both site\n"


def test_a_bad_configuration_is_65_with_each_problem_at_its_place(alice, world):
    problem = messages.Problem(
        file="services.d/site.toml", line=3, key="service.site.user", text="no such user", source='user = "x"'
    )
    world.answers[messages.Watch] = ended(world, text="nothing was changed", problems=[problem])
    failed = alice("reload")
    assert failed.returncode == 65
    assert failed.stderr == (
        'services.d/site.toml:3: service.site.user: no such user\n    user = "x"\nnothing was changed\n'
    )


def test_enable_and_disable_are_done_when_they_are_kept_and_start_and_stop_nothing(alice, world):
    assert alice("enable", "site").stdout == "site is enabled\n"
    told = json.loads(alice("disable", "site", "--json").stdout)
    assert told == {"text": "site is disabled"}
    assert world.commands() == [messages.Enable("site"), messages.Disable("site")]


@pytest.mark.parametrize(
    ("word", "commands"),
    [("enable", [messages.Enable("site"), messages.Start("site")]),
     ("disable", [messages.Disable("site"), messages.Stop("site")])],
)  # fmt: skip
def test_with_now_it_is_started_or_stopped_too_by_a_request_of_its_own(alice, world, word, commands):
    ended = alice(word, "site", "--now")
    assert (ended.returncode, ended.stdout) == (0, f"site is {word}d\nsite restarted in 0.42 s\n")
    assert ended.stderr == "site: starting\nsite: ready\n"
    assert world.commands()[:2] == commands
    told = json.loads(alice(word, "site", "--now", "--json").stdout)
    assert (told["operation"], told["ok"]) == (7, True)


def test_who_may_enable_and_not_start_is_told_what_was_done_and_what_was_not(alice, world):
    world.answers[messages.Start] = messages.Refused(kind="forbidden", text="denied: no rule lets alice start site")
    ended = alice("enable", "site", "--now")
    assert (ended.returncode, ended.stdout) == (77, "")
    assert ended.stderr.startswith("site is enabled, but denied: no rule lets alice start site\n")


def test_what_was_not_enabled_is_not_started(alice, world):
    world.answers[messages.Enable] = messages.Refused(kind="later", text="site was not enabled: log does not answer")
    ended = alice("enable", "site", "--now")
    assert (ended.returncode, ended.stderr) == (75, "site was not enabled: log does not answer\n")
    assert world.commands() == [messages.Enable("site")]


def test_revoke_needs_a_name_or_all(alice, world):
    assert alice("revoke").returncode == 2
    assert alice("revoke", "bob", "--all").returncode == 2
    assert alice("revoke", "bob").stdout == "2 sessions ended\n"
    alice("revoke", "--all")
    assert world.commands() == [messages.Revoke(user="bob"), messages.Revoke(everyone=True)]


def test_ctrl_c_detaches_and_says_how_to_follow(alice, world):
    world.answers[messages.Watch] = [world.answers[messages.Watch][0], world.open]
    process = alice.start("stop", "site")
    assert process.stderr is not None
    assert process.stderr.readline() == "site: starting\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "durward events --operation 7" in err


def test_shutdown_is_for_who_has_the_right_and_for_root(alice, root, world):
    assert alice("shutdown", "--reason", "the machine moves").returncode == 0
    assert world.commands()[0] == messages.Shutdown()
    assert alice("--root", "shutdown").returncode == 0
    assert root.asked[0].command == messages.Shutdown()


def test_an_api_that_has_ended_before_it_could_tell_is_said_to(alice, world):
    world.answers[messages.Watch] = messages.Refused(kind="unknown", text="no operation 7 that you may view")
    ended = alice("shutdown")
    assert (ended.returncode, ended.stdout) == (0, "the daemon is ending: what answers over HTTP has ended already\n")


def test_an_upgrade_is_root_s_and_followed_to_its_end(alice, root, world):
    refused = alice("upgrade")
    assert refused.returncode == 2
    assert "durward --root upgrade" in refused.stderr
    assert alice("--root", "upgrade").returncode == 0
    assert root.asked[0].command == messages.Upgrade()


def test_a_daemon_that_is_gone_after_shutdown_has_ended(alice, root, world):
    def last(_):
        (world.run / "root.sock").unlink()
        return messages.Accepted(operation=7)

    world.answers[messages.Shutdown] = last
    ended = alice("--root", "shutdown")
    (world.run / "root.sock").touch()
    assert (ended.returncode, ended.stdout) == (0, "the daemon has ended\n")


def test_on_a_terminal_the_same_lines_are_shown(alice, terminal):
    code, shown = terminal(alice, "restart", "site")
    assert code == 0
    assert shown == "site: starting\r\nsite: ready\r\nsite restarted in 0.42 s\r\n"


def test_a_supervisor_that_does_not_know_the_operation_any_more_is_75_and_not_unknown(alice, world):
    world.answers[messages.Watch] = messages.Refused(kind="unknown", text="no operation 7 that you may view")
    ended = alice("restart", "site")
    assert (ended.returncode, ended.stdout) == (75, "")
    assert ended.stderr == "nobody says how operation 7 ended; look at: durward status\n"


def test_a_step_of_one_process_is_not_named_twice(alice, world):
    step, *_, end = world.answers[messages.Watch]
    world.answers[messages.Watch] = [msgspec.structs.replace(step, text="site:0: starting"), end]
    assert alice("restart", "site").stderr == "site:0: starting\n"


def test_a_signal_that_does_not_exist_is_refused_with_those_that_do(alice, world):
    ended = alice("signal", "site", "FOO")
    assert (ended.returncode, world.commands()) == (2, [])
    assert ended.stderr.startswith("'FOO' is not a signal that can be sent: HUP, INT, QUIT, ")


def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(alice, world):
    world.answers[messages.Restart] = messages.Refused(kind="unknown", text="no service 'sit' that you may view")
    ended = alice("restart", "sit")
    assert (ended.returncode, ended.stderr) == (4, "no service 'sit' that you may view; did you mean 'site'?\n")
    assert alice("restart", "zzz").stderr == "no service 'sit' that you may view\n"


def test_cancel_says_what_became_of_it(alice, root, world):
    for way in ([], ["--root"]):
        ended = alice(*way, "cancel", "7")
        assert (ended.returncode, ended.stdout) == (0, "operation 7 is cancelled\n")
    assert json.loads(alice("cancel", "7", "--json").stdout) == {"text": "operation 7 is cancelled"}
    world.answers[messages.Cancel] = messages.Refused(kind="unknown", text="no operation 8 that you may view")
    assert alice("cancel", "8").returncode == 4
    assert world.commands() == [messages.Cancel(operation=7)] * 2 + [messages.Cancel(operation=8)]


@pytest.mark.parametrize("word", ["", "0", "-1", "x", "7.0", "\u0667", "9" * 16])
def test_what_is_no_number_of_an_operation_is_2(alice, world, word):
    ended = alice("cancel", word)
    assert ended.returncode == 2
    assert world.commands() == []
