"""The environment of a service, which is built and not inherited, and what ${NAME} and ${NAME:-default} stand for.

Rule: there is no shell: nothing is split, executed or matched, and what comes in for a variable is not looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rootd.config.keys import OURS, VARIABLE, meant
from rootd.config.settings import User
from rootd.config.trusted import File

SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_REFERENCE = re.compile(r"\$(\$\{)|\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}|\$\{")
_QUOTED, _ESCAPED = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)\""""), re.compile(r'\\(["\\`$])')
NO_LINE = "line {} of {} is not NAME=value, or ours to set"
NO_QUOTE = "line {} of {}: its value begins with a quote and does not end with it, or has one between; it is one line"
NO_MORE = "line {} of {} ends with a backslash, and a value is one line; put it in quotes where it is meant"
EXPORT = "line {} of {} begins with a shell's word, export: leave it out"
Wrong = list[tuple[tuple[str | int, ...], str]]  # where beneath a service, and the sentence
UNFINISHED = "${ begins the name of a variable, as in ${NAME} or ${NAME:-default}; $${ stands for the two characters"


class Unknown(ValueError):
    """Why a text cannot be expanded, as a sentence."""


def expand(text: str, known: Mapping[str, str]) -> str:
    """The text with its references replaced. A default counts where the variable is missing or empty, as in sh.

    Raises Unknown.
    """

    def value(found: re.Match[str]) -> str:
        literal, name, has_default, default = found.groups()
        if literal:
            return str(literal)
        if name is None:
            raise Unknown(UNFINISHED)
        if has_default:
            return known.get(name) or str(default)
        if name not in known:
            ours = f" ({OURS} are known only when it runs)" if name.startswith(("DURWARD_", "LISTEN_")) else ""
            raise Unknown(
                f"there is no variable {name}{ours}: set it, or write ${{{name}:-default}}{meant(name, known)}"
            )
        return known[name]

    return _REFERENCE.sub(value, text) if "${" in text else text


def build(
    values: dict[str, Any], user: User, files: Mapping[str, File], *, literal: bool = False
) -> tuple[dict[str, str], Wrong]:
    """What login(1) sets, then what is configured, then the file. literal: nothing is expanded.

    A value that is configured may refer to what login sets, to the file's, which win, and to those before it.
    """
    name, asked = values["user"], values["environment_file"] or ""
    built = {"PATH": SEARCH, "HOME": user.home, "USER": name, "LOGNAME": name, "SHELL": user.shell or "/bin/sh"}
    lines, wrong = read_lines(asked, files)
    built |= lines
    for variable, text in values["environment"] or ():
        try:
            value = text if literal else expand(text, built)
        except Unknown as error:
            wrong.append((("environment", variable), str(error)))
            continue
        built |= {} if variable in lines else {variable: value}
    if watchdog := values["live"]["watchdog"]:
        built["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
    return built, wrong


def read_lines(asked: str, files: Mapping[str, File]) -> tuple[dict[str, str], Wrong]:
    """The variables of an environment file; asked: its path, with "-" before it where it may be missing."""
    found, path = dict[str, str](), asked.removeprefix("-")
    file = files.get(path, File(path, "", "was not read")) if path else File("", "")
    wrong: Wrong = [] if not file.error or (asked != path and file.missing) else [(("environment_file",), file.error)]
    for number, line in enumerate(map(str.strip, file.text.removeprefix("\ufeff").split("\n")), 1):
        variable, equals, value = (part.strip() for part in line.partition("="))
        why, quoted = "", _QUOTED.fullmatch(value)
        if not line or line[0] in "#;":
            continue
        if not equals or "\0" in value or not VARIABLE.fullmatch(variable):
            why = EXPORT if variable.startswith("export ") else NO_LINE
        elif quoted:
            value = quoted[1] or _ESCAPED.sub(r"\1", quoted[2] or "")  # as systemd has it, in double quotes
        elif value[:1] in ("'", '"') or value.endswith("\\"):
            why = NO_MORE if value.endswith("\\") else NO_QUOTE
        wrong += [(("environment_file",), why.format(number, path))] if why else []
        found[variable] = value
    return found, wrong


def commands(
    values: dict[str, Any], places: Mapping[str, tuple[str, str]], known: Mapping[str, str]
) -> tuple[dict[str, Any], Wrong]:
    """The values of a service with each of its commands expanded, and where and why one cannot be.

    places: its commands besides its own: section and key (specs.PARTS). The values that came are left as they are.
    """
    wrong: Wrong = []

    def words(command: tuple[str, ...], *path: str) -> Iterator[str]:
        for index, word in enumerate(command):
            try:
                yield expand(word, known)
            except Unknown as error:
                wrong.append(((*path, index), str(error)))

    new = dict(values)
    if values["command"]:
        new["command"] = tuple(words(values["command"], "command"))
    for section, key in places.values():
        if command := values[section][key]:
            new[section] = new[section] | {key: tuple(words(command, section, key))}
    return new, wrong
