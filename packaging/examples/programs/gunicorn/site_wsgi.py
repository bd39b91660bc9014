"""A WSGI site of one page."""

import os


def app(environ, start_response):
    page = f"gunicorn, process {os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(page)))])
    return [page]
