"""/healthz."""

from __future__ import annotations

from policy import messages
from userapi.http.health import Health


def test_it_is_public_and_tells_nothing_else(app):
    answer = app.test_client().get("/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_it_is_503_when_the_supervisor_does_not_answer(app, world):
    world.supervisor.script = lambda _: world.die
    assert app.test_client().get("/healthz").status_code == 503


def test_it_tells_that_the_audit_log_cannot_be_written_and_is_no_error_then(app, world):
    world.supervisor.script = lambda _: messages.Refused("no-session", "log in first", trouble=True)
    answer = app.test_client().get("/healthz")
    told = {"status": "trouble", "trouble": "the audit log cannot be written"}
    assert (answer.status_code, answer.json) == (200, told)


def test_the_supervisor_is_not_asked_each_time(app, world):
    client = app.test_client()
    for _ in range(50):
        client.get("/healthz")
    assert len(world.supervisor.asked) <= 2


def test_an_answer_holds_for_a_while(monkeypatch):
    asked = []
    health = Health(lambda: asked.append(1) or "ok")
    assert health.now() == "ok"
    assert health.now() == "ok"
    assert len(asked) == 1
    monkeypatch.setattr("userapi.http.health.KEEP", 0.0)
    health._until = 0.0
    health.now()
    health.now()
    assert len(asked) == 3
