"""What kind of service it is: what each kind says of itself where the file does not, and what makes no sense with it.

Rule: a kind is keys that are set, and a few that it may not have; nothing but the supervisor's spec knows of it later.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rootd.config import schedules

ONCE: dict[str, Any] = {"restart": {"policy": "never"}}
OWN = {"oneshot": ONCE, "scheduled": ONCE}  # what a kind sets
# what [defaults] does not say of a kind
NOT_FOR = {
    "oneshot": ("ready", "live"), "scheduled": ("ready", "live", "processes", "max_processes"),
    "simple": ("timeout",), "forking": ("ready", "timeout"),
}  # fmt: skip
PROBES = ("command", "http", "tcp")
WAYS = ("after", "notify", "fd", *PROBES)


def with_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """A service's keys as they are in the file, with those that its kind sets."""
    raw = {"kind": "scheduled"} | raw if "schedule" in raw else raw
    own = OWN.get(str(raw.get("kind")))
    if own is None:
        return raw
    return raw | {key: value | raw.get(key, {}) for key, value in own.items() if isinstance(raw.get(key, {}), dict)}


def problems(values: dict[str, Any], raw: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What makes no sense with this kind: the key, and why. values: of a service, parsed; raw: not."""
    ready = [way for way in WAYS if values["ready"][way] is not None and values["ready"][way] is not False]
    if (values["kind"] == "forking") != bool(values["pid_file"]):
        yield "pid_file", 'kind = "forking" takes a pid_file, and a pid_file takes kind = "forking"'
    if values["kind"] == "forking" and set(ready) - {*PROBES}:
        yield "ready", "a forking service is ready when its pid file says so, or a probe: command, http or tcp"
    one = {"forking": "its pid file names one", "scheduled": "it begins one at a time"}.get(values["kind"] or "")
    for key in ("processes", "max_processes") if one else ():
        if (values[key] or 1) > 1:
            yield key, f"a {values['kind']} service has one process, as {one}: make a template with instances"
    yield from of_schedule(values, raw)
    if values["kind"] not in OWN:
        if values["timeout"]:
            yield "timeout", 'is of a one-shot: ready.timeout is that of others, or say kind = "oneshot"'
        return
    it = "a scheduled service" if values["kind"] == "scheduled" else "a one-shot"
    if ready:
        yield "ready", f"{it} is ready when it has ended well, and not before"
    if any(values["live"][name] for name in (*PROBES, "watchdog")):
        yield "live", f"{it} has nothing that goes on to be probed: its time is timeout"
    if values["hooks"]["post_start"]:
        yield "hooks", f"{it} has no post_start: post_stop runs when it has ended"
    if values["restart"]["policy"] == "always":
        yield "restart", f'{it} is not started again when it has done its work: "never" or "on-failure"'


def of_schedule(values: dict[str, Any], raw: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if values["kind"] != "scheduled":
        for key in schedules.KEYS:
            if values[key] and values[key] != "skip":
                yield key, 'is of a scheduled service: leave out its kind, or say kind = "scheduled"'
        return
    if "schedule" not in raw:
        yield "schedule", 'kind = "scheduled" takes a schedule, such as "*/5 * * * *"'
    elif values["schedule"] and (wrong := schedules.problem(values["schedule"])):
        yield "schedule", wrong
    if values["restart_with"]:
        yield "restart_with", "a scheduled service runs at its times, and not because another was restarted"


def command_of(values: dict[str, Any], python: str) -> tuple[str, ...]:
    """What is executed: of a forking service, what says in its place which process it has become (rootd/pidfile)."""
    command: tuple[str, ...] = values["command"]
    forking = (python, "-I", "-m", "rootd.pidfile", values["pid_file"], *command)
    return forking if values["kind"] == "forking" else command
