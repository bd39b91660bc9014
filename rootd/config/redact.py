"""What of root's files an auditor may read: each value by the type of its key in the table of keys.

Rule 1: what is not known to be harmless is not shown: a type that is not in SHOWN, a key that is in no table, a value
        that is not what its key takes.
Rule 2: names are shown, of variables and credentials too; what they stand for never.
Rule 3: a line of a file is quoted where all of it can be seen to be one key of a harmless type, or a header.
Rule 4: of a command, its program, the names of its options and plain paths beneath a directory that machines have: any
        other word could be a password. Of a URL, its address and a path of words: anything else could be a token.
Rule 5: Describe (specs.py) and ReadPolicy show the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from rootd.config import keys
from rootd.config.inherit import Path
from rootd.config.sections import Section

HIDDEN = "(hidden)"
SHOWN = {
    "path", "name", "user", "host", "flag", "mode", "size", "duration", "period", "span", "step", "backoff", "cron",
    "zone", "rate", "address", "addresses", "limit", "io_priority", "cpus", "capability", "percent",
}  # fmt: skip
NAMES = {"variables", "credentials"}  # tables of which the names are shown
_OPTION = re.compile(r"(-[A-Za-z]|--[A-Za-z][A-Za-z0-9-]*)(=.*)?", re.DOTALL)
NAMED = {"service", "template", "socket"}  # sections that have a name
_HEADER = re.compile(r"\s*\[\[?[A-Za-z0-9_. -]+\]\]?\s*")
_PROGRAM = re.compile(r"/[A-Za-z0-9_./+-]*")
# not any path: what is encoded in base 64 may begin with "/" as well
_ROOTS = "app|bin|boot|data|dev|etc|home|lib|lib64|media|mnt|nix|opt|proc|root|run|sbin|srv|sys|tmp|usr|var"
_PATH = re.compile(rf"/(({_ROOTS})(/[A-Za-z0-9_.-]*)*)?")
_URL = re.compile(
    r"((?:http://[0-9A-Fa-f.:\[\]]+(?=/|\Z))?(?:/(?:v[0-9]{1,2}|[a-z_.-]{,20})(?=[/?]|\Z))*)([/?]?)(.*)", re.DOTALL
)


def redacted(found: dict[Path, Section]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Of each section that says something: its file, its name, and its values as they may be shown."""
    for path, section in found.items():
        if section.raw:
            values = {key: value_of(path[0], key, value, section.values.get(key)) for key, value in section.raw.items()}
            yield section.file, ".".join(path), values


def value_of(kind: str, name: str, value: Any, parsed: Any) -> Any:
    """kind: a section of the table of keys; parsed: what became of the value, None where it is not what it must be."""
    row = keys.SECTIONS[kind].get(name)
    if row is None or parsed is None:
        return HIDDEN
    if row.type in keys.SECTIONS:
        if not isinstance(value, dict):
            return HIDDEN
        return {key: value_of(row.type, key, inner, parsed.get(key)) for key, inner in value.items()}
    if row.type in NAMES:
        return dict.fromkeys(value, HIDDEN)
    if row.type == "command":
        return [value[0], *map(word_of, value[1:])] if _PROGRAM.fullmatch(value[0]) else [HIDDEN]
    if row.type == "url":
        return url_of(value)
    return value if is_harmless(row.type) else HIDDEN


@cache
def is_harmless(kind: str) -> bool:
    """A type of the table whose values say nothing secret: one of SHOWN, a list of it, a number, one of some words."""
    kind = kind[1:-1] if kind.startswith("[") else kind
    return kind in SHOWN or kind not in keys.TYPES


def word_of(word: str) -> str:
    """An argument of a command."""
    option = _OPTION.fullmatch(word)
    if option:
        return option[1] + (f"={HIDDEN}" if option[2] else "")
    return word if _PATH.fullmatch(word) else HIDDEN


def url_of(word: str) -> str:
    """What a check asks for, without what follows the first part of it that is no word."""
    found = _URL.fullmatch(word)
    return found[1] + (found[2] + HIDDEN if found[3] else found[2]) if found else HIDDEN


def is_quotable(path: tuple[str | int, ...], line: str) -> bool:
    """path: of what is wrong, which is in this line, or beneath it."""
    if "{" in line or "#" in line or not path:
        return False
    section = keys.SECTIONS.get(str(path[0]), {})
    for name in path[2:] if path[0] in NAMED else path[1:]:
        row = section.get(str(name))
        if row is None or row.type not in keys.SECTIONS:
            return _HEADER.fullmatch(line) is not None or (row is not None and is_harmless(row.type))
        section = keys.SECTIONS[row.type]
    return _HEADER.fullmatch(line) is not None
