"""How far something has come: told on a terminal alone, not at once, and wiped away at the end."""

from __future__ import annotations

import io

import pytest

from userapi.cli import counting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO, first: float) -> str:
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr(counting, "FIRST", first)
    monkeypatch.setattr(counting, "EACH", 0.0)
    with counting.Counting("services") as tell:
        tell(1, 3)
        tell(2, 3)
    return stderr.getvalue()


def test_a_terminal_is_told_how_far_it_is_and_is_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    text = told(monkeypatch, Terminal(), 0.0)
    assert text == "\r\x1b[K1 of 3 services\r\x1b[K2 of 3 services\r\x1b[K"


def test_what_is_over_soon_and_a_file_are_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, Terminal(), 60.0) == ""
    assert told(monkeypatch, io.StringIO(), 0.0) == ""
