"""Records to those who keep logs of their own: journald, syslog, or whoever has our own stdout and stderr.

Rule 1: at most once: the one record that is on its way when log is killed is counted as lost (spool.py), and so is what
        is not taken. What a receiver had taken when it was killed is its own affair.
Rule 2: nothing here waits: a receiver that does not take a record now is asked again later, by the mover.
Rule 3: the one socket is made before the walls stand. It is bound to nothing, so that nobody can send to it, and each
        record names its receiver: one that was started again is found without being connected to.

Sources: systemd's "Native Journal Protocol", RFC 5424, unix(7), pipe(7) (PIPE_BUF).
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections import deque
from collections.abc import Callable

PATHS = {"journald": "/run/systemd/journal/socket", "syslog": "/dev/log"}
PIECE = 4_096  # bytes: what a pipe that is ready takes at once

Record = tuple[bytes, int]  # what is sent, and how many bytes of the service's it stands for


class Sender:
    """Owns one datagram socket. fds: where `inherit` goes, by stream; the caller's."""

    def __init__(self, fds: dict[int, int] | None = None) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._fds = fds or {1: 1, 2: 2}
        self._begun: dict[int, tuple[deque[Record], Record]] = {}  # by fd: whose record is there in part, and its rest

    def send(
        self, target: str, stream: int, records: deque[Record], begins: Callable[[int], None] = lambda _: None,
        refused: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """As many as are taken now; those are removed. Raises OSError, ENOBUFS where it is to be tried again soon.

        begins: is told before each record what it stands for; the one before has arrived then. refused: this one has
        not. EMSGSIZE: this one is too long for the receiver and will never be taken.
        """
        while records:
            record, stands_for = records[0]
            if target == "inherit":
                self._write(self._fds[stream], records, record, stands_for, begins, refused)
                continue
            begins(stands_for)
            try:
                self._sock.sendto(record, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, PATHS[target])
            except OSError as error:
                refused()
                if isinstance(error, BlockingIOError):
                    raise OSError(errno.ENOBUFS, f"{target} does not take more now") from None
                if isinstance(error, FileNotFoundError):
                    raise OSError(errno.ENOTCONN, f"there is no {PATHS[target]}") from None
                raise
            records.popleft()

    def _write(
        self, fd: int, records: deque[Record], record: bytes, stands_for: int, begins: Callable[[int], None],
        refused: Callable[[], None],
    ) -> None:  # fmt: skip
        """A piece. No other's record comes between two: what is left would be a line of its own, with any name."""
        whose, begun = self._begun.get(fd, (records, None))
        if whose is not records and whose and whose[0] is begun:
            raise OSError(errno.ENOBUFS, "the line of another one ends first")
        if begun is not None and records[0] is not begun:  # it was dropped meanwhile
            record = b"\n" + record
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if not any(events & select.POLLOUT for _, events in poll.poll(0)):
            raise OSError(errno.ENOBUFS, "who has our own output does not read it")
        if begun is None or records[0] is not begun:
            begins(stands_for)
        try:
            wrote = os.write(fd, record[:PIECE])
        except OSError:
            if begun is None or records[0] is not begun:
                refused()
            raise
        rest = record[wrote:]
        if rest:
            records[0] = (rest, stands_for)
            self._begun[fd] = records, records[0]
        else:
            records.popleft()
            self._begun.pop(fd, None)
            begins(0)

    def close(self) -> None:
        self._sock.close()
