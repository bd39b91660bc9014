"""The command line."""

from __future__ import annotations

import argparse
import importlib

import pytest

from rootd.version import spelled
from userapi.cli.parser import COMMANDS, ROOT, _common, parse
from userapi.cli.quick import URL


def test_every_row_names_a_function_that_exists():
    for module, function, _, _ in COMMANDS.values():
        assert callable(getattr(importlib.import_module(f"userapi.cli.{module}"), function))


def without_help(name, parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from without_help(f"{name} {word}", inner)
        elif not action.help:
            yield f"{name}: {action.option_strings or action.dest}"


def test_every_word_and_option_of_every_command_is_explained_in_its_help():
    found = []
    for name, (_, _, text, options) in COMMANDS.items():
        parser = argparse.ArgumentParser(prog=name)
        options(parser)
        _common(parser, None)
        found += without_help(name, parser) if text else ()
    assert found == []


def test_version_is_told_without_a_daemon(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"durward {spelled()}\n")


def test_the_address_comes_from_the_option_then_the_environment_then_the_usual_place(monkeypatch):
    monkeypatch.delenv("DURWARD_URL", raising=False)
    assert parse(["status"]).url == URL
    monkeypatch.setenv("DURWARD_URL", "https://ops.example")
    assert parse(["status"]).url == "https://ops.example"
    assert parse(["status", "--url", "unix:/x"]).url == "unix:/x"
    assert parse(["--url", "unix:/x", "status"]).url == "unix:/x"


@pytest.mark.parametrize(
    ("words", "root", "service"),
    [
        (["--root", "status", "site"], ROOT, "site"),
        (["status", "site", "--root"], ROOT, "site"),
        (["--root", "/x/root.sock", "status"], "/x/root.sock", None),
        (["--root=/x/root.sock", "status"], "/x/root.sock", None),
        (["--root", "./root.sock", "status"], "./root.sock", None),
        (["status"], "", None),
    ],
)
def test_root_takes_a_path_or_nothing(monkeypatch, words, root, service):
    monkeypatch.delenv("DURWARD_ROOT_SOCKET", raising=False)
    args = parse(words)
    assert (args.root, args.service) == (root, service)


@pytest.mark.parametrize(
    ("words", "targets", "service"),
    [
        (["restart", "site"], ["site"], "site"),
        (["restart", "--hard", "site"], ["site"], "site"),
        (["restart", "site", "worker", "--hard"], ["site", "worker"], None),
        (["restart", "all"], ["all"], None),
        (["stop", "group:frontend"], ["group:frontend"], None),
        (["status", "--json", "worker-*"], ["worker-*"], None),
        (["status"], [], None),
        ([], [], None),
    ],
)
def test_one_plain_name_is_the_service_and_everything_else_is_targets(words, targets, service):
    args = parse(words)
    assert (args.targets, args.service) == (targets, service)


def test_the_last_word_of_signal_is_the_signal():
    args = parse(["signal", "site", "w*", "HUP", "--no-wait"])
    assert (args.targets, args.signal, args.no_wait) == (["site", "w*"], "HUP", True)
    assert parse(["signal", "site", "--no-wait", "HUP"]).signal == "HUP"


def test_root_s_socket_may_be_named_by_the_environment(monkeypatch):
    monkeypatch.setenv("DURWARD_ROOT_SOCKET", "/y/root.sock")
    assert parse(["--root", "status"]).root == "/y/root.sock"


@pytest.mark.parametrize(
    "words", [["bogus"], ["start"], ["signal", "HUP"], ["--colour"], ["logs", "-n", "x", "a"], ["--", "--root"]]
)
def test_what_cannot_be_understood_is_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(words)
    assert ended.value.code == 2


def test_help_lists_every_command_and_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS if not name.startswith("_"))
    assert "77 permission denied" in out
    assert "__complete" not in out


def test_an_option_s_value_is_not_taken_for_the_command():
    args = parse(["--color", "never", "start", "status"])
    assert (args.command, args.service, args.color) == ("start", "status", "never")
