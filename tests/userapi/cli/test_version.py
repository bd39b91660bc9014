"""userapi/cli/version: which version asks, and which answers."""

from __future__ import annotations

import json

from policy import messages
from rootd.version import spelled


def test_both_versions_are_told_and_that_they_differ(alice, world):
    world.answers[messages.Status] = messages.Services(services=[], version="0.0.9+old")
    ended = alice("version")
    assert (ended.returncode, ended.stdout) == (0, f"durward {spelled()}\ndaemon 0.0.9+old\n")
    assert "durward --root upgrade" in ended.stderr
    assert json.loads(alice("--json", "version").stdout) == {"command": spelled(), "daemon": "0.0.9+old"}


def test_where_they_are_the_same_nothing_else_is_said(alice, root, world):
    world.answers[messages.Status] = messages.Services(services=[], version=spelled())
    for ended in (alice("version"), alice("--root", "version")):
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout == f"durward {spelled()}\ndaemon {spelled()}\n"


def test_without_a_daemon_its_own_is_told_and_exit_is_69(alice):
    ended = alice("--url", "unix:/nowhere/api.sock", "version")
    assert (ended.returncode, ended.stdout) == (69, f"durward {spelled()}\n")
