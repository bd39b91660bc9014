"""What holds for every page: who asks, from where, headers, errors, and the way to the login and back."""

from __future__ import annotations

import re

from browsing import Read

from policy import messages
from userapi.web import guard
from userapi.web.forms import proof

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
FILLED = {"<name>": "site", "<int:operation>": "7", "<int:approval>": "3"}
FIELDS = {"signal": {"signal": "HUP"}, "scale": {"processes": "3"}}  # that a form needs, by the end of its address
OPEN = {"/login", "/login/done", "/static/<name>"}


def routes(app, method):
    """The addresses of pages, filled in."""
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("web.") and method in rule.methods:
            path = rule.rule
            for blank, value in FILLED.items():
                path = path.replace(blank, value)
            before, blank, actions = path.partition("<any(")
            for action in actions.removesuffix("):action>").split(", ") if blank else [""]:
                yield rule, before + action


def needed(path):
    return FIELDS.get(path.rpartition("/")[2], {})


def test_h3_h9_every_page_has_the_headers_errors_too(browser, stranger):
    for answer in (browser.get("/"), stranger.get("/login"), stranger.get("/"), browser.get("/services/nothing.")):
        headers = answer.headers
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == ("nosniff", "DENY")


def test_without_a_login_every_page_leads_to_it_and_nobody_is_asked(app, stranger, world, token):
    tried = 0
    for method in ("GET", "POST"):
        for rule, path in routes(app, method):
            if rule.rule in OPEN:
                continue
            tried += 1
            bearer = {"Authorization": f"Bearer {token}"}  # counts for the API alone
            answer = stranger.get(path, **bearer) if method == "GET" else stranger.post(path, needed(path), **bearer)
            if rule.endpoint in guard.DATA:
                assert (answer.status_code, answer.mimetype) == (401, "application/problem+json")
            else:
                assert answer.status_code == 303
                assert answer.headers["Location"].startswith("/login?next=%2F")
            assert "Set-Cookie" not in answer.headers
    assert tried >= 28
    assert world.supervisor.asked == world.auth.asked == []


def test_a_login_that_is_over_leads_to_the_login_and_back_with_the_reason_that_was_typed_in_no_address(
    browser, world, token
):
    world.live.clear()
    answer = browser.get("/services/site?process=site:1")
    assert answer.headers["Location"] == "/login?next=%2Fservices%2Fsite%3Fprocess%3Dsite%3A1"
    assert "__Host-durward=;" in answer.headers["Set-Cookie"]
    browser.client.set_cookie("__Host-durward", token)
    answer = browser.post("/services/site/restart", {"reason": "new & better"})
    back = "/services/site/restart"
    assert answer.headers["Location"] == "/login?next=%2Fservices%2Fsite%2Frestart&typed=yes"
    kept = [one for one in answer.headers.getlist("Set-Cookie") if one.startswith("__Secure-durward-typed=")]
    for part in ("Path=/services/site/restart", "Secure", "HttpOnly", "SameSite=Strict", "Max-Age=600"):
        assert part in kept[0]
    login = Read(browser.get(answer.headers["Location"]).text)
    assert login.fields["next"] == back
    assert "Log in, and what you have typed is there again." in login.text
    world.live.add(token)
    browser.client.set_cookie("__Host-durward", token)
    world.answers[messages.WhatMayI] = messages.Rights("a", 1, [], "", [messages.Right("site", ["view", "restart"])])
    assert browser.read(back).fields["reason"] == "new & better"
    assert browser.read(back).fields["reason"] == "", "once"
    world.live.clear()
    browser.post(back, {"reason": "\U0001f6aa" * 200})
    browser.client.set_cookie("__Host-durward", token)
    world.live.add(token)
    assert browser.read(back).fields["reason"] == "\U0001f6aa" * 200
    world.live.clear()
    assert "typed" not in browser.post(back).headers["Location"], "nothing was"


def test_from_every_form_of_a_login_that_is_over_there_is_a_way_back_to_its_page(app, browser, world, token):
    for rule, path in routes(app, "POST"):
        if rule.rule == "/login":
            continue
        world.live.clear()
        browser.client.set_cookie("__Host-durward", token)
        login = Read(browser.get(browser.post(path, needed(path)).headers["Location"]).text)
        world.live.add(token)
        browser.client.set_cookie("__Host-durward", token)
        assert browser.get(str(login.fields["next"])).status_code == 200, path


FOREIGN = (
    {"Origin": "https://evil.example"},
    {"Origin": "null", "Sec_Fetch_Site": "same-origin"},
    {"Origin": "http://localhost:1"},
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "none"},
    {"Origin": None, "Sec_Fetch_Site": None},
)


def test_h1_every_form_from_elsewhere_is_refused_the_logins_too(app, browser, world):
    posts = list(routes(app, "POST"))
    assert len(posts) == 14
    for _, path in posts:
        for headers in FOREIGN:
            answer = browser.post(path, {"user": "alice", "password": "right"}, **headers)
            assert (answer.status_code, answer.mimetype) == (403, "text/html"), (path, headers)
    assert world.supervisor.asked == world.auth.asked == []


def test_h1_every_form_without_the_proof_of_its_session_changes_nothing(app, browser, world):
    for rule, path in routes(app, "POST"):
        for wrong in ("", proof("cd" * 32)):
            if rule.rule != "/login":
                answer = browser.post(path, {"proof": wrong, **needed(path)})
                assert (answer.status_code, "another login" in answer.text) == (403, True), path
    looks = (
        messages.Status, messages.Describe, messages.WhatMayI, messages.ListApprovals, messages.ListOperations,
        messages.Watch,
    )  # fmt: skip
    assert all(isinstance(command, looks) for command in world.commands())
    assert world.auth.asked == []


def test_h1_no_page_changes_anything_when_it_is_looked_at(app, browser, world):
    for rule, path in routes(app, "GET"):
        if rule.endpoint not in ("web.live.states", "web.operations.live"):
            assert browser.get(path).status_code < 500, path
    looks = (
        messages.Status, messages.WhatMayI, messages.ListApprovals, messages.ListOperations, messages.Watch,
        messages.Describe, messages.OpenLog,
    )  # fmt: skip
    assert all(isinstance(command, looks) for command in world.commands())
    assert world.auth.asked == []


def test_h1_a_form_is_a_form(browser, world):
    for kind in ("application/json", "multipart/form-data", "text/plain"):
        said = {"Origin": "http://localhost"}
        answer = browser.client.post("/services/site/stop", data=b"{}", content_type=kind, headers=said)
        assert (answer.status_code, world.commands()) == (415, [])


def test_a_form_may_have_so_many_bytes(browser, world):
    assert browser.post("/services/site/stop", {"reason": "x" * 20_000}).status_code == 413
    assert world.commands() == []


def test_h10_a_page_is_of_our_own_names_alone(browser, world):
    assert browser.get("/", Host="evil.example").status_code == 400
    assert browser.post("/services/site/stop", Host="evil.example", Origin="http://evil.example").status_code == 400
    assert world.commands() == []


def test_a_link_from_another_site_leads_on_and_a_frame_or_script_of_one_does_not(browser, stranger, world):
    follows = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    answer = stranger.get("/approvals/3", **follows)  # the browser keeps the cookie back
    read = Read(answer.text)
    assert "/approvals/3" in read.links
    assert read.of("meta", **{"http-equiv": "refresh"})[0]["content"] == "0; url=/approvals/3"
    assert "Set-Cookie" not in answer.headers
    assert browser.get("/", **follows).status_code == 200  # from another port of this host it sends it
    for dest in ("iframe", "script", "image", "empty"):
        assert browser.get("/", **{**follows, "Sec_Fetch_Dest": dest}).status_code == 403
    assert browser.get("/api/v1/services", **follows).status_code == 403


def test_a_parameter_that_a_page_does_not_know_is_refused(app, browser, world):
    for _, path in routes(app, "GET"):
        assert browser.get(f"{path}?token=x").status_code == 400, path
    assert world.commands() == []


def test_h11_an_error_of_ours_is_a_page_that_tells_nothing_of_itself(app, browser, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("the secret of /srv/site")

    monkeypatch.setattr(app.extensions["durward"].supervisor, "ask", broken)
    answer = browser.get("/")
    assert (answer.status_code, answer.mimetype) == (500, "text/html")
    assert "secret" not in answer.text
    assert "the secret of /srv/site" in caplog.text
    assert "/" in Read(answer.text).links


def test_every_page_can_be_used_by_keyboard_and_screen_reader(app, browser, world):
    world.answers[messages.ListApprovals] = messages.Approvals(
        [messages.ApprovalInfo(3, "bob", "stop site", "", "group:leads", "a", "b")]
    )
    actions = ["view", "start", "stop", "restart", "signal", "scale", "enable"]
    world.answers[messages.WhatMayI] = messages.Rights(
        "a", 1, [], "", [messages.Right("site", actions), messages.Right("", ["reload"])]
    )
    for _, path in routes(app, "GET"):
        answer = browser.get(path)
        if answer.mimetype != "text/html":
            continue
        read = Read(answer.text)
        assert read.of("html")[0]["lang"] == "en"
        assert len(read.of("h1")) == 1, path
        assert re.search(r"<title>[^<]+ · Durward</title>", answer.text)
        assert "#main" in read.links
        assert read.of("main", id="main")
        labelled = {one["for"] for one in read.of("label") if "for" in one}
        within = [one for one in read.of("select") if one["name"] in ("stream", "process")]  # their labels
        for one in read.of("input") + [one for one in read.of("select") if one not in within]:
            assert one.get("type") in ("hidden", "checkbox") or one["id"] in labelled, path
        assert answer.text.count("<table") == answer.text.count("<caption")
        assert not [one for one in read.of("th") if "scope" not in one]
        ids = [one["id"] for _, one in read.tags if "id" in one]
        assert len(ids) == len(set(ids)), path


def test_when_a_part_of_ours_is_away_the_way_back_has_what_was_typed(browser, world):
    for asked in (messages.Restart, messages.Status):
        world.answers[asked] = messages.Refused("later", "the supervisor does not answer; try again")
    answer = browser.post("/services/site/restart", {"reason": "new"})
    read = Read(answer.text)
    assert answer.status_code == 503
    assert "/services/site/restart" in read.links
    assert "__Secure-durward-typed=new;" in answer.headers["Set-Cookie"]
    assert f"wait {answer.headers['Retry-After']} s" in read.text
    assert "Try again" not in browser.get("/nowhere", Accept="text/html").text
