"""What happens, as events."""

from __future__ import annotations

from policy import messages


def test_events_are_told_until_the_supervisor_ends(http, world):
    world.answers[messages.Watch] = [
        messages.Changed(number=9, time=world.now, service="site", process="site:0", state="RUNNING", pid=4),
        messages.Dropped(text="too slow"),
    ]
    answer = http.get("/api/v1/events?service=site")
    assert answer.mimetype == "text/event-stream"
    assert "event: changed\nid: 9\ndata: {" in answer.text
    assert "event: dropped\ndata: {" in answer.text
    assert world.commands() == [messages.Watch(service="site")]


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
