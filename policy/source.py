"""A policy with all that is needed to judge it: its files, the services and their groups, the configuration around it.

Rule 1: one shape, wherever it came from: from a directory (userapi/cli/sources.py) or from a daemon, which answers
        ReadPolicy with it (rootd/supervisor/publishing.py).
Rule 2: nothing in it is secret: who makes one has redacted the configuration (rootd/config/redact.py).
Rule 3: pure: parsed() is policy/parse.py over what is in here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from policy.parse import parse
from policy.rules import Policy
from policy.shown import Problem
from policy.windows import Zones

STAND_IN = "any-service"  # bears the groups of services of which no service is known


class PolicyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """name: as rules name it, "policy.d/10-web.toml"; hash: SHA-256 of the text, hex."""

    name: str
    text: str
    hash: str


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table of durward.toml or services.d, as it counts, with what it takes from templates; secrets redacted.

    name: "service.site", "paths"; values: by key, as in the file.
    """

    file: str
    name: str
    values: dict[str, Any]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """services: each configured service with its groups, our own api not among them. whole: whether those are known;
    else they are the names that the rules use, and which service is in which group is not known. place: where it came
    from, for people."""

    policy: list[PolicyFile]
    services: dict[str, list[str]]
    configuration: list[Section]
    place: str = ""
    whole: bool = True
    groups: list[str] = []  # of services, that the rules use, where `whole` is false


_DECODER = msgspec.json.Decoder(Source, strict=True)


def policy_file(name: str, text: str) -> PolicyFile:
    return PolicyFile(name, text, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())


def encode(source: Source) -> bytes:
    return msgspec.json.encode(source)


def decode(content: bytes) -> Source:
    """Raises ValueError for what is no Source."""
    return _DECODER.decode(content)


def parsed(source: Source, zones: Zones) -> Policy | list[Problem]:
    """The policy, or everything that is wrong with it; its [[test]] blocks are run where the services are known.

    zones: time zones by name, as policy.parse.parse takes them.
    """
    services: dict[str, Iterable[str]] = {**source.services}
    if not source.whole and source.groups:
        services[STAND_IN] = source.groups
    files = [(file.name, file.text) for file in source.policy]
    return parse(files, {name: tuple(groups) for name, groups in services.items()}, zones, run_tests=source.whole)


def named_in(contents: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """The services and the groups of services that policy files name; contents: of each file, as tomllib reads it.

    What is no list of texts is left out: parsed() tells of it.
    """
    found = set[str]()
    for content in contents:
        for kind, key in (("grant", "on"), ("deny", "on"), ("test", "on"), ("group", "services")):
            tables = content.get(kind)
            tables = list(tables.values()) if isinstance(tables, dict) else tables
            for table in tables if isinstance(tables, list) else ():
                value = table.get(key) if isinstance(table, dict) else None
                found |= {word for word in (value if isinstance(value, list) else [value]) if isinstance(word, str)}
    groups = sorted(word.removeprefix("group:") for word in found if word.startswith("group:"))
    return sorted(word for word in found if word[:1] not in ("@", "*") and ":" not in word), groups
