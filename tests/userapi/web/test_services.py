"""The list of services, a service's page, and the three commands."""

from __future__ import annotations

import os

import msgspec
import pytest
from browsing import Read

from policy import messages

RIGHTS = messages.Rights(
    "alice", 1001, ["webops"], "later",
    [messages.Right("site", ["view", "logs", "stop", "restart"],
                    {"restart": "with a reason", "stop": "once group:leads approves"})],
)  # fmt: skip
HOSTILE = '<script>alert(1)</script>\u202e\x1b[31m&"'


def log(world, text: bytes):
    def opened(command: messages.OpenLog):
        if command.rotated:
            return messages.Refused("unknown", "no such file")
        descriptor = os.memfd_create("log")
        os.write(descriptor, text)
        return messages.LogOpened("site", "site:0", command.stream, len(text)), descriptor

    world.answers[messages.OpenLog] = opened


@pytest.fixture
def rights(world):
    world.answers[messages.WhatMayI] = RIGHTS
    world.answers[messages.Describe] = messages.Description(world.site, {"user": "www"}, ["http"], ["exit status 3"])
    log(world, b"one\ntwo\n")


def test_the_list_has_a_row_a_process_and_offers_what_one_may_do(browser, rights):
    read = browser.read("/")
    assert [row["data-process"] for row in read.of("tr") if "data-process" in row] == ["site:0", "site:1", "worker"]
    assert "site:0 RUNNING 41" in read.text
    assert "5 in 60s" in read.text
    assert [link for link in read.links if link and link.count("/") == 3] == [
        "/services/site/stop", "/services/site/restart"
    ]  # fmt: skip
    assert "alice" in read.text
    assert "/approvals" in read.links
    assert read.of("form", action="/logout", method="post")


def test_what_waits_for_the_asker_and_trouble_of_the_daemon_are_said_first(browser, rights, world):
    info = messages.ApprovalInfo(3, "bob", "stop site", "", "group:leads", "a", "b")
    world.answers[messages.ListApprovals] = messages.Approvals([info, msgspec.structs.replace(info, yours=True)])
    world.answers[messages.Status] = messages.Services([], trouble="the audit log cannot be written")
    text = browser.read("/").text
    assert "1 asks for approval" in text
    assert "the audit log cannot be written" in text
    assert "no service that you may view" in text


def test_a_service_has_a_page_with_its_state_rights_log_and_configuration(browser, rights):
    read = browser.read("/services/site")
    for words in ("site:1 RUNNING 42", "restart (with a reason)", "one two", "exit status 3", "user www"):
        assert words in read.text
    assert [one for one in read.of("option") if "selected" in one]


def test_a_log_is_shown_to_who_may_read_it_and_nobody_else_asks_for_it(browser, rights, world):
    world.answers[messages.WhatMayI] = msgspec.structs.replace(RIGHTS, rights=[messages.Right("site", ["view"])])
    assert "log" not in browser.read("/services/site").text.lower().replace("log out", "")
    assert not [one for one in world.commands() if isinstance(one, messages.OpenLog)]


def test_of_a_log_the_process_and_stream_are_chosen_and_long_lines_are_cut(browser, rights, world):
    log(world, b"x" * 100_000 + b"end\n")
    read = browser.read("/services/site?process=site:1&stream=stderr")
    assert (world.commands()[-1].process, world.commands()[-1].stream) == ("site:1", "stderr")
    assert "Cut" in read.text
    assert 30_000 < read.text.count("x") < 34_000
    assert browser.get("/services/site?stream=audit").status_code == 400
    world.answers[messages.OpenLog] = messages.Refused("unknown", "it has no log")
    assert "it has no log" in browser.read("/services/site").text


def test_h2_what_services_write_is_shown_and_never_run(browser, rights, world):
    site = msgspec.structs.replace(
        world.site, text=HOSTILE, processes=[messages.ProcessInfo("site:0", "RUNNING", 1, world.now, HOSTILE, HOSTILE)]
    )
    world.answers[messages.Status] = messages.Services([site], trouble=HOSTILE)
    world.answers[messages.Describe] = messages.Description(site, {HOSTILE: HOSTILE}, [], [HOSTILE], lost=[HOSTILE])
    log(world, HOSTILE.encode() + b"\xff\n")
    for path in ("/", "/services/site", "/services/site/restart"):
        browser.client.set_cookie("__Secure-durward-typed", "%3Cscript%3E", path="/services/site/restart")
        answer = browser.get(path)
        assert answer.status_code == 200
        read = Read(answer.text)
        assert all(one.get("src", "").startswith("/static/") for one in read.of("script")), path
        assert not [name for _, found in read.tags for name in found if name.startswith("on") or name == "style"]
        assert not {"\u202e", "\x1b", "\xff"} & set(answer.text)
        assert ("&lt;script&gt;" if path.endswith("restart") else "\\u202e") in answer.text
    assert 'alert(1)</script>\\u202e\\x1b[31m&"\\xff' in Read(browser.get("/services/site").text).text


def test_a_command_goes_out_as_asked_and_leads_to_its_operation(browser, world):
    for action, fields, command in (
        ("start", {}, messages.Start("site")),
        ("stop", {}, messages.Stop("site")),
        ("stop", {"with_dependants": "true"}, messages.Stop("site", True)),
        ("restart", {}, messages.Restart("site")),
        ("restart", {"hard": "true"}, messages.Restart("site", True)),
    ):
        answer = browser.post(f"/services/site/{action}", {"reason": "new build", **fields})
        assert (answer.status_code, answer.headers["Location"]) == (303, "/operations/7")
        assert (world.supervisor.asked[-1].command, world.supervisor.asked[-1].reason) == (command, "new build")


def test_what_must_be_approved_first_leads_to_what_waits_and_what_is_done_at_once_to_the_service(browser, world):
    world.answers[messages.Stop] = messages.Waits(3, "stop site waits")
    assert browser.post("/services/site/stop").headers["Location"] == "/approvals/3"
    world.answers[messages.Stop] = messages.Done("it is stopped")
    assert browser.post("/services/site/stop").headers["Location"] == "/services/site"


def test_the_page_that_asks_says_what_is_demanded_and_wants_the_reason_only_then(browser, rights, world):
    world.answers[messages.Status] = messages.Services([world.site])
    browser.client.set_cookie("__Secure-durward-typed", "new%20libraries", path="/services/site/restart")
    asks = browser.read("/services/site/restart")
    assert "You may, with a reason." in asks.text
    assert "required" in asks.of("input", name="reason")[0]
    assert asks.fields["reason"] == "new libraries"
    assert asks.of("form", method="post", action="/services/site/restart")
    stops = browser.read("/services/site/stop")
    assert "once group:leads approves" in stops.text
    assert "required" not in stops.of("input", name="reason")[0]
    assert not [one for one in world.commands() if isinstance(one, messages.Stop | messages.Restart)]


def test_who_may_not_is_told_which_rule_would_help_and_gets_no_button(browser, rights, world):
    world.answers[messages.WhatMayI] = lambda command: (
        messages.Decided(False, "denied: the rule 'two' would") if command.action else RIGHTS
    )
    read = browser.read("/services/site/start")
    assert "the rule 'two' would" in read.text
    assert not read.of("form", action="/services/site/start")


def test_a_refusal_is_told_as_the_command_line_does_and_what_was_typed_is_kept(browser, rights, world):
    world.answers[messages.Restart] = messages.Refused("forbidden", "denied: not now", "rule-1", "a.toml", 3, ["other"])
    answer = browser.post("/services/site/restart", {"reason": 'a "quoted" one', "hard": "true"})
    assert answer.status_code == 403
    read = Read(answer.text)
    for words in ("denied: not now", "the rule is 'rule-1', a.toml:3", "this would allow it: other", "ask root or"):
        assert words in read.text
    assert read.fields["reason"] == 'a "quoted" one'
    assert "checked" in read.of("input", name="hard")[0]
    world.answers[messages.Restart] = messages.Refused("later", "too much at once")
    answer = browser.post("/services/site/restart")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


def test_what_may_not_be_viewed_is_not_there_whatever_is_asked(browser, world):
    for command in (messages.Describe, messages.Status, messages.Restart):
        world.answers[command] = messages.Refused("unknown", "no service 'db' that you may view")
    answers = [browser.get("/services/db"), browser.get("/services/db/restart"), browser.post("/services/db/restart")]
    for answer in answers:
        assert (answer.status_code, answer.mimetype) == (404, "text/html")
        assert "no service" in Read(answer.text).text
        assert "/" in Read(answer.text).links
    assert browser.get("/services/..%2fx").status_code == 404
    assert browser.get("/services/site/reload").status_code == 404


def test_fields_that_cannot_be_are_refused_and_nothing_is_asked(browser, world):
    wrong = ({"reason": "x" * 201}, {"hard": "maybe"}, {"colour": "red"}, {"reason": "two\nlines"}, {"user": "bob"})
    for fields in wrong:
        assert browser.post("/services/site/restart", fields).status_code == 400, fields
    assert world.commands() == []


def test_a_reason_that_is_missing_is_asked_for_in_words_of_the_page(browser, rights, world):
    world.answers[messages.Restart] = messages.Refused("forbidden", "denied: with a reason only: say why, by --reason")
    answer = browser.post("/services/site/restart")
    read = Read(answer.text)
    assert (answer.status_code, "Say why" in read.text) == (403, True)
    assert not [words for words in ("--reason", "ask root") if words in read.text]
    assert read.of("div", role="alert", tabindex="-1")
    assert "autofocus" in read.of("div", role="alert")[0]
    assert "<title>Error: Restart site" in answer.text
    assert "--reason" in browser.post("/services/site/restart", {"reason": "new"}).text, "then it is another one"


def test_where_nothing_was_written_there_is_the_way_to_the_other_stream(browser, rights, world):
    log(world, b"")
    read = browser.read("/services/site?process=site:1")
    assert "It has written nothing to stdout. See its stderr" in read.text
    assert "?process=site:1&stream=stderr#log" in read.links
    assert "?process=site:0&stream=stdout#log" in browser.read("/services/site?stream=stderr").links


def test_who_may_view_no_service_is_told_what_he_may_do_without_one(browser, world):
    world.answers[messages.Status] = messages.Services([])
    world.answers[messages.WhatMayI] = messages.Rights(
        "dora", 1004, [], "later", [messages.Right("", ["audit", "policy"])]
    )
    assert "What you may do without one, by the command line: audit, policy." in browser.read("/").text


def test_rows_and_cells_say_that_they_are_as_they_are_boxes_where_it_is_narrow(browser, rights):
    for path in ("/", "/services/site"):
        read = browser.read(path)
        assert read.of("table", role="table")
        for tag, roles in (("tr", {"row"}), ("th", {"rowheader", "columnheader"}), ("td", {"cell"})):
            assert {one.get("role") for one in read.of(tag)} == roles, (path, tag)
