"""What the supervisor knows of a service: all of its configuration that is not the frozen table's business."""

from __future__ import annotations

import hashlib
import json
import signal
from functools import cache
from typing import Any, NamedTuple

from rootd.config import keys, kinds, redact, schedules
from rootd.config.schedules import Schedule
from rootd.config.table import Entry

PARTS = {  # what else is run for a service: its name, and the section and key that say how
    "pre-start": ("hooks", "pre_start"),
    "post-start": ("hooks", "post_start"),
    "post-stop": ("hooks", "post_stop"),
    "stop": ("stop", "command"),
    "ready": ("ready", "command"),
    "live": ("live", "command"),
}
ORDER = ("requires", "after", "priority", "restart_with")
# what changes no process
QUIET = (*ORDER, *schedules.KEYS, "groups", "autostart", "processes", "max_processes", "max_unavailable")


class Probe(NamedTuple):
    """One way to see whether a process does its work. A command is an entry of the table, by the name of its part."""

    kind: str  # command, http, tcp
    address: str = ""  # key of a table.Socket; "" with http: that of the process itself (over)
    target: str = ""  # of http


class ServiceSpec(NamedTuple):
    """Times are seconds."""

    name: str
    entry: int  # index in the table
    processes: int
    max_processes: int  # of them, when somebody scales it; where it is not 1, each has its number in its name
    max_unavailable: int  # of them, while they are restarted
    groups: tuple[str, ...]  # of services
    autostart: bool
    ready_kind: str  # after, notify, fd, probe; exit: of a one-shot
    ready_after: float
    ready_timeout: float  # of a one-shot, to its end; 0: it has its time
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
    settings: tuple[tuple[str, str], ...]  # for people, as in the file, redacted (redact.py)
    digest: str  # equal: nothing that concerns this service has changed
    ready_probe: Probe | None = None
    ready_interval: float = 0.5
    live_probe: Probe | None = None
    live_interval: float = 10.0
    live_timeout: float = 5.0
    live_failures: int = 3
    live_restart: bool = True  # else people are told, and nothing is done
    watchdog: float = 0.0  # it is to be heard more often than that; 0: never
    hook_timeout: float = 30.0
    parts: tuple[tuple[str, int], ...] = ()  # commands besides its own, by their name: index in the table
    exit_on: bool = False  # the daemon ends when it has ended
    schedule: Schedule | None = None  # when it runs, where it is not to run all the time
    generation: int = 0  # the configuration that it is of: the number that privileged knows it by

    def part(self, name: str) -> int | None:
        """The entry of a hook, of its stop command or of a probe's (names: PARTS)."""
        return dict(self.parts).get(name)

    def has(self, name: str) -> bool:
        return any(name == part for part, _ in self.parts)


def parts_of(entry: Entry, values: dict[str, Any]) -> list[tuple[str, Entry]]:
    """What is run for a service besides its processes: as they are, but for the command, and with nothing of theirs."""
    found = []
    for name, (section, key) in PARTS.items():
        if command := values[section][key]:
            own = (pair for pair in entry.env if pair[0] != "WATCHDOG_USEC")
            environment = tuple(sorted((*own, ("DURWARD_HOOK", name))))
            bare = entry._replace(
                sockets=(), stdin="", signals=(signal.SIGKILL.value,), notify=False, ready_fd=0, probe=False
            )
            found.append((name, bare._replace(path=command[0], argv=command, env=environment)))
    return found


def probe_of(values: dict[str, Any]) -> Probe | None:
    if values["http"]:
        return Probe("http", *values["http"])
    if values["tcp"]:
        return Probe("tcp", values["tcp"].key)
    return Probe("command") if values["command"] else None


def ready_kind_of(kind: str, ready: dict[str, Any], probe: Probe | None) -> str:
    if kind in kinds.OWN:
        return "exit"
    return "probe" if probe else "notify" if ready["notify"] or kind == "forking" else "fd" if ready["fd"] else "after"


def spec_of(
    entry: Entry, parts: list[tuple[str, Entry]], raw: dict[str, Any], values: dict[str, Any], index: int, first: int
) -> ServiceSpec:
    """index: of its entry in the table; first: of the entries of its parts, which follow each other."""
    ready, restart, stop, live = values["ready"], values["restart"], values["stop"], values["live"]
    ready_probe = probe_of(ready)
    spec = ServiceSpec(
        name=entry.service, entry=0, processes=values["processes"], max_processes=entry.count,
        groups=values["groups"], autostart=values["autostart"],
        ready_kind=ready_kind_of(values["kind"], ready, ready_probe),
        ready_timeout=(values["timeout"] or 0.0) if values["kind"] in kinds.OWN else ready["timeout"],
        ready_after=1.0 if ready["after"] is None else ready["after"],
        restart_policy=restart["policy"], expected=restart["expected"],
        backoff_first=restart["backoff"][0], backoff_cap=restart["backoff"][1],
        limit_count=restart["limit"][0], limit_window=restart["limit"][1],
        stop_signal=signal.Signals[f"SIG{stop['signal']}"].value, stop_timeout=stop["timeout"],
        stop_then=tuple((signal.Signals[f"SIG{name}"].value, seconds) for name, seconds in stop["then"]),
        max_unavailable=values["max_unavailable"],
        signals=values["signals"], sockets=values["sockets"], shared=bool(entry.held()), user=values["user"],
        requires=(), after=(), priority=0, restart_with=(), settings=tuple(shown("service", raw)), digest="",
        ready_probe=ready_probe, ready_interval=ready["interval"],
        live_probe=probe_of(live), live_interval=live["interval"], live_timeout=live["timeout"],
        live_failures=live["failures"], live_restart=live["action"] == "restart", watchdog=live["watchdog"] or 0.0,
        hook_timeout=values["hooks"]["timeout"],
    )  # fmt: skip
    # without the index, that of another service must not change this one's, and without what changes no process
    alone = tuple(pair for pair in spec.settings if pair[0] not in QUIET)
    many = min(entry.count, 2)  # that there are several changes their names
    still = spec._replace(groups=(), autostart=True, processes=1, max_processes=many, max_unavailable=1, settings=alone)
    whole = repr([one._replace(count=many) for one in (entry, *(part for _, part in parts))] + [still]).encode()
    after = tuple(name for name in values["after"] if name not in values["requires"])
    spec = spec._replace(**{key: values[key] for key in ORDER} | {"after": after})
    at = tuple((name, first + offset) for offset, (name, _) in enumerate(parts))
    told = {key: redact.value_of("service", key, value, values.get(key)) for key, value in raw.items()}
    settings = spec.settings if told == raw else tuple(shown("service", told))
    return spec._replace(entry=index, parts=at, settings=settings, digest=hashlib.sha256(whole).hexdigest())


def shown(kind: str, raw: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Every key of a section as it is spelled in the file. What is not in it is spelled once, for all services."""
    return [
        pair
        for name in keys.SECTIONS[kind]
        for pair in (spelled(kind, name, raw[name], prefix) if name in raw else default(kind, name, prefix))
    ]


@cache
def default(kind: str, name: str, prefix: str) -> tuple[tuple[str, str], ...]:
    return spelled(kind, name, keys.SECTIONS[kind][name].default, prefix)


def spelled(kind: str, name: str, value: Any, prefix: str) -> tuple[tuple[str, str], ...]:
    inner = keys.SECTIONS[kind][name].type
    if inner in keys.SECTIONS:
        return tuple(shown(inner, value, f"{prefix}{name}."))
    if value is None or name == "environment_file":
        return ()
    value = list(value) if name in ("environment", "credentials") else value  # their names alone
    return ((prefix + name, value if isinstance(value, str) else json.dumps(value)),)
