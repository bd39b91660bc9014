"""The sections of root's files: each key by its row in the table of keys, each with its place. Pure.

Rule: every problem is told, at the place where it was written; what cannot be parsed is None and goes on.
"""

from __future__ import annotations

import tomllib
from functools import cache, lru_cache
from typing import Any, NamedTuple

from rootd.config import elsewhere, inherit, keys, kinds
from rootd.config.elsewhere import called
from rootd.config.inherit import Layer, Path, Problem
from rootd.config.keys import meant
from rootd.config.trusted import MAIN, File


class Section(NamedTuple):
    """One table of a file. values: by key, parsed; None where that failed and where there is nothing."""

    file: str
    path: Path
    raw: dict[str, Any]
    values: dict[str, Any]
    origins: inherit.Origins = {}  # noqa: RUF012  # of a service that takes keys from elsewhere: where they are


def read_section(kind: str, raw: Any, file: str, path: Path, problems: list[Problem]) -> Section:
    """Each key of a section by its row in the table of keys."""
    known, values = keys.SECTIONS[kind], dict.fromkeys(keys.SECTIONS[kind])
    if not isinstance(raw, dict):
        problems.append(Problem(file, path, "must be a table"))
        return Section(file, path, {}, values)
    for name in [name for name in raw if name not in known]:
        ours = called(elsewhere.KEYS, name) or meant(name, known)
        problems.append(Problem(file, (*path, name), f"no such key{ours}"))
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
    """Every section of the files, by its path, and what is wrong with them. The policy is not read here.

    Services have what they take from [defaults], templates and each other.
    """
    problems: list[Problem] = []
    found: dict[Path, Section] = {}
    layers: dict[Path, Layer] = {}
    for file in files:
        try:
            raw = {} if file.error or file.path.startswith("policy.d/") else tomllib.loads(file.text)
        except (ValueError, RecursionError) as error:
            file = file._replace(error=str(error))
        if file.error:
            problems.append(Problem(file.path, (), file.error))
            continue
        known = keys.MAIN if file.path == MAIN else ("socket", "defaults", "template", "service")
        top = {key: raw.pop(key) for key in keys.SECTIONS[keys.TOP] if file.path == MAIN and key in raw}
        for n in [n for n in raw if n not in known]:
            problems.append(
                Problem(file.path, (n,), f"no such section{called(elsewhere.SECTIONS, n) or meant(n, known)}")
            )
        if file.path == MAIN:
            found[keys.TOP,] = read_section(keys.TOP, top, file.path, (), problems)
            for kind in [kind for kind in known if kind in raw or kind != "api"]:
                found[kind,] = read_section(kind, raw.get(kind, {}), file.path, (kind,), problems)
            continue
        for kind in [kind for kind in known if kind in raw]:
            if not isinstance(raw[kind], dict):
                problems.append(Problem(file.path, (kind,), "must be a table"))
                continue
            tables: dict[Path, Any] = {(kind,): raw[kind]}
            if kind != "defaults":
                tables = {(kind, name): table for name, table in raw[kind].items()}
            for path, table in tables.items():
                before = found.get(path) or layers.get(path)
                if before:
                    problems.append(Problem(file.path, path, f"is in {before.file} already"))
                elif path[1:] and (
                    not keys.NAME.fullmatch(path[1]) or path[1].startswith("durward-") or path[1] == "audit"
                ):
                    problems.append(Problem(file.path, path, f"{keys.NAME_WORDS}, but not durward-… and audit"))
                if kind == "socket" or not isinstance(table, dict):
                    section = read_section(kind, table, file.path, path, problems)
                    found |= {path: section} if isinstance(table, dict) else {}
                else:
                    layers[path] = Layer(file.path, path, table)
    for path, layer in layers.items():
        if path[0] == "defaults" or (path[0] == "template" and not layer.raw.get("instances")):
            look_at(layer, problems)
    for name, origins, layer, table in inherit.services(layers, problems):
        told: list[Problem] = []
        section = read_section("service", kinds.with_defaults(table), layer.file, layer.path, told)
        found["service", name] = section._replace(origins=origins)
        moved = [placed(found["service", name], problem) for problem in told] if origins else told
        problems += [problem for problem in moved if problem not in problems]
    return found, tuple(problems)


def look_at(layer: Layer, problems: list[Problem]) -> None:
    """What is no service by itself: its keys, as they would be in one."""
    told: list[Problem] = []
    kind = "template" if layer.path[0] == "template" else "service"
    read_section(kind, inherit.expanded(layer.raw, "x"), layer.file, layer.path, told)
    problems += [problem for problem in told if not problem.text.startswith("is missing")]
    texts = {"extends": "no such key", "allow_root": "each service has to say it: it gives away what is root's"}
    texts["schedule"] = "each service has to say it, or extend what does"
    for key in texts.keys() & layer.raw.keys() if layer.path[0] == "defaults" else ():
        problems.append(Problem(layer.file, ("defaults", key), texts[key]))


def is_name(name: str) -> bool:
    """Whether a service, template or socket of the files may have it."""
    return keys.NAME.fullmatch(name) is not None and not name.startswith("durward-") and name != "audit"


def placed(section: Section, problem: Problem) -> Problem:
    """The problem where the key was written that it is about."""
    inner = problem.path[len(section.path) :]
    origin = section.origins.get(inner[:2]) or section.origins.get(inner[:1])
    return Problem(origin.file, (*origin.path, *inner), problem.text) if origin else problem
