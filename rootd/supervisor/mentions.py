"""Names of services in what is told: whoever may view one reads its name, anybody else that there is one.

Who composes a text about one service, or about the daemon, does not know who will read it, and names others in it. Each
such name is marked, and the text goes on as a str: to operations, states and files. The marks are taken off where it is
told: by control for a person, by what he may view at that moment; by auditing, and for standard error, whole.

Rule 1: one place tells people things (control.Connection), and takes the marks off whatever it sends.
Rule 2: what is marked wrongly, or cut within a mark, shows less and never more.
Rule 3: nobody from outside can make a mark: control characters are in no name, reason or status text.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from policy.messages import Problem

OPEN, THEN, CLOSE = "\x0e", "\x1f", "\x0f"
ROOT = "/"  # in place of a service: for root alone
COUNT = "{}"
PARTS = 32  # between points: a name has 63 characters at most
SERVICES = ("requires", "after", "restart_with")  # keys that name other services
_MARKS = re.compile(f"([{OPEN}{THEN}{CLOSE}])")
_SPELLED = (rb"\u000e", rb"\u000f", rb"\u001f")  # the same in JSON
_WORDS = re.compile(r"[a-z0-9_.-]+")
_SEPARATORS = (", ", "; ")

Sees = Callable[[str], bool]  # whether a service may be viewed, by its name, perhaps with its groups: "db back"


class _Marked(NamedTuple):
    """text: None where it is not told."""

    text: str | None
    instead: str


def mark(whose: str, text: str, instead: str = COUNT) -> str:
    """text, for who may view that service; instead, for anybody else: in it, {} is "1 service that you may not view".

    whose: a service, with its groups where it may not be configured: "db back". "a|b": who may view one of them may
    read it; "a&b": who may view both. "": everybody. Marks next to each other, with ", " or "; " between, are counted
    together.
    """
    return f"{OPEN}{whose}{THEN}{text}{THEN}{instead}{CLOSE}" if whose else text


def names(services: Iterable[str]) -> str:
    """Listed, each for who may view it."""
    return ", ".join(mark(name, name) for name in services)


def plain(text: str) -> str:
    """All of it, without the marks."""
    return resolved(text, lambda whose: True)


def resolved(text: str, sees: Sees) -> str:
    """As somebody is told it. It takes one turn over the text, however deep marks are in each other."""
    if not _MARKS.search(text):
        return text
    frames: list[list[list[str | _Marked]]] = [[[]]]
    for piece in _MARKS.split(text):
        if piece == OPEN:
            frames.append([[]])
        elif piece == THEN:
            frames[-1].append([])
        elif piece != CLOSE:
            frames[-1][-1].append(piece)
        elif len(frames) > 1:
            fields = [_joined(parts) for parts in frames.pop()]
            whose, said, instead = fields if len(fields) == 3 else (ROOT, "", COUNT)
            frames[-1][-1].append(_Marked(said if may_read(whose, sees) else None, instead))
    return _joined(frames[0][0])  # a mark that was cut shows nothing


def may_read(whose: str, sees: Sees) -> bool:
    return all(any(map(sees, one.split("|"))) for one in whose.split("&"))


def _joined(parts: list[str | _Marked]) -> str:
    """Marks that say the same instead, and have a separator between, are one list: what is hidden of it comes last."""
    parts = [part for part in parts if part != ""]
    told, run, between = "", list[_Marked](), ""
    for part, after in itertools.zip_longest(parts, parts[1:], fillvalue=""):
        if isinstance(part, _Marked):
            run.append(part)
        elif part in _SEPARATORS and _goes_on(run, between, part, after):
            between = part
        else:
            told += _listed(run, between) + part
            run, between = [], ""
    return told + _listed(run, between)


def _goes_on(run: list[_Marked], between: str, separator: str, after: str | _Marked) -> bool:
    same = bool(run) and isinstance(after, _Marked) and after.instead == run[0].instead
    return same and between in ("", separator)


def _listed(run: list[_Marked], between: str) -> str:
    hidden = [one.instead for one in run if one.text is None]
    shown = between.join(one.text for one in run if one.text is not None)
    instead = hidden[0].replace(COUNT, _counted(len(hidden))) if hidden else ""
    if shown and hidden:
        shown += " and " if (between, hidden[0]) == (", ", COUNT) else between
    return shown + instead


def _counted(many: int) -> str:
    return f"{many} service{'s' if many > 1 else ''} that you may not view"


def short(text: str, limit: int) -> tuple[str, int]:
    """So many characters of it, as root is told it and without half a mark; and how many there are."""
    size = len(text) if OPEN not in text else len(plain(text))
    if size <= limit:
        return text, size
    if OPEN not in text:
        return text[:limit], size
    kept, room = "", limit
    for piece in _pieces(text):
        told = plain(piece)
        kept += piece if len(told) <= room else "" if piece.startswith(OPEN) else piece[:room]
        room -= len(told)
        if room <= 0:
            break
    return kept, size


def _pieces(text: str) -> Iterator[str]:
    """What stands between marks, and marks with what is in them, as whole ones."""
    depth, piece = 0, ""
    for one in _MARKS.split(text):
        if one == OPEN and depth == 0:
            yield piece
            piece = ""
        depth += (one == OPEN) - (one == CLOSE)
        piece += one
        if one == CLOSE and depth == 0:
            yield piece
            piece = ""
    if depth == 0:
        yield piece


def told(packet: bytes, sight: Callable[[], Sees]) -> bytes:
    """A message in JSON, as somebody is told it. sight: asked where there is something to see."""
    if not any(one in packet for one in _SPELLED):
        return packet
    sees = functools.cache(sight())
    return msgspec.json.encode(_told(msgspec.json.decode(packet), sees))


def _told(thing: object, sees: Sees) -> object:
    if isinstance(thing, str):
        return resolved(thing, sees)
    if isinstance(thing, list):
        return [_told(one, sees) for one in thing]
    if not isinstance(thing, dict):
        return thing
    found = {key: _told(one, sees) for key, one in thing.items()}
    if "line" in found and not found.get("file"):
        found["line"] = 0  # of a file that is not told
    return found


# -- what names services otherwise ---------------------------------------------------------------------------------


def settings(spelled: Mapping[str, str], is_service: Callable[[str], bool]) -> dict[str, str]:
    """The keys of a service as they are spelled, with the names of others marked."""
    found = dict(spelled)
    for key in SERVICES:
        others = json.loads(found.get(key, "[]"))
        if others:
            found[key] = f"[{', '.join(mark(name, json.dumps(name), f'{chr(34)}{COUNT}{chr(34)}') for name in others)}]"
    if is_service(found.get("extends", "")):  # else it is a template
        found["extends"] = mark(found["extends"], found["extends"])
    return found


def problem(wrong: Problem, owners: Mapping[str, str]) -> Problem:
    """A mistake in a file: for who may view all services that it is about, or names. owners: whose each name is."""
    text = "\n".join((wrong.file, wrong.key, wrong.text, wrong.source))
    whose = "&".join(sorted({owners[word] for word in _words(text) if owners.get(word)}))
    return of_problem(wrong, whose, f"there is a mistake in what is about {COUNT}: root is told it") if whose else wrong


def of_problem(wrong: Problem, whose: str, hidden: str) -> Problem:
    """whose: as of mark; hidden: what anybody else is told."""
    file, key, source = (mark(whose, one, "") if one else "" for one in (wrong.file, wrong.key, wrong.source))
    return Problem(file, wrong.line, key, mark(whose, wrong.text, hidden), source)


def plain_problem(wrong: Problem) -> Problem:
    file, key, text, source = map(plain, (wrong.file, wrong.key, wrong.text, wrong.source))
    return Problem(file, wrong.line, key, text, source)


def _words(text: str) -> set[str]:
    """All that could be a name in it: words, their parts between points, and what these make together."""
    found = set[str]()
    for word in _WORDS.findall(text):
        parts = word.split(".")
        for start in range(len(parts)):
            ends = range(start + 1, min(start + PARTS, len(parts)) + 1)
            found.update(".".join(parts[start:end]).strip("-_.") for end in ends)
    return found
