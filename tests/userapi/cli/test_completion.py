"""Completion."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from policy import messages
from policy.names import Action
from userapi.cli import completion
from userapi.cli.offline.schema import FILES
from userapi.cli.parser import COMMANDS


def test_every_command_and_every_action_can_be_completed():
    assert sorted(completion.WORDS.split()) == sorted(name for name in COMMANDS if not name.startswith("_"))
    assert completion.ACTIONS.split() == [action.value for action in Action]
    assert completion.SCHEMAS.split() == [*FILES, "keys"]


def test_names_are_those_that_the_asker_may_act_on(alice, world):
    world.answers[messages.WhatMayI] = messages.Rights(
        user="alice",
        uid=1,
        groups=[],
        expires="",
        rights=[
            messages.Right("site", ["view", "restart"]),
            messages.Right("db", ["view"]),
            messages.Right("", ["reload"]),
        ],
    )
    assert alice("__complete", "services", "restart").stdout == "site\n"
    assert alice("__complete", "services", "view").stdout == "site\ndb\n"
    assert alice("__complete", "services", "reload").stdout == ""
    assert alice("__complete", "targets", "restart").stdout == "site\ngroup:frontend\nall\n"
    assert alice("__complete", "targets", "stop").stdout == ""


def test_nobody_there_is_silence(durward):
    ended = durward("__complete", "services", "view", env={"DURWARD_URL": "unix:/nonexistent"})
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_what_its_shell_understands(durward, shell, tmp_path):
    script = durward("completion", shell).stdout
    assert script == completion.SCRIPTS[shell]
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here to read it")
    (tmp_path / "script").write_text(script)
    subprocess.run([shell, "-n", tmp_path / "script"], check=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["durward", "sta"], "status start"),
        (["durward", "restart", ""], "site group:frontend group:back all"),
        (["durward", "restart", "site", "al"], "all"),
        (["durward", "restart", "gr"], "group:frontend group:back"),
        (["durward", "restart", "group", ":"], "frontend back"),
        (["durward", "restart", "group", ":", "fr"], "frontend"),
        (["durward", "restart", "group", ":", "frontend", "s"], "site"),
        (["durward", "--url", "unix", ":", "/x", "restart", "s"], "site"),
        (["durward", "--url", "x", "restart", "s"], "site"),
        (["durward", "enable", "s"], "site"),
        (["durward", "disable", "site", "group", ":", "b"], "back"),
        (["durward", "disable", "--no"], "--no-wait --now"),
        (["durward", "signal", "site", "U"], "USR1 USR2"),
        (["durward", "sc"], "scale"),
        (["durward", "why", "sh"], "shutdown"),
        (["durward", "policy", "w"], "why who-can what-can"),
        (["durward", "policy", "who-can", "sh"], "shutdown"),
        (["durward", "policy", "schema", ""], "durward services policy keys"),
        (["durward", "policy", "why", "alice", "sh"], "shutdown"),
        (["durward", "policy", "matrix", "--c"], "--csv --cacert --color"),
        (["durward", "logs", "--stream", ""], "stdout stderr both"),
        (["durward", "logs", "--stream", "stderr", "-n", "5", "s"], ""),
        (["durward", "--color", "a"], "auto always"),
        (["durward", "restart", "--h"], "--hard --help"),
        (["durward", "--j"], "--json"),
        (["durward", "--v"], "--version"),
        (["durward", "status", "--v"], ""),
        (["durward", "--root", "disable", "gr"], "group:root"),
        (["durward", "describe", ""], "seen"),
        (["durward", "--root", "why", "stop", "s"], "seen-by-root"),
    ],
)
def test_bash_completes(tmp_path, words, expected):
    (tmp_path / "script").write_text(completion.BASH)
    line = " ".join(f"'{word}'" for word in words)
    program = (
        'durward() { [[ "$2 $3" =~ ^targets\\ (restart|enable)$ ]] && echo site group:frontend group:back all;'
        ' [[ "$1 $3 $4" != "--root targets enable" ]] || echo group:root;'
        ' [[ "$*" != "__complete services view" ]] || echo seen;'
        ' [[ "$*" != "--root __complete services view" ]] || echo seen-by-root; };'
        f" . {tmp_path}/script; COMP_WORDS=({line});"
        f' COMP_CWORD={len(words) - 1}; _durward; echo "${{COMPREPLY[@]}}"'
    )
    assert (
        subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True).stdout.strip() == expected
    )


def test_the_options_of_each_command_are_those_that_it_has():
    import argparse

    from userapi.cli import parser

    def options(make):
        made = argparse.ArgumentParser()
        make(made)
        every = list(made._actions)
        for one in made._actions:  # of audit's verify, search and tail too
            for inner in one.choices.values() if isinstance(one, argparse._SubParsersAction) else ():
                every += [action for action in inner._actions if not set(action.option_strings) & shared]
        shown = [action for action in every if action.help != argparse.SUPPRESS]
        return {word for action in shown for word in action.option_strings if word.startswith("--")}, {
            word for action in shown if action.nargs != 0 for word in action.option_strings
        }

    shared: set[str] = set()
    common, valued = options(lambda made: parser._common(made, None))
    assert set(completion.COMMON.split()) == common
    shared |= common | {"-h"}
    for name, (_, _, _, make) in COMMANDS.items():
        own, more = options(make)
        assert own - {"--help"} == set(completion.OPTIONS.get(name, "").split()), name
        valued |= more
    assert set(completion.FILES.split()) <= valued
    assert set(completion.VALUED.split()) == valued - {"--root"}, "--root takes a path or nothing"


FOLDER = ("conf dir", "audit.log", "$(touch PWNED)")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["durward", "policy", "check", "con"], ["conf dir"]),
        (["durward", "policy", "check", "--quiet", "con"], ["conf dir"]),
        (["durward", "policy", "diff", "conf dir", "a"], ["audit.log"]),
        (["durward", "--json", "policy", "simulate", "-", "con"], ["conf dir"]),
        (["durward", "policy", "lint", "con"], ["conf dir"]),
        (["durward", "audit", "verify", "au"], ["audit.log"]),
        (["durward", "audit", "search", "$"], ["$(touch PWNED)"]),
        (["durward", "audit", "verify", "--key", "au"], ["audit.log"]),
        (["durward", "policy", "who-can", "--dir", "con"], ["conf dir"]),
        (["durward", "--token-file", "au"], ["audit.log"]),
        (["durward", "audit", "search", "--user", "au"], []),
        (["durward", "policy", "check", "--q"], ["--quiet"]),
        (["durward", "policy", "what-can", "au"], []),
    ],
)
def test_bash_completes_paths_where_a_file_or_folder_is_taken(tmp_path, words, expected):
    ended = completed_in(tmp_path, words)
    assert ended == expected
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == sorted(FOLDER)


def completed_in(tmp_path, words):
    """What bash offers in a folder with these three."""
    (tmp_path / "script").write_text(completion.BASH)
    (tmp_path / "here").mkdir()
    for name in FOLDER:
        (tmp_path / "here" / name).mkdir()
    line = " ".join(f"'{word}'" for word in words)
    program = (
        f"durward() {{ :; }}; . ../script; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _durward;"
        ' printf "%s\n" "${COMPREPLY[@]}"'
    )
    ended = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path / "here")
    return ended.stdout.split("\n")[:-1] if ended.stdout.strip() else []


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not here")
@pytest.mark.parametrize(
    ("words", "paths"),
    [("policy check ''", True), ("audit verify --key ''", True), ("--cacert ''", True), ("audit verify -''", False),
     ("policy what-can ''", False), ("restart ''", False), ("audit search --user ''", False)],
)  # fmt: skip
def test_zsh_completes_paths_where_a_file_or_folder_is_taken(tmp_path, words, paths):
    program = (
        f"compdef() {{ :; }}; compadd() {{ echo names; }}; _files() {{ echo paths; }}; durward() {{ :; }};"
        f" {completion.ZSH}\n words=(durward {words}); CURRENT=${{#words}}; _durward"
    )
    ended = subprocess.run(["zsh", "-f", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ended.stdout.split() == ["paths" if paths else "names"]


EVIL = ["$(touch PWNED)", "`touch PWNED`", "a b", "-x", "group:$(touch PWNED)", "x;touch PWNED", "a\nb", ""]


def test_what_the_api_sends_and_is_no_name_is_not_offered(alice, world):
    world.answers[messages.WhatMayI] = messages.Rights(
        user="alice", uid=1, groups=[], expires="", rights=[messages.Right(name, ["view"]) for name in [*EVIL, "site"]]
    )
    evil = messages.ServiceInfo(name="site", state="RUNNING", wanted="up", processes=[], groups=[*EVIL, "back"])
    world.answers[messages.Status] = messages.Services(services=[evil])
    assert alice("__complete", "services", "view").stdout == "site\n"
    assert alice("__complete", "targets", "view").stdout == "site\ngroup:back\nall\n"


def test_bash_expands_nothing_of_what_is_offered(tmp_path):
    (tmp_path / "script").write_text(completion.BASH)
    program = (
        "durward() { echo '$(touch PWNED)' '`touch PWNED`' site; }; . ./script;"
        ' COMP_WORDS=(durward restart ""); COMP_CWORD=2; _durward; echo "${COMPREPLY[@]}"'
    )
    ended = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ended.stdout.strip().endswith("site")
    assert [path.name for path in tmp_path.iterdir()] == ["script"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not here")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("durward logs --stream ", {"stdout", "stderr", "both"}),
        ("durward --color ", {"auto", "always", "never"}),
        ("durward restart --h", {"--hard", "--help"}),
        ("durward policy check aud", {"audit.log/"}),
        ("durward audit verify aud", {"audit.log/"}),
        ("durward audit verify --key aud", {"audit.log/"}),
        ("durward --cacert aud", {"audit.log/"}),
        ("durward policy what-can aud", set()),
        ("durward restart aud", set()),
    ],
)
def test_fish_completes(tmp_path, line, expected):
    (tmp_path / "audit.log").mkdir()
    (tmp_path / "script").write_text(completion.FISH)
    program = f"source {tmp_path}/script; complete -C '{line}'"
    ended = subprocess.run(
        ["fish", "--no-config", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path)},
        cwd=tmp_path,
    )
    assert {word.split("\t")[0] for word in ended.stdout.splitlines()} == expected
