"""How an operation goes."""

from __future__ import annotations

import pytest

from policy import messages


def test_with_wait_the_outcome_is_told(http, world):
    told = http.post("/api/v1/services/site/restart?wait=true").json
    assert told == {
        "operation": 7,
        "done": True,
        "service": "site",
        "ok": True,
        "text": "site restarted",
        "seconds": 0.42,
        "steps": [
            {"time": world.now, "service": "site", "text": "starting"},
            {"time": world.now, "service": "site", "text": "ready"},
        ],
        "problems": [],
    }
    assert world.commands() == [messages.Restart(service="site"), messages.Watch(operation=7)]


def test_a_failed_operation_is_a_result_with_its_problems(http, world):
    problem = messages.Problem(file="site.toml", line=3, key="service.site.user", text="no such user")
    world.answers[messages.Watch] = messages.Ended(
        number=1,
        time=world.now,
        operation=7,
        service="",
        ok=False,
        text="nothing changed",
        seconds=0.1,
        problems=[problem],
    )
    answer = http.post("/api/v1/reload?wait=true")
    assert answer.status_code == 200
    assert answer.json["ok"] is False
    assert answer.json["problems"][0]["line"] == 3


def test_what_a_dry_run_has_shown_has_a_mark_and_nothing_else_has_one(http, world):
    world.answers[messages.Watch] = messages.Ended(
        number=3, time=world.now, operation=7, service="", ok=True, text="would change: added: db", seconds=0.1,
        mark="0a" * 16,
    )  # fmt: skip
    told = http.post("/api/v1/reload?wait=true", json={"dry_run": True}).json
    assert (told["text"], told["mark"]) == ("would change: added: db", "0a" * 16)


def test_an_operation_that_goes_on_is_told_as_far_as_it_is(http, world):
    world.answers[messages.Watch] = [world.answers[messages.Watch][0], world.open]
    told = http.get("/api/v1/operations/7").json
    assert (told["done"], len(told["steps"])) == (False, 1)


def test_operations_are_one_object(http, world):
    told = http.get("/api/v1/operations?service=site&all=true").json
    assert [one["number"] for one in told["operations"]] == [6, 7]
    assert set(told["operations"][0]) == {
        "number", "kind", "service", "user", "joined", "since", "step", "ok", "text", "seconds",
    }  # fmt: skip
    assert world.commands() == [messages.ListOperations(service="site", ended=True)]


def test_an_operation_can_be_followed_as_events(http):
    answer = http.get("/api/v1/operations/7", headers={"Accept": "text/event-stream"})
    assert answer.mimetype == "text/event-stream"
    assert [line for line in answer.text.split("\n") if line.startswith("event")] == [
        "event: step",
        "event: step",
        "event: ended",
    ]


def test_an_operation_is_followed_on_after_the_step_that_was_seen(http, world):
    stream = http.get("/api/v1/operations/7", headers={"Accept": "text/event-stream", "Last-Event-ID": "2"})
    assert stream.text.count("event: ") == 3
    http.get("/api/v1/operations/7?after=1&wait=true")
    assert world.commands() == [messages.Watch(operation=7, after=2), messages.Watch(operation=7, after=1)]


@pytest.mark.parametrize("number", ["999999999999999999999999", "-1", "x"])
def test_a_number_that_cannot_be_is_unknown(http, number):
    assert http.get(f"/api/v1/operations/{number}").status_code == 404


def test_a_wait_outlives_the_supervisor_and_tells_each_step_once(http, world):
    first, second, end = world.answers[messages.Watch]
    told = iter([[first, world.die], [world.die], [second, end]])
    world.answers[messages.Watch] = lambda _: next(told)
    answer = http.post("/api/v1/services/site/restart?wait=true").json
    assert (answer["done"], answer["ok"], [step["text"] for step in answer["steps"]]) == (
        True, True, ["starting", "ready"]
    )  # fmt: skip
    assert world.commands()[1:] == [messages.Watch(operation=7, after=after) for after in (0, 1, 1)]


def test_where_the_next_supervisor_knows_nothing_of_it_a_wait_ends_without_an_outcome(http, world):
    told = iter([[world.answers[messages.Watch][0], world.die], messages.Refused(kind="unknown", text="no operation")])
    world.answers[messages.Watch] = lambda _: next(told)
    answer = http.get("/api/v1/operations/7?wait=true")
    assert (answer.status_code, answer.json["done"], len(answer.json["steps"])) == (200, False, 1)
    told = iter([[world.die], messages.Refused(kind="no-session", text="log in first")])
    assert http.get("/api/v1/operations/7?wait=true").status_code == 401


def test_an_operation_that_may_not_be_seen_is_refused_before_the_stream_begins(app, http, world):
    world.answers[messages.Watch] = messages.Refused(kind="unknown", text="no such operation")
    for _ in range(10):  # and gives its permit back each time
        assert http.get("/api/v1/operations/7", headers={"Accept": "text/event-stream"}).status_code == 404
        assert http.get("/api/v1/operations/7?wait=true").status_code == 404


def test_wait_must_be_true_or_false(http, world):
    assert http.post("/api/v1/services/site/stop?wait=maybe").status_code == 400
    assert world.commands() == [], "nothing is begun"


def test_a_wait_finds_its_place_however_many_follow(app, http):
    streams = app.extensions["durward"].streams
    for other in ("one", "another", "a third"):
        streams.take(other)
    assert http.get("/api/v1/events").status_code == 503
    assert http.post("/api/v1/services/site/restart?wait=true").json["ok"] is True
    assert http.get("/api/v1/operations/7?wait=true").json["done"] is True
    assert http.get("/api/v1/operations/7", headers={"Accept": "text/event-stream"}).status_code == 200


def test_a_wait_beyond_the_sessions_number_is_refused_before_anything_is_begun(app, http, world):
    give = app.extensions["durward"].waits.take(world.token)
    for answer in (http.post("/api/v1/services/site/restart?wait=true"), http.get("/api/v1/operations/7?wait=true")):
        assert (answer.status_code, answer.json["kind"], answer.headers["Retry-After"]) == (429, "later", "5")
    assert world.commands() == []
    assert http.post("/api/v1/services/site/restart").status_code == 202, "who does not wait needs no place"
    give()
    assert http.post("/api/v1/services/site/restart?wait=true").status_code == 200


def test_an_operation_is_cancelled_and_that_is_done_at_once(http, world):
    answer = http.post("/api/v1/operations/7/cancel")
    assert (answer.status_code, answer.json) == (200, {"text": "operation 7 is cancelled"})
    assert world.commands() == [messages.Cancel(operation=7)]


def test_what_cannot_be_cancelled_is_a_problem_and_a_number_that_cannot_be_is_not_there(http, world):
    world.answers[messages.Cancel] = messages.Refused(kind="conflict", text="site is starting already")
    answer = http.post("/api/v1/operations/7/cancel", json={})
    assert (answer.status_code, answer.json["detail"]) == (409, "site is starting already")
    assert http.post(f"/api/v1/operations/{1 << 53}/cancel").status_code == 404
    assert http.post("/api/v1/operations/7/cancel", json={"x": 1}).status_code == 400
    assert world.commands() == [messages.Cancel(operation=7)]
