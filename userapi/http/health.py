"""GET /healthz: 200 {"status": "ok"} when the supervisor answers, else 503. Public, and tells nothing else but that the
audit log cannot be written: 200 {"status": "trouble", "trouble": TEXT}. The daemon works then, and refuses changes.

The supervisor is asked once in a while only, however often this is: an answer holds for KEEP seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flask import Blueprint, Response

from userapi.http.guard import json, parts
from userapi.http.problems import Problem

KEEP = 2.0
TROUBLE = "the audit log cannot be written"

blueprint = Blueprint("health", __name__)


class Health:
    def __init__(self, ask: Callable[[], str]) -> None:
        """ask: "ok", "trouble" or "away"."""
        self._ask = ask
        self._lock = threading.Lock()
        self._answer = "away"
        self._until = 0.0

    def now(self) -> str:
        with self._lock:
            if time.monotonic() >= self._until:
                self._answer = self._ask()
                self._until = time.monotonic() + KEEP
            return self._answer


@blueprint.get("/healthz")
def healthz() -> Response:
    found = parts().health.now()
    if found == "away":
        raise Problem("later", "not ready", retry_after=2)
    return json({"status": found} | ({"trouble": TROUBLE} if found == "trouble" else {}))
