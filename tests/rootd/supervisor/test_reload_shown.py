"""A reload that is to change exactly what a dry run has shown, and nothing else; privileged is played."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from reloads import House, new

from rootd import ipc
from rootd.supervisor.reload import OTHER

MEANWHILE = f"{OTHER}: "


@pytest.fixture
def house(generation: Callable[..., Any]) -> House:
    return House(generation)


def shown(house: House, found: Any) -> str:
    house.begin(dry_run=True)
    house.staged(found)
    return house.end.mark


def take(house: House, found: Any, mark: str) -> None:
    house.reloads.begin("id", False, 0.0, mark)
    house.staged(found)


def test_what_was_shown_is_taken(house: House) -> None:
    mark = shown(house, new(house))
    assert len(mark) == 32
    take(house, new(house, number=3), mark)
    assert house.sent[-1].op == ipc.COMMIT
    house.done()
    assert (house.end.ok, house.end.mark, house.reloads.current.generation) == (True, "", 3)


def test_anything_else_changes_nothing_and_is_shown_in_its_place_though_one_line_says_the_same(house: House) -> None:
    first = shown(house, new(house, 'environment = { COLOUR = "red" }\n'))
    said = house.end.text
    take(house, new(house, 'environment = { COLOUR = "blue" }\n', 3), first)
    assert house.sent[-1].op == ipc.ABORT
    assert (house.end.ok, house.end.text) == (False, MEANWHILE + said)
    assert (house.adopted, house.end.mark not in ("", first)) == ([], True)
    take(house, new(house, 'environment = { COLOUR = "blue" }\n', 4), house.end.mark)
    assert house.sent[-1].op == ipc.COMMIT, "what it has told is what may be taken"


def test_the_same_files_are_another_change_once_somebody_has_taken_them(house: House) -> None:
    mark = shown(house, new(house))
    house.begin()
    house.staged(new(house, number=3))
    house.done()
    take(house, new(house, number=4), mark)
    assert (house.end.ok, house.end.text, house.end.mark) == (False, f"{MEANWHILE}no change", "")


def test_what_would_change_nothing_or_cannot_be_used_has_no_mark(house: House) -> None:
    assert shown(house, house.make(None, 2)) == ""
    mark = shown(house, new(house))
    take(house, new(house, "colour = 1\n"), mark)
    assert (house.end.text, house.end.mark) == ("the files cannot be used: nothing was changed", "")
    assert house.end.problems


def test_a_mark_tells_nothing_of_what_the_files_hold_to_who_has_not_its_key(
    house: House, generation: Callable[..., Any]
) -> None:
    other = House(generation)
    assert shown(house, new(house)) == shown(house, new(house)) != shown(other, new(house))
    take(other, new(other, number=3), shown(house, new(house, number=3)))
    assert (other.end.ok, other.adopted) == (False, []), "nor does another supervisor take it for its own"
