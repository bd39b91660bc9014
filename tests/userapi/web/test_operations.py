"""Operations: the list, one of them while it goes on and at its end, and taking one back."""

from __future__ import annotations

from browsing import Read

from policy import messages

UNDER_WAY = [messages.Step(1, "t", 7, "site", "starting"), None]


def test_the_list_says_who_what_and_how_it_ended_the_newest_first(browser):
    read = browser.read("/operations")
    assert read.text.index("restart site") < read.text.index("start db")
    assert "alice and 2 more" in read.text
    assert "start db failed: db was not started: no" in read.text, "the outcome first: what is behind is scrolled to"
    assert [link for link in read.links if link and link.startswith("/operations/")] == [
        "/operations/7",
        "/operations/6",
    ]


def test_one_that_is_under_way_asks_again_by_itself_and_can_be_taken_back(browser, world):
    world.answers[messages.Watch] = [messages.Step(1, world.now, 7, "site", "<b>starting"), world.open]
    read = browser.read("/operations/7")
    assert "site: <b>starting" in read.text
    assert read.of("meta", **{"http-equiv": "refresh"})[0]["content"] == "2; url=/operations/7"
    assert read.of("form", action="/operations/7/cancel", method="post")
    assert read.of("ol", **{"data-live": "/operations/7/live"})
    assert browser.post("/operations/7/cancel").headers["Location"] == "/operations/7"
    assert world.supervisor.asked[-1].command == messages.Cancel(7)


def test_one_that_has_ended_says_how_and_asks_no_more(browser, world):
    read = browser.read("/operations/7")
    assert "Done: site restarted (0.42 s)" in read.text
    assert not read.of("meta", **{"http-equiv": "refresh"}) + read.of("script")
    ended = messages.Ended(3, world.now, 7, "", False, "not taken", 1.0, [messages.Problem("a.toml", 3, "k", "wrong")])
    world.answers[messages.Watch] = [ended]
    text = browser.read("/operations/7").text
    assert "Failed: not taken" in text
    assert "a.toml:3: k: wrong" in text


def test_what_cannot_be_taken_back_says_why_on_its_page(browser, world):
    world.answers[messages.Cancel] = messages.Refused("conflict", "it is over")
    answer = browser.post("/operations/7/cancel")
    assert (answer.status_code, "it is over" in Read(answer.text).text) == (409, True)


def test_one_that_is_not_there_is_a_page_too(browser, world):
    world.answers[messages.Watch] = messages.Refused("unknown", "no operation 9 that you may view")
    for path in ("/operations/9", f"/operations/{1 << 53}"):
        answer = browser.get(path)
        assert (answer.status_code, answer.mimetype) == (404, "text/html")


def test_its_steps_are_told_as_they_come_made_harmless_until_its_end(browser, world):
    world.answers[messages.Watch] = [
        messages.Step(1, world.now, 7, "site", "ready\u202e"),
        messages.Ended(3, world.now, 7, "site", True, "site restarted", 0.42),
        world.open,
    ]
    answer = browser.get("/operations/7/live")
    assert answer.mimetype == "text/event-stream"
    assert answer.text == (
        "retry: 500\n\n: durward\n\n"
        "event: step\ndata: {\"text\":\"site: ready\\\\u202e\"}\n\nevent: ended\ndata: {}\n\n"
    )  # fmt: skip


def test_who_watches_takes_a_permit_and_gives_it_back(browser, app):
    waits = app.extensions["durward"].waits
    give = waits.take(browser.session)
    for path in ("/operations/7", "/operations/7/live"):
        assert browser.get(path).status_code in (429, 503)
    give()
    for _ in range(3):
        assert browser.get("/operations/7").status_code == 200
        browser.get("/operations/7/live").get_data()


def test_who_has_not_the_right_to_what_it_does_gets_no_button_that_takes_it_back(browser, world):
    world.answers[messages.Watch] = [messages.Step(1, world.now, 7, "site", "starting"), world.open]
    world.answers[messages.WhatMayI] = messages.Rights("a", 1, [], "", [messages.Right("site", ["view", "start"])])
    read = browser.read("/operations/7")
    assert "Under way." in read.text
    assert not read.of("form", action="/operations/7/cancel")
    world.answers[messages.WhatMayI] = messages.Rights("a", 1, [], "", [messages.Right("site", ["restart"])])
    assert browser.read("/operations/7").of("form", action="/operations/7/cancel")
    world.answers[messages.Cancel] = messages.Refused(
        "forbidden", "denied: no rule lets you restart site", would_help=["other"]
    )
    answer = browser.post("/operations/7/cancel")
    assert (answer.status_code, "this would allow it: other" in Read(answer.text).text) == (403, True)
