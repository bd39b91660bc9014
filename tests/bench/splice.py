"""splice.py UID GID LOG PROGRAM [ARGUMENT…]: the floor: one service, whose output goes to a file by splice(2) alone."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

PIPE = 1 << 20

if __name__ == "__main__":
    uid, gid, log = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    out, into = os.pipe2(os.O_CLOEXEC)
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, PIPE)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    subprocess.Popen(sys.argv[4:], stdout=into, user=uid, group=gid, extra_groups=())
    os.close(into)
    while os.splice(out, file, PIPE):
        continue
