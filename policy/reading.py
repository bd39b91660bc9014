"""One policy file and one of its tables while they are read, with everything that is wrong in them, by line and key.

Rule 1: a reader answers None when it has reported a problem; nobody reports the same one again.
Rule 2: pure over the text; what a value means is said by the parser that is handed in.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from policy.messages import Problem
from policy.positions import Path, headers, line_of, positions, source_line, spell

T = TypeVar("T")

GROUP_MARK = "@"  # begins the name of a group that the policy itself makes, in `who`, `may` and `on`

_TOML_LINE = re.compile(r"\(at line ([0-9]+), column [0-9]+\)")


class File:
    """One file while it is read, and what is wrong with it."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self._headers: dict[Path, int] = {}
        self._lines: dict[Path, int] | None = None  # found when a line is asked for that is no header's
        self.problems: list[Problem] = []
        self.content: dict[str, Any] | None = None  # None: it is not TOML

    def read(self) -> None:
        try:
            self.content = tomllib.loads(self.text)
        except (ValueError, RecursionError) as error:  # TOMLDecodeError; an absurdly long number; [[[[[[…
            at = _TOML_LINE.search(str(error))
            line = int(at[1]) if at else self.text.count("\n") + 1
            self.wrong_line(line, (), f"this is not TOML: {error}")
        else:
            found = headers(self.text)
            counts = Counter(name for name, _ in found)
            whole = all(
                counts[name] == len(tables) for name, tables in self.content.items() if isinstance(tables, list)
            )
            self._headers = found if whole else {}  # else one is spelled otherwise

    def line(self, path: Path) -> int:
        if path in self._headers:
            return self._headers[path]
        if self._lines is None:
            self._lines = positions(self.text)
        return line_of(self._lines, path)

    def wrong(self, path: Path, sentence: str) -> None:
        self.wrong_line(self.line(path), path, sentence)

    def wrong_line(self, line: int, path: Path, sentence: str) -> None:
        self.problems.append(Problem(self.path, line, spell(path), sentence, source_line(self.text, line)))


class Table:
    """One [group.NAME], [[grant]], [[deny]] or [[test]] while it is read."""

    def __init__(self, file: File, path: Path, values: dict[str, Any], suggest: Callable[..., str]) -> None:
        self.file = file
        self.path = path
        self.values = values
        self.suggest = suggest

    @property
    def line(self) -> int:
        return self.file.line(self.path)

    def wrong(self, key: str, sentence: str) -> None:
        self.file.wrong((*self.path, key), sentence)

    def check_keys(self, known: Sequence[str]) -> None:
        for key in self.values:
            if key not in known:
                self.wrong(key, f"there is no key {show(key)} here{self.suggest(key, known)}")

    def one(self, key: str, parse: Callable[[str], T]) -> T | None:
        """A text that parse takes; parse raises ValueError with a sentence."""
        if key not in self.values:
            self.wrong(key, f"'{key}' is missing")
            return None
        return self.parsed((*self.path, key), self.values[key], parse)

    def many(
        self,
        key: str,
        parse: Callable[[str], T],
        may_be_empty: bool = False,
        members: Callable[[str], Iterable[T]] | None = None,
    ) -> tuple[T, ...] | None:
        """A list of texts that parse takes, none of them twice. members: of a text that begins with GROUP_MARK."""
        if key not in self.values:
            self.wrong(key, f"'{key}' is missing")
            return None
        values = self.values[key]
        if not isinstance(values, list):
            self.wrong(key, f"'{key}' must be a list of texts, as in {key} = [\"…\"], not {show(values)}")
            return None
        if not values and not may_be_empty:
            self.wrong(key, f"'{key}' is empty: this would apply to nothing")
            return None
        found: dict[T, None] = {}
        good, seen = True, set[str]()

        def read(text: str) -> Iterable[T]:
            if text in seen:
                raise ValueError(f"{show(text)} stands here twice")
            if members is not None and text.startswith(GROUP_MARK):
                return members(text)
            return (parse(text),)

        for index, value in enumerate(values):
            parsed = self.parsed((*self.path, key, index), value, read)
            good = good and parsed is not None
            found.update(dict.fromkeys(parsed or ()))
            seen.update([value] if isinstance(value, str) else [])
        return tuple(found) if good else None

    def parsed(self, path: Path, value: object, parse: Callable[[str], T]) -> T | None:
        if not isinstance(value, str):
            self.file.wrong(path, f"this must be a text in quotes, not {show(value)}")
            return None
        try:
            return parse(value)
        except ValueError as error:
            self.file.wrong(path, str(error))
            return None


def show(value: object) -> str:
    """A value from a file, in a sentence."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:59] + "…")
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    return "a date or time"
