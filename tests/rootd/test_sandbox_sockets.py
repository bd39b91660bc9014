"""What a part in its walls can do to a socket that others hold too."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from rootd import confine, sandbox

UID = 61_013  # of nobody's

pytestmark = pytest.mark.root


def tried(sock: socket.socket, how: int) -> int:
    """The errno of shutdown(2) from inside the walls; 0 when it was done."""
    pid = os.fork()
    if pid == 0:
        try:
            confine.become(UID, UID, ())
            sandbox.enter()
            sock.shutdown(how)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 255)
        except BaseException:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_c6_a_unix_socket_that_listens_survives_whoever_is_in_the_walls(tmp_path: Path) -> None:
    """Shut for receiving it would refuse everybody for good, in whatever process it is then."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "door"))
        listener.listen(4)
        assert tried(listener, socket.SHUT_RD) == errno.EPERM
        assert tried(listener, socket.SHUT_RDWR) == errno.EPERM
        assert tried(listener, socket.SHUT_WR) == 0
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "door"))
