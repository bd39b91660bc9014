"""Lines as they are stamped, made JSON or sent on. Pure: bytes in, records out; time is an argument.

Rule: a line is what comes before a newline; one longer than LINE is cut there, and each part is a record.

Sources: RFC 3339; RFC 5424; systemd's "Native Journal Protocol".
"""

from __future__ import annotations

import json
import os
import time
from typing import NamedTuple

LINE = 48 * 1024  # bytes of a record, as journald has it; fits a datagram and a pipe
DAEMON = 3  # the facility
SEVERITY = {1: 6, 2: 4}  # stdout: informational, stderr: warning


class Whose(NamedTuple):
    service: str
    process: str
    stream: int
    run: int


def split(held: bytes, data: bytes, limit: int = LINE) -> tuple[list[bytes], bytes]:
    """Whole lines, without their newlines, and what is held of the last one."""
    *whole, held = (held + data).split(b"\n")
    lines = [line[at : at + limit] for line in whole for at in range(0, max(len(line), 1), limit)]
    full = len(held) - len(held) % limit
    return lines + [held[at : at + limit] for at in range(0, full, limit)], held[full:]


def time_of(nanoseconds: int) -> str:
    """RFC 3339: UTC, to the microsecond."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1000:06d}Z"


def stamped(line: bytes, at: str) -> bytes:
    return at.encode() + b" " + line + b"\n"


def as_json(line: bytes, at: str, whose: Whose) -> bytes:
    """Bytes that are no UTF-8 are there as \\xNN."""
    text = line.decode(errors="backslashreplace")
    stream = "stdout" if whose.stream == 1 else "stderr"
    about = {"time": at, "service": whose.service, "process": whose.process, "stream": stream, "line": text}
    return json.dumps(about, separators=(",", ":")).encode() + b"\n"


def prefixed(record: bytes, whose: Whose) -> bytes:
    return whose.process.encode() + b" | " + record


def for_journald(line: bytes, whose: Whose) -> bytes:
    stream = "stdout" if whose.stream == 1 else "stderr"
    fields = (
        f"PRIORITY={SEVERITY[whose.stream]}\nSYSLOG_FACILITY={DAEMON}\nSYSLOG_IDENTIFIER={whose.service}\n"
        f"DURWARD_SERVICE={whose.service}\nDURWARD_PROCESS={whose.process}\nDURWARD_STREAM={stream}\n"
        f"DURWARD_RUN={whose.run}\n"
    )
    return fields.encode() + b"MESSAGE=" + line + b"\n"


def for_syslog(line: bytes, at: str, whose: Whose) -> bytes:
    """NUL, at which receivers stop, is there as #000."""
    stream = "stdout" if whose.stream == 1 else "stderr"
    host = os.uname().nodename or "-"
    head = f"<{DAEMON * 8 + SEVERITY[whose.stream]}>1 {at} {host} {whose.service:.48} {whose.process} {stream} - "
    return head.encode() + line.replace(b"\0", b"#000")
