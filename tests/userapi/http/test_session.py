"""Logging in and out."""

from __future__ import annotations

import pytest

from policy import login


def test_a_login_gives_a_token_that_works(app):
    client = app.test_client()
    answer = client.post("/api/v1/session", json={"user": "alice", "password": "right"})
    assert answer.status_code == 201
    assert set(answer.json) == {"token", "user", "expires"}
    headers = {"Authorization": f"Bearer {answer.json['token']}"}
    assert client.get("/api/v1/services", headers=headers).status_code == 200


def test_a16_after_logout_the_old_token_is_401(http, world):
    assert http.get("/api/v1/services").status_code == 200
    answer = http.delete("/api/v1/session")
    assert (answer.status_code, answer.data, "Content-Type" in answer.headers) == (204, b"", False)
    assert http.get("/api/v1/services").status_code == 401
    again = http.delete("/api/v1/session")
    assert again.status_code == 401
    assert again.json["kind"] == "no-session"


def test_a_refused_login_is_401_with_auth_s_words(app):
    answer = app.test_client().post("/api/v1/session", json={"user": "alice", "password": "wrong"})
    assert (answer.status_code, answer.json["detail"]) == (401, "login refused")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_throttled_login_is_429_and_says_when(app, world):
    world.auth.script = lambda _: login.Denied(text="too many attempts", retry_after=3.2)
    answer = app.test_client().post("/api/v1/session", json={"user": "alice", "password": "right"})
    assert (answer.status_code, answer.headers["Retry-After"], answer.json["kind"]) == (429, "4", "later")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"user": "alice"}',
        b'{"user": 1, "password": "x"}',
        b'{"user": "alice", "password": "x", "uid": 0}',
        b'{"user": "alice", "password": "%s"}' % (b"x" * 5000),
        b'{"user": "%s", "password": "x"}' % (b"x" * 300),
        b'{"user": "\xff", "password": "x"}',
        b"[" * 10000,
    ],
)
def test_a21_a_body_that_is_not_a_login_is_400_and_reaches_nobody(app, world, body):
    answer = app.test_client().post("/api/v1/session", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert world.auth.asked == []


def test_a21_a_megabyte_of_password_is_413(app, world):
    answer = app.test_client().post("/api/v1/session", json={"user": "alice", "password": "x" * (1 << 20)})
    assert answer.status_code == 413
    assert world.auth.asked == []


def test_a20_logins_that_hang_leave_threads_for_others(app, http, world):
    permits = app.extensions["durward"].logins
    while True:
        try:
            permits.take()
        except Exception:
            break
    answer = app.test_client().post("/api/v1/session", json={"user": "alice", "password": "right"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert http.get("/api/v1/services").status_code == 200


def test_auth_that_is_away_is_503(app, world):
    world.auth.script = lambda _: world.die
    answer = app.test_client().post("/api/v1/session", json={"user": "alice", "password": "right"})
    assert (answer.status_code, answer.json["kind"]) == (503, "later")
