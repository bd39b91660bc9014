"""In a fork: what a child of ours does before it becomes what it was forked for, and how it ends.

Rule: it never goes on as a copy of its parent, whatever happens in it.

Sources: fork(2), _exit(2), close_range(2), proc(5) comm.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

FAILED = 70  # EX_SOFTWARE


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """The process ends with this: with 0, with what sys.exit has said, or with FAILED after a traceback."""
    status = FAILED
    try:
        yield
        status = 0
    except SystemExit as asked:
        status = asked.code if isinstance(asked.code, int) else FAILED
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def alone(link: int) -> None:
    """Nothing of the parent's is left but the standard descriptors and its link, which is 3 now."""
    if link != 3:
        os.dup2(link, 3, inheritable=False)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))


def called(name: str) -> None:
    """What people see of it in ps; cut off after 15 bytes."""
    with open("/proc/self/comm", "w") as comm:
        comm.write(f"durward-{name}"[:15])
