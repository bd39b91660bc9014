"""What is wrong with a configuration, for people: every problem with its file, line, key and the line itself.

Rule: nothing is decided here. The compiler and the policy parser say what is wrong; this says where, and prints it.
It runs without privilege, in the throw-away child of `durward-rootd --check` and in the supervisor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from policy.messages import Problem
from policy.parse import parse
from policy.positions import line_of, positions, source_line, spell
from policy.rules import Policy
from rootd.config import compile as compiler
from rootd.config.compile import Bundle, Compiled

_TOML_PLACE = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)\Z")


def check(config_dir: str, python: str) -> list[Problem]:
    """Read, resolve, compile and check the files of a directory: everything that is wrong with them."""
    from rootd import accounts
    from rootd.config.gather import gather

    bundle = gather(config_dir, python, accounts.resolve)
    compiled = compiler.compile_bundle(bundle)
    problems = problems_of(bundle, compiled)
    services = services_of(bundle)
    if services is not None:
        parsed = policy_of(compiled, services)
        problems += parsed if isinstance(parsed, list) else []
    return problems


def services_of(bundle: Bundle) -> dict[str, tuple[str, ...]] | None:
    """The services and their groups, as far as files with mistakes say; None when a file could not be read at all."""
    found, problems = compiler.read(bundle.files)
    if any(not problem.path and problem.file.startswith("services.d") for problem in problems):
        return None
    return {path[1]: section.values["groups"] or () for path, section in found.items() if path[0] == "service"}


def policy_of(compiled: Compiled, services: dict[str, tuple[str, ...]] | None = None) -> Policy | list[Problem]:
    """The policy of a configuration, or what is wrong with it; services are those of its table unless given."""
    own = {spec.name: spec.groups for spec in compiled.specs if spec.name != compiler.API}
    files = [(file.path, file.text) for file in compiled.policy if not file.error]
    return parse(files, own if services is None else services)


def problems_of(bundle: Bundle, compiled: Compiled) -> list[Problem]:
    """The compiler's problems with line and source line, by file and line. The policy's are policy_of's."""
    texts = {file.path: file.text for file in bundle.files}
    lines = {path: positions(texts.get(path, "")) for path in {problem.file for problem in compiled.problems}}
    problems = []
    for problem in compiled.problems:
        text, line, place = texts.get(problem.file, ""), 0, _TOML_PLACE.search(problem.text)
        if problem.path:
            line = line_of(lines[problem.file], problem.path)
        elif text and place:
            line = int(place[1]) if place[1] else text.rstrip("\n").count("\n") + 1
        problems.append(Problem(problem.file, line, spell(problem.path), problem.text, source_line(text, line)))
    return sorted(problems, key=lambda problem: (problem.file, problem.line))


def render(problems: Iterable[Problem]) -> str:
    """One paragraph a problem, with the line as it stands in the file and a mark under what is meant."""
    return "".join(f"{_headline(problem)}\n{_quote(problem)}" for problem in problems)


def _headline(problem: Problem) -> str:
    place = problem.file + (f":{problem.line}" if problem.line else "")
    return _printable(": ".join(part for part in (place, problem.key, problem.text) if part))


def _quote(problem: Problem) -> str:
    if not problem.source:
        return ""
    line = _printable(problem.source.strip())
    return f"    {line}\n    {' ' * _column(line, problem.key)}^\n"


def _column(line: str, key: str) -> int:
    """Where the value of the key begins, as far as that can be seen in one line; else its beginning."""
    name = re.split(r"[.\[]", key)[-1] if key else ""
    found = re.search(rf"(?<![\w-]){re.escape(name)}[\"']?\s*=\s*", line) if name else None
    return found.end() if found else 0


def _printable(text: str) -> str:
    """What a terminal may be shown: nothing in a file or a name can move its cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text.expandtabs(4))
