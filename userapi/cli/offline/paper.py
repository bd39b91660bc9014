"""A configuration compiled on paper: as if the machine had every user, group and file that it names.

Rule: what is said of it is true on every machine; what is true of one machine is for durward-rootd --check to say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from userapi.cli.sources import FOLDERS, MOST, opened

if TYPE_CHECKING:
    from policy.shown import Problem
    from rootd.config.compile import Bundle
    from rootd.config.trusted import File

FIRST = 100_000  # of the numbers that users and groups are given
NO_VARIABLE = "there is no variable"  # begins what compile says of a word that names one


def problems(place: str) -> tuple[list[Problem], str, list[str]]:
    """All mistakes of a configuration directory; what to say when there is none; and the environment files that could
    not be read, of which nothing is said."""
    from policy.rules import Policy
    from rootd import check
    from rootd.config import compile as compiler

    bundle = bundle_of(place, tuple(files_of(place)))
    compiled = compiler.compile_bundle(bundle, table_alone=True)
    unread = sorted(path for path, file in bundle.environment_files.items() if file.missing)
    known = tuple(one for one in compiled.problems if not (unread and one.text.startswith(NO_VARIABLE)))
    found = check.problems_of(bundle, compiled._replace(problems=known))
    services = check.services_of(bundle)
    policy = None if services is None else check.policy_of(compiled, services)
    found += policy if isinstance(policy, list) else []
    summary = check.summary(bundle, policy) if isinstance(policy, Policy) and not found else ""
    return sorted(found, key=lambda problem: (problem.file, problem.line)), summary, unread


def bundle_of(place: str, files: tuple[File, ...]) -> Bundle:
    from rootd.config import compile as compiler, schedules
    from rootd.config.settings import User
    from rootd.config.trusted import File

    users, groups, paths, pam = compiler.names_needed(files)
    secrets, _ = compiler.credentials_needed(files)
    numbers = {name: FIRST + index for index, name in enumerate(sorted(users | groups))} | {"root": 0}
    return compiler.Bundle(
        place,
        "/usr/bin/python3",
        files,
        {path: environment(path) for path in sorted(paths)},
        {name: User(numbers[name], numbers[name], (numbers[name],), "/", "/bin/sh") for name in users},
        {name: numbers[name] for name in groups},
        dict.fromkeys(pam, True),
        {path: File(path, "") for path in secrets},
        True,
        {name: schedules.read_zone(name) for name in sorted(compiler.zones_needed(files))},
    )


def environment(path: str) -> File:
    """As far as it can be read here; else an empty one, marked as missing."""
    found = read(path, path)
    return found._replace(text="", error="", missing=True) if found.error else found


def files_of(place: str) -> Iterator[File]:
    """Every file of a configuration directory as rootd.config.trusted.read_tree names it, with why one has no text."""
    from rootd.config.trusted import MAIN, NOT_OURS, File

    if os.path.lexists(os.path.join(place, MAIN)):
        yield read(os.path.join(place, MAIN), MAIN)
    for folder in FOLDERS:
        try:
            names = sorted(os.listdir(os.path.join(place, folder)))
        except FileNotFoundError:
            continue
        except OSError as error:
            yield File(folder, "", f"{os.path.join(place, folder)}: {error.strerror}")
            continue
        for name in names:
            label = f"{folder}/{name if name.isprintable() else ascii(name)}"
            if name.endswith(".toml") and name[0] != ".":
                yield read(os.path.join(place, folder, name), label)
            elif not name.startswith(NOT_OURS[0]) and not name.endswith(NOT_OURS[1]):
                yield File(label, "", "is not read: its name must end in .toml")


def read(path: str, label: str) -> File:
    from rootd.config import trusted

    def taken() -> tuple[bytes, os.stat_result]:
        with opened(path) as file:
            content, about = file.read(MOST + 1), os.fstat(file.fileno())
        if len(content) > MOST:
            raise OSError(0, f"{path} is larger than {MOST} bytes")
        return content, about

    found = trusted.as_text(path, label, taken)
    return found._replace(error=f"{path}: {found.error}") if found.error and path not in found.error else found
