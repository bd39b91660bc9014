"""durward policy schema keys: every key of the configuration, and what systemd and Supervisor call it, for people.

Rule 1: made of the table of keys by which the files are read (rootd/config/keys.py): a key of a service or socket that
        is there and not here is an error when this is made, and a test makes it.
Rule 2: "" is said where the other one has nothing like it; a name is given only where it does the same.

Sources: systemd.service(5), systemd.socket(5), systemd.exec(5), systemd.kill(5), systemd.timer(5),
systemd.resource-control(5); Supervisor's documentation of its configuration file.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootd.config.keys import Key

# fmt: off
CALLED: dict[str, tuple[str, str]] = {  # in systemd, in Supervisor
    "socket.listen": ("ListenStream=, ListenDatagram=", "socket of [fcgi-program:x]"),
    "socket.group": ("SocketGroup=", "socket_owner"),
    "socket.mode": ("SocketMode=", "socket_mode"),
    "socket.backlog": ("Backlog=", "socket_backlog"),
    "socket.v6only": ("BindIPv6Only=", ""),
    "socket.freebind": ("FreeBind=", ""),
    "service.command": ("ExecStart=", "command"),
    "service.extends": ("", ""),
    "service.kind": ("Type=", ""),
    "service.pid_file": ("PIDFile=", "the program pidproxy"),
    "service.timeout": ("TimeoutStartSec= (oneshot), RuntimeMaxSec=", ""),
    "service.schedule": ("OnCalendar=", ""),
    "service.timezone": ("at the end of OnCalendar=", ""),
    "service.missed": ("Persistent=", ""),
    "service.random_delay": ("RandomizedDelaySec=, FixedRandomDelay=", ""),
    "service.user": ("User=", "user"),
    "service.group": ("Group=", ""),
    "service.supplementary_groups": ("SupplementaryGroups=", ""),
    "service.groups": ("", "[group:x]"),
    "service.directory": ("WorkingDirectory=", "directory"),
    "service.umask": ("UMask=", "umask"),
    "service.sockets": ("Sockets=", ""),
    "service.fastcgi": ("StandardInput=socket", "[fcgi-program:x]"),
    "service.environment": ("Environment=", "environment"),
    "service.environment_file": ("EnvironmentFile=", ""),
    "service.autostart": ("systemctl enable", "autostart"),
    "service.requires": ("Requires= and After=", ""),
    "service.after": ("After=", ""),
    "service.priority": ("", "priority"),
    "service.restart_with": ("PartOf=", ""),
    "service.processes": ("", "numprocs"),
    "service.max_processes": ("", ""),
    "service.max_unavailable": ("", ""),
    "service.signals": ("", ""),
    "service.no_new_privileges": ("NoNewPrivileges=", ""),
    "service.allow_root": ("", ""),
    "service.nice": ("Nice=", ""),
    "service.io_priority": ("IOSchedulingClass=, IOSchedulingPriority=", ""),
    "service.oom_score_adj": ("OOMScoreAdjust=", ""),
    "service.cpu_affinity": ("CPUAffinity=", ""),
    "service.credentials": ("LoadCredential=", ""),
    "service.capabilities": ("AmbientCapabilities=, CapabilityBoundingSet=", ""),
    "template.instances": ("NAME@.service", "numprocs, process_name"),
    "ready.after": ("", "startsecs"),
    "ready.notify": ("Type=notify", ""),
    "ready.fd": ("", ""),
    "ready.command": ("", ""),
    "ready.http": ("", ""),
    "ready.tcp": ("", ""),
    "ready.interval": ("", ""),
    "ready.over": ("", ""),
    "ready.timeout": ("TimeoutStartSec=", ""),
    "live.command": ("", ""),
    "live.http": ("", ""),
    "live.tcp": ("", ""),
    "live.over": ("", ""),
    "live.interval": ("", ""),
    "live.timeout": ("", ""),
    "live.failures": ("", ""),
    "live.action": ("", ""),
    "live.watchdog": ("WatchdogSec=", ""),
    "restart.policy": ("Restart=", "autorestart"),
    "restart.expected": ("SuccessExitStatus=", "exitcodes"),
    "restart.backoff": ("RestartSec=, RestartSteps=, RestartMaxDelaySec=", ""),
    "restart.limit": ("StartLimitBurst=, StartLimitIntervalSec=", "startretries"),
    "stop.signal": ("KillSignal=", "stopsignal"),
    "stop.timeout": ("TimeoutStopSec=", "stopwaitsecs"),
    "stop.then": ("", ""),
    "stop.command": ("ExecStop=", ""),
    "hooks.pre_start": ("ExecStartPre=", ""),
    "hooks.post_start": ("ExecStartPost=", ""),
    "hooks.post_stop": ("ExecStopPost=", ""),
    "hooks.timeout": ("TimeoutStartSec=, TimeoutStopSec=", ""),
    "log.size": ("", "stdout_logfile_maxbytes"),
    "log.keep": ("", "stdout_logfile_backups"),
    "log.age": ("", ""),
    "log.compress": ("", ""),
    "log.mode": ("", ""),
    "log.readers": ("", ""),
    "log.stderr": ("StandardError=inherit", "redirect_stderr"),
    "log.target": ("StandardOutput=", "stdout_logfile, stdout_syslog"),
    "log.format": ("", ""),
    "log.full": ("", ""),
    "files.read": ("ReadOnlyPaths=, InaccessiblePaths=", ""),
    "files.write": ("ReadWritePaths=", ""),
    "files.optional": ("", ""),
    "cgroup.memory": ("MemoryMax=", ""),
    "cgroup.memory_high": ("MemoryHigh=", ""),
    "cgroup.swap": ("MemorySwapMax=", ""),
    "cgroup.cpu": ("CPUQuota=", ""),
    "cgroup.cpu_weight": ("CPUWeight=", ""),
    "cgroup.tasks": ("TasksMax=", ""),
    "cgroup.optional": ("", ""),
}
HEADS = {
    "socket": "`[socket.NAME]`", "service": "`[service.NAME]`, `[defaults]`, `[template.NAME]`",
    "template": "`[template.NAME]` besides",
}
# fmt: on
OURS = ("paths", "accounts", "auth", "api", "tls", "audit")  # of durward.toml, which has no counterpart elsewhere


def manual() -> str:
    """Markdown, as it is in packaging/schema/keys.md. Raises KeyError for a key that is not in the table above."""
    from rootd.config import keys

    lines = [
        "# Every key of the configuration", "",
        "`durward policy schema keys` writes this page, of your version. Where systemd or Supervisor has something "
        "like it, its name is there; a key of theirs in our files is a mistake that names ours.", "",
        "## services.d/*.toml",
    ]  # fmt: skip
    found = [kind for kind in keys.SECTIONS if kind not in OURS and kind != keys.TOP]
    for kind in sorted(found, key=lambda one: [*HEADS].index(one) if one in HEADS else len(HEADS)):
        rows = [row for name, row in keys.SECTIONS[kind].items() if kind != "template" or row.section == kind]
        lines += ["", f"### {HEADS.get(kind, f'`{kind} = {{ … }}`, or `[service.NAME.{kind}]`')}", ""]
        lines += ["| key | value | default | | systemd | Supervisor |", "|---|---|---|---|---|---|"]
        lines += [_row(row, *_called(kind, row)) for row in rows if row.type not in keys.SECTIONS]
    lines += ["", "## durward.toml"]
    for kind in (keys.TOP, *OURS):
        head = {keys.TOP: "at its top", "tls": "`tls = { … }` of `[api]`"}.get(kind, f"`[{kind}]`")
        lines += ["", f"### {head}", "", "| key | value | default | |", "|---|---|---|---|"]
        lines += [_row(row) for row in keys.SECTIONS[kind].values() if row.type not in keys.SECTIONS]
    return "\n".join(lines) + "\n"


def _called(kind: str, row: Key) -> tuple[str, str]:
    if kind == "limits":
        of_all = {"nofile": "minfds, for all", "nproc": "minprocs, for all"}
        return f"Limit{row.name.upper()}=", of_all.get(row.name, "")
    return CALLED[f"{kind}.{row.name}"]


def _row(row: Key, *called: str) -> str:
    from rootd.config import keys

    default = "must be there" if row.default is keys.REQUIRED else _spelled(row.default)
    words = [f"`{name}`" if name else "" for name in called]
    cells = [f"`{row.name}`", _value(row.type), default, row.doc, *words]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _value(kind: str) -> str:
    """What may stand there, in the words with which anything else is refused."""
    from rootd.config import keys

    if kind.startswith("["):
        return f"a list; each: {_value(kind[1:-1])}"
    low, dots, high = kind.partition("..")
    if dots:
        return f"{low} to {high}"
    if kind not in keys.TYPES:
        return ", ".join(f"`{word}`" for word in kind.split("|"))
    return "a name" if kind in ("name", "user") else keys.TYPES[kind][0]


def _spelled(value: Any) -> str:
    """As it would stand in the file; "" where there is nothing."""
    return "" if value in (None, [], {}) else f"`{json.dumps(value)}`"
