"""A web site: the answer begins with the pid of the process that gave it."""

import os


def app(environ, start_response):
    page = f"{os.getpid()} {os.getppid()} uid={os.getuid()} {environ['PATH_INFO']}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(page)))])
    return [page]
