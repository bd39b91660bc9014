"""What waits for a second person."""

from __future__ import annotations

import msgspec
import pytest
from browsing import Read

from policy import messages
from userapi.web.approvals import seal

INFO = messages.ApprovalInfo(
    3, "bob", "stop site", "disk <full>", "group:leads", "2026-01-01T00:00:00Z", "then", rule="two"
)
MINE = msgspec.structs.replace(INFO, number=4, user="alice", yours=True)


@pytest.fixture
def waiting(browser, world):
    world.answers[messages.ListApprovals] = messages.Approvals([INFO, MINE])


def test_what_others_ask_for_and_what_is_ones_own_are_apart_with_what_became_of_the_latter(browser, waiting):
    read = browser.read("/approvals")
    others, mine = read.text.split("What you have asked for", 1)
    assert "stop site for bob" in others
    assert "disk <full>" in others
    assert "Until then , by group:leads" in others
    assert "/approvals/4" in read.links
    assert "restart site" in mine
    assert "alice and 2 more" in mine
    assert "start db" not in mine, "that is nobody's"


def test_before_it_is_agreed_to_all_of_it_is_shown(browser, waiting):
    read = browser.read("/approvals/3")
    for words in ("Who asked bob", "stop site , in the name of bob", "disk <full>", "By which rule two", "group:leads"):
        assert words in read.text
    assert read.of("form", method="post", action="/approvals/3/approve")
    own = browser.read("/approvals/4")
    assert own.of("form", method="post", action="/approvals/4/withdraw")
    assert not own.of("form", action="/approvals/4/approve")


def test_who_is_to_approve_a_reload_sees_what_it_would_change(browser, world):
    would = msgspec.structs.replace(INFO, text="reload", changes="would change: added: <db>; policy: changed")
    world.answers[messages.ListApprovals] = messages.Approvals([would])
    assert "added: <db>; policy: changed" in browser.read("/approvals").text
    read = browser.read("/approvals/3")
    assert "What it would change added: <db> policy: changed" in read.text
    assert read.of("form", action="/approvals/3/approve")
    assert messages.ListApprovals(changes=True) in world.commands()


def test_a_reload_that_would_change_nothing_any_more_is_not_to_be_approved(browser, world):
    stale = msgspec.structs.replace(INFO, text="reload", stale="the files have become others")
    world.answers[messages.ListApprovals] = messages.Approvals(
        [stale, msgspec.structs.replace(stale, number=4, yours=True)]
    )
    assert "the files have become others" in browser.read("/approvals").text
    read, own = browser.read("/approvals/3"), browser.read("/approvals/4")
    assert "The files have become others. Tell bob to take it back and ask again." in read.text
    assert not read.of("form", action="/approvals/3/approve")
    assert "Take it back, and ask again." in own.text
    assert own.of("form", action="/approvals/4/withdraw")


def agree(browser, shown=INFO):
    return browser.post("/approvals/3/approve", {"reason": "seen", "shown": seal(shown)})


def test_what_is_agreed_to_is_what_was_shown_whatever_has_its_number_now(browser, waiting, world):
    assert browser.read("/approvals/3").fields["shown"] == seal(msgspec.structs.replace(INFO, yours=True))
    for other in ({"text": "stop db"}, {"user": "carol"}, {"reason": ""}, {"since": "now"}, {"rule": "three"}):
        answer = agree(browser, msgspec.structs.replace(INFO, **other))
        assert (answer.status_code, "not what you were shown" in answer.text) == (409, True)
    assert browser.post("/approvals/3/approve").status_code == 409
    assert not [one for one in world.commands() if isinstance(one, messages.Approve)]
    assert Read(answer.text).fields["shown"] == seal(INFO), "it is shown as it is now"
    world.answers[messages.ListApprovals] = messages.Approvals([])
    world.answers[messages.Approve] = messages.Refused("forbidden", "nothing of the number 3 waits")
    assert "nothing of the number 3 waits" in agree(browser).text


def test_who_cannot_be_told_what_was_not_done_can_approve_all_the_same(app, browser, waiting, world):
    world.answers[messages.Watch] = messages.Refused("later", "too many are watching: try again later")
    assert "cannot be told now: too many are watching" in browser.read("/approvals").text
    assert browser.read("/approvals/6").of("h1")
    world.answers[messages.Watch] = [messages.Watching(10), world.open]
    waits = app.extensions["durward"].waits
    given = [waits.take(browser.session) for _ in range(waits._each)]
    before = sum(isinstance(one, messages.Watch) for one in world.commands())
    assert "cannot be told now: a session may have" in browser.read("/approvals").text
    assert sum(isinstance(one, messages.Watch) for one in world.commands()) == before, "nothing without a permit"
    for give in given:
        give()


def test_to_agree_leads_to_what_has_begun_and_a_number_is_all_that_is_said(browser, waiting, world):
    world.answers[messages.Approve] = messages.Done("approved: bob's stop site has begun, as operation 7", 7)
    answer = agree(browser)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/operations/7")
    asked = next(one for one in world.supervisor.asked if isinstance(one.command, messages.Approve))
    assert (asked.command, asked.reason) == (messages.Approve(3), "seen")


def test_who_may_agree_and_not_view_is_told_that_it_has_begun(browser, waiting, world):
    world.answers[messages.Approve] = messages.Done("approved: bob's stop site has begun, as operation 99", 99)
    assert "has begun, as operation 99" in Read(agree(browser).text).text
    world.answers[messages.Approve] = messages.Done("approved: bob's enable site: it is enabled")
    assert agree(browser).headers["Location"] == "/approvals/3"


def test_what_may_not_be_agreed_to_says_why_and_keeps_what_was_typed(browser, waiting, world):
    world.answers[messages.Approve] = messages.Refused("conflict", "the session of bob is over: nothing was done")
    answer = agree(browser)
    assert answer.status_code == 409
    assert "the session of bob is over" in Read(answer.text).text
    assert Read(answer.text).fields["reason"] == "seen"


def test_one_takes_back_ones_own_and_it_is_said_what_became_of_it(browser, waiting, world):
    world.answers[messages.Withdraw] = messages.Done("approval 4 taken back by alice: stop site")
    assert browser.post("/approvals/4/withdraw").headers["Location"] == "/approvals/4"
    world.answers[messages.ListApprovals] = messages.Approvals([])
    world.answers[messages.Watch] = [
        messages.Lapsed(9, world.now, 5, "db", "another"),
        messages.Lapsed(10, world.now, 4, "site", "approval 4 taken back by alice: stop site"),
        messages.Watching(10),
        world.open,
    ]
    assert "approval 4 taken back by alice" in browser.read("/approvals/4").text
    assert browser.read("/approvals").text.index("taken back by alice") < browser.read("/approvals").text.index(
        "another"
    )
    assert "It waits no more" in browser.read("/approvals/6").text
    assert browser.get(f"/approvals/{1 << 53}").status_code == 404
    assert browser.post(f"/approvals/{1 << 53}/withdraw").status_code == 404


def test_who_waits_is_told_when_it_is_over_after_a_look_at_each_event(browser, waiting, world):
    read = browser.read("/approvals/4")
    assert "nothing runs before it is approved. Tell who may approve it (group:leads)" in read.text
    assert read.of("dl", **{"data-live": "/approvals/4/live"})
    found = iter((messages.Approvals([INFO, MINE]), messages.Approvals([INFO])))
    world.answers[messages.ListApprovals] = lambda command: next(found)
    world.answers[messages.Watch] = [
        messages.Watching(4),
        messages.Changed(5, world.now, "site", "site:0", "STOPPING", 41),
        world.open,
    ]
    answer = browser.get("/approvals/4/live")
    assert (answer.mimetype, answer.text) == (
        "text/event-stream", "retry: 500\n\n: durward\n\nevent: ended\ndata: {}\n\n"
    )  # fmt: skip


def test_one_that_waits_no_more_shows_what_was_begun_in_ones_own_name(browser, waiting):
    read = browser.read("/approvals/9")
    assert "It waits no more" in read.text
    assert "/operations/7" in read.links
    assert not read.of("script") + read.of("dl")


def test_who_looks_on_takes_a_permit_and_gives_it_back_whatever_is_refused(browser, app, waiting, world):
    world.answers[messages.Watch] = messages.Refused("later", "too much at once")
    for _ in range(9):
        assert browser.get("/approvals/4/live").status_code == 503
    give = app.extensions["durward"].waits.take(browser.session)
    assert browser.get("/approvals/4/live").status_code in (429, 503)
    give()


def test_what_was_not_done_says_that_it_is_everybodys(browser, waiting, world):
    world.answers[messages.Watch] = [messages.Lapsed(9, world.now, 5, "db", "another"), messages.Watching(9)]
    assert "What was not done Of what anybody has asked for on services that you may view." in (
        browser.read("/approvals").text
    )
