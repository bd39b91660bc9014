"""The demo site: one page that says which process answered, and as whom."""

import os
import pwd


def app(environ, start_response):
    user = pwd.getpwuid(os.getuid()).pw_name
    page = f"Durward holds the door. This is {user}, process {os.getpid()}, behind {environ.get('HTTP_HOST', 'it')}.\n"
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(page)))])
    return [page.encode()]
