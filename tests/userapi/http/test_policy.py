"""The policy over HTTP."""

from __future__ import annotations

import os

from policy import messages, source

SOURCE = source.Source([source.policy_file("policy.d/10.toml", "# nothing\n" * 9_999)], {"site": ["web"]}, [])


def given(world, content):
    def opened(command):
        descriptor = os.memfd_create("policy")
        os.write(descriptor, content)
        return (messages.LogOpened("", "policy.json", "policy", len(content)), descriptor)

    world.answers[messages.ReadPolicy] = opened


def test_it_comes_whole_however_long_it_is(http, world):
    content = source.encode(SOURCE)
    assert len(content) > 64 * 1024
    given(world, content)
    answer = http.get("/api/v1/policy")
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert source.decode(answer.data) == SOURCE
    assert world.commands() == [messages.ReadPolicy()]


def test_who_may_not_read_it_is_told_so(http, world):
    world.answers[messages.ReadPolicy] = messages.Refused(kind="forbidden", text="denied: no rule lets alice do that")
    answer = http.get("/api/v1/policy")
    assert answer.status_code == 403
    assert answer.json["detail"] == "denied: no rule lets alice do that"


def test_it_takes_no_parameters(http, world):
    assert http.get("/api/v1/policy?user=bob").status_code == 400
