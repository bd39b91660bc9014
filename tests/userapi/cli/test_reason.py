"""--reason TEXT: why, by either way in."""

from __future__ import annotations

import pytest

from policy import messages

WORDS = (
    ["start", "site"], ["stop", "site"], ["restart", "site"], ["signal", "site", "HUP"], ["scale", "site=5"],
    ["enable", "site"], ["reload"], ["revoke", "bob"], ["cancel", "7"],
)  # fmt: skip


def given(asked):
    return [request.reason for request in asked if not isinstance(request.command, messages.Watch)]


def test_a_reason_goes_with_every_command(alice, world):
    for words in WORDS:
        assert alice(*words, "--reason", "disk «full»").returncode == 0, words
    assert given(world.supervisor.asked) == ["disk «full»"] * len(WORDS)


def test_each_of_several_services_has_it_and_both_steps_of_one(alice, world):
    assert alice("restart", "site", "worker", "--reason", "x").returncode == 0
    assert given(world.supervisor.asked)[1:] == ["x", "x"]
    del world.supervisor.asked[:]
    alice("enable", "--now", "site", "--reason", "x")
    assert given(world.supervisor.asked) == ["x", "x"]


@pytest.mark.parametrize("words", [["restart", "site"], ["cancel", "7"]])
def test_root_gives_one_too(durward, root, words):
    durward("--root", *words, "--no-wait" if words[0] == "restart" else "--json", "--reason", "disk full")
    assert root.asked[0].reason == "disk full"


@pytest.mark.parametrize("way", [[], ["--root"]])
def test_what_is_no_reason_is_usage_and_nobody_is_asked(alice, world, root, way):
    ended = alice(*way, "restart", "site", "--reason", "two\nlines")
    assert ended.returncode == 2
    assert "a reason is one line of at most 200 characters" in ended.stderr
    assert not world.supervisor.asked
    assert not root.asked
