"""The sections of root's files: each key by its row in the table of keys, each with its place. Pure.

Rule: every problem is told, at the place where it was written; what cannot be parsed is None and goes on.
"""

from __future__ import annotations

import tomllib
from functools import cache, lru_cache
from typing import Any, NamedTuple

from rootd.config import keys, kinds
from rootd.config.keys import meant
from rootd.config.trusted import MAIN, File

Path = tuple[str, ...]  # of keys; () is the file as a whole


class Problem(NamedTuple):
    file: str
    path: tuple[str | int, ...]  # with the places in lists
    text: str


class Section(NamedTuple):
    """One table of a file. values: by key, parsed; None where that failed and where there is nothing."""

    file: str
    path: Path
    raw: dict[str, Any]
    values: dict[str, Any]


def read_section(kind: str, raw: Any, file: str, path: Path, problems: list[Problem]) -> Section:
    """Each key of a section by its row in the table of keys."""
    known, values = keys.SECTIONS[kind], dict.fromkeys(keys.SECTIONS[kind])
    if not isinstance(raw, dict):
        problems.append(Problem(file, path, "must be a table"))
        return Section(file, path, {}, values)
    problems += [Problem(file, (*path, name), f"no such key{meant(name, known)}") for name in raw if name not in known]
    for name, key in known.items():
        where = (*path, name)
        if name not in raw:
            values[name], each = default(kind, name)
            problems += [Problem(file, (*where, *inner), text) for inner, text in each]
        elif key.type in keys.SECTIONS:
            values[name] = read_section(key.type, raw[name], file, where, problems).values
        else:
            try:
                values[name] = keys.parse(key.type, raw[name])
            except keys.Wrong as wrong:
                problems += [Problem(file, (*where, *inner), text) for inner, text in wrong.each]
    return Section(file, path, raw, values)


@cache  # most services leave most keys out: each default is parsed once, and all of them share it
def default(kind: str, name: str) -> tuple[Any, tuple[tuple[tuple[str | int, ...], str], ...]]:
    """The value of a key that is not there, and what is wrong with that: where beneath it, and why."""
    key, problems = keys.SECTIONS[kind][name], list[Problem]()
    if key.type in keys.SECTIONS and key.default is not None:
        values = read_section(key.type, key.default, "", (), problems).values
        return values, tuple((problem.path, problem.text) for problem in problems)
    try:
        return None if key.default is None else keys.parse(key.type, key.default), ()
    except keys.Wrong:
        return None, (((), f"is missing: {key.doc}"),)


@lru_cache(maxsize=1)  # names_needed and compile_bundle look at the same files
def read(files: tuple[File, ...]) -> tuple[dict[Path, Section], tuple[Problem, ...]]:
    """Every section of the files, by its path, and what is wrong with them. The policy is not read here."""
    problems: list[Problem] = []
    found: dict[Path, Section] = {}
    for file in files:
        try:
            raw = {} if file.error or file.path.startswith("policy.d/") else tomllib.loads(file.text)
        except (ValueError, RecursionError) as error:
            file = file._replace(error=str(error))
        if file.error:
            problems.append(Problem(file.path, (), file.error))
            continue
        known = keys.MAIN if file.path == MAIN else ("socket", "service")
        problems += [Problem(file.path, (n,), f"no such section{meant(n, known)}") for n in raw if n not in known]
        if file.path == MAIN:
            for kind in [kind for kind in known if kind in raw or kind != "api"]:
                found[kind,] = read_section(kind, raw.get(kind, {}), file.path, (kind,), problems)
            continue
        for kind in [kind for kind in known if kind in raw]:
            if not isinstance(raw[kind], dict):
                problems.append(Problem(file.path, (kind,), "must be a table"))
                continue
            for path, table in [((kind, name), table) for name, table in raw[kind].items()]:
                if path in found:
                    problems.append(Problem(file.path, path, f"is in {found[path].file} already"))
                elif not keys.NAME.fullmatch(path[1]) or path[1].startswith("durward-") or path[1] == "audit":
                    problems.append(Problem(file.path, path, f"{keys.NAME_WORDS}, but not durward-… and audit"))
                table = kinds.with_defaults(table) if kind == "service" and isinstance(table, dict) else table
                section = read_section(kind, table, file.path, path, problems)
                found |= {path: section} if isinstance(table, dict) else {}
    return found, tuple(problems)
