"""What the words mean."""

from __future__ import annotations

import pytest

from userapi.cli import targets
from userapi.cli.failure import EXIT, Failure
from userapi.cli.quick import is_plain

SERVICES = [
    {"name": "site", "groups": ["frontend"]},
    {"name": "shop", "groups": ["frontend", "shop"]},
    {"name": "worker-1", "groups": []},
    {"name": "worker-2"},
]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["group:frontend"], ["shop", "site"]),
        (["group:shop"], ["shop"]),
        (["worker-*"], ["worker-1", "worker-2"]),
        (["worker-?"], ["worker-1", "worker-2"]),
        (["worker-[!1]"], ["worker-2"]),
        (["s[hi]*"], ["shop", "site"]),
        (["all"], ["shop", "site", "worker-1", "worker-2"]),
        (["[a]ll", "site"], ["site"]),
        (["site", "group:frontend", "s*"], ["shop", "site"]),
        (["worker-2", "site"], ["site", "worker-2"]),
        (["group:site", "worker-2"], ["worker-2"]),
    ],
)
def test_each_service_that_is_meant_is_named_once_and_in_order(words, names):
    assert targets.meant(words, SERVICES)[0] == names


def test_a_name_means_itself_even_when_it_is_not_seen():
    assert targets.meant(["hidden", "site"], SERVICES) == (["hidden", "site"], {})


def test_a_glob_does_not_reach_what_is_not_seen():
    assert targets.meant(["*"], SERVICES[:1])[0] == ["site"]


def test_a_word_that_means_no_service_is_answered_beside_the_others():
    names, missing = targets.meant(["wrk-*", "site", "group:back"], SERVICES)
    assert names == ["site"]
    assert {word: (failure.text, failure.exit) for word, failure in missing.items()} == {
        "wrk-*": ("no service that you may view is called 'wrk-*'", 4),
        "group:back": ("no service that you may view is in the group 'back'", 4),
    }


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["wrk-*"], "no service that you may view is called 'wrk-*'"),
        (["all"], "no service that you may view"),
        (
            ["group:a", "b?"],
            "no service that you may view is in the group 'a'; no service that you may view is called 'b?'",
        ),
    ],
)
def test_words_that_mean_nothing_at_all_are_unknown(words, text):
    with pytest.raises(Failure) as failed:
        targets.meant(words, [])
    assert (failed.value.text, failed.value.exit) == (text, 4)


def test_only_a_word_that_can_be_no_more_than_one_name_is_plain():
    words = ("site", "a.b-c_1", "w]", "allow", "all", "group:x", "w*", "w?", "[w]")
    assert [word for word in words if is_plain(word)] == ["site", "a.b-c_1", "w]", "allow"]


def test_every_exit_code_of_a_failure_has_its_place_in_the_order():
    assert set(targets.GRAVITY) == set(EXIT.values())


def test_the_gravest_code_is_the_one_of_all():
    assert targets.gravest([]) == targets.gravest([0, 0]) == 0
    assert targets.gravest([0, 1, 0]) == 1
    assert targets.gravest([1, 2, 69, 75, 3, 4, 77, 0]) == 77
    assert targets.gravest([1, 3, 4]) == 4
    assert targets.gravest([69, 75]) == 75


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("site restarted in 0.28 s", "site restarted in 0.28 s"),
        ("site is not running", "site: not running"),
        ("site:0: it ended by itself", "site:0: it ended by itself"),
        ("denied: no rule lets bob restart site", "site: denied: no rule lets bob restart site"),
        ("sites everywhere", "site: sites everywhere"),
    ],
)
def test_a_line_begins_with_the_name_of_its_service_once(text, line):
    assert targets.line("site", text) == line


def test_the_last_line_counts_and_names_what_failed():
    assert targets.summary(2, {"denied": ["worker"]}) == "2 of 3 done; 1 denied: worker"
    assert targets.summary(0, {"denied": ["a", "b"], "failed": ["c"]}) == "0 of 3 done; 2 denied: a, b; 1 failed: c"
