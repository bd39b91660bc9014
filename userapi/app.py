"""create_app: the HTTP API and the page as a WSGI application. It decides nothing and speaks for nobody.

One blueprint a resource, all under /api/v1 but /healthz and those of the page, which [api] page = false leaves out.
Nothing connects before the first request, so the application may be made before gunicorn forks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from flask import Flask

from userapi.client import Auth, Supervisor
from userapi.config import SHARE, from_environment
from userapi.http import (
    approvals,
    audit,
    events,
    guard,
    health,
    logs,
    operations,
    policy,
    problems,
    services,
    session,
    tokens,
    whoami,
)
from userapi.http.streams import Permits, Shares
from userapi.web import site

BLUEPRINTS = (
    session.blueprint,
    services.blueprint,
    operations.blueprint,
    logs.blueprint,
    whoami.blueprint,
    events.blueprint,
    approvals.blueprint,
    audit.blueprint,
    tokens.blueprint,
    policy.blueprint,
)


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """`config` has the keys DURWARD_RUN and DURWARD_API, as in the environment, which is read when it is None."""
    made = from_environment(os.environ if config is None else config)
    app = Flask("userapi", static_folder=None)
    app.config["DEBUG"] = False
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.config["TRAP_HTTP_EXCEPTIONS"] = False
    app.url_map.strict_slashes = False
    app.url_map.redirect_defaults = False
    app.url_map.merge_slashes = False
    supervisor = Supervisor(os.path.join(made.run, "control.sock"))
    app.extensions["durward"] = guard.Parts(
        config=made,
        supervisor=supervisor,
        auth=Auth(os.path.join(made.run, "auth.sock")),
        streams=Shares(made.streams, SHARE, "streams"),
        waits=Shares(made.waits, SHARE, "waits"),
        logins=Permits(made.logins, "logins"),
        hosts=guard.own_names(made),
        health=health.Health(supervisor.health),
    )
    problems.register(app)
    guard.register(app)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint, url_prefix="/api/v1")
    app.register_blueprint(health.blueprint)
    if made.api.page:
        site.register(app)
    return app
