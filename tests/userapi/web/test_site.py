"""All parts of the page, and the real server behind its walls."""

from __future__ import annotations

from policy import messages
from userapi.web import site


def test_each_application_has_a_blueprint_of_its_own():
    assert site.blueprint() is not site.blueprint()
    assert site.blueprint().name == "web"


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
