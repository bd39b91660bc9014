"""What the supervisor is handed when it begins, and how it becomes the account that it is.

Rule 1: what is read as more than that account is a sealed memfd of the keeper's store; nothing is read by a path.
Rule 2: the configuration that has been checked is compiled while privileged begins with it. It counts only if
        privileged's table is made of the very same bytes (reload.py), and its settings are too.
Rule 3: nobody is heard before the walls are up (main.py).

Sources: DESIGN §1, §14; memfd_create(2).
"""

from __future__ import annotations

import hashlib
import os
import zlib
from typing import NamedTuple

from rootd import confine, ipc, sandbox, zones
from rootd.config import settings as settings_file
from rootd.config.settings import Settings
from rootd.supervisor import comparing, files
from rootd.supervisor.reload import Made, staged_generation

GENERATION, STAGED = ipc.STAGED[:2]  # the second is the last that it is handed before anything has begun
BOOT_ID, BOOT_LIMIT = "/proc/sys/kernel/random/boot_id", 64  # bytes


class Begun(NamedTuple):
    settings: Settings
    keeper: ipc.Link
    inherited: ipc.Inherited
    made: Made | None  # of the configuration, early
    life: int  # the same number as long as this daemon lives: of its settings, which the keeper holds, and of the boot


def begin(link_fd: int) -> Begun | None:
    """None when the keeper is gone, or when what was made early is not what counts: we are started again."""
    keeper = ipc.link_from(link_fd, takes_fds=True)
    try:
        inherited = ipc.inherit(keeper, until=STAGED)
        early, staged = STAGED in inherited.held, inherited.held.pop(GENERATION, -1)
        text = files.content(inherited.held.pop(STAGED)) if early else b""
        life, told = (0, text) if early else settings_of(inherited)
        settings = settings_file.from_json(told)
        account = settings.accounts["supervisor"]
        confine.become(account.uid, account.gid, account.groups)
        os.umask(0o077)
        hashlib.sha256()  # the first one may read what OpenSSL wants to read
        made = staged_generation(staged) if staged >= 0 else None  # while privileged has not begun yet
        if early:
            ipc.inherit(keeper, inherited)
            life, told = settings_of(inherited)
            if told != text:
                return None  # it has read them again, and found others: so do we
    except EOFError:
        return None
    paths = settings.paths
    read = (paths.log, f"{paths.state}/choices", "/proc", zones.FOLDER)
    sandbox.enter(read=read, write=(f"{paths.run}/supervisor",), allow=(*comparing.CALLS, "setitimer"), fork=True)
    return Begun(settings, keeper, inherited, made, life)


def settings_of(inherited: ipc.Inherited) -> tuple[int, bytes]:
    fd = inherited.held.pop("settings")
    boot = files.read(BOOT_ID, BOOT_LIMIT)  # inodes are counted anew in each
    return os.fstat(fd).st_ino ^ zlib.crc32(boot) << 30, files.content(fd)
