"""A FastCGI responder: takes connections on descriptor 0 and answers each request with its pid. One at a time."""

from __future__ import annotations

import os
import socket
import struct

HEADER = struct.Struct("!BBHHBx")  # version, type, request id, content length, padding length
END_REQUEST, PARAMS, STDOUT = 3, 4, 6


def exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (more := connection.recv(size - len(found))):
        found += more
    return found


def record(kind: int, number: int, content: bytes) -> bytes:
    return HEADER.pack(1, kind, number, len(content), 0) + content


def serve(connection: socket.socket) -> None:
    while len(head := exactly(connection, HEADER.size)) == HEADER.size:
        _, kind, number, length, padding = HEADER.unpack(head)
        exactly(connection, length + padding)
        if kind == 5 and not length:  # the end of the request's stdin
            body = f"Content-Type: text/plain\r\n\r\n{os.environ['DURWARD_PROCESS']} {os.getpid()}".encode()
            connection.sendall(record(STDOUT, number, body) + record(STDOUT, number, b""))
            connection.sendall(record(END_REQUEST, number, struct.pack("!IB3x", 0, 0)))
            return


listener = socket.socket(fileno=0)
assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
assert "LISTEN_FDS" not in os.environ
while True:
    accepted, _ = listener.accept()
    with accepted:
        serve(accepted)
