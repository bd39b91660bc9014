"""Who besides root may change what a path leads to: by modes, owners, groups and access control lists, on every step.

Rule 1: each component is looked at, of every link that the path goes through too: who may write a directory puts
        another thing in its place, unless the directory is sticky, where only owners may; an owner may always, as he
        can change the mode.
Rule 2: it only looks. What it may not look at is said, and never taken for safe.
Rule 3: beneath a prefix links stay there, and the names of users and groups are those of its own /etc.

Sources: path_resolution(7), acl(5), inode(7) on S_ISVTX, linux/posix_acl_xattr.h.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

ACL = "system.posix_acl_access"
ENTRY = struct.Struct("<HHI")  # tag, permissions, id; after four bytes of version
USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x02, 0x04, 0x08, 0x10, 0x20
WRITE, ENTER = 2, 1  # a directory is changed by who may do both
LINKS = 40  # MAXSYMLINKS
MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)  # nothing is there


class Hand(NamedTuple):
    """Somebody besides root who may change it, at this place. Names; a number that has none is spelled "uid 5"."""

    at: str
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    everybody: bool = False

    def __bool__(self) -> bool:
        return bool(self.users or self.groups or self.everybody)

    def __or__(self, other: Hand) -> Hand:
        return Hand(self.at, self.users | other.users, self.groups | other.groups, self.everybody or other.everybody)


class Look(NamedTuple):
    """hands: at each place where there is one. real: where the path leads, "" when nothing is there. unseen: why it
    could not be followed to its end, as a sentence. mode: of what is there."""

    hands: tuple[Hand, ...]
    real: str
    unseen: str
    mode: int


class Names(NamedTuple):
    """All names that a number has."""

    users: dict[int, frozenset[str]]
    groups: dict[int, frozenset[str]]


class Ground:
    """A file system that is looked at, each place once. prefix: where it is, "" for this machine's own."""

    def __init__(self, names: Names, prefix: str = "") -> None:
        self._names, self.prefix = names, prefix.rstrip("/")
        self._known: dict[str, tuple[os.stat_result, bytes]] = {}

    def look(self, path: str) -> Look:
        """path: absolute. Raises nothing for what is found."""
        hands: dict[str, Hand] = {}
        if "\0" in path:
            return Look((), "", "", 0)  # which is no path
        try:
            real, mode = self._walk(path, hands)
        except OSError as error:
            return Look(tuple(filter(None, hands.values())), "", f"{error.filename}: {error.strerror}", 0)
        return Look(tuple(filter(None, hands.values())), real, "", mode)

    def _walk(self, path: str, hands: dict[str, Hand]) -> tuple[str, int]:
        here, names, links = "/", path.split("/")[::-1], 0
        while names:
            name = names.pop()
            if name in ("", "."):
                continue
            if name == "..":
                here = os.path.dirname(here)
                continue
            entry = os.path.join(here, name)
            try:
                found, _ = self._at(entry)
            except OSError as error:
                if error.errno not in MISSING:
                    raise
                self._add(hands, self._makers(here))
                return "", 0
            self._add(hands, self._replacers(here, found))
            if stat.S_ISLNK(found.st_mode):
                links += 1
                if links > LINKS:
                    return "", 0  # it leads nowhere
                target = os.readlink(self.prefix + entry)
                here = "/" if target.startswith("/") else here
                names += target.split("/")[::-1]
            elif stat.S_ISDIR(found.st_mode):
                here = entry
            else:
                self._add(hands, self._writers(entry))
                return (entry, found.st_mode) if not any(names) else ("", 0)
        self._add(hands, self._makers(here))
        return here, self._at(here)[0].st_mode

    def _at(self, path: str) -> tuple[os.stat_result, bytes]:
        """Its status, and its access control list, empty when it has none. Raises OSError."""
        if path not in self._known:
            found, rules = self._stat(path), b""
            if not stat.S_ISLNK(found.st_mode):
                try:
                    rules = os.getxattr(self.prefix + path, ACL, follow_symlinks=False)
                except OSError:  # none, or a file system that has no such thing
                    rules = b""
            self._known[path] = found, rules
        return self._known[path]

    def _stat(self, path: str) -> os.stat_result:
        try:
            return os.lstat(self.prefix + path)
        except OSError as error:
            error.filename = path
            raise

    @staticmethod
    def _add(hands: dict[str, Hand], hand: Hand) -> None:
        hands[hand.at] = hands[hand.at] | hand if hand.at in hands else hand

    def _replacers(self, folder: str, entry: os.stat_result) -> Hand:
        """Who may put another thing in the place of this entry of a directory that is there."""
        found, _ = self._at(folder)
        if not found.st_mode & stat.S_ISVTX:
            return self._makers(folder)
        return Hand(folder, self._users({found.st_uid, entry.st_uid}))

    def _makers(self, folder: str) -> Hand:
        """Who may make an entry in it that is not there."""
        return self._hand(folder, WRITE | ENTER)

    def _writers(self, path: str) -> Hand:
        """Of a socket its owner alone: to write it is to connect to it."""
        found, _ = self._at(path)
        if stat.S_ISSOCK(found.st_mode):
            return Hand(path, self._users({found.st_uid}))
        return self._hand(path, WRITE)

    def _hand(self, path: str, bits: int) -> Hand:
        found, rules = self._at(path)
        users, groups, everybody = set[int](), set[int](), found.st_mode & bits == bits
        if rules:
            entries = [*entries_of(rules)]
            mask = next((rights for tag, rights, _ in entries if tag == MASK), 7)
            for tag, rights, number in entries:
                if rights & mask & bits == bits and tag in (USER, GROUP, GROUP_OBJ):
                    named = found.st_gid if tag == GROUP_OBJ else number
                    (users if tag == USER else groups).add(named)
        elif found.st_mode >> 3 & bits == bits:
            groups.add(found.st_gid)
        return Hand(path, self._users(users | {found.st_uid}), self._groups(groups), everybody)

    def _users(self, numbers: set[int]) -> frozenset[str]:
        """Without root, who may do everything."""
        named = (self._names.users.get(uid, {f"uid {uid}"}) for uid in numbers - {0})
        return frozenset().union(*named)

    def _groups(self, numbers: set[int]) -> frozenset[str]:
        return frozenset().union(*(self._names.groups.get(gid, {f"gid {gid}"}) for gid in numbers))

    def packages(self, program: str) -> list[str]:
        """Of a program in a virtual environment of Python's: where it says what is imported, and what is. (PEP 405)"""
        top = os.path.dirname(os.path.dirname(program))
        if not self.look(f"{top}/pyvenv.cfg").mode:
            return []
        folders = [f"{top}/lib/{name}/site-packages" for name in self._listed(f"{top}/lib")]
        return [f"{top}/pyvenv.cfg", *(folder for folder in folders if self.look(folder).mode)]

    def _listed(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self.prefix + self.look(folder).real))
        except OSError:
            return []  # which look has told of

    def first_line(self, real: str, most: int = 256) -> bytes:
        """Of a regular file that look has found: what it begins with, as far as the kernel would read. Raises
        OSError."""
        fd = os.open(self.prefix + real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            return os.read(fd, most).partition(b"\n")[0]
        finally:
            os.close(fd)


def entries_of(rules: bytes) -> Iterator[tuple[int, int, int]]:
    """Of an access control list as the kernel gives it: tag, permissions and id of each entry."""
    whole = len(rules) - (len(rules) - 4) % ENTRY.size
    yield from ENTRY.iter_unpack(rules[4:whole])
