"""GET /healthz: 200 when the supervisor answers, else 503. Public, and tells nothing else.

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

blueprint = Blueprint("health", __name__)


class Health:
    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answer = False
        self._until = 0.0

    def good(self) -> bool:
        with self._lock:
            if time.monotonic() >= self._until:
                self._answer = self._ask()
                self._until = time.monotonic() + KEEP
            return self._answer


@blueprint.get("/healthz")
def healthz() -> Response:
    if not parts().health.good():
        raise Problem("later", "not ready", retry_after=2)
    return json({"status": "ok"})
