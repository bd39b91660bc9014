"""What is wrong with a configuration, for people: every problem with its file, line, key and the line itself.

Rule: nothing is decided here. The compiler and the policy parser say what is wrong, and of directories those who use
them at the start (rootd/config/trusted, rootd/privileged/listen); this says where, and prints it.
It runs in the throw-away child of `durward-rootd --check`, which alone looks at directories, and in the supervisor.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice, pairwise
from typing import NamedTuple

from policy.messages import Problem
from policy.parse import parse
from policy.positions import Path, line_of, locate, positions, source_line, spell
from policy.rules import Policy
from rootd import zones
from rootd.config import compile as compiler, redact, schedules, trusted
from rootd.config.compile import Bundle, Compiled
from rootd.config.table import Socket, load_table
from rootd.config.trusted import MAIN, File

SHOWN_TIMES = 3  # of each scheduled service
_REASON = re.compile(r"socket ([a-z0-9][a-z0-9_.-]*): (.*)", re.DOTALL)
_TOML_PLACE = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)\Z")


Made = Callable[[Bundle, Compiled, dict[str, bytes]], None]


class Checked(NamedTuple):
    problems: list[Problem]
    notes: list[str]  # what is no mistake, or could not be looked at
    summary: str  # for when there is no problem


def check(
    config_dir: str, python: str, warn: bool = False, made: Made | None = None, now: float | None = None
) -> Checked:
    """Read, resolve, compile and check the files of a directory, and the directories that they name.

    warn: note too what would not work on this machine now, although it is no mistake. made: given what was made of
    them, and what the services' secrets say, when there is no problem. now: of the wall clock, to note when scheduled
    services would run next.
    """
    from rootd import accounts, outlook
    from rootd.config.gather import gather

    contents = dict[str, bytes]()
    bundle = gather(config_dir, python, accounts.resolve, contents if made else None)
    compiled = compiler.compile_bundle(bundle, table_alone=True)
    wrong, notes = look(bundle)
    if os.access(config_dir, os.X_OK) and not os.path.isdir(f"{config_dir}/policy.d"):
        notes.append(f"there is no {config_dir}/policy.d: nobody but root may do anything")
    if compiled.table:
        notes += outlook.lacking(load_table(compiled.table))
        notes += [] if now is None else times(bundle, now)
    problems = problems_of(bundle, compiled._replace(problems=(*compiled.problems, *wrong)))
    warnings = tuple(outlook.warnings(bundle, addresses(bundle.files))) if warn else ()
    notes += map(headline, problems_of(bundle, compiled._replace(problems=warnings)))
    services = services_of(bundle)
    policy = None if services is None else policy_of(compiled, services)
    if isinstance(policy, list):
        problems += policy
    if made and not problems:
        made(bundle, compiled, contents)
    return Checked(problems, notes, summary(bundle, policy) if isinstance(policy, Policy) else "")


def times(bundle: Bundle, now: float) -> Iterator[str]:
    """When each scheduled service runs next."""
    for path, section in compiler.read(bundle.files)[0].items():
        when = schedules.of(section.values, bundle.zones) if path[0] == "service" else None
        if when is not None:
            coming = [*islice(when.times(now), SHOWN_TIMES)]
            found = ", ".join(map(when.spelled, coming))
            gap = min((after - before for before, after in pairwise(coming)), default=float("inf"))
            if when.random_delay > gap:
                yield (
                    f"{section.file}: {spell(path)}: its random_delay is longer than the time from one run to the next:"
                    " all of them are later by the same part of it, so a shorter one spreads them as well"
                )
            later = f"{section.raw.get('random_delay')}" if when.random_delay else ""
            runs = "runs at" if section.values["autostart"] else "runs, once it is enabled, at"
            yield f"{section.file}: {spell(path)} {runs} {found}{', or up to ' + later + ' later' if later else ''}"


def summary(bundle: Bundle, policy: Policy) -> str:
    kinds = [path[0] for path in compiler.read(bundle.files)[0]]
    counts = {
        "service": kinds.count("service"),
        "socket": kinds.count("socket"),
        "rule": len(policy.grants) + len(policy.denies),
    }
    told = ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for what, count in counts.items())
    return f"{bundle.config}: {told}: no mistake found"


def look(bundle: Bundle) -> tuple[list[compiler.Problem], list[str]]:
    """What a start would refuse in the directories that the files name, and a note of each that only root may see."""
    problems, notes = [], []
    for file, path, name, look_at in directories(bundle):
        try:
            look_at()
        except OSError as error:
            at = f"{error.filename}: " if error.filename and error.errno != errno.EPERM else ""  # EPERM: a sentence
            if error.errno == errno.EACCES:
                notes.append(f"{file}: {spell(path)}: only root can look at it: {at}{error.strerror}")
            else:
                problems.append(compiler.Problem(file, path, f"{name}{at}{error.strerror}"))
    return problems, notes


def directories(bundle: Bundle) -> Iterator[tuple[str, Path, str, Callable[[], None]]]:
    """Of each directory that the files name: file, key, what the sentence begins with, and who looks at it."""
    from rootd.privileged import listen  # no part of the supervisor

    found, _ = compiler.read(bundle.files)
    if ("paths",) not in found:
        return
    paths, accounts = found["paths",].values, found["accounts",].values
    log = bundle.users.get(accounts["log"] or "")
    for key, path in paths.items():
        if path is not None:
            yield MAIN, ("paths", key), "", partial(trusted.check_place, path, log.uid if key == "log" and log else 0)
    made = (paths["run"], f"{paths['run']}/sockets")  # by us, at the start
    wanted = {accounts["api"]: {compiler.API}}
    for section in [section for path, section in found.items() if path[0] == "service"]:
        wanted.setdefault(section.values["user"], set()).update(compiler.on(section.values))
    for file, where, address in addresses(bundle.files):
        folder = os.path.dirname(address.path)
        users = [bundle.users.get(user or "") for user, sockets in wanted.items() if address.name in sockets]
        if address.family == "unix" and (folder not in made or os.path.lexists(folder)):
            checked = address._replace(users=tuple(user.uid for user in users if user))
            yield file, where, f"{address.key}: ", partial(listen.check_directory, checked)


def addresses(files: tuple[File, ...]) -> Iterator[tuple[str, Path, Socket]]:
    """Every address with its file, its key there, and the name of its socket."""
    for path, section in compiler.read(files)[0].items():
        if path[0] in ("socket", "api"):
            for index, address in enumerate(section.values["listen"] or ()):
                where: Path = (*path, "listen", index)
                where = where if isinstance(section.raw["listen"], list) else where[:-1]
                yield section.file, where, address._replace(name=compiler.API if path[0] == "api" else path[1])


def located(files: tuple[File, ...], reason: str) -> Problem:
    """Why privileged cannot have a socket, in the words of its listen.failure; with its place where it has one."""
    told = _REASON.fullmatch(reason)
    for file, path, address in addresses(files) if told else ():
        if told and address.name == told[1] and told[2].startswith(f"{address.key}: "):
            line, source = locate(next(one.text for one in files if one.path == file), path)
            return Problem(file, line, spell(path), told[2], source if redact.is_quotable(path, source) else "")
    return Problem("", 0, "", reason)


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
    return parse(files, own if services is None else services, zones.zone)


def problems_of(bundle: Bundle, compiled: Compiled, quoted: bool = True) -> list[Problem]:
    """The compiler's problems with line and source line, by file and line. The policy's are policy_of's.

    quoted: with lines that could have a secret too, as for root alone.
    """
    texts = {file.path: file.text for file in bundle.files}
    lines = {path: positions(texts.get(path, "")) for path in {problem.file for problem in compiled.problems}}
    problems = []
    for problem in compiled.problems:
        text, line, place = texts.get(problem.file, ""), 0, _TOML_PLACE.search(problem.text)
        if problem.path:
            line = line_of(lines[problem.file], problem.path)
        elif text and place:
            line = int(place[1]) if place[1] else text.rstrip("\n").count("\n") + 1
        source = source_line(text, line)
        source = source if quoted or redact.is_quotable(problem.path, source) else ""
        problems.append(Problem(problem.file, line, spell(problem.path), problem.text, source))
    return sorted(problems, key=lambda problem: (problem.file, problem.line))


def render(problems: Iterable[Problem], quoted: bool = True) -> str:
    """One paragraph a problem; quoted: with the line as it stands in the file and a mark under what is meant."""
    return "".join(f"{headline(problem)}\n{_quote(problem) if quoted else ''}" for problem in problems)


def headline(problem: Problem) -> str:
    """One line: FILE:LINE: KEY: what is wrong."""
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
