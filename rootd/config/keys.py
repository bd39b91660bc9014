"""Every key of the configuration: ONE table, by which files are read and from which the manual's tables are made.

Rule: a value that is not exactly what its row says is refused with a sentence; nothing is guessed or cut to size.
"""

from __future__ import annotations

import difflib
import re
import resource
import socket
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rootd.config import extras
from rootd.config.table import Socket

REQUIRED = object()  # no default
SIGNALS = "HUP|INT|QUIT|USR1|USR2|TERM|CONT|WINCH|ALRM|STOP|KILL|TTIN|TTOU|PIPE|ABRT"
LIMITS = {
    "as": resource.RLIMIT_AS, "core": resource.RLIMIT_CORE, "cpu": resource.RLIMIT_CPU, "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE, "locks": 10, "memlock": resource.RLIMIT_MEMLOCK,
    "msgqueue": resource.RLIMIT_MSGQUEUE, "nice": resource.RLIMIT_NICE, "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC, "rss": resource.RLIMIT_RSS, "rtprio": resource.RLIMIT_RTPRIO, "rttime": 15,
    "sigpending": resource.RLIMIT_SIGPENDING, "stack": resource.RLIMIT_STACK,  # all of asm-generic/resource.h
}  # fmt: skip
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")  # as policy/names.py has it
NAME_WORDS = "1 to 63 of a-z, 0-9, '_', '.' and '-', beginning with a letter or digit"
USER_WORDS = "1 to 32 of a-z, 0-9, '_' and '-', beginning with a letter or '_'"
VARIABLE = re.compile(r"(?!LISTEN_|NOTIFY_SOCKET\Z|WATCHDOG_|DURWARD_|CREDENTIALS_DIRECTORY\Z)[A-Za-z_][A-Za-z0-9_]*")
OURS = "LISTEN_*, NOTIFY_SOCKET, CREDENTIALS_DIRECTORY, WATCHDOG_*, DURWARD_*"
VARIABLE_WORDS = f"must be letters, digits and '_'; {OURS} are not yours to set"
PATH = r"(?:/(?!\.{1,2}(?:/|\Z))[^/\0-\x1f\x7f]+)+"  # no empty component, no "." and ".."
SPAN = r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)"
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
ADDRESS = rf"(udp:)?(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([1-9][0-9]{{0,4}})|unix(-dgram)?:({PATH})"
URL = r"(?:http://([0-9.]+:[0-9]+|\[[0-9a-fA-F:.]+\]:[0-9]+))?(/[!-~]{0,1000})?"
CRON = "[0-9A-Za-z*,/#-]{1,99}"  # a field of a schedule, as far as can be seen without the rules of cron
UNIX_PATH_LIMIT = 100  # bytes, of the 108 in sockaddr_un: it is bound under a longer name first
RUN_LIMIT = UNIX_PATH_LIMIT - len("/notify/1234567890123456")  # microseconds of a boot, for three centuries


class Key(NamedTuple):
    section: str
    name: str
    type: str  # a row of TYPES, "a|b", "1..9", "[type]", or a section: a table within the table
    default: Any  # as it would stand in the file; None: nothing
    doc: str


# fmt: off
KEYS = (
    Key("daemon", "exit_on", "[name]", [], "services: when one has ended for good, all ends with its exit status"),
    Key("paths", "run", "path", "/run/durward", "sockets, and what a boot may forget"),
    Key("paths", "log", "path", "/var/log/durward", "logs of the services and the audit log"),
    Key("paths", "state", "path", "/var/lib/durward", "what a boot may not forget"),
    Key("accounts", "privileged", "user", "_durward", "binds, spawns and signals"),
    Key("accounts", "supervisor", "user", "_durward-sup", "decides"),
    Key("accounts", "auth", "user", "_durward-auth", "asks PAM; gets group shadow"),
    Key("accounts", "log", "user", "_durward-log", "writes the logs"),
    Key("accounts", "probe", "user", "_durward-probe", "makes HTTP and TCP checks"),
    Key("accounts", "api", "user", "_durward-api", "speaks HTTP"),
    Key("auth", "pam_service", "name", "durward", "the file of /etc/pam.d for logins"),
    Key("auth", "pam_account_service", "name", None, "that for the minute's check; pam_service with -account"),
    Key("auth", "local", "password|peer", "password", "peer: local users log in without typing a password"),
    Key("auth", "session", "period", "8h", "after which a session ends"),
    Key("auth", "idle", "period", "30m", "without a command, after which a session ends"),
    Key("auth", "token_longest", "duration", "90d", "that a personal token may live; 0s: there are none"),
    Key("api", "listen", "addresses", None, "where the API listens; api.sock in the run directory"),
    Key("api", "workers", "1..64", 2, "processes that answer HTTP"),
    Key("api", "threads", "4..1000", 64, "of each worker, for requests, waits and streams"),
    Key("api", "hosts", "[host]", [], "names by which people reach it, besides this machine's own"),
    Key("api", "tls", "tls", None, "needed where other machines can reach it"),
    Key("api", "behind_proxy", "flag", False, "a proxy in front ends TLS: go without"),
    Key("api", "page", "flag", True, "the page for browsers at /; false: the API alone"),
    Key("tls", "certificate", "path", REQUIRED, "the chain, in PEM"),
    Key("tls", "key", "path", REQUIRED, "the private key, in PEM; readable for the API's account"),
    Key("audit", "on_failure", "refuse|continue", "refuse", "what happens to changes that cannot be recorded"),
    Key("audit", "size", "size", "100M", "of a file, after which the next is begun; full ones are kept"),
    Key("audit", "anchors", "auto|journald|syslog|none", "auto", "where its number and hash go; auto: what there is"),
    Key("audit", "forward", "none|journald|syslog", "none", "where each record goes too"),
    Key("socket", "listen", "addresses", REQUIRED, "one address or a list"),
    Key("socket", "group", "user", None, "of a Unix socket; that of the first service on it"),
    Key("socket", "mode", "mode", "0660", "of a Unix socket"),
    Key("socket", "backlog", "1..65535", 4096, "connections that may wait; the kernel's somaxconn caps it"),
    Key("socket", "v6only", "flag", True, "an IPv6 address takes no IPv4 connections"),
    Key("socket", "freebind", "flag", False, "bind before the machine has the address"),
    Key("service", "command", "command", REQUIRED, "a program by its absolute path, and arguments; there is no shell"),
    Key("template", "instances", "[name]", [], "services NAME-INSTANCE of it; {instance} in its values is their name"),
    Key("service", "extends", "name", None, "a template, or another service, whose keys it has where it has none"),
    Key("service", "kind", "simple|oneshot|forking|scheduled", "simple", "oneshot: ready when it ended; see pid_file"),
    Key("service", "pid_file", "path", None, "of a forking one: which process goes on, when the first has ended well"),
    Key("service", "timeout", "period", None, "of what ends by itself: in which it must have; else it has its time"),
    Key("service", "schedule", "cron", None, "when it runs, as in crontab(5) (OnCalendar=); seconds may come before"),
    Key("service", "timezone", "zone", None, "of the schedule, such as \"Europe/Paris\"; the machine's"),
    Key("service", "missed", "skip|once", "skip", "while the daemon was down: once, when it is back (Persistent=)"),
    Key("service", "random_delay", "period", None, "by up to which its times are later, each machine by its own"),
    Key("service", "user", "user", REQUIRED, "whom it runs as"),
    Key("service", "group", "user", None, "in place of the user's own group"),
    Key("service", "supplementary_groups", "[user]", [], "groups besides those that the user is in"),
    Key("service", "groups", "[name]", [], "names that policy and commands may use for several services"),
    Key("service", "directory", "path", "/", "the working directory"),
    Key("service", "umask", "mode", "022", "bits that new files do not get"),
    Key("service", "sockets", "[name]", [], "descriptors from 3, with LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID"),
    Key("service", "fastcgi", "name", None, "a socket that is its descriptor 0, as FastCGI has it (and inetd's wait)"),
    Key("service", "environment", "variables", {}, "its variables"),
    Key("service", "environment_file", "perhaps", None, "NAME=value lines; \"-\" before it: it may be missing"),
    Key("service", "autostart", "flag", True, "start with the daemon"),
    Key("service", "requires", "[name]", [], "services that must be ready before it starts, and are started for it"),
    Key("service", "after", "[name]", [], "services that it starts after and stops before, where they run too"),
    Key("service", "priority", "0..9999", 999, "where order is free, lower ones start first and stop last"),
    Key("service", "restart_with", "[name]", [], "services whose restart restarts it too"),
    Key("service", "processes", "1..1024", 1, "how many run at a time"),
    Key("service", "max_processes", "1..1024", None, "how many durward scale may make of them; processes"),
    Key("service", "max_unavailable", "1..1024", 1, "how many of them a restart replaces at a time"),
    Key("service", "signals", f"[{SIGNALS}]", SIGNALS.split("|")[:9], "what durward signal may send"),
    Key("service", "no_new_privileges", "flag", True, "setuid programs give it nothing (root needs none)"),
    Key("service", "allow_root", "flag", False, "it may run as root, or in a group that amounts to root"),
    Key("service", "ready", "ready", {}, "when it counts as started"),
    Key("service", "restart", "restart", {}, "what happens when it ends by itself"),
    Key("service", "live", "live", {}, "whether it still does its work, once it is ready"),
    Key("service", "stop", "stop", {}, "how it is ended"),
    Key("service", "hooks", "hooks", {}, "commands that run as its user before and after it"),
    Key("service", "limits", "limits", {}, "of resources: a number, a size, \"unlimited\" or [soft, hard]"),
    Key("service", "log", "log", {}, "its stdout and stderr"),
    *(Key(*row) for row in extras.ROWS),
    Key("ready", "after", "duration", None, "it has lived so long; 1s where neither notify nor fd is set"),
    Key("ready", "notify", "flag", False, "it says READY=1 by sd_notify(3)"),
    Key("ready", "fd", "3..255", None, "it writes a newline on this descriptor (s6's notification-fd)"),
    Key("ready", "command", "command", None, "this ends with status 0, run as the service's user with DURWARD_PID"),
    Key("ready", "http", "url", None, "this answers 200 to 399: \"http://127.0.0.1:8080/healthz\""),
    Key("ready", "tcp", "address", None, "this takes a connection: \"127.0.0.1:5432\" or \"unix:/run/db/db.sock\""),
    Key("ready", "interval", "period", "0.5s", "from one probe to the next"),
    Key("ready", "over", "probe", None, "a socket of each process alone, the last of its descriptors, named probe"),
    Key("ready", "timeout", "period", "30s", "in which it must be ready"),
    Key("live", "command", "command", None, "as in ready, again and again"),
    Key("live", "http", "url", None, "as in ready, again and again"),
    Key("live", "tcp", "address", None, "as in ready, again and again"),
    Key("live", "over", "probe", None, "as in ready"),
    Key("live", "interval", "period", "10s", "from one probe to the next"),
    Key("live", "timeout", "period", "5s", "of one probe"),
    Key("live", "failures", "1..100", 3, "probes in a row that fail, before something is done"),
    Key("live", "action", "restart|report", "restart", "what is done; report: people see it"),
    Key("live", "watchdog", "period", None, "it says WATCHDOG=1 by sd_notify(3) more often than that"),
    Key("restart", "policy", "always|on-failure|never", "on-failure", "when it is started again; a one-shot: never"),
    Key("restart", "expected", "[0..255]", [0], "exit codes that are no failure"),
    Key("restart", "backoff", "backoff", "0.1s..30s", "how long it waits before the first restart, and at most"),
    Key("restart", "limit", "rate", "5 in 60s", "crashes after which it is given up"),
    Key("stop", "signal", SIGNALS, "TERM", "asks it to end"),
    Key("stop", "timeout", "duration", "10s", "after which further signals follow, or it is killed with its processes"),
    Key("stop", "then", "[step]", [], "further signals before it is killed, each with its time"),
    Key("stop", "command", "command", None, "asks it to end in place of the signal, which follows when the time is up"),
    Key("hooks", "pre_start", "command", None, "before each process is started; where it fails, nothing is started"),
    Key("hooks", "post_start", "command", None, "when it is ready; where it fails, the process is stopped again"),
    Key("hooks", "post_stop", "command", None, "when nothing of a process is left, however it ended"),
    Key("hooks", "timeout", "period", "30s", "of each hook"),
    Key("log", "size", "size", "50M", "of a file, after which the next is begun (stdout_logfile_maxbytes)"),
    Key("log", "keep", "1..1000", 10, "files that are kept besides (stdout_logfile_backups)"),
    Key("log", "age", "span", None, "of a file, after which the next is begun, whatever its size"),
    Key("log", "compress", "flag", False, "gzip the files that are kept, when there is nothing else to do"),
    Key("log", "mode", "mode", "0640", "of the files, which are log's own; where others may read, their directory too"),
    Key("log", "readers", "user", None, "a group that may read them too, by an access control list"),
    Key("log", "stderr", "own|stdout", "own", "stdout: both in one, in their order (redirect_stderr)"),
    Key("log", "target", "file|journald|syslog|inherit|null", "file", "where it goes; all but file is at most once"),
    Key("log", "format", "plain|stamped|json", "plain", "of files and inherit: as it is, with times, or JSON lines"),
    Key("log", "full", "drop|wait", "drop", "disk: after 1 s output is dropped and counted; or it waits"),
    *(Key("limits", name, "limit", None, f"RLIMIT_{name.upper()} of setrlimit(2)") for name in LIMITS),
)
# fmt: on
TOP = "daemon"  # the keys that stand in durward.toml before its sections
MAIN = ("paths", "accounts", "auth", "api", "audit")  # the sections of durward.toml
SECTIONS = {key.section: {other.name: other for other in KEYS if other.section == key.section} for key in KEYS}
SECTIONS["template"] |= SECTIONS["service"]


class Wrong(ValueError):
    """`each`: where beneath the value (nothing: the value itself), and what it must be."""

    def __init__(self, *each: tuple[tuple[str | int, ...], str]) -> None:
        super().__init__("; ".join(text for _, text in each))
        self.each = each


def meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def parse(kind: str, value: Any) -> Any:
    """A value by its type. Raises Wrong."""
    if kind[0] == "[":
        return parse_list(kind[1:-1], value)
    low, dots, high = kind.partition("..")
    if dots:
        words, good = f"a whole number from {low} to {high}", type(value) is int and int(low) <= value <= int(high)
    elif kind not in TYPES:
        words, good = f"one of {kind.replace('|', ', ')}", isinstance(value, str) and value in kind.split("|")
    else:
        words, parser = TYPES[kind]
        value = parser(value)
        good = value is not None
    if not good:
        raise Wrong(((), f"must be {words}"))
    return value


def parse_list(kind: str, value: Any) -> tuple[Any, ...]:
    """Each item by its type, and none of them twice. Raises Wrong with all that are not good."""
    if not isinstance(value, list):
        raise Wrong(((), "must be a list"))
    items: dict[Any, None] = {}
    wrong: list[tuple[tuple[str | int, ...], str]] = []
    for index, item in enumerate(value):
        try:
            found = parse(kind, item)
            if found in items:
                wrong.append(((index,), f"{item!r} must be there only once"))
            items[found] = None
        except Wrong as error:
            wrong += [((index, *path), f"{item!r:.60} {text}") for path, text in error.each]
    if wrong:
        raise Wrong(*wrong)
    return tuple(items)


class Text:
    """Parses strings that match as a whole: convert is given the groups, or the string where there are none."""

    def __init__(self, pattern: str, convert: Callable[..., Any] = str) -> None:
        self.pattern, self.convert = re.compile(pattern), convert

    def __call__(self, value: Any) -> Any:
        match = self.pattern.fullmatch(value) if isinstance(value, str) else None
        return match and self.convert(*(match.groups() or (value,)))


text = Text


def seconds(amount: str, unit: str) -> float:
    return float(amount) * UNITS[unit]


def backoff(*spans: str) -> tuple[float, float] | None:
    first, cap = seconds(*spans[:2]), seconds(*spans[2:])
    return (first, cap) if 0 < first <= cap else None


def address(udp: str, v6: str, v4: str, port: str, datagram: str, path: str) -> Socket | None:
    """Each address has one spelling, so that equal ones have equal keys."""
    if path:
        kind = "dgram" if datagram else "stream"
        return Socket(f"unix:{path}", "unix", kind, "", 0, path) if len(path.encode()) <= UNIX_PATH_LIMIT else None
    family = socket.AF_INET6 if v6 else socket.AF_INET
    try:
        host = socket.inet_ntop(family, socket.inet_pton(family, v6 or v4))
    except OSError:
        return None
    key = f"{'udp' if udp else 'tcp'}:{f'[{host}]' if v6 else host}:{port}"
    kind = "dgram" if udp else "stream"
    return Socket(key, "inet6" if v6 else "inet", kind, host, int(port), "") if int(port) <= 65535 else None


def url(authority: str, target: str) -> tuple[str, str] | None:
    """Key of a Socket ("": that of the process itself), and what is asked of it."""
    found = parse_address(authority)
    return (found.key if found else "", target or "/") if found or (target and not authority) else None


def addresses(value: Any) -> Any:
    return parse("[address]", value) or None if isinstance(value, list) else (parse("address", value),)


def command(value: Any) -> tuple[str, ...] | None:
    good = isinstance(value, list) and all(isinstance(item, str) and "\0" not in item for item in value)
    return tuple(value) if good and value and value[0].startswith("/") else None


def variables(value: Any) -> tuple[tuple[str, str], ...] | None:
    wrong = []
    for name, content in value.items() if isinstance(value, dict) else ():
        if not VARIABLE.fullmatch(name):
            wrong.append(((name,), VARIABLE_WORDS))
        if not isinstance(content, str) or "\0" in content:
            wrong.append(((name,), "must be a text in quotes"))
    if wrong:
        raise Wrong(*wrong)
    return tuple(value.items()) if isinstance(value, dict) else None


def bytes_of(amount: str, unit: str) -> int | None:
    found = int(amount) << 10 * " KMGT".index(unit or " ")
    return found if found < 1 << 62 else None


size = text("([0-9]{1,18})([KMGT]?)", bytes_of)


def limit(value: Any) -> tuple[int, int] | None:
    """Soft and hard; -1 is unlimited."""
    ends = value if isinstance(value, list) else [value, value]
    both: list[Any] = [
        -1 if end == "unlimited" else size(str(end)) if type(end) in (int, str) else None for end in ends
    ]
    if len(both) != 2 or None in both or not (both[1] == -1 or 0 <= both[0] <= both[1]):
        return None
    return both[0], both[1]


def age(amount: str, unit: str) -> float | None:
    return found if 1 <= (found := seconds(amount, unit)) <= 3000 * UNITS["d"] else None


def log_size(value: Any) -> int | None:
    found: int | None = size(value)
    return found if found and found >= 1024 else None


parse_address = text(ADDRESS, address)
TYPES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "path": ("an absolute path without '.' and '..'", text(f"/|({PATH})/?", lambda path: path or "/")),
    "perhaps": ("an absolute path, perhaps with '-' before it", text(f"(-?{PATH})")),
    "name": (NAME_WORDS, text(NAME.pattern)),
    "user": (USER_WORDS, text("[a-z_][a-z0-9_-]{0,31}")),
    "host": ("the name of a host", text("[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")),
    "flag": ("true or false", lambda value: value if isinstance(value, bool) else None),
    "mode": ('three octal digits in quotes, such as "027" or "660"', text("0?([0-7]{3})", lambda octal: int(octal, 8))),
    "size": ('a size of a kilobyte or more, such as "50M"', log_size),
    "duration": ('a time such as "0.5s", "10s", "2m" or "8h"', text(SPAN, seconds)),
    "period": ('a time such as "10s", "2m" or "8h", not 0', text(SPAN, lambda *span: seconds(*span) or None)),
    "span": ('a time from "1s" to "3000d"', text(SPAN, age)),
    "step": (
        'a signal and a time such as "INT 5s"',
        text(rf"({SIGNALS}) {SPAN}", lambda name, *span: (name, seconds(*span))),
    ),
    "backoff": ('two times such as "0.1s..30s", the longer one last', text(rf"{SPAN}\.\.{SPAN}", backoff)),
    "cron": (
        'a line such as "*/5 * * * *": five fields, or six, the first of them seconds; or "@daily"',
        text(rf"@[a-z]{{1,20}}|{CRON}(?: +{CRON}){{4,5}}"),
    ),
    "zone": ('a time zone such as "Europe/Paris"', text(r"([A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2})")),
    "rate": (
        'a number and a time such as "5 in 60s"',
        text(rf"([1-9][0-9]{{0,3}}) in {SPAN}", lambda n, *span: (int(n), seconds(*span))),
    ),
    "address": ('like "0.0.0.0:80", "[::]:443", "udp:127.0.0.1:53" or "unix:/run/x.sock"', parse_address),
    "url": ('like "http://127.0.0.1:8080/healthz", with a number for the host', text(URL, url)),
    "addresses": ("an address or a list of them", addresses),
    "command": ("a list of strings, the first of them an absolute path", command),
    "variables": ("a table of strings", variables),
    **extras.TYPES,
    "limit": ('a number, a size such as "1G", "unlimited", or [soft, hard], soft not above hard', limit),
}
