"""What the supervisor knows of a service: all of its configuration that is not the frozen table's business."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterable
from typing import Any, NamedTuple

from rootd.config import keys
from rootd.config.table import Entry

ORDER = ("requires", "after", "priority", "restart_with")  # what changes no process


class ServiceSpec(NamedTuple):
    """Times are seconds."""

    name: str
    entry: int  # index in the table
    processes: int
    max_processes: int  # of them, when somebody scales it; where it is not 1, each has its number in its name
    max_unavailable: int  # of them, while they are restarted
    groups: tuple[str, ...]  # of services
    autostart: bool
    ready_kind: str  # after, notify
    ready_after: float
    ready_timeout: float
    restart_policy: str  # always, on-failure, never
    expected: tuple[int, ...]  # exit codes that are no failure
    backoff_first: float
    backoff_cap: float
    limit_count: int
    limit_window: float
    stop_signal: int
    stop_timeout: float
    stop_then: tuple[tuple[int, float], ...]  # further signals, and how long each is given
    signals: tuple[str, ...]  # that a person may send
    sockets: tuple[str, ...]
    shared: bool  # whether it has sockets that are held
    user: str
    requires: tuple[str, ...]  # services that must be ready before it is spawned
    after: tuple[str, ...]  # those that it comes after where they run too, without those that it requires
    priority: int
    restart_with: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]  # for people, as in the file; without values of the environment
    digest: str  # equal: nothing that concerns this service has changed


def specs_of(services: Iterable[tuple[Entry, Any]]) -> tuple[ServiceSpec, ...]:
    """One for each entry and the section that it was made of."""
    return tuple(spec_of(entry, section.raw, section.values, i) for i, (entry, section) in enumerate(services))


def spec_of(entry: Entry, raw: dict[str, Any], values: dict[str, Any], index: int) -> ServiceSpec:
    ready, restart, stop = values["ready"], values["restart"], values["stop"]
    spec = ServiceSpec(
        name=entry.service, entry=0, processes=values["processes"], max_processes=entry.count,
        groups=values["groups"], autostart=values["autostart"],
        ready_kind="notify" if ready["notify"] else "after", ready_timeout=ready["timeout"],
        ready_after=1.0 if ready["after"] is None else ready["after"],
        restart_policy=restart["policy"], expected=restart["expected"],
        backoff_first=restart["backoff"][0], backoff_cap=restart["backoff"][1],
        limit_count=restart["limit"][0], limit_window=restart["limit"][1],
        stop_signal=signal.Signals[f"SIG{stop['signal']}"].value, stop_timeout=stop["timeout"],
        stop_then=tuple((signal.Signals[f"SIG{name}"].value, seconds) for name, seconds in stop["then"]),
        max_unavailable=values["max_unavailable"],
        signals=values["signals"], sockets=values["sockets"], shared=bool(values["sockets"]), user=values["user"],
        requires=(), after=(), priority=0, restart_with=(), settings=tuple(shown("service", raw)), digest="",
    )  # fmt: skip
    # without the index, that of another service must not change this one's, and without its place among the others
    alone = tuple(pair for pair in spec.settings if pair[0] not in ORDER)
    whole = repr((entry, spec._replace(settings=alone))).encode()
    after = tuple(name for name in values["after"] if name not in values["requires"])
    spec = spec._replace(**{key: values[key] for key in ORDER} | {"after": after})
    return spec._replace(entry=index, digest=hashlib.sha256(whole).hexdigest())


def shown(kind: str, raw: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for name, key in keys.SECTIONS[kind].items():
        value = raw.get(name, key.default)
        if key.type in keys.SECTIONS:
            found += shown(key.type, value, f"{prefix}{name}.")
        elif value is not None and name != "environment_file":
            value = list(value) if name == "environment" else value
            found.append((prefix + name, value if isinstance(value, str) else json.dumps(value)))
    return found
