"""Landlock: from now on these are the files that a process and its children reach. No library but ctypes.

Rule: who may reach what is the caller's business: our own parts' (sandbox), a service's (privileged/extras).

Sources: landlock(7), landlock_create_ruleset(2), landlock_add_rule(2), landlock_restrict_self(2).
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF, VERSION, BENEATH = 444, 445, 446, 1, 1
EXECUTE, READ_FILE, READ_DIR = 1 << 0, 1 << 2, 1 << 3
DEVICES = 1 << 6 | 1 << 11  # to make those of characters and blocks
FILE = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15  # the rights that what is no directory can be given
RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}  # by the first ABI that has them

_syscall = ctypes.PyDLL(None, use_errno=True).syscall  # made once: a child pays for what it makes
_syscall.restype = ctypes.c_long


def version() -> int:
    """Of the ABI that the kernel has; less than 1 where it has none."""
    return int(_syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION))


def rights(abi: int) -> int:
    """All rights to files that it knows."""
    return RIGHTS[max(first for first in RIGHTS if first <= abi)]


def restrict(abi: int, granted: Iterable[tuple[str | bytes, int]], network: int = 0, scoped: int = 0) -> None:
    """These paths, what is beneath them, and nothing else. What is granted and no right of this ABI is left out.

    network, scoped: what is refused besides, where the ABI has it (4 and 6). Raises OSError.
    """
    known = rights(abi)
    ruleset = struct.pack("<QQQ", known, network, scoped)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    fd = _checked(_syscall(CREATE_RULESET, ruleset, ctypes.c_size_t(len(ruleset)), 0))
    for path, wanted in granted:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        is_folder = stat.S_ISDIR(os.fstat(beneath).st_mode)
        rule = struct.pack("<Qi", (wanted if is_folder else wanted & FILE) & known, beneath)
        _checked(_syscall(ADD_RULE, fd, BENEATH, rule, 0))
        os.close(beneath)
    _checked(_syscall(RESTRICT_SELF, fd, 0))
    os.close(fd)


def _checked(answer: int) -> int:
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
