"""The walls around a worker: what an attacker reaches first may talk to its sockets, and do nothing else.

Rule 1: entered after the application is loaded and before the first connection is taken, by the only thread.
Rule 2: no program is executed, no internet socket made, no file opened but Python's own and the certificate.
"""

from __future__ import annotations

import os
import socket
import sys

import userapi
from rootd import sandbox

READ = ("/usr/lib", "/usr/local/lib", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/localtime", "/etc/mime.types")
CALLS = ("clone", "connect", "utimensat")  # threads; the supervisor and auth; gunicorn's sign of life


def enter(*files: str) -> None:
    """From now on, for this process and its threads; `files` may be read too. Raises when the walls do not stand."""
    packages = os.path.dirname(os.path.dirname(os.path.abspath(userapi.__file__ or sys.prefix)))
    places = (sys.prefix, f"{sys.base_prefix}/lib", packages, *READ, *files)
    sandbox.enter(read=places, allow=CALLS, sockets=(socket.AF_UNIX,))
