"""python -I -m userapi.serve: gunicorn with our settings and nothing else.

gunicorn itself would put the working directory first on the import path before it loads any settings, and take
more arguments from GUNICORN_CMD_ARGS. Here neither happens, and nothing on the command line is looked at.
"""

from __future__ import annotations

import os
import sys

from gunicorn.app.wsgiapp import WSGIApplication


class Server(WSGIApplication):  # type: ignore[misc]  # gunicorn has no types
    def chdir(self) -> None:
        os.chdir("/")


def main() -> None:
    os.environ.pop("GUNICORN_CMD_ARGS", None)
    sys.argv = ["durward-api", "--config", "python:userapi.gunicorn_conf", "userapi.app:create_app()"]
    try:
        Server("%(prog)s").run()
    except SystemExit as end:  # gunicorn's, of the arbiter and of each worker: all that they had to do is done
        if not isinstance(end.code, int):
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)  # nobody needs what is in memory taken apart piece by piece, for a tenth of a second each


if __name__ == "__main__":
    main()
