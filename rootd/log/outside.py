"""What leaves the machine of the audit log: anchors, and on request each record, to journald or syslog.

Rule 1: an anchor is the number and the hash of the last record, with the time by both clocks and the boot's id: each
        minute in which something was written, each hour when nothing was, and at the end. A log that ends before one
        was cut (userapi/audit/verify.py).
Rule 2: at most once, and nothing here waits: what a receiver does not take now is lost, counted, and told by the next
        anchor. The log on disk is the one that counts.
Rule 3: the one socket is made before the walls stand, and bound to nothing.

Sources: systemd's "Native Journal Protocol"; RFC 5424; unix(7).
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rootd.config import settings
from rootd.log.forward import PATHS

MINUTE, HOUR = 60.0, 3600.0  # seconds
AUTHPRIV, NOTICE = 10, 5  # facility and severity
NAME = "durward-audit"
TOLD = ("kind", "id", "user", "uid", "from", "action", "target", "process", "deed", "allowed", "ok", "rule")
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Outside:
    """Owns one datagram socket. `wall` gives the time that records bear; `say` tells the operator."""

    def __init__(self, conf: settings.Audit, wall: Callable[[], str], say: Callable[[str], None]) -> None:
        self._anchors, self._forward = conf.anchors, conf.forward
        self._wall, self._say = wall, say
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        with open(BOOT_ID) as file:
            self._boot = file.read().strip()
        self._fresh = False  # something was written since the last anchor
        self._last: float | None = None  # when that was
        self._silent = ""  # whose silence was told
        self.lost = 0  # records that nobody took

    def written(self, lines: Sequence[bytes]) -> None:
        """Records that are on disk, each with its newline."""
        self._fresh = True
        if self._forward == "none":
            return
        for line in lines:
            self.lost += not self._send((self._forward,), partial(record_for, line))

    def next(self) -> float | None:
        """When tend has something to do, by CLOCK_MONOTONIC; None: never."""
        if self._anchors == "none":
            return None
        if self._last is None:
            return 0.0 if self._fresh else None
        return self._last + (MINUTE if self._fresh else HOUR)

    def tend(self, now: float, number: int, head: bytes) -> None:
        """An anchor when it is time. number and head: of the last record, -1 where there is none."""
        due = self.next()
        if due is not None and due <= now and number >= 0:
            self.anchor(now, number, head)

    def anchor(self, now: float, number: int, head: bytes) -> None:
        self._last, self._fresh = now, False
        told: dict[str, Any] = {
            "number": number, "head": head.hex(), "time": self._wall(), "boot": self._boot,
            "boottime": f"{time.clock_gettime(time.CLOCK_BOOTTIME):.3f}",
        }  # fmt: skip
        if self.lost:
            told["lost"] = self.lost
        targets = {"auto": ("journald", "syslog"), "none": ()}.get(self._anchors, (self._anchors,))
        if self._send(targets, partial(anchor_for, told)):
            self.lost = 0

    def _send(self, targets: Sequence[str], make: Callable[[str], bytes]) -> bool:
        """To the first one that is there. What was asked for by name and is not there is told once."""
        why = ""
        for target in targets:
            try:
                self._sock.sendto(make(target), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, PATHS[target])
            except OSError as error:
                why = why or f"{target} does not take it: {error.strerror}"
                continue
            self._silent = ""
            return True
        if why and len(targets) == 1 and why != self._silent:
            self._silent = why
            self._say(f"what is to leave this machine of the audit log is lost: {why}")
        return False

    def close(self) -> None:
        self._sock.close()


def anchor_for(told: dict[str, Any], target: str) -> bytes:
    """As `durward audit verify --anchors` finds it in what the journal or syslog shows."""
    text = "audit anchor " + " ".join(f"{name}={value}" for name, value in told.items())
    if target == "journald":
        fields = "".join(f"DURWARD_ANCHOR_{name.upper()}={value}\n" for name, value in told.items())
        return f"{_journal()}{fields}MESSAGE={text}\n".encode()
    return f"{_syslog(told['time'], 'anchor', told)} {text}".encode()


def record_for(line: bytes, target: str) -> bytes:
    """A record, whole, so that what receives it has a second copy of the chain; and its fields for who searches it."""
    record = json.loads(line)
    told = {name: record[name] for name in ("n", *TOLD) if record.get(name) not in (None, "")}
    text = line.rstrip(b"\n")
    if target == "journald":
        fields = "".join(f"DURWARD_AUDIT_{name.upper()}={_plain(value)}\n" for name, value in told.items())
        return f"{_journal()}{fields}MESSAGE=".encode() + text + b"\n"
    return f"{_syslog(record['time'], str(record['kind'])[:32], told)} ".encode() + text


def _journal() -> str:
    return f"PRIORITY={NOTICE}\nSYSLOG_FACILITY={AUTHPRIV}\nSYSLOG_IDENTIFIER={NAME}\n"


def _syslog(at: str, kind: str, told: dict[str, Any]) -> str:
    """RFC 5424, with structured data; 32473 is the number that RFC 5612 keeps for those who have none."""
    host = os.uname().nodename or "-"
    data = "".join(f' {name}="{_quoted(value)}"' for name, value in told.items())
    return f"<{AUTHPRIV * 8 + NOTICE}>1 {at} {host} {NAME} {os.getpid()} {kind} [durward@32473{data}]"


def _plain(value: Any) -> str:
    """One line of ASCII, whatever a person has put into it."""
    return json.dumps(value)[1:-1] if isinstance(value, str) else json.dumps(value)


def _quoted(value: Any) -> str:
    return _plain(value).replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
