"""Lines are found for whatever tomllib can read, and nothing bad happens for whatever it cannot."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from examples import examples
from hypothesis import given, strategies as st

from policy.positions import DEEPEST, LONGEST, Path, headers, line_of, locate, positions, source_line, spell

EVERYTHING = '''\
# a comment with a [table] in it
top = 1
"quoted key" = "a # b"
'literal.key' = 'c = 3'
a.b."c.d" = true

[plain]   # comment
text = """
first [not.a.table]
k = "v" \\""" still inside \\\\""""
after = \'\'\'
[[nor.this]]\'\'\'\'
date = 1979-05-27 07:32:00
list = [  # comment with ]
  "x, ]",
  [1, 2.5],

  { in = "line", "other" = [true, false] },
]

[ a . 'e' ]
z = {}

[[fruit]]
name = "apple"
[fruit.size]
cm = 7
[[fruit.kind]]
name = "red"
[[fruit.kind]]
name = "green"
[[fruit]]
[[fruit.kind]]
"n\\u0061me" = "plantain"
'''


def test_every_kind_of_key_is_found_at_its_line() -> None:
    assert tomllib.loads(EVERYTHING)
    found = positions(EVERYTHING)
    expected: dict[Path, int] = {
        ("top",): 2,
        ("quoted key",): 3,
        ("literal.key",): 4,
        ("a",): 5,
        ("a", "b"): 5,
        ("a", "b", "c.d"): 5,
        ("plain",): 7,
        ("plain", "text"): 8,
        ("plain", "after"): 11,
        ("plain", "date"): 13,
        ("plain", "list"): 14,
        ("plain", "list", 0): 15,
        ("plain", "list", 1): 16,
        ("plain", "list", 1, 0): 16,
        ("plain", "list", 1, 1): 16,
        ("plain", "list", 2): 18,
        ("plain", "list", 2, "in"): 18,
        ("plain", "list", 2, "other"): 18,
        ("plain", "list", 2, "other", 0): 18,
        ("plain", "list", 2, "other", 1): 18,
        ("a", "e"): 21,
        ("a", "e", "z"): 22,
        ("fruit",): 24,
        ("fruit", 0): 24,
        ("fruit", 0, "name"): 25,
        ("fruit", 0, "size"): 26,
        ("fruit", 0, "size", "cm"): 27,
        ("fruit", 0, "kind"): 28,
        ("fruit", 0, "kind", 0): 28,
        ("fruit", 0, "kind", 0, "name"): 29,
        ("fruit", 0, "kind", 1): 30,
        ("fruit", 0, "kind", 1, "name"): 31,
        ("fruit", 1): 32,
        ("fruit", 1, "kind"): 33,
        ("fruit", 1, "kind", 0): 33,
        ("fruit", 1, "kind", 0, "name"): 34,
    }
    assert found == expected


def test_a_long_string_may_end_in_quotes_of_its_own() -> None:
    text = 'a = ["""x"""", """"""", \'\'\'y\'\'\'\'\',\n2]\nb = 1'
    assert tomllib.loads(text) == {"a": ['x"', '"', "y''", 2], "b": 1}
    assert positions(text) == {("a",): 1, ("a", 0): 1, ("a", 1): 1, ("a", 2): 1, ("a", 3): 2, ("b",): 3}


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """The path of every key and every element in what tomllib made."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        yield (*path, key)
        yield from paths(below, (*path, key))


def test_lines_are_tomllibs_lines_for_other_line_ends_too() -> None:
    text = 'a = "x\u2028y"\r\nb = "\x85"  # \u2029\r\n\r\nc = 1\r\n'
    assert set(positions(text)) == set(paths(tomllib.loads(text)))
    assert locate(text, ("c",)) == (4, "c = 1")
    assert locate(text, ("b",)) == (2, 'b = "\x85"  # \u2029'.rstrip())


KEYS = st.text(max_size=4).map(lambda text: json.dumps(text).replace("\x7f", "\\u007f"))
PLAIN = st.sampled_from(
    ["1", "-0.5", "true", "1979-05-27 07:32:00", '"#"', "'\\'", '"\\""', '""""]"\n"""', "'''\n,}\n'''"]
)
GAPS = st.sampled_from(["", " ", "\n", " # ]\n"])
VALUES = st.recursive(
    PLAIN,
    lambda below: st.one_of(
        st.tuples(GAPS, st.lists(below, max_size=3)).map(lambda got: f"[{got[0]}{f',{got[0]}'.join(got[1])}{got[0]}]"),
        st.dictionaries(KEYS, below, max_size=2).map(
            lambda got: "{ " + ", ".join(f"{key} = {value}" for key, value in got.items()) + " }"
        ),
    ),
    max_leaves=6,
)
HEADERS = st.tuples(st.sampled_from(["[{}]", "[[{}]]"]), st.lists(KEYS, min_size=1, max_size=3)).map(
    lambda got: got[0].format(" . ".join(got[1]))
)
PAIRS = st.tuples(st.lists(KEYS, min_size=1, max_size=2), VALUES).map(lambda got: f"{'.'.join(got[0])} = {got[1]}")
TEXTS = st.lists(st.one_of(HEADERS, PAIRS, st.just(""), st.just("# [x]")), max_size=8).map("\n".join)


@examples(40)
@given(text=TEXTS)
def test_whatever_tomllib_reads_is_found(text: str) -> None:
    found = positions(text)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    missing = set(paths(content)) - set(found)
    assert not missing
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())


@examples(40)
@given(text=st.one_of(st.text(), st.text("[]{}\"'\\=.,#\n ab1"), TEXTS.map(lambda text: text[: len(text) // 2])))
def test_no_text_raises(text: str) -> None:
    found = positions(text)
    lines = text.count("\n") + 1
    for path, line in found.items():
        assert 1 <= line <= lines
        assert locate(text, path, found) == (line, source_line(text, line))


@pytest.mark.parametrize(
    "text", ["a = ", "a = [", "a = {", "a = [1", 'a = """x', "a = '''", 'a = "x', "a", "[a", "[", "a.", "a = }"]
)
def test_what_stands_before_a_mistake_is_still_found(text: str) -> None:
    assert positions("first = 1\n" + text)[("first",)] == 1


def test_a_key_with_an_escape_that_is_none_stands_under_its_raw_name() -> None:
    assert positions('"a\\q" = 1') == {("a\\q",): 1}


def test_nesting_too_deep_to_follow_ends_the_search_and_nothing_else() -> None:
    deep = DEEPEST * 1000
    found = positions("a = 1\nb = " + "[" * deep + "]" * deep + "\nc = 1")
    assert found[("a",)] == 1
    assert found[("b",)] == 2
    assert ("c",) not in found
    assert positions("a = " + "{b=" * deep)[("a",)] == 1


def test_a_large_text_is_read_in_one_go() -> None:
    found = positions('a = """' + '"x\n' * 100_000 + '"""\nb = "' + "\\\\" * 100_000 + '"\nc = 1')
    assert found == {("a",): 1, ("b",): 100_002, ("c",): 100_003}


def test_what_has_no_line_is_located_at_the_nearest_thing_above_it() -> None:
    text = '[[grant]]\nid = "x"\n'
    assert locate(text, ("grant", 0, "id")) == (2, 'id = "x"')
    assert locate(text, ("grant", 0, "who", 3)) == (1, "[[grant]]")
    assert locate(text, ("deny",)) == (0, "")
    assert locate(text, ()) == (0, "")
    assert line_of({("a",): 5}, ("a", "b", 0)) == 5


def test_a_source_line_is_shown_without_its_end_and_not_at_any_length() -> None:
    assert source_line("a  \r\nb", 1) == "a"
    assert source_line("a\nb", 2) == "b"
    assert source_line("a", 2) == ""
    assert source_line("a", 0) == ""
    assert source_line("x" * 500, 1) == "x" * (LONGEST - 1) + "…"
    assert source_line("x" * LONGEST, 1) == "x" * LONGEST


def test_a_path_is_spelled_as_people_read_it() -> None:
    assert spell(("grant", 0, "who", 1)) == "grant[0].who[1]"
    assert spell(("service", "odd name", "user")) == 'service."odd name".user'
    assert spell(()) == ""


@pytest.mark.parametrize(
    "text",
    [
        "[[a]]\nx = 1\n [[a]] # c\n[[b]]\n[a.c]\n[[a]]\n",
        "a = [{}, {}]\n[[b]]\n",
        '# [[a]]\nx = "[[a]]"\ny = [\n[[1]],\n]\n[[a]]\n',
        "[[a]]\r\n[[a]]\r\n",
        'x = """\n[[a]]\n"""\n[[a]]\n',
        "x = '''\n[[a]]\n'''\n[[a]]\n",
        "[[ a ]]\n[[a]]\n",
    ],
)
def test_headers_are_where_positions_are(text: str) -> None:
    tomllib.loads(text)
    found = headers(text)
    assert found.items() <= positions(text).items() or "[[ a ]]" in text
    for path, line in found.items():
        assert text.split("\n")[line - 1].strip().startswith(f"[[{path[0]}]]")
