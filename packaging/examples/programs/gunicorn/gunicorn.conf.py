"""gunicorn as a service of Durward's: nothing is bound here, and logs go to stdout and stderr."""

workers = 2
worker_class = "sync"  # what it has accepted, it answers before it ends
preload_app = True  # so that READY=1 means that the site could be loaded
graceful_timeout = 10
accesslog = "-"
control_socket_disable = True  # a door that nobody asked for; versions that have none ignore this
