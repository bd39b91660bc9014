"""Row E2 of the attack list: escapes, controls and bidi tricks never reach a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, strategies as st

from userapi.cli.plain import Stream, line, text

CORPUS = [
    b"\x1b[31mred",
    b"\x1b[2J\x1b[H",
    b"\x1b]0;title\x07",
    b"\x1b]52;c;cm0gLXJmIH4=\x07",
    b"\x1b]8;;http://evil\x1b\\link",
    b"\x1bP+q544e\x1b\\",
    b"\x9b31m",
    "\x9b31m".encode(),
    b"\x90\x9c\x9d",
    "\u202egnp.exe\u202c".encode(),
    "\u2066\u2067\u2068\u2069\u200e\u200f\u061c".encode(),
    b"hidden\rshown",
    b"back\x08\x08\x08\x08",
    b"\x00\x07\x0b\x0c\x0e\x7f",
    "\u2028\u2029\ufeff".encode(),
    "\U000e0041".encode(),
    b"\xff\xfe\xc0\x80\xed\xa0\x80",
]


def dangerous(shown: str) -> set[str]:
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return {
        character
        for character in shown
        if (unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t")
        or unicodedata.bidirectional(character) in bidi
        or character in "\u200e\u200f\u061c\u2028\u2029\ufeff"
    }


@pytest.mark.parametrize("data", CORPUS)
def test_e2_nothing_of_the_corpus_gets_through(data):
    stream = Stream()
    assert dangerous(stream.feed(data) + stream.feed(b"", True)) == set()


@given(st.binary(max_size=60), st.integers(0, 60))
def test_e2_no_bytes_get_through_wherever_they_are_cut(data, cut):
    stream = Stream()
    parts = stream.feed(data[:cut]) + stream.feed(data[cut:]) + stream.feed(b"", True)
    assert dangerous(parts) == set()
    whole = Stream()
    assert parts == whole.feed(data) + whole.feed(b"", True)


@given(st.text(max_size=40))
def test_e2_no_text_gets_through(data):
    assert dangerous(text(data)) == set()
    assert dangerous(line(data)) == set()
    assert "\n" not in line(data)
    line(data).encode()


def test_ordinary_text_stays_as_it_is():
    assert text("größe\t→ 名前\r\nnext\n") == "größe\t→ 名前\nnext\n"
    assert line("a\nb\t\ud800") == "a\\nb\\t\\ud800"
