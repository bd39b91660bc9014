"""/healthz."""

from __future__ import annotations

from userapi.http.health import Health


def test_it_is_public_and_tells_nothing_else(app):
    answer = app.test_client().get("/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_it_is_503_when_the_supervisor_does_not_answer(app, world):
    world.supervisor.script = lambda _: world.die
    assert app.test_client().get("/healthz").status_code == 503


def test_the_supervisor_is_not_asked_each_time(app, world):
    client = app.test_client()
    for _ in range(50):
        client.get("/healthz")
    assert len(world.supervisor.asked) <= 2


def test_an_answer_holds_for_a_while(monkeypatch):
    asked = []
    health = Health(lambda: asked.append(1) is None)
    assert health.good()
    assert health.good()
    assert len(asked) == 1
    monkeypatch.setattr("userapi.http.health.KEEP", 0.0)
    health._until = 0.0
    health.good()
    health.good()
    assert len(asked) == 3
