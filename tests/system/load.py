"""load.py HOST PORT INTERVAL: one connection each INTERVAL seconds, until standard input ends; then one JSON line.

No more than IN_FLIGHT at once. An empty line comes before that, with the first answer. Each asks for / and must get a
tried, answered, refused (the connection was), failed (anything else, by reason), slowest (seconds), by (how many
answers each body's first word got).
"""

from __future__ import annotations

import errno
import json
import select
import socket
import sys
import time

DEADLINE = 20.0  # seconds that one request may take
IN_FLIGHT = 256  # at once: where the server serves fewer than are due, it is the load that waits, and no queue grows
SOURCES = 100  # addresses on loopback to come from: one has only 28,000 ports
REQUEST = b"GET / HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n"


class Load:
    def __init__(self, host: str, port: int, interval: float) -> None:
        self.address, self.interval = (host, port), interval
        self.epoll = select.epoll()
        self.open: dict[int, tuple[socket.socket, float, bytearray]] = {}
        self.tried = self.answered = self.refused = 0
        self.failed: dict[str, int] = {}
        self.by: dict[str, int] = {}
        self.slowest = 0.0

    def run(self) -> None:
        self.epoll.register(0, select.EPOLLIN | select.EPOLLHUP)
        due, ending = time.monotonic(), False
        while not ending or self.open:
            now = time.monotonic()
            while not ending and due <= now:
                if len(self.open) < IN_FLIGHT:
                    self.begin(now)
                due += self.interval
            if now - due > 1.0:
                due = now  # the machine was away: do not make up for it with a flood
            wait = max(0.0, due - now) if not ending else 0.1
            for fd, events in self.epoll.poll(wait):
                if fd == 0:
                    ending = True
                    self.epoll.unregister(0)
                elif fd in self.open:
                    self.turn(fd, events)
            for fd in [fd for fd, (_, begun, _) in self.open.items() if now - begun > DEADLINE]:
                self.end(fd, "no answer in time")

    def begin(self, now: float) -> None:
        self.tried += 1
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        if self.address[0].startswith("127."):
            sock.bind((f"127.0.1.{self.tried % SOURCES + 1}", 0))
        self.open[sock.fileno()] = (sock, now, bytearray())
        code = sock.connect_ex(self.address)
        if code in (0, errno.EINPROGRESS):
            self.epoll.register(sock.fileno(), select.EPOLLOUT)
        else:
            self.end(sock.fileno(), errno.errorcode.get(code, str(code)))

    def turn(self, fd: int, events: int) -> None:
        sock, _, answer = self.open[fd]
        try:
            if events & select.EPOLLOUT:
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    return self.end(fd, errno.errorcode.get(code, str(code)))
                sock.sendall(REQUEST)
                return self.epoll.modify(fd, select.EPOLLIN)
            data = sock.recv(65536)
        except OSError as error:
            return self.end(fd, errno.errorcode.get(error.errno or 0, str(error)))
        if data:
            answer += data
            return None
        head, _, body = bytes(answer).partition(b"\r\n\r\n")
        if not head:
            return self.end(fd, "closed without an answer")
        if b" 200 " not in head.split(b"\r\n", 1)[0] or not body:
            return self.end(fd, head.split(b"\r\n", 1)[0].decode(errors="replace"))
        first = body.split(None, 1)[0].decode(errors="replace")
        self.by[first] = self.by.get(first, 0) + 1
        return self.end(fd, "")

    def end(self, fd: int, why: str) -> None:
        sock, begun, _ = self.open.pop(fd)
        sock.close()
        if not why:
            self.answered += 1
            if self.answered == 1:
                print(flush=True)  # whoever waits until it has begun is told
            self.slowest = max(self.slowest, time.monotonic() - begun)
        elif why == "ECONNREFUSED":
            self.refused += 1
        else:
            self.failed[why] = self.failed.get(why, 0) + 1


if __name__ == "__main__":
    load = Load(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
    load.run()
    names = ("tried", "answered", "refused", "failed", "slowest", "by")
    print(json.dumps({name: vars(load)[name] for name in names}))
