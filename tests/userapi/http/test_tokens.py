"""Personal tokens over HTTP."""

from __future__ import annotations

import pytest

from policy import login
from policy.scope import Scope

GOOD = {"name": "deploy", "may": ["view", "restart"], "on": ["site"], "expires": "90d"}


def test_a_token_is_made_listed_used_and_revoked(app, http, world):
    made = http.post("/api/v1/tokens", json=GOOD)
    assert (made.status_code, made.json) == (201, {"token": world.personal, "name": "deploy", "expires": world.now})
    assert world.auth.asked[-1] == login.MakeToken(
        world.token, Scope("deploy", ("view", "restart"), ("site",)), 90 * 86400.0, "127.0.0.1"
    )
    assert http.get("/api/v1/tokens").json == {
        "tokens": [
            {"name": "deploy", "may": ["view", "restart"], "on": ["site"], "made": world.now, "expires": world.now,
             "used": "", "trouble": ""}
        ]
    }  # fmt: skip
    script = app.test_client()
    headers = {"Authorization": f"Bearer {made.json['token']}"}
    assert script.get("/api/v1/services", headers=headers).status_code == 200
    assert world.supervisor.asked[-1].session == world.personal
    gone = http.delete("/api/v1/tokens/deploy")
    assert (gone.status_code, gone.data, "Content-Type" in gone.headers) == (204, b"", False)
    assert script.get("/api/v1/services", headers=headers).status_code == 401
    assert http.delete("/api/v1/tokens/deploy").status_code == 404


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/tokens"), ("POST", "/tokens"), ("DELETE", "/tokens/deploy"), ("DELETE", "/session")]
)
def test_a_token_makes_lists_and_ends_none_and_logs_nobody_out(app, world, method, path):
    headers = {"Authorization": f"Bearer {world.personal}"}
    body = GOOD if method == "POST" else None
    answer = app.test_client().open(f"/api/v1{path}", method=method, headers=headers, json=body)
    assert (answer.status_code, answer.json["kind"]) == (403, "forbidden")
    assert world.auth.asked == []
    assert app.test_client().open(f"/api/v1{path}", method=method, json=body).status_code == 401


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"name": "De ploy"}, "the name must be"),
        ({"may": ["approve"]}, "no token may approve"),
        ({"may": ["revoke", "view"]}, "no token may revoke"),
        ({"may": ["fly"]}, "may must be of view, logs"),
        ({"may": []}, "at least one action"),
        ({"on": ["shop", "site*"]}, "'site*' is none of what on is made of: SERVICE, group:NAME and *"),
        ({"on": [f"b{n}" for n in range(40)]}, "at most 30"),
        ({"on": []}, "view is about a service"),
        ({"may": ["audit"]}, "name no service"),
        ({"expires": "90"}, "a time such as 12h or 90d"),
        ({"expires": "0d"}, "a time such as 12h or 90d"),
        ({"expires": "999999d"}, "a time such as 12h or 90d"),
        ({"more": 1}, "not as it must be"),
    ],
)
def test_what_cannot_be_a_token_is_400_with_the_word_that_is_wrong_and_reaches_nobody(http, world, changed, text):
    answer = http.post("/api/v1/tokens", json={**GOOD, **changed})
    assert answer.status_code == 400
    assert text in answer.json["detail"]
    assert world.auth.asked == []


def test_an_action_that_is_said_twice_is_said_once(http, world):
    assert http.post("/api/v1/tokens", json={**GOOD, "may": ["view", "view"], "on": ["*", "*"]}).status_code == 201
    assert world.auth.asked[-1].scope == Scope("deploy", ("view",), ("*",))


def test_what_auth_refuses_has_its_words_and_its_status(http, world):
    for kind, status in (("no-session", 401), ("forbidden", 403), ("conflict", 409), ("later", 503)):
        world.auth.script = lambda _, kind=kind: login.TokenRefused(kind, "no")
        answer = http.post("/api/v1/tokens", json=GOOD)
        assert (answer.status_code, answer.json["detail"], answer.json["kind"]) == (status, "no", kind)
    world.auth.script = lambda _: login.LoggedOut()
    for answer in (http.post("/api/v1/tokens", json=GOOD), http.get("/api/v1/tokens"), http.delete("/api/v1/tokens/x")):
        assert answer.status_code == 500
    assert http.delete("/api/v1/tokens/NO").status_code == 404
