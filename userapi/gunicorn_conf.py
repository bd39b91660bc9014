"""gunicorn's settings, loaded as python:userapi.gunicorn_conf. No file of the working directory is ever read.

The sockets come by LISTEN_FDS and LISTEN_PID, Unix and TCP alike; nothing is bound here, and without them gunicorn
ends. READY=1 is gunicorn's, sent after the application was loaded (preload_app). Names without "_" are settings.
"""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import os
import signal
import socket
from typing import Any

from userapi.config import Config as _Config, from_environment as _from_environment
from userapi.walls import enter as _enter_walls
from userapi.worker import MOST as _MOST, Worker as _Worker, context as _context

_SO_PASSRIGHTS = 83  # linux/socket.h; not in the socket module of Python 3.11
gc.disable()  # while the application is loaded, nearly all of which stays: a seventh of the time until it is ready

try:
    _settings: _Config = _from_environment(os.environ)
except ValueError as _error:
    raise SystemExit(f"durward-api: {_error}") from None

bind: list[str] = []
chdir = "/"
workers = _settings.api.workers
threads = _settings.api.threads
worker_class = _Worker
worker_connections = _MOST
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None  # noqa: S108  # unlinked at once
preload_app = True
timeout = 30  # seconds that the worker's loop may hang
graceful_timeout = 9
keepalive = 10
umask = 0o077
proc_name = "durward-api"

control_socket_disable = True
reload = False
daemon = False
sendfile = False
accesslog = None
errorlog = "-"
loglevel = "info"
capture_output = False

limit_request_line = 2048
limit_request_fields = 50
limit_request_field_size = 4096
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}  # a Unix socket's peer counts as trusted whatever the line above says
forwarder_headers = ""
header_map = "refuse"
proxy_protocol = "off"
http_protocols = "h1"
http2_cleartext = "off"
http_parser = "python"
permit_obsolete_folding = False
strip_header_spaces = False


def _close_to_others() -> None:
    """No core file, and no reading of this memory by other processes of this account."""
    import resource

    import prctl

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl.set_dumpable(0)


def on_starting(server: Any) -> None:
    """Raises RuntimeError, which gunicorn prints, when what was handed over is not fit to listen on."""
    gc.collect()
    gc.enable()
    _close_to_others()
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not os.environ.get("LISTEN_FDS", "").isdigit():
        raise RuntimeError("durward-api listens on the sockets of LISTEN_FDS, and was handed none")
    for number in range(3, 3 + int(os.environ["LISTEN_FDS"])):
        with socket.socket(fileno=os.dup(number)) as listener:
            _check(listener)
            with contextlib.suppress(OSError):  # of TCP, and before Linux 6.16; each connection to it has this too
                listener.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
    tls = _settings.api.tls
    if tls is not None:
        try:
            _context(tls.certificate, tls.key)
        except OSError as error:
            raise RuntimeError(f"[api] tls: {tls.certificate} and {tls.key} are not fit: {error}") from None


def _check(listener: socket.socket) -> None:
    if listener.family == socket.AF_UNIX or _settings.api.tls is not None or _settings.api.behind_proxy:
        return
    address = listener.getsockname()
    if not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        raise RuntimeError(
            f"durward-api does not speak without TLS on {address[0]}:{address[1]}: passwords would be read on the way;"
            " set [api] tls, or behind_proxy where something else terminates TLS"
        )


def pre_fork(server: Any, worker: Any) -> None:
    """What is loaded stays: the collector need not look at it again, in no worker."""
    gc.freeze()


def post_fork(server: Any, worker: Any) -> None:
    # until it has handlers of its own it has those of the arbiter, which would forget that it was told to end: the
    # arbiter would wait for it for the whole graceful_timeout
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _close_to_others()
    os.environ.pop("NOTIFY_SOCKET", None)
    worker.tls = _settings.api.tls


def post_worker_init(worker: Any) -> None:
    """Raises when the walls do not stand; then this worker ends, and so does gunicorn when none can be had."""
    tls = _settings.api.tls
    _enter_walls(*((tls.certificate, tls.key) if tls is not None else ()))
