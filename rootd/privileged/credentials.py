"""Secrets of services as files: a directory for each run, on a tmpfs, and nothing of them in this process's memory.

Rule 1: the contents come from a sealed memfd of the configuration, and the kernel copies them (sendfile).
Rule 2: the files are the service's user's, 0400, and nobody else of its groups may even enter the directory. While
        they are made nobody reaches it, another process of that user neither: what it made there would stay.
Rule 3: the directory goes when nothing of its run is left; one whose run nobody knows goes at the next start.

No capability is taken for it: this process owns the directory, and the file system's user id makes the files.
Sources: setfsuid(2), acl(5), include/uapi/linux/posix_acl_xattr.h, systemd.exec(5) on CREDENTIALS_DIRECTORY.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Iterator

from rootd.config import secrets

ACL = "system.posix_acl_access"
NOBODY = 0xFFFFFFFF  # ACL_UNDEFINED_ID
OWNER, USER, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
READ_WRITE_ENTER, READ_ENTER = 7, 5
NEW, ASIDE = ".new", ".new/files"  # behind the path of a run's directory: where that is made
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_libc = ctypes.CDLL(None)


def directory(run_dir: str, run: int) -> str:
    return f"{run_dir}/credentials/{run}"


def place(path: str, wanted: Iterable[tuple[str, str, str]], memfd: int, uid: int, gid: int) -> None:
    """Make a directory with these credentials of a table.Entry, for this user alone. Raises OSError.

    memfd: of secrets.pack; it stays the caller's. What was made is left behind when it raises: remove it.
    """
    places, made = secrets.places(memfd), f"{path}{ASIDE}"
    os.mkdir(path + NEW, 0o700)  # where nobody may enter
    os.mkdir(made, 0o700)
    os.setxattr(made, ACL, access(uid, READ_WRITE_ENTER))
    folder = os.open(made, DIRECTORY)
    try:
        with files_of(uid, gid):
            for name, source, _ in wanted:
                if source not in places:
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
                fill(os.open(name, FILE, 0o400, dir_fd=folder), memfd, *places[source])
    finally:
        os.close(folder)
    os.setxattr(made, ACL, access(uid, READ_ENTER))
    os.rename(made, path)
    os.rmdir(path + NEW)


def fill(fd: int, memfd: int, at: int, left: int) -> None:
    """A new file, with so many bytes of the memfd from there on. Closes fd."""
    try:
        while left:
            sent = os.sendfile(fd, memfd, at, left)
            at, left = at + sent, left - sent
    finally:
        os.close(fd)


@contextlib.contextmanager
def files_of(uid: int, gid: int) -> Iterator[None]:
    """What is made meanwhile belongs to these. Raises OSError where that does not take."""
    own = os.geteuid(), os.getegid()
    try:
        _libc.setfsgid(gid)
        _libc.setfsuid(uid)
        if (_libc.setfsuid(-1), _libc.setfsgid(-1)) != (uid, gid):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        yield
    finally:
        _libc.setfsuid(own[0])
        _libc.setfsgid(own[1])


def access(uid: int, rights: int) -> bytes:
    """An ACL: everything for the owner, this for one user, nothing for anybody else."""
    rows = ((OWNER, 7, NOBODY), (USER, rights, uid), (GROUP, 0, NOBODY), (MASK, rights, NOBODY), (OTHER, 0, NOBODY))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in rows)


def remove(path: str) -> None:
    """All that can be, and nothing through a link."""
    with contextlib.suppress(OSError):  # most runs have none
        folder = os.open(path, DIRECTORY)
        for name in os.listdir(folder):
            for end in (os.unlink, os.rmdir):
                with contextlib.suppress(OSError):
                    end(name, dir_fd=folder)
        os.close(folder)
        os.rmdir(path)


def discard(path: str) -> None:
    """The directory of a run, whole or half made."""
    for part in (path, path + ASIDE, path + NEW):
        remove(part)


def sweep(run_dir: str, keep: set[str]) -> None:
    """Remove what runs have left that nobody knows any more. keep: the numbers of the others."""
    with contextlib.suppress(FileNotFoundError):
        for name in {name.removesuffix(NEW) for name in os.listdir(f"{run_dir}/credentials")} - keep:
            discard(f"{run_dir}/credentials/{name}")
