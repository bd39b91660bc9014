"""Small files that are read and written whole: the supervisor's own on tmpfs, and what log keeps for it.

Rule: no link is followed and nothing is waited for, whatever lies there.

Sources: open(2) O_NOFOLLOW, O_NONBLOCK (a FIFO is opened at once); rename(2).
"""

from __future__ import annotations

import errno
import os
import stat

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def read(path: str, limit: int) -> bytes:
    """b"" when there is no file. Raises OSError, also for what is no plain file or has more than `limit` bytes."""
    try:
        fd = os.open(path, os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file")
        data = b""
        while piece := os.read(fd, limit + 1 - len(data)):
            data += piece
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"it has more than {limit} bytes")
        return data
    finally:
        os.close(fd)


def content(fd: int) -> bytes:
    """All that a memfd holds; it is closed."""
    with open(fd, "rb") as file:
        return os.pread(fd, os.fstat(file.fileno()).st_size, 0)


def write(path: str, data: bytes) -> None:
    """Whole or not at all, for our account alone. Not made durable: it is for a file on tmpfs. Raises OSError."""
    new = f"{path}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
    os.rename(new, path)
