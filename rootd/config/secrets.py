"""Secrets that services get as files: read by root with the configuration, and kept apart from all that is frozen.

Rule 1: what a secret says is in no Bundle, no table and no message: there it is a path, and a mark that changes with
        the file. The mark is made of what stat(2) says, and not of the content, which could be guessed from a hash.
Rule 2: the contents travel in one sealed memfd, from the throw-away child that read them to privileged and the keeper.
"""

from __future__ import annotations

import json
import os
import stat

from rootd.config import trusted
from rootd.config.trusted import File

READABLE = "can be read by everybody (mode {:04o}): chmod o-rwx {}"


def read_secret(path: str) -> tuple[File, bytes]:
    """The file with its mark for a text, or with what is wrong; and its content, which is empty then."""
    try:
        content, found = trusted.take(path)
    except OSError as error:
        return trusted.failed(path, error), b""
    if found.st_mode & 0o007:
        return File(path, "", f"{path} {READABLE.format(stat.S_IMODE(found.st_mode), path)}"), b""
    return File(path, f"{found.st_ino}/{found.st_mtime_ns}/{found.st_ctime_ns}"), content


def pack(contents: dict[str, bytes]) -> bytes:
    """One line that says where each is, and then all of them."""
    places, at = {}, 0
    for path, content in contents.items():
        places[path] = at, len(content)
        at += len(content)
    return json.dumps(places).encode() + b"\n" + b"".join(contents.values())


def places(fd: int) -> dict[str, tuple[int, int]]:
    """Of what pack has written: the offset and length of each in the memfd. Raises ValueError."""
    head, size = b"", os.fstat(fd).st_size
    while b"\n" not in head:
        if len(head) >= size:
            raise ValueError("there is no line")
        head += os.pread(fd, 1 << 16, len(head))
    line = head.partition(b"\n")[0]
    return {path: (len(line) + 1 + at, length) for path, (at, length) in json.loads(line).items()}


def is_in_memory(path: str) -> bool:
    """Whether what is made at this path, which need not be there yet, is in no file system on a disk."""
    mounts = {}
    with open("/proc/self/mountinfo", errors="surrogateescape") as table:
        for line in table:
            left, _, right = line.partition(" - ")
            mounts[left.split()[4]] = right.split()[0]
    here = os.path.realpath(path)
    while here not in mounts and here != "/":
        here = os.path.dirname(here)
    return mounts.get(here) in ("tmpfs", "ramfs")
