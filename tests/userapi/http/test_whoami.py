"""Who am I, and why."""

from __future__ import annotations

import pytest

from policy import messages


def test_whoami_says_what_i_may_do(http, world):
    assert http.get("/api/v1/whoami").json == {
        "user": "alice",
        "uid": 1001,
        "groups": ["webops"],
        "expires": world.now,
        "rights": [{"service": "site", "actions": ["view", "restart"], "demands": {}}],
        "token": "",
    }


def test_why_answers_a_no_with_200(http, world):
    world.answers[messages.WhatMayI] = messages.Decided(allowed=False, text="no rule lets alice stop site")
    answer = http.get("/api/v1/why?action=stop&service=site")
    assert answer.status_code == 200
    assert answer.json["allowed"] is False
    assert world.commands() == [messages.WhatMayI(action="stop", service="site")]


@pytest.mark.parametrize("query", ["", "action=", "action=fly&service=site", "service=site"])
def test_why_needs_an_action_that_exists(http, world, query):
    assert http.get(f"/api/v1/why?{query}").status_code == 400
    assert world.commands() == []
