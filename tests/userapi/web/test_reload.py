"""Reading the configuration again: what would change is seen first, and that alone is taken."""

from __future__ import annotations

import msgspec
import pytest
from browsing import Read

from policy import messages

MARK = "0a" * 16
TYPED = "__Secure-durward-typed"
RIGHTS = messages.Rights(
    "alice", 1001, ["webops"], "later", [messages.Right("", ["reload"], {"reload": "with a reason"})]
)
INFO = messages.OperationInfo(7, "reload", "", "alice", 0, "t", "", True, "would change", 0.1)
OLD = "nothing was changed: since it was shown the configuration, or the supervisor, has become another one. Now: "


@pytest.fixture
def rights(world):
    world.answers[messages.WhatMayI] = RIGHTS
    world.answers[messages.ListOperations] = messages.Listed([INFO])


def ended(world, text: str, mark: str = "", ok: bool = True) -> None:
    world.answers[messages.Watch] = [messages.Ended(3, world.now, 7, "", ok, text, 0.1, [], mark)]


def reloads(world) -> list[messages.Command]:
    return [one for one in world.commands() if isinstance(one, messages.Reload)]


def test_what_would_change_is_looked_at_first(browser, rights, world):
    browser.client.set_cookie(TYPED, "new%20site", path="/reload")
    read = browser.read("/reload")
    assert "You may, with a reason; to look at it too." in read.text
    assert ("required" in read.of("input", name="reason")[0], read.fields["reason"]) == (True, "new site")
    assert [one["action"] for one in read.of("form")] == ["/logout", "/reload/look"], "nothing that takes it unseen"
    answer = browser.post("/reload/look", {"reason": "new site"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/operations/7")
    assert f"{TYPED}=new%20site; " in answer.headers["Set-Cookie"]
    assert "Path=/operations/7" in answer.headers["Set-Cookie"], "what was typed is why it will be taken, too"
    world.answers[messages.Watch] = [messages.Step(1, world.now, 7, "", "reading"), world.open]
    waits = browser.get("/operations/7")
    assert Read(waits.text).of("meta", **{"http-equiv": "refresh"})[0]["content"] == "2; url=/operations/7"
    assert "Set-Cookie" not in waits.headers, "it is kept until there is a form for it"
    assert (world.supervisor.asked[1].command, world.supervisor.asked[1].reason) == (
        messages.Reload(dry_run=True), "new site"
    )  # fmt: skip


def test_it_is_shown_change_by_change_with_the_form_that_takes_exactly_that(browser, rights, world):
    ended(world, "would change: added: jobs; changed: site (command); policy: changed", MARK)
    browser.client.set_cookie(TYPED, "new%20site", path="/operations/7")
    read = browser.read("/operations/7")
    assert "What a reload would change added: jobs changed: site (command) policy: changed" in read.text
    assert "reload the configuration" in read.text
    assert read.of("form", method="post", action="/operations/7/reload")
    assert (read.fields["shown"], read.fields["reason"]) == (MARK, "new site")
    assert "required" in read.of("input", name="reason")[0]
    answer = browser.post("/operations/7/reload", {"shown": MARK, "reason": "new site"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/operations/7")
    assert (world.supervisor.asked[-1].command, world.supervisor.asked[-1].reason) == (
        messages.Reload(shown=MARK), "new site"
    )  # fmt: skip


def test_what_has_changed_meanwhile_is_said_and_shown_and_can_be_taken_in_its_turn(browser, rights, world):
    ended(world, f"{OLD}would change: removed: site", MARK, ok=False)
    read = browser.read("/operations/7")
    assert "Nothing was changed: since it was shown the configuration, or" in read.text
    assert "What a reload would change" in read.text
    assert "would change removed: site" in read.text
    assert read.fields["shown"] == MARK
    ended(world, f"{OLD}no change", ok=False)
    read = browser.read("/operations/7")
    assert (
        "since it was shown the configuration, or the supervisor, has become another one. Now: no change" in read.text
    )
    assert "/reload" in read.links
    assert not read.of("form", action="/operations/7/reload")


def test_only_a_reload_that_has_shown_something_offers_it_and_only_to_who_may(browser, rights, world):
    for text in ("no change", "reloaded: added: jobs", "would change: added: jobs"):
        ended(world, text)
        read = browser.read("/operations/7")
        assert text in read.text
        assert not read.of("form", action="/operations/7/reload")
    ended(world, "would change: added: jobs", MARK)
    world.answers[messages.WhatMayI] = msgspec.structs.replace(RIGHTS, rights=[messages.Right("", ["shutdown"])])
    read = browser.read("/operations/7")
    assert ("added: jobs" in read.text, read.of("form", action="/operations/7/reload")) == (True, [])


def test_nothing_is_taken_unseen(browser, rights, world):
    for fields in ({}, {"shown": ""}, {"shown": "all"}, {"shown": MARK[1:]}, {"shown": MARK, "dry_run": "false"}):
        assert browser.post("/operations/7/reload", {"reason": "x", **fields}).status_code == 400, fields
    for path in ("/reload", "/reload/look", "/operations/7/reload"):
        method = browser.post if path == "/reload" else browser.get
        assert method(path).status_code in (405, 415)
    assert reloads(world) == []


def test_a_reason_that_is_missing_is_asked_for_in_words_of_the_page(browser, rights, world):
    world.answers[messages.Reload] = messages.Refused("forbidden", "denied: with a reason only: say why, by --reason")
    ended(world, "would change: added: jobs", MARK)
    for path, fields in (("/reload/look", {}), ("/operations/7/reload", {"shown": MARK})):
        answer = browser.post(path, fields)
        read = Read(answer.text)
        assert (answer.status_code, "Say why" in read.text, "--reason" in read.text) == (403, True, False)
        assert read.of("form", action=path), "to be sent again"


def test_a_refusal_says_which_rule_is_missing_and_keeps_what_was_typed(browser, rights, world):
    world.answers[messages.Reload] = messages.Refused("conflict", "a reload is under way: operation 6")
    ended(world, "would change: added: jobs", MARK)
    for path, fields in (("/reload/look", {}), ("/operations/7/reload", {"shown": MARK})):
        answer = browser.post(path, {"reason": "new site", **fields})
        assert (answer.status_code, "a reload is under way" in Read(answer.text).text) == (409, True)
        assert Read(answer.text).fields["reason"] == "new site"
    world.answers[messages.WhatMayI] = lambda command: (
        messages.Decided(False, "denied: the rule 'ops' would")
        if command.action
        else msgspec.structs.replace(RIGHTS, rights=[])
    )
    read = browser.read("/reload")
    assert ("the rule 'ops' would" in read.text, read.of("form", action="/reload/look")) == (True, [])
    assert world.commands()[-1] == messages.WhatMayI("reload")


def test_what_must_be_approved_first_leads_to_what_waits(browser, rights, world):
    world.answers[messages.Reload] = messages.Waits(3, "reload waits")
    for path, fields in (("/reload/look", {}), ("/operations/7/reload", {"shown": MARK})):
        assert browser.post(path, fields).headers["Location"] == "/approvals/3"
