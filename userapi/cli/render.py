"""What people and programs see: tables, colours, ages, JSON, messages.

Data goes to stdout, messages to stderr. Every text from outside passes through `plain` on its way to a terminal or a
file; JSON is ASCII with everything else escaped, so it is harmless too.
"""

from __future__ import annotations

import json
import os
import sys
import time

from userapi.cli import plain
from userapi.cli.failure import Failure

TYPE_CHECKING = False  # as typing says it: importing that takes longer than asking
if TYPE_CHECKING:
    from typing import Any, TextIO

COLOURS = {"RUNNING": "32", "STARTING": "33", "STOPPING": "33", "BACKOFF": "31", "FATAL": "31;1", "EXITED": "2"}
UNUSED = {"live.": ("action", "failures", "interval", "timeout"), "hooks.": ("timeout",)}  # alone, they mean nothing
_MONTHS = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)


class Screen:
    """How to print, by --color, NO_COLOR and what stdout is."""

    def __init__(self, as_json: bool = False, color: str = "auto") -> None:
        self.as_json = as_json
        self.colour = color == "always" or (
            color == "auto"
            and sys.stdout.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM", "dumb") != "dumb"
        )

    def json(self, value: Any) -> None:
        sys.stdout.write(json.dumps(value) + "\n")

    def say(self, text: str) -> None:
        """A line of data or an outcome."""
        sys.stdout.write(plain.line(text) + "\n")

    def paragraph(self, text: str) -> None:
        sys.stdout.write(plain.text(text).rstrip("\n") + "\n")

    def progress(self, text: str) -> None:
        """A line that says how it goes."""
        sys.stdout.flush()
        sys.stderr.write(plain.line(text) + "\n")
        sys.stderr.flush()

    def state(self, state: str, width: int = 0) -> str:
        text = plain.line(state).ljust(width)
        return f"\x1b[{COLOURS[state]}m{text}\x1b[0m" if self.colour and state in COLOURS else text

    def failure(self, failure: Failure) -> None:
        if self.as_json:
            self.json(failure.document())
        sys.stdout.flush()
        _lines(sys.stderr, [failure.text, *failure.hints()])

    def services(self, services: list[dict[str, Any]]) -> None:
        """A line a process; the service's own text below it."""
        if not services:
            self.progress("no service that you may view")
            return
        now = time.clock_gettime(time.CLOCK_REALTIME)
        rows: list[tuple[str, ...]] = []
        ages: dict[str, str] = {}  # many have started in the same second
        for service in services:
            for process in service["processes"] or [{**service, "pid": 0, "since": ""}]:
                pid = str(process["pid"]) if process["pid"] else "-"
                since = process["since"]
                if since not in ages:
                    ages[since] = age(since, now)
                rows.append((process["name"], process["state"], pid, ages[since], said_of(service, process)))
            if service.get("text") and service["processes"]:
                rows.append(("", "", "", "", service["text"]))
        title = ("NAME", "STATE", "PID", "SINCE", "")
        rows, widths = _columns(title, rows)
        lines = []
        for name, state, pid, since, told in [title, *rows]:
            cells = (name.ljust(widths[0]), self.state(state, widths[1]), pid.rjust(widths[2]), since.ljust(widths[3]))
            lines.append("  ".join((*cells, told)).rstrip() + "\n")
        sys.stdout.write("".join(lines))

    def operations(self, operations: list[dict[str, Any]]) -> None:
        """A line an operation: how far it is, or how it ended."""
        if not operations:
            self.progress("nothing is under way that you may view")
            return
        now = time.clock_gettime(time.CLOCK_REALTIME)
        rows: list[tuple[str, ...]] = []
        for one in operations:
            who = f"{one['user'] or '-'}{' +' + str(one['joined']) if one['joined'] else ''}"
            how = str(one["step"]) if one["ok"] is None else f"{'done' if one['ok'] else 'failed'}: {one['text']}"
            rows.append((str(one["number"]), one["kind"], one["service"] or "-", who, age(one["since"], now), how))
        title = ("NUMBER", "KIND", "SERVICE", "USER", "SINCE", "")
        rows, widths = _columns(title, rows)
        for row in [title, *rows]:
            middle = (cell.ljust(width) for cell, width in zip(row[1:5], widths[1:], strict=True))
            sys.stdout.write("  ".join([row[0].rjust(widths[0]), *middle, row[5]]).rstrip() + "\n")

    def description(self, told: dict[str, Any]) -> None:
        self.services([told["service"]])
        shown = [(plain.line(key), plain.line(value)) for key, value in settings_of(told)]
        width = max(len(key) for key, _ in shown)
        for key, value in shown:
            sys.stdout.write(f"{key:<{width}}  {value}\n")

    def rights(self, told: dict[str, Any]) -> None:
        self.say(f"{told['user']} (uid {told['uid']}), in {', '.join(told['groups']) or 'no group'}")
        if told.get("token"):
            self.say(f"by the token {told['token']}, until {told['expires']}")
        elif told.get("expires"):
            self.say(f"logged in until {told['expires']}")
        for right in told["rights"]:
            demands = right.get("demands", {})
            told_of = [f"{one} ({demands[one]})" if one in demands else one for one in right["actions"]]
            self.say(f"{right['service'] or 'the daemon'}: {', '.join(told_of)}")
        if not told["rights"]:
            self.say("no rule allows you anything; ask root or the people who keep the policy")

    def problems(self, problems: list[dict[str, Any]]) -> None:
        """file:line: key: text, and the source line below."""
        lines = []
        for problem in problems:
            place = f"{problem['file']}:{problem['line']}" if problem.get("line") else problem["file"]
            lines.append(": ".join(part for part in (place, problem.get("key", ""), problem["text"]) if part))
            if problem.get("source"):
                lines.append("    " + problem["source"].strip())
        sys.stdout.flush()
        _lines(sys.stderr, lines)

    def event(self, event: dict[str, Any]) -> None:
        if self.as_json:
            self.json(event)
        elif event["is"] == "changed":
            pid = f" pid {plain.line(event['pid'])}" if event["pid"] else ""
            text = f": {plain.line(event['text'])}" if event.get("text") else ""
            head = f"{plain.line(event['time'])} {plain.line(event['process'])}"
            sys.stdout.write(f"{head} {self.state(event['state'])}{pid}{text}\n")
        elif event["is"] == "dropped":
            self.progress(f"too slow to be waited for: {event['text']}")
        elif event["is"] == "missed":
            self.progress(f"some events are missing: {event['text']}")
        elif event["is"] == "lapsed":
            self.say(f"{event['time']} {event['service'] or 'the daemon'}: {event['text']}")
        else:
            self.say(f"{event['time']} {event['service']} (operation {event['operation']}): {event['text']}")
        sys.stdout.flush()


def said_of(service: dict[str, Any], process: dict[str, Any]) -> str:
    """What is to be known of a process besides its state: how it ended before, why, and that it will not come back."""
    last, text = str(process.get("exit") or ""), str(process.get("text") or "")
    before = f"before: {last}" if last and process["pid"] else last  # not what runs now
    unexpected = process["state"] == "RUNNING" and not service.get("enabled", True)
    disabled = "disabled" if unexpected and "disabled" not in text else ""
    return "; ".join(part for part in ("" if last in text else before, text, disabled) if part)


def step(service: str, text: str) -> str:
    """A step of an operation, with the service's name before it, unless it begins with that of one of its processes."""
    return text if not service or text.startswith(f"{service}:") else f"{service}: {text}"


def settings_of(told: dict[str, Any]) -> list[tuple[str, str]]:
    """All that describe tells of a service below its processes, as name and value, in the order to be shown."""
    service = told["service"]
    settings = {str(key): str(value) for key, value in told["settings"].items()}
    if "schedule" not in settings:
        settings.pop("missed", None)
    for section, unused in UNUSED.items():  # they say how often and how long, of what is not there
        own = {key for key in settings if key.startswith(section)}
        if own <= {section + key for key in unused}:
            settings = {key: value for key, value in settings.items() if key not in own}
    settings |= {"groups": ", ".join(service.get("groups", [])), "sockets": ", ".join(told["sockets"])}
    parts = [("wanted", service["wanted"]), *_enabled(told), *sorted(settings.items())]
    parts += [("exit", exit_) for exit_ in told["exits"]]
    parts += [("lost output", lost) for lost in told.get("lost", [])]
    return [(key, value) for key, value in parts if value not in ("", "[]")]


def _enabled(told: dict[str, Any]) -> list[tuple[str, str]]:
    if "enabled" not in told["service"]:
        return []
    who = told.get("chosen_by")
    word = "yes" if told["service"]["enabled"] else "no"
    return [("enabled", f"{word}, chosen by {who}" if who else f"{word}, by the configuration")]


def _lines(out: TextIO, lines: list[str]) -> None:
    for line in lines:
        out.write(plain.text(line).rstrip("\n") + "\n")
    out.flush()


def _columns(title: tuple[str, ...], rows: list[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], list[int]]:
    """The rows, harmless, and the widths of all columns but the last."""
    rows = [tuple(plain.line(cell) for cell in row) for row in rows]
    return rows, [max(map(len, column)) for column in zip(title, *rows, strict=True)][:-1]


def age(since: str, now: float) -> str:
    """How long ago an RFC 3339 time in UTC was: 5s, 3m, 2h05, 4d. The text itself when it is something else."""
    try:
        year, month, day = int(since[0:4]), int(since[5:7]), int(since[8:10])
        clock = int(since[11:13]) * 3600 + int(since[14:16]) * 60 + int(since[17:19])
    except ValueError:
        return since
    if not since.endswith("Z") or not 1 <= month <= 12:
        return since
    leaps = year - (month <= 2)  # leap days counted up to this month
    days = (year - 1970) * 365 + leaps // 4 - leaps // 100 + leaps // 400 - 477 + _MONTHS[month - 1] + day - 1
    seconds = max(0, int(now) - days * 86400 - clock)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m"
    if seconds < 86400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02}"
    return f"{seconds // 86400}d"
