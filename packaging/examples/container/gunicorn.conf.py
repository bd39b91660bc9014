"""How gunicorn serves in the container: its clock of workers in memory, and no door that nobody asked for."""

worker_tmp_dir = "/dev/shm"
control_socket_disable = True  # versions that have none ignore this
