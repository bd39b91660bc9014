"""What packaging/run asks of the installed Python: a port that is free, and when the demo is up.

demo.py port FIRST               prints the first free TCP port from FIRST on; says on stderr who holds those before it
demo.py wait SOCKET PID SECONDS  waits until every service behind root.sock has started, or the daemon PID has ended;
                                 exit 1 says what did not start
"""

from __future__ import annotations

import os
import pwd
import select
import socket
import sys
import time
from pathlib import Path

LAST = 65_535
UP = ("RUNNING", "EXITED")


def free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
        return True


def holder(port: int) -> str:
    """Who listens there: program, pid and user, as far as /proc tells."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if any(os.readlink(fd) in inodes for fd in (process / "fd").iterdir()):
                uid = process.stat().st_uid
                name = (process / "comm").read_text().strip()
                return f"{name}, pid {process.name}, of {user_of(uid)}"
        except OSError:
            continue
    return "somebody that cannot be seen from here"


def user_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def port(first: int) -> int:
    for candidate in range(first, LAST + 1):
        if free(candidate):
            print(candidate)
            return 0
        print(f"port {candidate} is taken by {holder(candidate)}; trying the next", file=sys.stderr)
    return 1


def wait(path: str, pid: int, seconds: float) -> int:
    """Ask, and ask again, because the daemon may not have bound its socket yet."""
    from policy import messages, wire

    daemon = os.pidfd_open(pid)
    until = time.monotonic() + seconds
    seen = "it did not answer"
    request = wire.REQUEST.encode(messages.Request(id=1, command=messages.Status()))
    while time.monotonic() < until:
        services: list[messages.ServiceInfo] = []
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked:
                asked.settimeout(max(0.1, until - time.monotonic()))
                asked.connect(path)
                asked.send(request)
                more = True
                while more:
                    reply = wire.ANSWER.decode(asked.recv(wire.LIMIT + 1)).reply
                    if not isinstance(reply, messages.Services):
                        raise OSError(f"it answered {reply}")
                    services += reply.services
                    more = reply.more
        except (OSError, wire.Malformed) as error:
            seen = f"{path}: {error}"
        else:
            late = [service for service in services if service.state not in UP]
            if services and not late:
                return 0
            seen = "; ".join(f"{service.name} is {service.state} {service.text}".strip() for service in late)
            if any(service.state == "FATAL" for service in late):
                break
        if select.select([daemon], [], [], 0.1)[0]:
            seen = "the daemon has ended"
            break
    print(f"not everything has started: {seen}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    asked_for, *words = sys.argv[1:]
    sys.exit(port(int(words[0])) if asked_for == "port" else wait(words[0], int(words[1]), float(words[2])))
