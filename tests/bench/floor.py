"""floor.py HOW UID GID COUNT GROUP PROGRAM [ARGUMENT…]: so many programs, started and left alone. The index of each is
its last argument. Nothing is decided, managed or written down, and nobody reads their output.

HOW is "spawn": posix_spawn, which can change nothing of the child's; "fork": os.fork and the least that a child of a
manager does, in Python; "born": our own spawner with what its child does, each let go on as soon as it is there, in a
cgroup of its own beneath GROUP unless that is "-".
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable

Begin = Callable[[list[str], int, int], None]  # words, where its output goes, its number


def by_spawn(words: list[str], out: int, _: int) -> None:
    actions = [(os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, out, 2)]
    os.posix_spawn(words[0], words, {}, file_actions=actions)


def by_fork(uid: int, gid: int) -> Begin:
    def begin(words: list[str], out: int, _: int) -> None:
        if os.fork() == 0:
            try:
                os.setsid()
                os.dup2(out, 1)
                os.dup2(out, 2)
                os.closerange(3, 1 << 20)
                os.setgroups([gid])
                os.setresgid(gid, gid, gid)
                os.setresuid(uid, uid, uid)
                os.execve(words[0], words, {})
            finally:
                os._exit(127)

    return begin


def by_spawner(uid: int, gid: int, group: str) -> Begin:
    from rootd.privileged.spawner import GATE_OPEN, Birth, Spawner

    helper = Spawner()
    helper.become(os.getuid(), os.getgid(), [], (5, 6, 7, 8, 10), keep_bounding=False)
    ids, limits = (uid, gid, 0o22, 1, 0, 0, 0), ((resource.RLIMIT_NOFILE, 1024, -2),)

    def begin(words: list[str], out: int, number: int) -> None:
        own = "" if group == "-" else f"{group}/run-{number}"
        if own:
            os.mkdir(own)
        gate, childs = socket.socketpair()
        _, pidfd = helper.spawn(Birth(own, words[0], "/", ids, [gid], limits, words, []), (childs.fileno(), out, out))
        childs.close()
        gate.send(GATE_OPEN)
        gate.close()
        os.close(pidfd)

    return begin


def main() -> None:
    how, uid, gid, count, group = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    begin = {"spawn": lambda: by_spawn, "fork": lambda: by_fork(uid, gid), "born": lambda: by_spawner(uid, gid, group)}[
        how
    ]()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for index in range(count):
        _, writer = os.pipe2(os.O_CLOEXEC)
        begin([*sys.argv[6:], str(index)], writer, index)
        os.close(writer)
    signal.pause()


if __name__ == "__main__":
    main()
