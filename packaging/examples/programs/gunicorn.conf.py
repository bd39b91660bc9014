"""gunicorn on the socket that Durward hands over (LISTEN_FDS: descriptor 3), saying READY=1 when it can serve."""

workers = 1  # Durward runs two of these
worker_class = "sync"  # what it has accepted, it answers before it ends
preload_app = True  # so that READY=1 means that the site could be loaded
graceful_timeout = 10
control_socket_disable = True  # a door that nobody asked for; versions that have none ignore this
proc_name = "demo-site"
