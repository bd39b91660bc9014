"""States as they change, and the static files."""

from __future__ import annotations

import json

import pytest

from policy import messages
from userapi.http.streams import Shares
from userapi.web import pages


def told(answer):
    blocks = [block.split("\n") for block in answer.text.split("\n\n") if block.startswith("event: rows")]
    return [json.loads(block[1].removeprefix("data: ")) for block in blocks]


def test_first_all_that_may_be_viewed_is_told_then_what_changes_made_harmless(browser, world):
    world.answers[messages.Watch] = [
        messages.Watching(4),
        messages.Step(5, world.now, 7, "site", "starting"),
        messages.Changed(6, world.now, "site", "site:0", "STOPPING", 41, "bye\u202e"),
        messages.Dropped("slow", 6),
    ]
    answer = browser.get("/live?service=site")
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
    whole, changed = told(answer)
    assert [row["process"] for row in whole["rows"]] == ["site:0", "site:1", "worker"]
    assert (whole["whole"], changed["whole"]) == (True, False)
    assert changed["rows"] == [
        {"process": "site:0", "state": "STOPPING", "pid": 41, "since": world.now, "said": "bye\\u202e"}
    ]
    assert [type(one) for one in world.commands()] == [messages.Watch, messages.Status]
    assert world.commands()[0].service == "site"


def test_what_may_not_be_viewed_is_a_problem_and_the_permit_is_given_back(browser, app, world):
    world.answers[messages.Watch] = messages.Refused("unknown", "no service 'db' that you may view")
    for _ in range(9):
        answer = browser.get("/live?service=db")
        assert (answer.status_code, answer.json["kind"]) == (404, "unknown")
    assert browser.get("/live?service=%3Cb%3E").status_code == 404


def test_only_so_many_are_told_at_once(browser, app):
    streams = app.extensions["durward"].streams
    given = [streams.take(browser.session) for _ in range(streams._each)]
    assert browser.get("/live").status_code == 429
    assert browser.get("/services/site").status_code == 200, "who may read no log needs none"
    for give in given:
        give()


@pytest.mark.parametrize("path", ["/live", "/operations/7/live", "/operations/7", "/approvals/3/live"])
def test_a_made_up_id_takes_no_place_from_anybody(browser, world, monkeypatch, path):
    world.live.clear()
    taken = []
    monkeypatch.setattr(Shares, "take", lambda *_: taken.append(path) or (lambda: None))
    assert browser.get(path).status_code in (303, 401)
    assert taken == []


def test_a_static_file_is_kept_for_ever_as_its_address_is_of_what_is_in_it(stranger):
    for name, address in pages.ADDRESSES.items():
        answer = stranger.get(address)
        assert (answer.status_code, answer.data) == (200, (pages.HERE / "static" / name).read_bytes())
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert stranger.get(pages.ADDRESSES["durward.js"]).mimetype == "text/javascript"
    for name in ("durward.css", "../pages.py", "..%2fpages.py", "durward.0000000000000000.css"):
        assert stranger.get(f"/static/{name}").status_code == 404
