"""Root's files, read without believing a path: the descriptor is what is checked and what is read, once.

Rule 1: no link is followed: each component from "/" on is opened from the descriptor of the one before.
Rule 2: each must be root's, and nobody else may write it, by mode or ACL; that a directory is sticky does not help.
Rule 3: nothing is raised for what is found: a File has its text, or the sentence that says why there is none.

Sources: open(2) O_NOFOLLOW and O_NONBLOCK (a FIFO must not hold us), acl(5) on the mask and the mode.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

LIMIT = 1 << 20  # bytes in a file
MAIN = "durward.toml"
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
LINK = "is a symbolic link: put the real thing in its place, or name the path that it leads to"


class File(NamedTuple):
    path: str  # beneath the configuration directory, or absolute for an environment file
    text: str
    error: str = ""
    denied: bool = False  # we may not read it, but root may


def read_tree(config_dir: str) -> tuple[File, ...]:
    """durward.toml, policy.d/*.toml and services.d/*.toml. Hidden files and other names are not ours."""
    files: list[File] = []
    try:
        top = walk(config_dir)
    except OSError as error:
        return (failed(MAIN, error),)
    for folder in (".", "policy.d", "services.d"):
        try:
            fd = enter(top, folder, f"{config_dir}/{folder}", stat.S_IFDIR)
        except OSError as error:
            files += [failed(folder, error)] if error.errno != errno.ENOENT else []
            continue
        found = sorted(name for name in os.listdir(fd) if name.endswith(".toml") and name[0] != ".")
        for name in [MAIN] if folder == "." else found:
            label = os.path.normpath(f"{folder}/{name if name.isprintable() else ascii(name)}")
            files.append(read(fd, name, f"{config_dir}/{label}", label))
        os.close(fd)
    os.close(top)
    return tuple(files)


def read_file(path: str) -> File:
    """One file by its absolute path, under the same rules."""
    folder, _, name = path.rpartition("/")
    try:
        fd = walk(f"{folder}/" if path.startswith("/") else path)
    except OSError as error:
        return failed(path, error)
    file = read(fd, name, path, path)
    os.close(fd)
    return file


def walk(path: str) -> int:
    """A descriptor of a directory, each component of its path checked. Raises OSError with the sentence."""
    if not path.startswith("/") or {".", ".."} & set(path.split("/")):
        raise OSError(errno.EINVAL, f"{path!r} is not an absolute path without '.' and '..'")
    fd, walked = enter(None, "/", "/", stat.S_IFDIR), ""
    for name in filter(None, path.split("/")):
        parent, walked = fd, f"{walked}/{name}"
        try:
            fd = enter(parent, name, walked, stat.S_IFDIR)
        finally:
            os.close(parent)
    return fd


def enter(parent: int | None, name: str, path: str, kind: int) -> int:
    """Open one component and check what was opened. Raises OSError with the sentence."""
    try:
        fd = os.open(name, FLAGS, dir_fd=parent)
    except OSError as error:
        raise OSError(
            error.errno, f"{path} {LINK}" if error.errno == errno.ELOOP else f"{path}: {error.strerror}"
        ) from None
    wrong = distrust(fd, path, kind)
    if wrong:
        os.close(fd)
        raise OSError(errno.EPERM, f"{path} {wrong}")
    return fd


def distrust(fd: int, path: str, kind: int) -> str:
    """What is wrong with an open file or directory; nothing when it is root's alone."""
    found = os.fstat(fd)
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_IFMT(found.st_mode) != kind:
        return "is not a directory" if kind == stat.S_IFDIR else "is not a regular file"
    if kind == stat.S_IFREG and found.st_nlink != 1:
        return f"has {found.st_nlink} hard links, so it stands in another place too: copy it to a file of its own"
    if found.st_uid != 0:
        return f"belongs to uid {found.st_uid}, not to root: chown root {path}"
    if mode & 0o022:  # where there is an ACL, the group's bits are its mask: what it grants shows in them
        who = "everybody" if mode & 2 else "its group, or whom its ACL names"
        return f"can be written by {who} (mode {mode:04o}): chmod go-w {path}"
    return ""


def read(folder: int, name: str, path: str, label: str) -> File:
    """The text of a file of an open folder; each failure as its error."""
    try:
        with open(enter(folder, name, path, stat.S_IFREG), "rb") as file:
            before = os.fstat(file.fileno())
            content = file.read(LIMIT + 1)
            after = os.fstat(file.fileno())
        if len(content) > LIMIT:
            return File(label, "", f"{path} is larger than {LIMIT} bytes")
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            return File(label, "", f"{path} was changed while it was read: try again")
        return File(label, content.decode())
    except UnicodeDecodeError as error:
        return File(label, "", f"{path} is not UTF-8 from byte {error.start} on")
    except OSError as error:
        return failed(label, error)


def failed(label: str, error: OSError) -> File:
    return File(label, "", str(error.strerror), error.errno == errno.EACCES)
