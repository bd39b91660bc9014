"""Bytes that can never change again: sealed memfds, in which one process of ours hands on what it has made.

Sources: memfd_create(2), fcntl(2) F_ADD_SEALS.
"""

from __future__ import annotations

import errno
import fcntl
import os

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def memfd(name: str, content: bytes) -> int:
    """A sealed memfd, close-on-exec; it is the caller's. name: for people. Raises OSError."""
    fd = os.memfd_create(f"durward-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def content(fd: int) -> bytes:
    """All of a sealed memfd. Raises PermissionError when it is not sealed."""
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS != SEALS:
        raise PermissionError(errno.EPERM, "a table that is not sealed")
    return os.pread(fd, os.fstat(fd).st_size, 0)
