"""gunicorn on the socket that it is handed, ready when the site is loaded."""

workers = 2
worker_class = "sync"
preload_app = True
graceful_timeout = 10
control_socket_disable = True
