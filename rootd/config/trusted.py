"""Root's files, read without believing a path: the descriptor is what is checked and what is read, once.

Rule 1: no link is followed to what is read: each component from "/" on is opened from the descriptor of the one before.
Rule 2: each must be root's, and nobody else may write it, by mode or ACL; that a directory is sticky does not help.
Rule 3: nothing is raised for what is found: a File has its text, or the sentence that says why there is none.

Sources: open(2) O_NOFOLLOW and O_NONBLOCK (a FIFO must not hold us), acl(5) on the mask and the mode.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

LIMIT = 1 << 20  # bytes in a file
MAIN = "durward.toml"
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
LINK = "is a symbolic link: put the real thing in its place, or name the path that it leads to"
PEOPLE = 1000  # the first number of people's users and groups, login.defs(5)
NOT_OURS = (".", "README"), ("~", ".bak", ".dpkg-dist", ".dpkg-new", ".dpkg-old")  # beginnings and ends of names


class File(NamedTuple):
    path: str  # beneath the configuration directory, or absolute for an environment file
    text: str
    error: str = ""
    denied: bool = False  # we may not read it, but root may
    missing: bool = False


def read_tree(config_dir: str) -> tuple[File, ...]:
    """durward.toml, policy.d/*.toml and services.d/*.toml. What is called otherwise by mistake is an error, too."""
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
        for name in [MAIN] if folder == "." else sorted(os.listdir(fd)):
            label = os.path.normpath(f"{folder}/{name if name.isprintable() else ascii(name)}")
            if name.endswith(".toml") and name[0] != ".":
                files.append(read(fd, name, f"{config_dir}/{label}", label))
            elif not name.startswith(NOT_OURS[0]) and not name.endswith(NOT_OURS[1]):
                files.append(File(label, "", "is not read: its name must end in .toml"))
        os.close(fd)
    os.close(top)
    return tuple(files)


def read_file(path: str) -> File:
    """One file by its absolute path, under the same rules."""
    return as_text(path, path, lambda: take(path))


def take(path: str) -> tuple[bytes, os.stat_result]:
    """The content and stat of a file by its absolute path, under the same rules. Raises OSError with the sentence."""
    folder, _, name = path.rpartition("/")
    fd = walk(f"{folder}/" if path.startswith("/") else path)
    try:
        return take_from(fd, name, path)
    finally:
        os.close(fd)


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
    wrong = distrust(os.fstat(fd), path, kind)
    if wrong:
        os.close(fd)
        raise OSError(errno.EPERM, f"{path} {wrong}")
    return fd


def distrust(found: os.stat_result, path: str, kind: int) -> str:
    """What is wrong with a file or directory; nothing when it is root's alone."""
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_IFMT(found.st_mode) != kind:
        return "is not a directory" if kind == stat.S_IFDIR else "is not a regular file"
    if kind == stat.S_IFREG and found.st_nlink != 1:
        return f"has {found.st_nlink} hard links, so it stands in another place too: copy it to a file of its own"
    if found.st_uid != 0:
        return f"belongs to uid {found.st_uid}, not to root: chown root {path}"
    if mode & 0o022:  # where there is an ACL, the group's bits are its mask: what it grants shows in them
        who = "everybody" if mode & 2 else "its group, or whom its ACL names"
        cure = "choose another place" if mode & stat.S_ISVTX else f"chmod go-w {path}"
        return f"can be written by {who} (mode {mode:04o}): {cure}"
    return ""


def check_place(path: str, uid: int = 0) -> None:
    """That nobody but root can put something else in the place of this directory, which need not be there yet.

    The directory itself may be uid's; then a group of the system's may write above it, as Ubuntu's syslog may in
    /var/log: such a group has no people in it. Raises OSError with the sentence; with EACCES where we may not look.
    Looked at from "/" on, so that nobody but root can change what was passed; links of root's above it lead on.
    """
    walked, names = "/", path.split("/")[::-1]
    while names:
        here = os.path.normpath(os.path.join(walked, names.pop()))
        try:
            found = os.lstat(here)
        except FileNotFoundError:
            return
        if stat.S_ISLNK(found.st_mode) and found.st_uid == 0 and names:
            os.stat(here)  # raises when it leads in a circle, or nowhere
            target = os.readlink(here)
            walked, names = "/" if target[0] == "/" else walked, names + target.split("/")[::-1]
            continue
        wrong = LINK if stat.S_ISLNK(found.st_mode) else distrust(found, here, stat.S_IFDIR)
        own = is_systems(found, here) if names else found.st_uid == uid and stat.S_ISDIR(found.st_mode)
        if wrong and not (uid and own):
            raise OSError(errno.EPERM, f"{here} {wrong.partition(': ')[0]}: choose another place", path)
        walked = here


def is_systems(found: os.stat_result, path: str) -> bool:
    """Whether it is a directory of root's that only a group of the system's may write besides, and no ACL says more."""
    known = (found.st_uid, stat.S_IFMT(found.st_mode), found.st_mode & 0o002) == (0, stat.S_IFDIR, 0)
    return known and 0 < found.st_gid < PEOPLE and not any("acl" in name for name in os.listxattr(path))


def read(folder: int, name: str, path: str, label: str) -> File:
    """The text of a file of an open folder; each failure as its error."""
    return as_text(path, label, lambda: take_from(folder, name, path))


def as_text(path: str, label: str, taken: Callable[[], tuple[bytes, os.stat_result]]) -> File:
    try:
        return File(label, taken()[0].decode())
    except UnicodeDecodeError as error:
        return File(label, "", f"{path} is not UTF-8 from byte {error.start} on")
    except OSError as error:
        return failed(label, error)


def take_from(folder: int, name: str, path: str) -> tuple[bytes, os.stat_result]:
    """All of one file, read once. Raises OSError with the sentence."""
    with open(enter(folder, name, path, stat.S_IFREG), "rb") as file:
        before = os.fstat(file.fileno())
        content = file.read(LIMIT + 1)
        after = os.fstat(file.fileno())
    if len(content) > LIMIT:
        raise OSError(errno.EFBIG, f"{path} is larger than {LIMIT} bytes")
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise OSError(errno.EBUSY, f"{path} was changed while it was read: try again")
    return content, after


def failed(label: str, error: OSError) -> File:
    return File(label, "", str(error.strerror), error.errno == errno.EACCES, error.errno == errno.ENOENT)
