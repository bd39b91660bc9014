"""Runs what comes over a connection, inside a process that has been taken over; and the api that has been.

Started as a program it is the api: the real gunicorn with the real settings, of which the first worker, after its real
start-up, runs hostile code in place of its loop.
"""

from __future__ import annotations

import json
import os
import runpy
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

PACKET = 1 << 17


def session(part: Any, sock: socket.socket, scope: dict[str, Any], idle: Callable[[], None] = lambda: None) -> bool:
    """Runs what comes until `resume` (True) or the end of the connection (False)."""
    sock.settimeout(1.0)
    while True:
        try:
            code = sock.recv(PACKET)
        except TimeoutError:
            idle()
            continue
        if not code:
            return False
        if code == b"resume":
            sock.send(b"{}")
            return True
        scope |= {"part": part, "result": None}
        try:
            exec(compile(code, "<hostile>", "exec"), scope)
            answer = {"result": scope["result"]}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        sock.send(json.dumps(answer, default=repr).encode())


def api(address: str) -> None:
    from userapi.worker import Worker

    real = Worker.run

    def run(worker: Any) -> None:
        if worker.age == 1:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.connect(address)
                session(worker, sock, {}, worker.notify)
        real(worker)

    setattr(Worker, "run", run)  # noqa: B010  # it is what this file is for
    at = sys.argv.index("-m") + 1
    sys.argv = sys.argv[at:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    folder = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0])))
    api(os.path.join(folder, "hostage.sock"))
