"""Who else may read log files: one more group, by an access control list. log is in no group that it could give a file.

Rule: nothing is taken away from what root has set on a directory, but the group of a process's files is what its
      configuration says, and no other.

Source: acl(5); linux/posix_acl_xattr.h.
"""

from __future__ import annotations

import errno
import os
import struct

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
VERSION, ENTRY = struct.Struct("<I"), struct.Struct("<HHI")  # tag, permissions, id
USER_OBJ, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x04, 0x08, 0x10, 0x20
NOBODY = 0xFFFFFFFF  # the id of an entry that has none
READ, ENTER, LOOK = 4, 1, 5

Acl = dict[tuple[int, int], int]  # tag and id -> permissions


def read(fd: int, name: str = ACCESS) -> Acl:
    """What counts for a file or directory; of one without a list, what its mode says. Raises OSError."""
    try:
        raw = os.getxattr(fd, name)[VERSION.size :]
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        mode = os.fstat(fd).st_mode
        return {(tag, NOBODY): mode >> shift & 7 for tag, shift in ((USER_OBJ, 6), (GROUP_OBJ, 3), (OTHER, 0))}
    return {(tag, number): permissions for tag, permissions, number in ENTRY.iter_unpack(raw)}


def write(fd: int, acl: Acl, name: str = ACCESS) -> None:
    entries = b"".join(ENTRY.pack(tag, permissions, number) for (tag, number), permissions in sorted(acl.items()))
    os.setxattr(fd, name, VERSION.pack(2) + entries)


def allow(fd: int, gid: int, permissions: int, *, alone: bool = False, name: str = ACCESS) -> None:
    """Let a group have these. alone: no other group that the list names has any. Raises OSError."""
    before = read(fd, name)
    acl = {key: value for key, value in before.items() if not (alone and key[0] == GROUP)}
    acl[GROUP, gid] = permissions if alone else acl.get((GROUP, gid), 0) | permissions
    acl[MASK, NOBODY] = acl.get((MASK, NOBODY), acl[GROUP_OBJ, NOBODY]) | permissions
    if acl != before:
        write(fd, acl, name)


def share(root: int, directory: int, file: int, gid: int) -> None:
    """The log directory, one process's in it, and a file in that. What is made there later is shared, too."""
    allow(root, gid, ENTER)
    allow(directory, gid, LOOK, alone=True)
    allow(directory, gid, READ, alone=True, name=DEFAULT)
    allow(file, gid, READ, alone=True)
