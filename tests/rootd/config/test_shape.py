"""Exactly what was written is read, and nothing that only looks like it."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
from hypothesis import given, strategies as st

from rootd.config import shape


class Inner(NamedTuple):
    flag: bool
    pairs: tuple[tuple[str, int], ...]


class Outer(NamedTuple):
    name: str
    number: int
    seconds: float
    inner: Inner | None
    by_name: dict[str, Inner | None]
    both: tuple[int, str]


INNER = {"flag": True, "pairs": [["a", 1]]}
GOOD = {"name": "x", "number": 1, "seconds": 0.5, "inner": INNER, "by_name": {"a": INNER, "b": None}, "both": [1, "x"]}
INNERS = st.builds(Inner, st.booleans(), st.lists(st.tuples(st.text(), st.integers())).map(tuple))


@given(
    st.builds(
        Outer,
        st.text(),
        st.integers(),
        st.floats(allow_nan=False),
        st.none() | INNERS,
        st.dictionaries(st.text(), st.none() | INNERS),
        st.tuples(st.integers(), st.text()),
    )
)
def test_what_is_written_is_read_again(value: Outer) -> None:
    line = shape.to_json(value)
    assert shape.from_json(Outer, line) == value
    assert line.isascii()
    assert b"\n" not in line
    assert shape.to_json(shape.from_json(Outer, line)) == line


@pytest.mark.parametrize(
    "change",
    [
        {"name": 1},
        {"name": None},
        {"number": True},
        {"number": 1.0},
        {"number": "1"},
        {"seconds": 1},
        {"inner": []},
        {"inner": {"flag": 1, "pairs": []}},
        {"inner": {"flag": True}},
        {"inner": {"flag": True, "pairs": [], "more": 1}},
        {"inner": {"flag": True, "pairs": {}}},
        {"inner": {"flag": True, "pairs": [["a"]]}},
        {"inner": {"flag": True, "pairs": [["a", 1, 2]]}},
        {"by_name": []},
        {"by_name": {"a": 1}},
        {"both": [1]},
        {"both": ["x", 1]},
        {"both": "1x"},
        {"further": 1},
    ],
    ids=str,
)
def test_anything_else_is_refused(change: dict[str, object]) -> None:
    assert shape.from_json(Outer, json.dumps(GOOD).encode()).name == "x"
    with pytest.raises(ValueError, match=r".+"):
        shape.from_json(Outer, json.dumps(GOOD | change).encode())


@pytest.mark.parametrize("line", [b"", b"{", b"null", b"[]", b"\xff", b"1"])
def test_what_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        shape.from_json(Outer, line)


class Pair(NamedTuple):
    text: str
    numbers: tuple[int, ...]
    flags: tuple[bool, ...]


class Pairs(NamedTuple):
    all: tuple[Pair, ...]


def test_what_is_equal_in_many_is_there_once_and_what_only_looks_equal_is_not() -> None:
    value = Pairs(
        (Pair("('a',)", (1, 0), (True, False)), Pair("x" * 50, (1, 0), ()), Pair("x" * 50, (), (True, False)))
    )
    found = shape.from_json(Pairs, shape.to_json(value))
    assert repr(found) == repr(value)
    first, second, third = found.all
    assert second.text is third.text
    assert first.numbers is second.numbers
    assert first.flags is third.flags
