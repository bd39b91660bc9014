"""Logging in and out."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from browsing import Read

from policy import login
from userapi.client import later

NEW = "cd" * 32
NAME = "__Host-durward"


@pytest.fixture
def vouching(world):
    """auth gives a new id at each login."""
    real = world.auth.script

    def vouch(ask):
        if isinstance(ask, login.Login) and ask.password == "right":
            world.live.add(NEW)
            return login.Granted(NEW, ask.user, 1001, world.now)
        return real(ask)

    world.auth.script = vouch


def enter(browser, **fields):
    return browser.post("/login", {"user": "alice", "password": "right", **fields})


def test_h4_the_cookie_is_of_this_host_alone_unreadable_and_never_sent_from_elsewhere(stranger, vouching):
    answer = enter(stranger, next="/services/site")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login/done?next=%2Fservices%2Fsite")
    told = answer.headers.getlist("Set-Cookie")
    assert len(told) == 1
    value, *flags = told[0].split("; ")
    assert value == f"{NAME}={NEW}"
    assert sorted(flags) == ["HttpOnly", "Path=/", "SameSite=Strict", "Secure"]


def test_after_the_login_one_is_where_one_was(stranger, vouching):
    stranger.client.set_cookie(NAME, NEW)
    assert stranger.get("/login/done?next=%2Fservices%2Fsite").headers["Location"] == "/services/site"


def test_a_browser_that_keeps_no_cookie_is_told_so(stranger):
    answer = stranger.get("/login/done?next=/")
    assert answer.status_code == 400
    assert "has not kept the login" in answer.text


def test_a16_a_login_gives_a_new_id_and_ends_the_old_one(browser, vouching, world, token):
    assert enter(browser).status_code == 303
    assert world.live == {NEW}
    assert world.auth.asked[-1] == login.Logout(token)
    assert browser.client.get_cookie(NAME).value == NEW


def test_a16_an_id_that_was_put_there_is_not_taken_over(stranger, vouching, world):
    stranger.client.set_cookie(NAME, "ee" * 32)
    assert enter(stranger).status_code == 303
    assert stranger.client.get_cookie(NAME).value == NEW


def test_a16_after_the_logout_the_old_cookie_is_none_and_the_browser_has_none(browser, world, token):
    answer = browser.post("/logout")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
    assert world.live == set()
    assert browser.client.get_cookie(NAME) is None
    browser.client.set_cookie(NAME, token)
    assert browser.get("/").headers["Location"] == "/login?next=%2F"


def test_a_session_that_could_not_be_ended_is_kept_and_said_to_go_on(browser, app, world, monkeypatch):
    def away(token):
        raise later("auth does not answer")

    monkeypatch.setattr(app.extensions["durward"].auth, "logout", away)
    answer = browser.post("/logout")
    assert (answer.status_code, "auth does not answer" in answer.text) == (503, True)
    assert browser.client.get_cookie(NAME) is not None


def test_a_refused_login_keeps_the_name_and_never_the_password(stranger, world):
    answer = stranger.post("/login", {"user": "alice", "password": "hunter2", "next": "/approvals"})
    assert answer.status_code == 401
    read = Read(answer.text)
    assert "login refused" in read.text
    assert (read.fields["user"], read.fields["next"]) == ("alice", "/approvals")
    assert "hunter2" not in answer.text
    assert "Set-Cookie" not in answer.headers


def test_a_login_that_was_not_even_tried_says_when_to_try_again(stranger, world):
    world.auth.script = lambda ask: login.Denied("too many attempts", 2.5)
    answer = enter(stranger)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")


def test_only_so_many_logins_are_tried_at_once(stranger, app, world):
    permits = app.extensions["durward"].logins
    permits.take()
    permits.take()  # of 20 threads
    answer = enter(stranger)
    assert (answer.status_code, world.auth.asked) == (503, [])
    assert "too many logins at once" in answer.text


ELSEWHERE = (
    "https://evil.example/", "//evil.example", "/\\evil.example", "\\evil", "/%0d%0aX: y", "javascript:alert(1)",
    "/a\nb", "/\t/evil.example", "http:evil", "/login?next=/", "/logout", "evil.example", "", "/" + "x" * 600,
    "/@evil\u202e", "/static/x", "/<script>",
)  # fmt: skip


def test_nobody_is_led_to_another_site_by_a_login(stranger, browser, vouching):
    for elsewhere in ELSEWHERE:
        shown = stranger.get(f"/login?next={quote(elsewhere)}")
        assert Read(shown.text).fields["next"] == "/", elsewhere
        if len(elsewhere) < 600:
            assert enter(stranger, next=elsewhere).headers["Location"] == "/login/done?next=%2F", elsewhere
        assert browser.get(f"/login/done?next={quote(elsewhere)}").headers["Location"] == "/", elsewhere


def test_a_form_of_a_login_has_no_other_fields(stranger, world):
    assert enter(stranger, uid="0").status_code == 400
    assert stranger.post("/login", {"user": "alice"}).status_code == 400
    assert world.auth.asked == []
