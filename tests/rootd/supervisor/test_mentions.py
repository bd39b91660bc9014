"""Names in what is told: who may view a service reads its name, anybody else that there is one."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, strategies

from policy import messages
from rootd.supervisor import mentions
from rootd.supervisor.mentions import CLOSE, COUNT, OPEN, ROOT, THEN, mark, names, plain, resolved

LETTERS = strategies.text(alphabet=f"{OPEN}{THEN}{CLOSE}, ;a|& hush", max_size=40)


def seen(text: str, *may: str) -> str:
    return resolved(text, lambda whose: whose in may)


def test_who_may_view_a_service_reads_its_name_and_anybody_else_that_there_is_one() -> None:
    text = f"waits for {names(['b', 'hush', 'a', 'still'])}, then begins"
    assert seen(text, "a", "b", "hush", "still") == plain(text) == "waits for b, hush, a, still, then begins"
    assert seen(text, "a", "b", "still") == "waits for b, a, still and 1 service that you may not view, then begins"
    assert seen(text, "a", "b") == "waits for b, a and 2 services that you may not view, then begins"
    assert seen(text) == "waits for 4 services that you may not view, then begins"


def test_what_is_told_instead_is_told_once_a_list() -> None:
    failed = [mark(name, f"{name} was not started", f"{COUNT} failed") for name in ("a", "b", "c")]
    text = f"reloaded: changed: {names(['a', 'b'])}; {'; '.join(failed)}"
    assert (
        seen(text, "a", "b", "c") == "reloaded: changed: a, b; a was not started; b was not started; c was not started"
    )
    assert seen(text, "b") == (
        "reloaded: changed: b and 1 service that you may not view; b was not started;"
        " 2 services that you may not view failed"
    )


def test_of_a_chain_who_may_not_view_its_first_one_reads_nothing_that_is_in_that() -> None:
    inner = mark("disk", "it requires disk: no", "a service that it requires failed")
    text = mark("db", f"it requires db: {inner}", "a service that it requires failed")
    assert seen(text, "db", "disk") == "it requires db: it requires disk: no"
    assert seen(text, "db") == "it requires db: a service that it requires failed"
    assert seen(text, "disk") == seen(text) == "a service that it requires failed"


def test_of_several_one_may_be_enough_or_all_be_needed() -> None:
    assert [seen(mark("a|b", "x", "no"), *may) for may in ([], ["a"], ["b"])] == ["no", "x", "x"]
    assert [seen(mark("a&b|c", "x", "no"), *may) for may in (["a"], ["a", "c"], ["b", "c"])] == ["no", "x", "no"]
    assert mark("", "x") == "x"


@given(LETTERS, LETTERS)
def test_whatever_stands_around_a_mark_shows_no_mark_nor_what_is_in_it(before: str, after: str) -> None:
    told = seen(before + mark("x", "SECRET") + after, "a", "hush")
    assert not {OPEN, THEN, CLOSE} & set(told)
    assert "SECRET" not in told


def test_a_mark_that_is_cut_shows_less() -> None:
    text = f"waits for {mark('hush', 'hush')}"
    for end in range(len(text)):
        told = seen(text[:end], "a")
        assert "hush" not in told
        assert "waits for".startswith(told.strip()) or told.startswith("waits for")


def test_a_text_is_made_short_between_marks() -> None:
    text = f"added: {names(['aaaa', 'bbbb', 'cccc'])}"
    assert mentions.short(text, 100) == (text, 23)
    for limit in range(23):
        kept, size = mentions.short(text, limit)
        assert size == 23
        assert "added: aaaa, bbbb, cccc".startswith(plain(kept))
        assert len(plain(kept)) <= limit
    assert mentions.short("x" * 9, 4) == ("xxxx", 9)


def test_a_packet_is_told_without_marks_whatever_is_in_it() -> None:
    step = messages.Step(1, "now", 2, "site", f'a "quoted" \\u000e {names(["hush"])}')
    packet = msgspec.json.encode(messages.Answer(1, step))
    told = json.loads(mentions.told(packet, lambda: lambda whose: False))
    assert told["reply"]["text"] == 'a "quoted" \\u000e 1 service that you may not view'
    assert msgspec.json.decode(mentions.told(packet, lambda: lambda whose: True))["reply"]["number"] == 1
    without = msgspec.json.encode([1, None, "x"])
    assert mentions.told(without, lambda: lambda whose: False) is without


def test_the_keys_that_name_other_services_are_told_as_such() -> None:
    spelled = {"requires": '["db", "hush"]', "after": "[]", "user": "www", "extends": "hush"}
    found = mentions.settings(spelled, lambda name: name == "hush")
    assert {key: plain(value) for key, value in found.items()} == spelled
    told = {key: seen(value, "db") for key, value in found.items()}
    assert json.loads(told["requires"]) == ["db", "1 service that you may not view"]
    assert told["extends"] == "1 service that you may not view"
    assert (told["after"], told["user"]) == ("[]", "www")
    assert mentions.settings({"extends": "a-template"}, lambda name: False) == {"extends": "a-template"}


@pytest.mark.parametrize(
    "said",
    [
        messages.Problem("services.d/x.toml", 3, "service.hush.user", "no such user", 'user = "x"'),
        messages.Problem("services.d/hush.toml", 3, "", "no TOML"),
        messages.Problem("services.d/x.toml", 3, "service.a.requires", "a requires hush, which is scheduled."),
        messages.Problem("services.d/x.toml", 3, 'service."a.b".requires', "there is no such", 'requires = ["a.hush"]'),
        messages.Problem("services.d/x.toml", 3, "socket.http.listen", "nobody has it"),
    ],
)
def test_a_mistake_is_told_to_who_may_view_all_that_it_names(said: messages.Problem) -> None:
    owners = {"hush": "hush back", "a.hush": "a.hush", "http": "hush back|b", "a": "a"}
    found = mentions.problem(said, owners)
    answer = messages.Ended(1, "now", 2, "", False, "no", 1.0, [found])
    packet = msgspec.json.encode(answer)
    one = json.loads(mentions.told(packet, lambda: lambda whose: whose == "a"))["problems"][0]
    assert (one["file"], one["line"], one["key"], one["source"]) == ("", 0, "", "")
    assert one["text"].startswith("there is a mistake in what is about 1 service that you may not view")
    whole = mentions.told(packet, lambda: lambda whose: True)
    assert msgspec.json.decode(whole, type=messages.Ended).problems == [said]
    assert mentions.plain_problem(found) == said


def test_a_mistake_that_names_nobody_is_told_and_one_for_root_to_nobody_else() -> None:
    said = messages.Problem("durward.toml", 1, "paths.run", "no such directory, hushed")
    assert mentions.problem(said, {"hush": "hush"}) == said
    told = mentions.of_problem(said, ROOT, "root is told")
    assert seen(told.text, "hush") == "root is told"
