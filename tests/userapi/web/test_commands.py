"""What changes a service: the pages that ask, and what is asked of the supervisor."""

from __future__ import annotations

import msgspec
import pytest
from browsing import Read

from policy import messages

RIGHTS = messages.Rights(
    "alice", 1001, ["webops"], "later",
    [messages.Right("site", ["view", "stop", "restart", "signal", "scale", "enable"],
                    {"restart": "with a reason", "stop": "once group:leads approves",
                     "signal": "with a reason", "scale": "once group:leads approves"})],
)  # fmt: skip
SETTINGS = {"signals": '["HUP", "KILL"]', "max_processes": "4"}


@pytest.fixture
def rights(world):
    world.answers[messages.WhatMayI] = RIGHTS
    world.answers[messages.Describe] = messages.Description(world.site, SETTINGS, [], [])


def changes(world) -> list[messages.Command]:
    """What was asked for that is no look."""
    looks = (messages.Status, messages.Describe, messages.WhatMayI)
    return [one for one in world.commands() if not isinstance(one, looks)]


def test_a_command_goes_out_as_asked_and_leads_to_its_operation(browser, world):
    for action, fields, command in (
        ("start", {}, messages.Start("site")),
        ("stop", {}, messages.Stop("site")),
        ("stop", {"with_dependants": "true"}, messages.Stop("site", True)),
        ("restart", {}, messages.Restart("site")),
        ("restart", {"hard": "true"}, messages.Restart("site", True)),
        ("signal", {"signal": "HUP"}, messages.Signal("site", "HUP")),
        ("scale", {"processes": "3"}, messages.Scale("site", 3)),
    ):
        answer = browser.post(f"/services/site/{action}", {"reason": "new build", **fields})
        assert (answer.status_code, answer.headers["Location"]) == (303, "/operations/7")
        assert (world.supervisor.asked[-1].command, world.supervisor.asked[-1].reason) == (command, "new build")


def test_what_must_be_approved_first_leads_to_what_waits_and_what_is_done_at_once_is_told(browser, world):
    world.answers[messages.Stop] = messages.Waits(3, "stop site waits")
    assert browser.post("/services/site/stop").headers["Location"] == "/approvals/3"
    world.answers[messages.Stop] = messages.Done("site is not running")
    answer = browser.post("/services/site/stop")
    assert (answer.status_code, "Done site is not running" in Read(answer.text).text) == (200, True)
    assert "/services/site" in Read(answer.text).links


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


def test_fields_that_cannot_be_are_refused_and_nothing_is_asked(browser, world):
    wrong = (
        {"reason": "x" * 201},
        {"hard": "maybe"},
        {"colour": "red"},
        {"sure": "true"},
        {"reason": "two\nlines"},
        {"user": "bob"},
    )
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


def test_what_is_done_at_once_is_told_in_words_with_the_way_back(browser, world):
    for action, command in (("enable", messages.Enable("site")), ("disable", messages.Disable("site"))):
        answer = browser.post(f"/services/site/{action}", {"reason": "new build"})
        assert (answer.status_code, f"site is {action}d" in Read(answer.text).text) == (200, True)
        assert "/services/site" in Read(answer.text).links
        asked = next(one for one in world.supervisor.asked if one.command == command)
        assert asked.reason == "new build"
    world.answers[messages.Enable] = messages.Refused("failed", "site was not enabled: no space left")
    answer = browser.post("/services/site/enable")
    assert (answer.status_code, "no space left" in Read(answer.text).text) == (500, True)


def test_only_signals_that_its_configuration_allows_can_be_chosen(browser, rights, world):
    read = browser.read("/services/site/signal")
    assert [one["value"] for one in read.of("option")] == ["", "HUP", "KILL"]
    assert "required" in read.of("select", name="signal")[0]
    assert "KILL: ends it at once" in read.text
    assert "required" in read.of("input", name="reason")[0]
    for wrong in ("RTMIN", "9", "", "hup"):
        answer = browser.post("/services/site/signal", {"signal": wrong})
        assert (answer.status_code, "signal must be one of HUP" in Read(answer.text).text) == (400, True)
    assert changes(world) == []


def test_how_many_processes_are_asked_for_as_the_configuration_allows(browser, rights, world):
    (field,) = browser.read("/services/site/scale").of("input", name="processes")
    assert (field["type"], field["min"], field["max"], field["value"]) == ("number", "1", "4", "2")
    for wrong in ("0", "1025", "", "two", "1.5"):
        answer = browser.post("/services/site/scale", {"processes": wrong})
        assert (answer.status_code, "processes must be a whole number" in Read(answer.text).text) == (400, True), wrong
    assert changes(world) == []
    world.answers[messages.Scale] = messages.Refused("invalid", "site may have 4 processes at most")
    answer = browser.post("/services/site/scale", {"processes": "9"})
    read = Read(answer.text)
    assert (answer.status_code, "4 processes at most" in read.text) == (400, True)
    assert read.fields["processes"] == "9", "what was typed is kept"


@pytest.mark.parametrize(
    ("action", "fields", "words", "command"),
    [
        ("signal", {"signal": "KILL"}, "Send KILL to site? KILL ends it at once", messages.Signal("site", "KILL")),
        ("signal", {"signal": "STOP"}, "STOP halts it until CONT. Now", messages.Signal("site", "STOP")),
        ("scale", {"processes": "1"}, "1 process? 2 are running: 1 of them will be stopped", messages.Scale("site", 1)),
    ],
)
def test_what_takes_processes_down_is_asked_once_more(browser, rights, world, action, fields, words, command):
    answer = browser.post(f"/services/site/{action}", {"reason": "it hangs", **fields})
    read = Read(answer.text)
    assert (answer.status_code, words in read.text, changes(world)) == (200, True, [])
    assert "Why: it hangs" in read.text
    assert "/services/site" in read.links
    assert read.of("form", method="post", action=f"/services/site/{action}")
    sent = {name: value for name, value in read.fields.items() if name}
    assert sent.keys() == {"proof", "reason", "sure", *fields}
    assert browser.post(f"/services/site/{action}", sent).headers["Location"] == "/operations/7"
    asked = world.supervisor.asked[-1]
    assert (asked.command, asked.reason) == (command, "it hangs")


def test_nothing_is_asked_once_more_without_a_proof_or_of_who_may_not_or_says_no_reason(browser, rights, world):
    kill = {"signal": "KILL"}
    answer = browser.post("/services/site/signal", {"proof": "", **kill})
    assert (answer.status_code, "another login" in answer.text, changes(world)) == (403, True, [])
    world.answers[messages.Signal] = messages.Refused("forbidden", "denied: say why, by --reason")
    answer = browser.post("/services/site/signal", kill)
    assert (answer.status_code, "Say why" in Read(answer.text).text) == (403, True)
    assert "selected" in Read(answer.text).of("option", value="KILL")[0]
    world.answers[messages.WhatMayI] = msgspec.structs.replace(RIGHTS, rights=[])
    world.answers[messages.Signal] = messages.Refused("forbidden", "denied: no rule", would_help=["other"])
    answer = browser.post("/services/site/signal", {"reason": "x", **kill})
    assert (answer.status_code, "this would allow it: other" in Read(answer.text).text) == (403, True)


def test_what_does_not_take_processes_down_is_done_as_it_is_asked(browser, rights, world):
    for action, fields in (("signal", {"signal": "HUP"}), ("scale", {"processes": "2"}), ("scale", {"processes": "3"})):
        assert browser.post(f"/services/site/{action}", {"reason": "x", **fields}).status_code == 303
    still = msgspec.structs.replace(world.site, processes=[messages.ProcessInfo("site:0", "STOPPED", 0, "")])
    world.answers[messages.Describe] = messages.Description(still, SETTINGS, [], [])
    assert browser.post("/services/site/scale", {"processes": "1"}).status_code == 303


def test_each_of_them_waits_for_whom_the_policy_wants(browser, rights, world):
    assert "You may, once group:leads approves" in browser.read("/services/site/scale").text
    for action, kind, fields in (
        ("signal", messages.Signal, {"signal": "HUP"}), ("scale", messages.Scale, {"processes": "3"}),
        ("enable", messages.Enable, {}), ("disable", messages.Disable, {}),
    ):  # fmt: skip
        world.answers[kind] = messages.Waits(3, "it waits")
        answer = browser.post(f"/services/site/{action}", {"reason": "x", **fields})
        assert answer.headers["Location"] == "/approvals/3", action


def test_who_may_not_is_told_which_rule_is_missing_by_the_name_of_the_right(browser, rights, world):
    world.answers[messages.WhatMayI] = lambda command: (
        messages.Decided(False, f"denied: no rule lets you {command.action}")
        if command.action
        else msgspec.structs.replace(RIGHTS, rights=[])
    )
    for action, right in (("signal", "signal"), ("scale", "scale"), ("enable", "enable"), ("disable", "enable")):
        read = browser.read(f"/services/site/{action}")
        assert f"no rule lets you {right}" in read.text
        assert not read.of("form", action=f"/services/site/{action}") + read.of("select")


def test_an_answer_of_another_kind_is_an_error(browser, world):
    world.answers[messages.Enable] = messages.Approvals([])
    assert browser.post("/services/site/enable").status_code == 500
