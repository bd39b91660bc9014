"""The list of services, and a service's page."""

from __future__ import annotations

import os

import msgspec
import pytest
from browsing import Read

from policy import messages
from rootd.config import keys
from userapi.web import services

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


def actions(read) -> list[str]:
    """The words of the links to what may be done with site."""
    return [link.rpartition("/")[2] for link in read.links if link and link.startswith("/services/site/")]


def test_a_service_has_buttons_for_what_the_policy_lets_this_person_do_and_would_change_something(
    browser, rights, world
):
    assert actions(browser.read("/services/site")) == ["stop", "restart"]
    all_of_it = messages.Right("site", ["view", "start", "stop", "restart", "signal", "scale", "enable"])
    world.answers[messages.WhatMayI] = msgspec.structs.replace(RIGHTS, rights=[all_of_it])
    many = {"start", "stop", "restart", "signal", "scale"}
    assert {*actions(browser.read("/services/site"))} == many | {"disable"}
    assert {*actions(browser.read("/"))} == {"start", "stop", "restart"}, "the others are on its own page"
    off = msgspec.structs.replace(world.site, enabled=False, processes=world.site.processes[:1])
    world.answers[messages.Describe] = messages.Description(off, {"signals": "[]"}, [], [])
    assert {*actions(browser.read("/services/site"))} == {"start", "stop", "restart", "enable"}


def test_what_its_configuration_does_not_say_is_what_the_configuration_takes_for_it():
    defaults = {row.name: row.default for row in keys.KEYS if row.section == "service"}
    assert services.signals_of({}) == tuple(defaults["signals"])
    assert services.signals_of({"signals": '["HUP", "TERM"]'}) == ("HUP", "TERM")


def test_how_many_processes_there_may_be_is_the_configurations_to_say(world):
    one = msgspec.structs.replace(world.site, processes=[])
    assert [services.most_of(one, {}), services.most_of(one, {"processes": "3"})] == [1, 3]
    assert services.most_of(one, {"processes": "3", "max_processes": "8"}) == 8
    assert services.most_of(world.site, {"max_processes": "1"}) == 2, "as long as they have not ended"


def test_who_may_reload_finds_it_at_the_services_and_nobody_else(browser, rights, world):
    assert "/reload" not in browser.read("/").links
    for seen in ([world.site], []):
        world.answers[messages.Status] = messages.Services(seen)
        world.answers[messages.WhatMayI] = msgspec.structs.replace(RIGHTS, rights=[messages.Right("", ["reload"])])
        assert "/reload" in browser.read("/").links
    assert "by the command line" not in browser.read("/").text
