"""Where in a TOML text each key, table and array element stands, so that an error can show its line.

Rule 1: nothing is decided here. tomllib says what a text means; this only says where, and may be wrong or silent.
Rule 2: it never raises, whatever the text: at the first thing it does not understand it stops, and keeps what it has.
Rule 3: each character is looked at a bounded number of times.

A path is what leads to a value in tomllib's answer: ("grant", 0, "who", 1). Lines are 1-based and end with "\\n" only,
as tomllib counts them. Source: https://toml.io/en/v1.0.0
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress

Path = tuple[str | int, ...]

DEEPEST = 50  # nested arrays and inline tables that are followed
LONGEST = 200  # characters of a source line that are shown

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*(?:([A-Za-z0-9_-]+)|"([^"\\\n]*(?:\\.[^"\\\n]*)*)"|'([^'\n]*)')[ \t]*""")
_SCALAR = re.compile(r"[^,\]}#\n]+")
_LINE_STRING = re.compile(r""""[^"\\\n]*(?:\\.[^"\\\n]*)*"|'[^'\n]*'""")
_LONG_STRING_ENDS = {'"""': re.compile(r'\\.|"{3,5}', re.DOTALL), "'''": re.compile(r"'{3,5}")}
# what most lines are, at once: a bare key with a plain string, or with a list of plain strings
_PLAIN = re.compile(
    r"""([A-Za-z0-9_-]+)[ \t]*=[ \t]*
    (?: "[^"\\\n]+" | '[^'\n]+' | (\[[ \t]*"[^"\\\n]+"[ \t]*(?:,[ \t]*"[^"\\\n]+"[ \t]*)*\]) )[ \t]*(?=[\n,}#])""",
    re.VERBOSE,
)
_HEADER = re.compile(r"[ \t]*\[\[([A-Za-z_][A-Za-z0-9_-]*)\]\]")
_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")


class _Lost(Exception):
    """The text is not TOML, or nested too deeply to follow."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}  # how many elements each [[array of tables]] has so far
        self._ends = [match.start() for match in re.finditer("\n", text)]

    def run(self) -> None:
        table: Path = ()
        while self._skip_blank():
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table, 0)
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end

    def _skip_blank(self) -> bool:
        """Goes to the next token and says whether there is one."""
        if self.text[self.at : self.at + 1] > "#":  # no blank is
            return True
        self.at = next(_BLANK.finditer(self.text, self.at)).end()  # matches here, if only nothing
        return self.at < len(self.text)

    def _take(self, token: str) -> bool:
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def _line(self) -> int:
        return bisect_right(self._ends, self.at - 1) + 1

    def _keys(self) -> list[str]:
        """A key with its dots: a."b.c".d"""
        keys = []
        while match := _KEY.match(self.text, self.at):
            self.at = match.end()
            bare, basic, literal = match.groups()
            keys.append(_unescape(basic) if basic is not None else bare or literal or "")
            if not self._take("."):
                return keys
        raise _Lost

    def _header(self) -> Path:
        line = self._line()
        many = self._take("[[")
        if not many:
            self._take("[")
        path: Path = ()
        keys = self._keys()
        for key in keys[:-1]:
            path = self._last((*path, key))
            self.found.setdefault(path, line)
        path = (*path, keys[-1])
        if many:
            self.found.setdefault(path, line)
            self._arrays[path] = self._arrays.get(path, 0) + 1
        path = self._last(path)
        self.found[path] = line
        return path

    def _last(self, path: Path) -> Path:
        """Of an array of tables, the element that is being written; of anything else, itself."""
        count = self._arrays.get(path)
        return path if count is None else (*path, count - 1)

    def _pair(self, table: Path, depth: int) -> None:
        line = self._line()
        plain = _PLAIN.match(self.text, self.at)
        if plain:
            path = (*table, plain[1])
            self.found.setdefault(path, line)
            if plain[2]:
                for index in range(plain[2].count('"') // 2):
                    self.found[(*path, index)] = line
            self.at = plain.end()
            return
        path = table
        for key in self._keys():
            path = (*path, key)
            self.found.setdefault(path, line)
        if not self._take("="):
            raise _Lost
        self._skip_blank()
        self._value(path, depth)

    def _value(self, path: Path, depth: int) -> None:
        if depth > DEEPEST:
            raise _Lost
        if self._take("["):
            index = 0
            while self._more("]"):
                self.found[(*path, index)] = self._line()
                self._value((*path, index), depth + 1)
                index += 1
        elif self._take("{"):
            while self._more("}"):
                self._pair(path, depth + 1)
        else:
            self._plain()

    def _more(self, closing: str) -> bool:
        """Whether another element follows, commas aside."""
        while self._skip_blank() and self._take(","):
            pass
        return not self._take(closing)

    def _plain(self) -> None:
        ends = _LONG_STRING_ENDS.get(self.text[self.at : self.at + 3])
        if ends:
            for end in ends.finditer(self.text, self.at + 3):
                if end[0][0] != "\\":
                    self.at = end.end()
                    return
            raise _Lost
        pattern = _LINE_STRING if self.text[self.at : self.at + 1] in {'"', "'"} else _SCALAR
        match = pattern.match(self.text, self.at)
        if not match:
            raise _Lost
        self.at = match.end()


def _unescape(raw: str) -> str:
    if "\\" not in raw:
        return raw
    try:
        return str(tomllib.loads(f'key = "{raw}"')["key"])
    except ValueError:
        return raw


def positions(text: str) -> dict[Path, int]:
    """The 1-based line of every key, table and array element of a TOML text; as far as it can be followed."""
    scanner = _Scanner(text)
    with suppress(_Lost):
        scanner.run()
    return scanner.found


def headers(text: str) -> dict[Path, int]:
    """The same for plain [[headers]] alone, much sooner; nothing where a text of several lines could hold one."""
    if '"""' in text or "'''" in text:
        return {}
    found: dict[Path, int] = {}
    counts: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        match = _HEADER.match(line) if "[[" in line else None
        if match:
            count = counts[match[1]] = counts.get(match[1], 0) + 1
            found[match[1], count - 1] = number
    return found


def line_of(known: Mapping[Path, int], path: Path) -> int:
    """The line of path or of its nearest ancestor that is known; 0 when there is none."""
    while path:
        if path in known:
            return known[path]
        path = path[:-1]
    return 0


def source_line(text: str, line: int) -> str:
    """That line of the text without its end, cut at LONGEST characters; "" when there is no such line."""
    lines = text.split("\n")
    if not 1 <= line <= len(lines):
        return ""
    source = lines[line - 1].rstrip()
    return source if len(source) <= LONGEST else source[: LONGEST - 1] + "…"


def locate(text: str, path: Path, known: Mapping[Path, int] | None = None) -> tuple[int, str]:
    """Line and source line of path or of its nearest known ancestor; (0, "") when there is none.

    Hand `known` (from positions) in when you ask more than once about one text.
    """
    line = line_of(positions(text) if known is None else known, path)
    return line, source_line(text, line)


def spell(path: Path) -> str:
    """A path as people read it: grant[0].who[1], service."odd name".user"""
    spelled = ""
    for part in path:
        if isinstance(part, int):
            spelled += f"[{part}]"
        else:
            spelled += ("." if spelled else "") + (part if _BARE.match(part) else f'"{part}"')
    return spelled
