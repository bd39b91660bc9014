"""Where the next connection goes on."""

from __future__ import annotations

import pytest

from userapi.cli.failure import Failure
from userapi.cli.resumed import Resumed


def event(kind: str, number: int) -> dict[str, object]:
    return {"is": kind, "number": number}


def test_the_place_is_the_last_number_and_what_was_told_before_is_no_news():
    resumed = Resumed(0, print, 3)
    assert not resumed.begun
    assert not resumed.is_news(event("watching", 41))
    assert resumed.begun
    assert resumed.after == 41
    assert [resumed.is_news(event("changed", number)) for number in (41, 43, 42, 44)] == [False, True, False, True]
    assert resumed.after == 44
    assert resumed.is_news(event("missed", 60))
    assert not resumed.is_news(event("step", 60))
    assert resumed.is_news(event("step", 61))


def test_another_daemons_numbers_count_from_where_it_says():
    resumed = Resumed(77, print, 3)
    assert resumed.is_news(event("missed", 5))
    assert resumed.is_news(event("changed", 6))


def test_that_one_was_too_slow_is_always_news_and_to_who_follows_an_operation_its_end_too():
    resumed = Resumed(41, print, 3)
    assert resumed.is_news(event("dropped", 41))
    assert not resumed.is_news(event("ended", 41))
    assert resumed.is_news(event("ended", 42))
    assert not resumed.is_news(event("ended", 42)), "one operation of many"
    assert resumed.after == 42
    assert Resumed(42, print, 3, until_ended=True).is_news(event("ended", 42))


def test_what_broke_is_said_once_until_something_comes_again():
    said: list[str] = []
    resumed = Resumed(0, said.append, 3)
    assert resumed.may_try()
    resumed.broke(ConnectionResetError(104, "reset"))
    resumed.broke(Failure("unreachable", "no daemon answers"))
    assert said == ["the connection broke off; asking again"]
    resumed.is_news(event("watching", 1))
    resumed.broke(Failure("later", "it is being restarted"))
    assert said[1:] == ["it is being restarted; asking again"]


def test_tries_are_counted_from_the_last_sign_of_life():
    resumed = Resumed(0, lambda text: None, 2)
    assert [resumed.may_try() for _ in range(3)] == [True, True, False]
    resumed.is_news(event("watching", 1))
    assert resumed.may_try()
    resumed.broke(Failure("later", "no"))
    assert resumed.may_try()
    with pytest.raises(Failure, match="no"):
        resumed.broke(Failure("later", "no"))
    assert not resumed.may_try()
    assert resumed.given_up().kind == "later"


@pytest.mark.parametrize("kind", ["no-session", "forbidden", "unknown", "failed"])
def test_a_no_is_not_asked_again(kind):
    with pytest.raises(Failure):
        Resumed(0, print, 3).broke(Failure(kind, "no"))
