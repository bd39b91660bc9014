"""What keys and sections are called elsewhere, for people who write them here: of supervisord.conf and systemd.

Rule: these are hints in what is said of a key that there is not; none of them is ever taken for ours.
"""

from __future__ import annotations

# fmt: off
SECTIONS = dict.fromkeys(("program", "fcgi-program", "Service", "Unit", "Install", "Timer"), "[service.NAME]")
KEYS = {
    "numprocs": "processes", "autorestart": "restart.policy", "startsecs": 'ready = { after = "1s" }',
    "startretries": "restart.limit", "exitcodes": "restart.expected", "stopsignal": "stop.signal",
    "stopwaitsecs": "stop.timeout", "redirect_stderr": 'log.stderr = "stdout"', "stdout_logfile": "log.target",
    "stdout_logfile_maxbytes": "log.size", "stdout_logfile_backups": "log.keep", "env": "environment",
    "ExecStart": "command", "ExecStartPre": "hooks.pre_start", "ExecStartPost": "hooks.post_start",
    "ExecStop": "stop.command", "ExecStopPost": "hooks.post_stop", "Type": "kind", "Restart": "restart.policy",
    "RestartSec": "restart.backoff", "StartLimitBurst": "restart.limit", "TimeoutStartSec": "ready.timeout",
    "TimeoutStopSec": "stop.timeout", "KillSignal": "stop.signal", "WatchdogSec": "live.watchdog", "Wants": "after",
    "OnCalendar": "schedule", "Persistent": 'missed = "once"', "RandomizedDelaySec": "random_delay",
    "RuntimeMaxSec": "timeout", "WorkingDirectory": "directory", "LoadCredential": "credentials",
    "MemoryMax": "cgroup.memory", "CPUQuota": "cgroup.cpu", "TasksMax": "cgroup.tasks", "LimitNOFILE": "limits.nofile",
    "IOSchedulingClass": "io_priority", "AmbientCapabilities": "capabilities", "ReadWritePaths": "files.write",
}
# fmt: on


def called(names: dict[str, str], name: str) -> str:
    """What it is here, as the end of a sentence; "" when it is not known."""
    return f"; here it is {names[name]}" if name in names else ""
