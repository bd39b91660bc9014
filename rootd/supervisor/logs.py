"""Opening a log for somebody to read: fresh each time, read-only, beneath the log directory, never through a link.

Rule 1: every part of the path is a name of the configuration's, or one of a few words. None is the asker's.
Rule 2: each grant is an open of its own: descriptors that share an offset would tell one reader what another reads.

Source: openat(2) O_NOFOLLOW.
"""

from __future__ import annotations

import os
import re
import stat

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


_FULL = re.compile(r"audit-[0-9]{16}\.jsonl\Z")  # rootd/log/audit.py gives them these names


def open_log(top: str, process: str, stream: str, rotated: int) -> int:
    """A descriptor that is the caller's. process is as people see it: "site", "site:0". Raises OSError."""
    name = f"{stream}.log.{rotated:d}" if rotated else f"{stream}.log"
    fd = os.open(top, _FLAGS | os.O_DIRECTORY)
    try:
        folder = os.open(process.replace(":", "."), _FLAGS | os.O_DIRECTORY, dir_fd=fd)
    finally:
        os.close(fd)
    try:
        try:
            fd = os.open(name, _FLAGS, dir_fd=folder)
        except FileNotFoundError:
            if not rotated:
                raise
            fd = os.open(f"{name}.gz", _FLAGS, dir_fd=folder)  # it was compressed
    finally:
        os.close(folder)
    return _plain(fd, f"{process}/{name}")


def open_audit(top: str, rotated: int) -> tuple[str, int]:
    """The name of a file of the audit log (0: the one that is being written) and a descriptor. Raises OSError."""
    fd = os.open(f"{top}/audit", _FLAGS | os.O_DIRECTORY)
    try:
        full = sorted(filter(_FULL.match, os.listdir(fd)), reverse=True) if rotated else []
        if rotated > len(full):
            raise FileNotFoundError(f"there are {len(full)} full ones")
        name = full[rotated - 1] if rotated else "audit.jsonl"
        return name, _plain(os.open(name, _FLAGS, dir_fd=fd), name)
    finally:
        os.close(fd)


def _plain(fd: int, name: str) -> int:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError(f"{name} is not a file")
    return fd
