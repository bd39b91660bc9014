"""What the supervisor has log keep for it, so that it waits for no disk itself: opaque bytes in a file of each kind.

Rule 1: they are never read here, nor understood; who reads them is the supervisor, at its start.
Rule 2: a new file, its bytes, fsync, a rename over the old file, fsync of the directory: killed anywhere in between,
        what is there is the old file or the new one, and whole.

Sources: rename(2), fsync(2).
"""

from __future__ import annotations

import contextlib
import errno
import os

FILE, NEW = "choices.json", "choices.new"
FILES = (FILE, "schedules.json")  # by the scope of KEEP


def keep(directory: int, body: bytes, name: str = FILE) -> tuple[int, bool]:
    """The errno, 0 when the body is on disk, and whether it is what is there now.

    It is there with an errno too where only the directory could not be made durable. directory: a descriptor, the
    caller's; its group, given by its set-group-ID bit to the file, may read it.
    """
    replaced = False
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(NEW, dir_fd=directory)  # of a log that was killed
        fd = os.open(NEW, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640, dir_fd=directory)
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(NEW, name, src_dir_fd=directory, dst_dir_fd=directory)
        replaced = True
        os.fsync(directory)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(NEW, dir_fd=directory)  # what is full is not to be kept fuller
        return error.errno or errno.EIO, replaced
    return 0, replaced
