"""gunicorn on the socket that it is handed, ready when the site is loaded."""

import signal

workers = 2
worker_class = "sync"
preload_app = True
graceful_timeout = 10
control_socket_disable = True


def post_fork(server, worker):
    """It has the arbiter's handlers for a moment, which would forget an end that comes then: 10 s of waiting."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
