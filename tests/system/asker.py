"""A client of our SEQPACKET sockets, for tests: it says what it is told to, and checks little."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec

from policy import messages, wire

PATIENCE = 20.0  # seconds until a wait has failed


class Asker:
    """One connection. Its socket times out after `timeout` seconds."""

    def __init__(self, path: Path | str, timeout: float = PATIENCE) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(timeout)
        try:
            self.sock.connect(str(path))
        except OSError:
            self.sock.close()
            raise
        self.number = 0

    def send(self, command: messages.Command, session: str = "", source: str = "") -> int:
        self.number += 1
        request = messages.Request(id=self.number, command=command, session=session, source=source)
        self.sock.send(wire.REQUEST.encode(request))
        return self.number

    def receive(self) -> messages.Reply | messages.Event:
        """The next packet. Raises EOFError when the other side has closed."""
        packet = self.sock.recv(wire.LIMIT + 1)
        if not packet:
            raise EOFError("the connection was closed")
        return wire.ANSWER.decode(packet).reply

    def ask(self, command: messages.Command, session: str = "") -> messages.Reply | messages.Event:
        """One question, one answer; Services in one piece."""
        self.send(command, session)
        services: list[messages.ServiceInfo] = []
        while True:
            reply = self.receive()
            if not isinstance(reply, messages.Services):
                return reply
            services += reply.services
            if not reply.more:
                return msgspec.structs.replace(reply, services=services)

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
