"""GET /api/v1/policy: the policy that counts, and what it is about; for who has the right `policy`.

JSON: {"policy": [{"name", "text", "hash"}], "services": {NAME: [GROUP]}, "configuration": [{"file", "name",
"values"}], "place", "whole", "groups"}; what is secret in the configuration is redacted. policy/source.py is its shape.
"""

from __future__ import annotations

import os

from flask import Blueprint, Response

from policy import messages
from userapi.http.guard import asker, parts

blueprint = Blueprint("policy", __name__)


@blueprint.get("/policy")
def policy() -> Response:
    token, source = asker()
    opened, descriptor = parts().supervisor.open_log(token, messages.ReadPolicy(), source)
    with os.fdopen(descriptor, "rb") as file:
        return Response(os.pread(file.fileno(), opened.size, 0), mimetype="application/json")
