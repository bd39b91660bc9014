"""Which services the words of a command mean: names, group:NAME, globs of * ? [] on names, all. And how it ended.

Rule 1: pure. What is meant is looked up in what one status request told: the services that the asker may view. So a
        group or a glob has no member that he may not view, and nothing tells him that there is one.
Rule 2: a plain name means itself, seen or not: the daemon answers for it, as it does for one name alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any

from userapi.cli.failure import BAD_CONFIG, DENIED, FAILED, LATER, NOT_RUNNING, OK, UNKNOWN, UNREACHABLE, USAGE, Failure
from userapi.cli.quick import ALL, GROUP, is_plain

# of several exit codes the first in this order is the command's; and what the last line calls those that have it
GRAVITY = {
    DENIED: "denied",
    UNKNOWN: "unknown",
    NOT_RUNNING: "not running",
    LATER: "to be tried again later",
    UNREACHABLE: "not reached",
    BAD_CONFIG: "badly configured",
    USAGE: "refused",
    FAILED: "failed",
}


def meant(words: list[str], services: list[dict[str, Any]]) -> tuple[list[str], dict[str, Failure]]:
    """The names, each once and in order, and for each word that means no service what to say of it.

    Raises Failure when no word means any.
    """
    names: set[str] = set()
    missing: dict[str, Failure] = {}
    for word in words:
        found = [word] if is_plain(word) else [known["name"] for known in services if _means(word, known)]
        names.update(found)
        if not found:
            missing[word] = Failure("unknown", _sentence(word))
    if not names:
        raise Failure("unknown", "; ".join(failure.text for failure in missing.values()))
    return sorted(names), missing


def _means(word: str, service: Mapping[str, Any]) -> bool:
    if word.startswith(GROUP):
        return word.removeprefix(GROUP) in service.get("groups", ())
    return word == ALL or fnmatchcase(service["name"], word)


def _sentence(word: str) -> str:
    if word == ALL:
        return "no service that you may view"
    if word.startswith(GROUP):
        return f"no service that you may view is in the group '{word.removeprefix(GROUP)}'"
    return f"no service that you may view is called '{word}'"


def gravest(codes: Collection[int]) -> int:
    """The one exit code of several: 0 when all are 0."""
    order = list(GRAVITY)
    return min((code for code in codes if code != OK), key=order.index, default=OK)


def line(service: str, text: str) -> str:
    """What became of one service, with its name at the head, once: `site restarted`, `db: not running`."""
    if text.startswith(f"{service} is "):
        text = text.removeprefix(f"{service} is ")
    return text if text.startswith((f"{service} ", f"{service}:")) else f"{service}: {text}"


def summary(done: int, failed: dict[str, list[str]]) -> str:
    """`2 of 3 done; 1 denied: worker`. failed: the services by what they are called, in the order to be told."""
    total = done + sum(len(names) for names in failed.values())
    parts = [f"{len(names)} {called}: {', '.join(names)}" for called, names in failed.items()]
    return "; ".join([f"{done} of {total} done", *parts])
