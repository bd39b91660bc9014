"""Answers that last."""

from __future__ import annotations

import pytest

from policy import messages
from userapi.client import Refusal
from userapi.http import streams
from userapi.http.problems import Problem
from userapi.http.streams import Permits, Shares, Span, as_events, begun, spelled, streamed


def step(number: int) -> messages.Step:
    return messages.Step(number=number, time="t", operation=7, service="site", text="a\nb")


def test_one_more_than_there_are_permits_is_refused_and_a_given_one_can_be_taken():
    permits = Permits(1, "streams")
    with permits.one():
        with pytest.raises(Problem, match="too many streams") as problem:
            permits.take()
        assert (problem.value.status, problem.value.retry_after) == (503, 5)
    permits.take()


def test_a_session_holds_only_so_many_and_others_still_find_some():
    shares = Shares(20, 8, "streams")
    held = [shares.take("alice") for _ in range(8)]
    with pytest.raises(Problem, match="a session may have 8 streams at once") as problem:
        shares.take("alice")
    assert (problem.value.kind, problem.value.status, problem.value.retry_after) == ("later", 429, 5)
    with shares.one("bob"):
        held.pop()()
        held.append(shares.take("alice"))
    for give in held:
        give()
    assert not shares._held, "who holds nothing is forgotten"


def test_where_there_are_few_a_session_holds_no_more_than_half_and_everybody_no_more_than_there_are():
    shares = Shares(3, 8, "streams")
    for session in ("alice", "alice", "bob"):
        shares.take(session)
    with pytest.raises(Problem, match="may have 2 streams"):
        shares.take("alice")
    with pytest.raises(Problem, match="too many streams at once") as problem:
        shares.take("carol")
    assert problem.value.status == 503
    with pytest.raises(Problem), shares.one("carol"):
        pytest.fail("there is none")
    assert len(shares._held) == 2, "who was refused holds nothing"


def test_a_session_that_follows_too_much_is_told_so(app, http, world):
    streams = app.extensions["durward"].streams
    held = [streams.take(world.token) for _ in range(2)]  # three in all
    answer = http.get("/api/v1/events")
    assert (answer.status_code, answer.json["kind"], answer.headers["Retry-After"]) == (429, "later", "5")
    assert http.get("/api/v1/services/site/logs?follow=true").status_code == 429
    held.pop()()
    assert http.get("/api/v1/events").status_code == 200


def test_an_event_is_one_block_whatever_its_text():
    block = spelled(step(3))
    assert block.startswith(b"event: step\nid: 3\ndata: {")
    assert block.count(b"\n") == 4


def test_that_a_watch_has_begun_is_a_number_that_is_remembered_and_no_event():
    assert spelled(messages.Watching(41)) == b"id: 41\n\n"
    assert spelled(messages.Missed(41, "x")).startswith(b"event: missed\nid: 41\ndata: {")
    assert b"id: 41\n" in spelled(messages.Dropped("x", 41)), "from there it is asked for again"


def test_a_stream_ends_with_its_span_and_when_nobody_reads():
    assert list(as_events(iter([None, None]), Span({}, seconds=0)))[1:] == []
    assert Span({"durward.gone": lambda: True}).over()
    extended = []
    Span({"durward.extend": extended.append}, seconds=10)
    assert extended == [40]
    Span({"durward.extend": extended.append}, stream=False)
    assert extended == [40], "an answer that is waited for is read like any other"


def test_silence_is_broken_by_comments_only_now_and_then(monkeypatch):
    assert list(as_events([None, None], Span({}))) == [b": durward\n\n"]
    monkeypatch.setattr(streams, "COMMENT", 0.0)
    assert list(as_events([None], Span({})))[1:] == [b": still here\n\n"]


def test_a_refusal_in_the_middle_is_the_last_event():
    def events():
        yield step(1)
        raise Refusal(messages.Refused(kind="no-session", text="the session has ended"))

    told = list(as_events(events(), Span({})))
    assert told[-1].startswith(b"event: refused\ndata: {")
    assert b"the session has ended" in told[-1]


def test_a_refusal_at_once_is_raised():
    def events():
        raise Refusal(messages.Refused(kind="forbidden", text="no"))
        yield

    with pytest.raises(Refusal):
        begun(events())


def test_a_stream_gives_its_permit_back_before_its_end_is_sent_and_only_once():
    shares = Shares(3, 8, "streams")
    give = shares.take("alice")
    answer = streamed(iter([b"one", b"two"]), give, "text/plain", {})
    body = iter(answer.response)
    assert [next(body), next(body)] == [b"one", b"two"]
    assert shares._held.total() == 1
    assert next(body, None) is None
    assert not shares._held, "given back when there is no more, before the server says so"
    other = shares.take("alice")
    answer.close()
    give()
    assert shares._held.total() == 1, "and what another stream holds stays its own"
    other()


def test_a_stream_that_nobody_reads_to_its_end_gives_its_permit_back_too():
    shares = Shares(1, 8, "streams")
    for read in (0, 1):
        answer = streamed(iter([b"one", b"two"]), shares.take("alice"), "text/plain", {})
        for _ in range(read):
            next(iter(answer.response))
        answer.close()
        assert not shares._held


def test_a_stream_gives_its_permit_back_at_its_end(app, http, world):
    for _ in range(30):
        answer = http.get("/api/v1/events")
        assert answer.status_code == 200
        answer.close()


def test_what_is_refused_first_has_cost_no_place_and_who_has_his_share_is_not_asked_about():
    shares, done = Shares(2, 1, "streams"), []

    def refused():
        assert not shares._held
        raise Refusal(messages.Refused(kind="no-session", text="no"))

    with pytest.raises(Refusal):
        shares.after("made-up", refused)
    made, give = shares.after("alice", lambda: "watch", lambda: done.append("undone"))
    assert (made, shares._held.total(), done) == ("watch", 1, [])
    with pytest.raises(Problem, match="a session may have 1 streams"):
        shares.after("alice", refused)
    shares.take("bob")
    with pytest.raises(Problem, match="too many streams"):
        shares.after("carol", lambda: "watch", lambda: done.append("undone"))
    assert done == ["undone"], "what had begun ends"
    give()


MADE_UP = [
    "events", "operations/7", "operations/7?wait=true", "services/site/logs", "services/site/logs?follow=true", "audit",
    "audit?follow=true",
]  # fmt: skip


@pytest.mark.parametrize("path", MADE_UP)
def test_a_made_up_id_takes_no_place_from_anybody(app, http, world, monkeypatch, path):
    world.live.clear()
    taken = []
    monkeypatch.setattr(Shares, "take", lambda *_: taken.append(path) or (lambda: None))
    assert http.get(f"/api/v1/{path}").status_code == 401
    answer = http.get(f"/api/v1/{path}", headers={"Accept": "text/event-stream"})
    assert answer.status_code == 401
    assert taken == []
