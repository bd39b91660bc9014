"""Configuration for the tests: settings, services that do what a test needs, and who may do what.

In these texts @PREFIX@ is the installed Durward, @SERVICES@ the folder of the tests' programs, @FOLDER@ the house's own
folder, and @name@ (small letters) the account or group dwt-name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from people import PREFIX as ACCOUNTS

if TYPE_CHECKING:
    from house import House

API_PORT = 9001


def names(text: str) -> str:
    return re.sub(r"@([a-z0-9-]+)@", lambda match: ACCOUNTS + match[1], text)


def settings(house: House, pam_service: str, **changed: str) -> str:
    """durward.toml. `changed` are values as TOML spells them: local, session, idle, workers, on_failure, listen."""
    values = {
        "local": '"password"',
        "session": '"8h"',
        "idle": '"30m"',
        "workers": "2",
        "on_failure": '"refuse"',
        "listen": f'["unix:{house.run_dir}/api.sock", "127.0.0.1:{API_PORT}"]',
        **changed,
    }
    return f"""\
[paths]
run = "{house.run_dir}"
log = "{house.log}"
state = "{house.state}"

[accounts]
privileged = "@priv@"
supervisor = "@sup@"
auth = "@auth@"
log = "@log@"
probe = "@probe@"
api = "@api@"

[auth]
pam_service = "{pam_service}"
local = {values["local"]}
session = {values["session"]}
idle = {values["idle"]}

[api]
listen = {values["listen"]}
workers = {values["workers"]}

[audit]
on_failure = {values["on_failure"]}
"""


SITE = """\
[socket.http]
listen = "0.0.0.0:80"

[service.site]
command = ["@PREFIX@/bin/gunicorn", "--config", "@SERVICES@/gunicorn.conf.py", "door:app"]
directory = "@SERVICES@"
user = "@www@"
sockets = ["http"]
ready = { notify = true, timeout = "15s" }
stop = { signal = "TERM", timeout = "15s" }
"""

NGINX = """\
[socket.http]
listen = "0.0.0.0:80"

[service.site]
command = ["@NGINX@", "-e", "stderr", "-c", "@FOLDER@/nginx/nginx.conf"]
user = "@www@"
sockets = ["http"]
environment = { NGINX = "3;" }
ready = { after = "0.5s" }
stop = { signal = "QUIT", timeout = "15s" }
"""

WORKER = """\
[service.worker]
command = ["@PREFIX@/bin/python3", "-I", "@SERVICES@/plain.py", "say", "begun"]
user = "@jobs@"
ready = { after = "0.2s" }
stop = { signal = "TERM", timeout = "5s" }
"""


def plain(name: str, *words: str, more: str = "") -> str:
    """A service that runs services/plain.py with these words; `more` are further lines of its table.

    It is ready after a moment, where they do not say otherwise.
    """
    more = more if "ready = " in more else f'ready = {{ after = "0.1s" }}\n{more}'
    argv = "".join(f', "{word}"' for word in words)
    return f"""\
[service.{name}]
command = ["@PREFIX@/bin/python3", "-I", "@SERVICES@/plain.py"{argv}]
user = "@jobs@"
{more}
"""


SERVICES = {"site.toml": SITE, "worker.toml": WORKER}

POLICY = {
    "10-web.toml": """\
[[grant]]
id = "webops-restart"
who = ["group:@webops@"]
may = ["view", "logs", "start", "stop", "restart"]
on = ["site"]

[[grant]]
id = "bob-looks"
who = ["user:@bob@"]
may = ["view"]
on = ["site"]
"""
}
