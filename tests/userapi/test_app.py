"""The application as a whole."""

from __future__ import annotations

import json

import pytest

from userapi.app import create_app


def test_it_reads_the_environment_when_it_is_told_nothing(monkeypatch):
    monkeypatch.setenv("DURWARD_RUN", "/nonexistent")
    assert create_app().extensions["durward"].config.run == "/nonexistent"


def test_h11_no_debug_mode_whatever_the_environment_says(monkeypatch):
    for name in ("FLASK_DEBUG", "FLASK_ENV", "WERKZEUG_DEBUG_PIN", "FLASK_APP"):
        monkeypatch.setenv(name, "1")
    app = create_app({})
    assert not app.debug
    assert not app.testing
    assert not app.config["PROPAGATE_EXCEPTIONS"]


def test_h11_an_error_of_ours_tells_nothing_of_itself(app, http, world, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("the secret of /srv/site")

    monkeypatch.setattr(app.extensions["durward"].supervisor, "ask", broken)
    answer = http.get("/api/v1/services")
    assert answer.status_code == 500
    assert answer.mimetype == "application/problem+json"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "the secret of /srv/site" in caplog.text


@pytest.mark.parametrize("path", ["/nothing", "/api/v1", "/api/v1/nothing", "/console", "/api/v1/services/a/b/c"])
def test_an_address_that_is_not_there_is_a_problem_document(http, path):
    answer = http.get(path)
    assert answer.status_code == 404
    assert json.loads(answer.data)["kind"] == "unknown"


def test_h1_every_mutating_route_without_a_session_is_401_and_asks_nobody(app, world):
    client = app.test_client()
    tried = 0
    for rule in app.url_map.iter_rules():
        for method in (rule.methods or set()) & {"POST", "PUT", "PATCH", "DELETE"}:
            if (rule.rule, method) == ("/api/v1/session", "POST") or rule.endpoint.startswith("web."):
                continue  # of pages: tests/userapi/web
            path = rule.rule.replace("<name>", "site").replace("<int:operation>", "7").replace("<int:approval>", "3")
            bodies = {"signal": {"signal": "HUP"}, "scale": {"processes": 2}, "revoke": {"everyone": True}}
            body = bodies.get(path.rpartition("/")[2], {})
            assert client.open(path, method=method, json=body).status_code == 401, path
            tried += 1
    assert tried >= 7
    assert world.supervisor.asked == []


def test_h4_the_api_never_sets_a_cookie(app, http):
    for path in ("/api/v1/services", "/api/v1/whoami", "/healthz", "/nothing"):
        assert "Set-Cookie" not in http.get(path).headers
    login = app.test_client().post("/api/v1/session", json={"user": "alice", "password": "right"})
    assert "Set-Cookie" not in login.headers


def test_h4_a_session_in_a_cookie_or_in_the_address_is_none(app, token):
    client = app.test_client()
    for name in ("session", "token", "durward", "__Host-session", "__Host-durward"):
        client.set_cookie(name, token)
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/api/v1") and "GET" in (rule.methods or ()):
            path = rule.rule.replace("<name>", "site").replace("<int:operation>", "7")
            assert client.get(path).status_code == 401, path
    refused = client.get(f"/api/v1/services?token={token}&access_token={token}")
    assert refused.status_code == 400
    assert token not in refused.text


def test_the_page_can_be_left_out(world):
    app = create_app({"DURWARD_RUN": str(world.run), "DURWARD_API": '{"page": false}'})
    assert {rule.rule for rule in app.url_map.iter_rules() if not rule.rule.startswith("/api/v1/")} == {"/healthz"}
    assert app.test_client().get("/login").status_code == 404
