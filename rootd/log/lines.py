"""Lines as they are stamped, made JSON or sent on. Pure: bytes in, records out; time is an argument.

Rule: a line is what comes before a newline; one longer than LINE is cut there, and each part is a record.

Sources: RFC 3339; RFC 5424; systemd's "Native Journal Protocol".
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

LINE = 48 * 1024  # bytes of a record, as journald has it; fits a datagram and a pipe
DAEMON = 3  # the facility
SIMPLE = bytes({*range(0x20, 0x7F), 0x0A} - {*b'"\\'})  # what JSON has as it is, and the ends of lines
SEVERITY = {1: 6, 2: 4}  # stdout: informational, stderr: warning


class Whose(NamedTuple):
    service: str
    process: str
    stream: int
    run: int


def whole(data: bytes, limit: int = LINE) -> int:
    """How many bytes of data are whole lines, or parts of one that is too long."""
    end = data.rfind(b"\n") + 1
    rest = len(data) - end
    return end + rest - rest % limit


def split(data: bytes, limit: int = LINE) -> Iterator[tuple[bytes, int]]:
    """Lines without their newlines, and how many bytes of data each stands for. The rest is one too."""
    *ended, rest = data.split(b"\n")
    for line in ended:
        for at in range(0, len(line) - limit, limit):
            yield line[at : at + limit], limit
        last = line[(len(line) - 1) // limit * limit :] if line else b""
        yield last, len(last) + 1
    for at in range(0, len(rest), limit):
        yield rest[at : at + limit], len(rest[at : at + limit])


def short(data: bytes, limit: int = LINE) -> bool:
    """Whether data is whole lines, and none of them too long."""
    at = 0
    while at < len(data):
        end = data.rfind(b"\n", at, at + limit + 1)
        if end < 0:
            return False
        at = end + 1
    return True


def time_of(nanoseconds: int) -> str:
    """RFC 3339: UTC, to the microsecond."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1000:06d}Z"


def stamped(text: bytes, at: str) -> bytes:
    """Of one line or several, with newlines between them alone."""
    stamp = at.encode() + b" "
    return stamp + text.replace(b"\n", b"\n" + stamp) + b"\n"


def as_json(text: bytes, at: str, whose: Whose) -> bytes:
    """Of one line or several, with newlines between them alone. Bytes that are no UTF-8 are there as \\xNN."""
    stream = "stdout" if whose.stream == 1 else "stderr"
    about = {"time": at, "service": whose.service, "process": whose.process, "stream": stream, "line": ""}
    head = json.dumps(about, separators=(",", ":")).removesuffix('""}')
    if not text.translate(None, SIMPLE):
        return f'{head}"'.encode() + text.replace(b"\n", f'"}}\n{head}"'.encode()) + b'"}\n'
    each = map(json.encoder.encode_basestring_ascii, text.decode(errors="backslashreplace").split("\n"))
    return (head + f"}}\n{head}".join(each) + "}\n").encode()


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
