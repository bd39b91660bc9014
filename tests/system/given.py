"""given.py SOCKET NAME=FD … -- PROGRAM [ARGUMENT…]: become the program as a service manager starts it that keeps these
descriptors for it: sd_listen_fds(3), with NOTIFY_SOCKET and FDSTORE."""

from __future__ import annotations

import fcntl
import os
import sys

if __name__ == "__main__":
    at = sys.argv.index("--")
    pairs = [word.split("=") for word in sys.argv[2:at]]
    high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 3 + len(pairs)) for _, fd in pairs]
    for target, fd in enumerate(high, 3):
        os.dup2(fd, target)
    os.closerange(3 + len(pairs), os.sysconf("SC_OPEN_MAX"))
    environment = {**os.environ, "NOTIFY_SOCKET": sys.argv[1], "FDSTORE": "26000"}
    if pairs:
        environment |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(pairs))}
        environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in pairs)
    os.execve(sys.argv[at + 1], sys.argv[at + 1 :], environment)
