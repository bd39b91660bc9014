"""What a service may be given besides what every one has: its rows of the table of keys, and what becomes of them.

Rule: nothing here is a default that does something: a service that says none of it has None in its entry.

Sources: setpriority(2), ioprio_set(2), proc(5) oom_score_adj, sched_setaffinity(2), capabilities(7), landlock(7),
Documentation/admin-guide/cgroup-v2.rst, systemd.exec(5), systemd.resource-control(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rootd.config.trusted import File

CAPABILITIES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
    SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
""".split()  # each at its number of linux/capability.h
HARMLESS = {  # with any other one a service can make itself root, or as good as that
    "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "NET_ADMIN", "IPC_LOCK", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
    "SYS_TTY_CONFIG", "SYS_PACCT", "LEASE", "AUDIT_WRITE", "WAKE_ALARM", "BLOCK_SUSPEND", "SYSLOG",
}  # fmt: skip
IO_CLASSES = {"realtime": 1, "best-effort": 2, "idle": 3}  # IOPRIO_CLASS_…
CPUS = 8192  # processors that a kernel can have
CPU_PERIOD = 100_000  # microseconds over which cpu.max counts
# each a Key of rootd/config/keys.py
# fmt: off
ROWS: tuple[tuple[str, str, str, Any, str], ...] = (
    ("service", "nice", "-20..19", None, "its priority; below the daemon's takes SYS_NICE"),
    ("service", "io_priority", "io_priority", None, "\"idle\", \"best-effort 0\" to 7, \"realtime 0\" to 7"),
    ("service", "oom_score_adj", "-1000..1000", None, "who is killed first; below the daemon's takes SYS_RESOURCE"),
    ("service", "cpu_affinity", "cpus", None, "the processors that it may run on: \"0-3,8\""),
    ("service", "credentials", "credentials", {}, "secrets by name: files of root's, copied to CREDENTIALS_DIRECTORY"),
    ("service", "capabilities", "[capability]", [], "that it keeps, without being root: \"NET_RAW\""),
    ("service", "files", "files", {}, "which files it may reach at all (Landlock)"),
    ("service", "cgroup", "cgroup", {}, "what it may use, with all that it starts"),
    ("files", "read", "[path]", [], "beneath these it may read and execute"),
    ("files", "write", "[path]", [], "beneath these it may read, write, make and remove, and not execute"),
    ("files", "optional", "flag", False, "go on without it where the kernel has no Landlock"),
    ("cgroup", "memory", "size", None, "memory.max: beyond it something of it is killed"),
    ("cgroup", "memory_high", "size", None, "memory.high: beyond it it is slowed down"),
    ("cgroup", "swap", "size", None, "memory.swap.max"),
    ("cgroup", "cpu", "percent", None, "cpu.max: \"150%\" is one processor and a half"),
    ("cgroup", "cpu_weight", "1..10000", None, "cpu.weight: its share beside others; 100 is usual"),
    ("cgroup", "tasks", "1..4194304", None, "pids.max: processes and threads"),
    ("cgroup", "optional", "flag", False, "go on without it where there is no such controller"),
)
# fmt: on
FILES: dict[str, tuple[str, Callable[[Any], str]]] = {  # of a cgroup: key, and how its value is written
    "memory": ("memory.max", str),
    "memory_high": ("memory.high", str),
    "swap": ("memory.swap.max", str),
    "cpu": ("cpu.max", lambda percent: f"{percent * CPU_PERIOD // 100} {CPU_PERIOD}"),
    "cpu_weight": ("cpu.weight", str),
    "tasks": ("pids.max", str),
}  # fmt: skip
IN_MEMORY = "they would lie on a disk: [paths] run, which is {}, must be on a tmpfs, such as /run"
AMOUNTS = "it could make itself root by {}: that takes allow_root = true"


class Extra(NamedTuple):
    """In what the system calls take. None, 0 and empty: as every service has it."""

    nice: int | None
    io: int  # class << 13 | level
    oom: int | None
    cpus: tuple[int, ...]
    credentials: tuple[tuple[str, str, str], ...]  # name, path, and what changes with the file (never what it says)
    capabilities: tuple[int, ...]
    read: tuple[str, ...]
    write: tuple[str, ...]
    cgroup: tuple[tuple[str, str], ...]  # file, and what is written to it
    optional: tuple[bool, bool]  # whether it runs without Landlock for its files; without controllers for its cgroup


NOTHING = Extra(None, 0, None, (), (), (), (), (), (), (False, False))


def extra_of(values: dict[str, Any], marks: dict[str, File]) -> Extra | None:
    """What the values of a service's section say. marks: for its credentials, by path."""
    files, cgroup = values["files"], values["cgroup"]
    found = Extra(
        nice=values["nice"], io=values["io_priority"] or 0, oom=values["oom_score_adj"],
        cpus=values["cpu_affinity"] or (),
        credentials=tuple((name, path, marks[path].text) for name, path in values["credentials"]),
        capabilities=tuple(sorted(values["capabilities"])), read=files["read"], write=files["write"],
        cgroup=tuple((name, spell(cgroup[key])) for key, (name, spell) in FILES.items() if cgroup[key] is not None),
        optional=(files["optional"], cgroup["optional"]),
    )  # fmt: skip
    return None if found._replace(optional=(False, False)) == NOTHING else found


def problems(values: dict[str, Any], marks: dict[str, File], disk: str) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Key and sentence of what does not go together or cannot be had. disk: the run directory, where it is on one."""
    grave = [CAPABILITIES[number] for number in values["capabilities"] or ()]
    grave = [name for name in grave if name not in HARMLESS]
    if grave and not values["allow_root"]:
        yield ("capabilities",), AMOUNTS.format(", ".join(grave))
    files = values["files"]
    limited = files["read"] or files["write"]
    if limited and values["no_new_privileges"] is False:
        yield ("files",), "takes no_new_privileges: a setuid program would be kept from its files, too"
    if files["write"] and not files["read"]:
        yield ("files",), 'read must name what it executes, its libraries too: "/usr" for most, or "/"'
    if files["optional"] and not limited:
        yield ("files",), "optional without read and write says nothing"
    if values["cgroup"]["optional"] and all(values["cgroup"][key] is None for key in FILES):
        yield ("cgroup",), "optional without a limit says nothing"
    for name, path in values["credentials"] or ():
        if error := marks.get(path, File(path, "", "was not read")).error:
            yield ("credentials", name), error
    if values["credentials"] and disk:
        yield ("credentials",), IN_MEMORY.format(disk)


def io_priority(value: Any) -> int | None:
    found = re.fullmatch(r"(idle)|(best-effort|realtime) ([0-7])", value) if isinstance(value, str) else None
    return found and IO_CLASSES[found[1] or found[2]] << 13 | int(found[3] or 0)


def cpus(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*", value):
        return None
    found = set[int]()
    for part in value.split(","):
        first, _, last = part.partition("-")
        if int(last or first) < int(first) or int(last or first) >= CPUS:
            return None
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def capability(value: Any) -> int | None:
    name = value.upper().removeprefix("CAP_") if isinstance(value, str) else ""
    return CAPABILITIES.index(name) if name in CAPABILITIES else None


def percent(value: Any) -> int | None:
    found = re.fullmatch(r"([1-9][0-9]{0,6})%", value) if isinstance(value, str) else None
    return found and int(found[1])


def credentials(value: Any) -> tuple[tuple[str, str], ...] | None:
    """Names and paths; by name, so that the order in the file changes nothing."""
    pairs = value.items() if isinstance(value, dict) else [("", 0)]
    name, path = r"(?!\.)[A-Za-z0-9_.-]{1,64}", r"(?:/(?!\.{1,2}(?:/|\Z))[^/\0-\x1f\x7f]+)+"
    good = all(isinstance(where, str) and re.fullmatch(name, key) and re.fullmatch(path, where) for key, where in pairs)
    return tuple(sorted(value.items())) if good else None


TYPES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "io_priority": ('"idle", or "best-effort" or "realtime" and 0 to 7, such as "best-effort 4"', io_priority),
    "cpus": ('numbers of processors such as "0-3,8"', cpus),
    "capability": ('a name of capabilities(7) such as "NET_RAW"', capability),
    "percent": ('such as "150%": one processor and a half', percent),
    "credentials": ('a table of names and absolute paths: { db = "/etc/site/db-password" }', credentials),
}
