"""Words that cannot be names."""

from __future__ import annotations

import pytest

from policy import decide, messages
from userapi.cli.failure import Failure
from userapi.cli.spelled import is_name, spelled


@pytest.mark.parametrize("word", ["../x", "..%2fx", "", "a b", "Site", "site:0", "group:web", "$(x)", "x\n", "x" * 64])
def test_a_word_that_cannot_be_a_service_is_answered_as_one_that_is_not_there(word):
    assert not is_name(word)
    with pytest.raises(Failure) as failure:
        spelled(service=word)
    assert (failure.value.exit, failure.value.text) == (4, decide.unknown_text(word))


def test_the_other_words_are_usage():
    for words in ({"user": "al ice"}, {"user": "../x"}, {"signal": "XX"}):
        with pytest.raises(Failure, match="is not a") as failure:
            spelled(**words)
        assert failure.value.exit == 2
    spelled("site", "alice", "HUP")
    spelled()


SERVICE = [["status"], ["describe"], ["events"], ["logs"], ["start"], ["stop"], ["restart"], ["why", "view"]]


@pytest.mark.parametrize("words", [*SERVICE, ["signal"], ["revoke"], ["login", "-u"]], ids=" ".join)
def test_an_empty_word_is_usage_and_asks_nobody(alice, world, words):
    ended = alice(*words, "", *(["HUP"] if words == ["signal"] else []))
    assert ended.returncode == 2
    assert "an empty word names nothing" in ended.stderr
    assert world.commands() == []


@pytest.mark.parametrize("way", [[], ["--root"]], ids=["api", "root"])
@pytest.mark.parametrize("words", [*SERVICE, ["signal"]], ids=" ".join)
def test_a_service_that_cannot_be_is_4_and_only_what_may_be_viewed_is_asked_for(alice, world, root, words, way):
    for name in ("../x", "site/x", "a b", "..", "site:x"):
        ended = alice(*way, *words, name, *(["HUP"] if words == ["signal"] else []))
        assert ended.returncode == 4
        assert f"no service '{name}' that you may view" in ended.stderr
    assert {type(request.command) for peer in (world.supervisor, root) for request in peer.asked} == {messages.Status}


def test_of_several_a_service_that_cannot_be_is_4_and_the_others_are_done(alice, world):
    for words in (["restart", "site", "../x"], ["status", "site", "../x"]):
        ended = alice(*words)
        assert ended.returncode == 4
        assert "no service '../x' that you may view" in ended.stderr
    assert messages.Restart(service="site") in world.commands()


def test_what_means_several_still_means_them(alice, world):
    for word in ("group:frontend", "s*", "site"):
        assert alice("status", word).returncode == 0
    assert alice("restart", "group:frontend").returncode == 0
