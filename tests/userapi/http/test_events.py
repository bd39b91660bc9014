"""What happens, as events."""

from __future__ import annotations

import pytest

from policy import messages


def test_events_are_told_until_the_supervisor_ends(http, world):
    world.answers[messages.Watch] = [
        messages.Changed(number=9, time=world.now, service="site", process="site:0", state="RUNNING", pid=4),
        messages.Dropped(text="too slow", number=9),
    ]
    answer = http.get("/api/v1/events?service=site")
    assert answer.mimetype == "text/event-stream"
    assert "event: changed\nid: 9\ndata: {" in answer.text
    assert "event: dropped\nid: 9\ndata: {" in answer.text
    assert world.commands() == [messages.Watch(service="site")]


@pytest.mark.parametrize(
    ("address", "header", "after"),
    [
        ("?after=41", None, 41),
        ("", "41", 41),
        ("?after=7", "41", 41),  # the address is that of the first time
        ("?after=7", "", 7),
        ("?after=0", None, 0),
        ("?after=9007199254740991", None, 9007199254740991),
    ],
)
def test_who_has_seen_events_is_told_what_came_after_them(http, world, address, header, after):
    world.answers[messages.Watch] = [messages.Missed(50, "not kept"), messages.Watching(52), world.die]
    headers = {} if header is None else {"Last-Event-ID": header}
    answer = http.get(f"/api/v1/events{address}", headers=headers)
    assert world.commands() == [messages.Watch(after=after)]
    assert answer.text.endswith(
        'event: missed\nid: 50\ndata: {"is":"missed","number":50,"text":"not kept"}\n\nid: 52\n\n'
    )


@pytest.mark.parametrize("wrong", ["x", "-1", "1.5", "+1", "0x1", "²", "9007199254740992", "1" * 5000])
@pytest.mark.parametrize("way", ["after", "Last-Event-ID"])
@pytest.mark.parametrize("address", ["/api/v1/events", "/api/v1/operations/7"])
def test_what_can_be_no_number_of_an_event_is_a_problem_that_says_what_to_do(http, world, wrong, way, address):
    if way == "after":
        answer = http.get(address, query_string={"after": wrong})
    else:
        answer = http.get(address, headers={"Last-Event-ID": wrong})
    assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
    assert answer.json["detail"] == (
        f"{way} must be the number of the last event that you have seen, as it is in its id: line and in its"
        ' "number"; without it you are told what happens from now on'
    )
    assert world.commands() == []


def test_an_empty_number_in_the_address_is_none(http):
    assert http.get("/api/v1/events?after=").status_code == 400


def test_a_refused_watch_is_a_problem(http, world):
    world.answers[messages.Watch] = messages.Refused(kind="forbidden", text="no")
    assert http.get("/api/v1/events").status_code == 403


def test_the_last_streams_are_refused_so_that_commands_have_threads(app, http):
    permits = app.extensions["durward"].streams
    for other in ("one", "another", "a third"):  # 20 threads, 16 kept, and one for a wait
        permits.take(other)
    answer = http.get("/api/v1/events")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert http.get("/api/v1/services").status_code == 200
