"""Whose a run is: by the table of its generation, or by what the last supervisor wrote."""

from __future__ import annotations

from typing import Any

from rootd import ipc
from rootd.supervisor.recover import Saved, SavedRun, SavedSlot
from rootd.supervisor.tables import LIMIT, Tables

NOTHING = Saved()


def fact(generation: int, slot: int, run: int = 7) -> ipc.Message:
    return ipc.Message(ipc.FACT, run=run, slot=slot, generation=generation)


def test_a_run_is_known_by_the_table_of_its_generation(spec: Any) -> None:
    tables = Tables()
    tables.add(1, [spec(), spec(name="other", entry=1, parts=(("pre-start", 2),))])
    tables.add(2, [spec(name="other", entry=0)])
    assert tables.whose(fact(1, 3), NOTHING, 2) == (("site", 3), spec(generation=1), "")
    other = spec(name="other", entry=1, parts=(("pre-start", 2),), generation=1)
    assert tables.whose(fact(1, 1024), NOTHING, 2) == (("other", 0), other, "")
    assert tables.whose(fact(1, 2 * 1024 + 1), NOTHING, 2) == (("other", 1), other, "pre-start")
    assert tables.whose(fact(2, 0), NOTHING, 2) == (("other", 0), spec(name="other", entry=0, generation=2), "")
    assert tables.whose(fact(2, 5 * 1024), NOTHING, 2) is None
    assert tables.whose(fact(3, 0), NOTHING, 2) is None


def test_a_run_of_a_table_that_is_gone_is_known_by_what_was_written(spec: Any) -> None:
    tables = Tables()
    tables.add(9, [spec(name="site", entry=4)])
    slots = {"gone:0": SavedSlot("up", (SavedRun(5, "a"),)), "site:1": SavedSlot("up", (SavedRun(7, "b"),))}
    saved = Saved(slots=slots)
    assert tables.whose(fact(1, 0), saved, 9) == (("site", 1), spec(entry=4, generation=9, digest="b"), "")
    assert tables.whose(fact(1, 0, run=5), saved, 9) is None
    assert tables.whose(fact(1, 0, run=6), saved, 9) is None


def test_configurations_of_long_ago_are_forgotten(spec: Any) -> None:
    tables = Tables()
    for generation in range(1, LIMIT + 3):
        tables.add(generation, [spec()])
    assert tables.whose(fact(2, 0), NOTHING, LIMIT) is None
    assert tables.whose(fact(3, 0), NOTHING, LIMIT) is not None
