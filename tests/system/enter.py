"""enter.py FD PROGRAM [ARGUMENT…]: enter the network namespace behind FD, close FD, and become the program."""

from __future__ import annotations

import ctypes
import os
import sys

CLONE_NEWNET = 0x40000000

if __name__ == "__main__":
    fd = int(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        sys.exit(f"setns: {os.strerror(ctypes.get_errno())}")
    os.close(fd)
    os.execv(sys.argv[2], sys.argv[2:])
