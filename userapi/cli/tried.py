"""What another account may do, found out by doing it: root's doctor asks, and a throw-away child becomes that account.

Rule: the child answers by a pipe, and never returns to what its parent was doing.
"""

from __future__ import annotations

import os
import select
import signal
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootd.config.settings import User

PATIENCE = 10.0  # seconds: a file may be a FIFO, or on a server that does not answer
LIMIT = 4_096  # bytes of an answer; a pipe takes them at once


def as_account(account: User, attempt: Callable[[], None]) -> str:
    """The sentence of the OSError that the attempt raises as that account; empty when it succeeds. Raises OSError."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(account, attempt, writer)
    os.close(writer)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    try:
        if not poll.poll(PATIENCE * 1000):
            os.kill(pid, signal.SIGKILL)  # it is ours until it is waited for
            return f"it has not answered within {PATIENCE:g} s"
        said = os.read(reader, LIMIT)
        return said[1:].decode() if said else "the child that tries it was ended"
    finally:
        os.close(reader)
        os.waitpid(pid, 0)


def _answer(account: User, attempt: Callable[[], None], writer: int) -> None:
    """In the child. Never returns."""
    said = "-"
    try:
        from rootd import confine

        confine.become(account.uid, account.gid, account.groups)
        attempt()
    except OSError as error:
        said += f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except BaseException as error:
        said += repr(error)
    finally:
        os.write(writer, said.encode()[:LIMIT])
        os._exit(0)


def load_tls(certificate: str, key: str) -> None:
    """What the api does with them at its start (userapi/worker.py). Raises OSError, with the file where it can."""
    for path in (certificate, key):
        with open(path, "rb"):
            pass
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key, password=_no_password)


def _no_password() -> str:
    """Nobody is asked, and the api has none either."""
    raise OSError("the key needs a password, which the api has not")
