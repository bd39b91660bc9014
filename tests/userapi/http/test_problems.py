"""Problem details."""

from __future__ import annotations

import json

import pytest


def test_every_error_is_a_problem_document(http):
    for answer, status in (
        (http.get("/nothing"), 404),
        (http.put("/api/v1/services"), 405),
        (http.post("/api/v1/session", data=b"x" * 20000, content_type="application/json"), 413),
        (http.post("/api/v1/session", data=b"user=alice"), 415),
    ):
        told = json.loads(answer.data)
        assert (answer.status_code, told["status"]) == (status, status)
        assert answer.mimetype == "application/problem+json"
        assert set(told) == {"type", "title", "status", "detail", "kind"}
        assert told["type"] == f"urn:durward:problem:{told['kind']}"


def test_405_says_what_is_allowed(http):
    assert set(http.put("/api/v1/session").headers["Allow"].split(", ")) >= {"POST", "DELETE"}


@pytest.mark.parametrize("path", ["/<script>alert(1)</script>", "/api/v1/services/%3Cscript%3E"])
def test_h2_nothing_of_the_request_is_repeated(http, path):
    assert "script" not in http.get(path).text
