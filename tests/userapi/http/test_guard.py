"""What holds for every request and every answer."""

from __future__ import annotations

import pytest

from userapi.app import create_app
from userapi.http.guard import PARAMETERS, host_is_ours, source

STOP = "/api/v1/services/site/stop"
NAMES = frozenset({"localhost", "web1"})


@pytest.mark.parametrize(
    "path", ["/api/v1/services", "/api/v1/whoami", "/healthz", "/nothing", "/api/v1/services/site"]
)
def test_h9_nothing_may_be_cached(http, path):
    assert http.get(path).headers["Cache-Control"] == "no-store"


def test_h3_every_answer_has_the_security_headers(http):
    for path in ("/api/v1/services", "/nothing", "/healthz"):
        headers = http.get(path).headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "x"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_h1_a_page_of_another_site_is_refused(http, world, site, method):
    answer = http.open(
        STOP if method == "POST" else "/api/v1/services", method=method, headers={"Sec-Fetch-Site": site}
    )
    assert answer.status_code == 403
    assert world.commands() == []


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "localhost"])
def test_h1_a_foreign_origin_is_refused(http, world, origin):
    assert http.post(STOP, headers={"Origin": origin}).status_code == 403
    assert world.commands() == []


def test_h1_our_own_origin_is_not(http):
    headers = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert http.post(STOP, headers=headers).status_code == 202


def test_h1_who_is_asked_by_tls_has_no_pages_without_it(http, world):
    """Whoever is between the browser and us can make such a page; a proxy may speak TLS for us."""
    for base, origin, status in (
        ("https://localhost", "http://localhost", 403), ("https://localhost", "https://localhost", 202),
        ("http://localhost", "https://localhost", 202), ("http://localhost", "ftp://localhost", 403),
    ):  # fmt: skip
        assert http.post(STOP, base_url=base, headers={"Origin": origin}).status_code == status
    assert len(world.commands()) == 2


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain", ""])
def test_h1_a_body_must_be_json(http, world, kind):
    assert http.post(STOP, data=b"{}", content_type=kind).status_code == 415
    assert world.commands() == []


def test_h1_a_form_without_fields_is_refused_too(http):
    assert http.post(STOP, content_type="application/x-www-form-urlencoded").status_code == 415


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9001", "127.0.0.1:9001", "[::1]:9001", "192.0.2.7", "WEB1", "a.localhost"]
)
def test_h10_names_of_ours_and_addresses_are_answered(host):
    assert host_is_ours(host, NAMES)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "1.2.3",
        "a b",
        "localhost:x",
        "[::1",
        "web1/x",
    ],
)
def test_h10_a_rebound_name_is_not(http, world, host):
    assert not host_is_ours(host, NAMES)
    assert http.get("/api/v1/services", headers={"Host": host}).status_code == 400
    assert world.commands() == []


def test_h10_a_configured_name_is_answered(world, token):
    app = create_app({"DURWARD_RUN": str(world.run), "DURWARD_API": '{"hosts": ["Ops.example"]}'})
    headers = {"Host": "ops.example", "Authorization": f"Bearer {token}"}
    assert app.test_client().get("/api/v1/services", headers=headers).status_code == 200


FORGED = {"HTTP_X_FORWARDED_FOR": "198.51.100.1, 203.0.113.9"}


@pytest.mark.parametrize(
    ("environ", "behind", "expected"),
    [
        ({"REMOTE_ADDR": "192.0.2.1"}, False, "192.0.2.1"),
        ({"REMOTE_ADDR": "::ffff:192.0.2.1"}, False, "192.0.2.1"),
        ({"REMOTE_ADDR": ""}, False, "unix"),
        ({}, False, "unix"),
        ({"REMOTE_ADDR": "unix:1001"}, False, "unix:1001"),
        ({"REMOTE_ADDR": "unix:1001\n"}, False, "unix"),
        ({"REMOTE_ADDR": "unix:root"}, False, "unix"),
        ({"REMOTE_ADDR": "127.0.0.1", **FORGED}, False, "127.0.0.1"),
        ({"REMOTE_ADDR": "", **FORGED}, False, "unix"),
        ({"REMOTE_ADDR": "127.0.0.1", **FORGED}, True, "203.0.113.9"),
        ({"REMOTE_ADDR": "", **FORGED}, True, "203.0.113.9"),
        ({"REMOTE_ADDR": "192.0.2.1", **FORGED}, True, "192.0.2.1"),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "x\ny"}, True, "127.0.0.1"),
        ({"REMOTE_ADDR": "127.0.0.1"}, True, "127.0.0.1"),
    ],
)
def test_h5_the_source_is_the_peer_unless_a_proxy_is_configured(environ, behind, expected):
    assert source(environ, behind) == expected


def test_a_parameter_that_an_address_does_not_know_is_refused_by_its_name(app, http, world):
    rules = list(app.url_map.iter_rules())
    assert set(PARAMETERS) <= {rule.endpoint for rule in rules}
    for rule in (one for one in rules if not one.endpoint.startswith("web.")):
        path = rule.rule.replace("<name>", "site").replace("<int:operation>", "7").replace("<int:approval>", "3")
        (method,) = rule.methods - {"OPTIONS", "HEAD"}
        answer = http.open(f"{path}?folow=1&n%0Ax=", method=method)
        assert (answer.status_code, answer.json["kind"]) == (400, "invalid"), rule
        known = ", ".join(sorted(PARAMETERS.get(rule.endpoint, ())))
        told = r"there is no parameter 'folow', 'n\nx' here"
        assert answer.json["detail"] == (f"{told}: {known}" if known else told)
    assert world.commands() == []
    assert http.get("/nothing?x=1").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("services/site/signal", {"signal": "BOGUS"}, "signal must be one of HUP, INT, "),
        ("services/site/signal", {"signal": 9}, "signal must be one of HUP, INT, "),
        ("revoke", {"user": "../x"}, "user must be the name of a user"),
        ("services/site/logs?process=site:x", None, "process must be like site:0"),
        ("services/site/logs?stream=audit", None, "stream must be stdout or stderr"),
        ("services/site/logs?after=x", None, "the question is not as it must be: a place in a log is INODE:OFFSET"),
        ("services/site/restart", {"hard": 1}, "the question is not as it must be: Expected `bool`, got `int`"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_and_not_as_a_pattern(http, world, path, body, text):
    answer = http.get(f"/api/v1/{path}") if body is None else http.post(f"/api/v1/{path}", json=body)
    assert (answer.status_code, answer.json["kind"]) == (400, "invalid")
    assert answer.json["detail"].startswith(text)
    assert "regex" not in answer.json["detail"]
    assert world.commands() == []
