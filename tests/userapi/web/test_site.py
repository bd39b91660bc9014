"""All parts of the page, and the real server behind its walls."""

from __future__ import annotations

from browsing import Read
from flask import Flask

from policy import messages
from userapi.web import site


def test_each_application_has_all_parts():
    app = Flask("userapi")
    site.register(app)
    assert {name for name in app.blueprints if name != "web"} == {f"web.{part.name}" for part in site.PARTS}


def test_an_address_that_is_nobodys_is_a_page_for_a_browser_alone(stranger):
    answer = stranger.get("/service/site", Accept="text/html,*/*;q=0.8")
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert "default-src 'none'; script-src" in answer.headers["Content-Security-Policy"]
    assert "there is no page" in Read(answer.text).text
    assert stranger.get("/logout", Accept="text/html").status_code == 405
    for path, accept in (("/service/site", "*/*"), ("/api/v1/nothing", "text/html")):
        assert stranger.get(path, Accept=accept).mimetype == "application/problem+json"


def test_the_server_shows_pages_behind_its_walls_and_sends_the_cookie(gunicorn, world):
    server = gunicorn().ready()
    got = server.raw(b"GET /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert b"200 OK" in got
    assert b"<h1>Log in</h1>" in got
    body = b"user=alice&password=right&next=%2F"
    head = (
        "POST /login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nConnection: close\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    got = server.raw(head.encode() + body)
    assert b"/1.1 303 " in got
    assert f"Set-Cookie: __Host-durward={world.token}; Secure; HttpOnly; Path=/; SameSite=Strict\r\n".encode() in got
    world.answers[messages.ListApprovals] = messages.Approvals([])
    cookie = f"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: __Host-durward={world.token}\r\nConnection: close\r\n\r\n"
    assert b"<h1>Services</h1>" in server.raw(cookie.encode())
