"""A stop that stops others too: the right is needed for each, each is recorded, what is hidden stays so."""

from __future__ import annotations

from typing import Any

from policy import messages


def targets(room: Any) -> list[tuple[str, bool]]:
    return [(record["target"], record["allowed"]) for record in room.decisions()]


def test_what_others_require_is_not_stopped_unasked_and_they_are_named(room: Any) -> None:
    room.services.above = {"site": ["jobs"]}
    no = room.client().ask(messages.Stop("site"))
    assert (no.kind, no.text) == ("conflict", "site is required by jobs: stop that too, by --with-dependants")
    assert room.services.asked == []
    assert room.outcomes()[-1]["ok"] is False


def test_those_that_may_not_be_viewed_are_not_named(room: Any) -> None:
    client = room.client()
    room.services.above = {"site": ["jobs", "vault"]}
    both = client.ask(messages.Stop("site")).text
    assert both.startswith("site is required by jobs and 1 service that you may not view: ")
    room.services.above = {"site": ["vault"]}
    assert client.ask(messages.Stop("site")).text.startswith("site is required by 1 service that you may not view: ")
    no = client.ask(messages.Stop("site", with_dependants=True))
    assert (no.kind, no.text) == (
        "forbidden", "denied: it would stop another service too, and no rule lets alice stop that"
    )  # fmt: skip
    assert room.services.asked == []


def test_with_its_dependants_each_is_decided_and_recorded_before_anything_happens(room: Any) -> None:
    room.services.above = {"site": ["jobs"]}
    room.log_answers = None
    client = room.client()
    client.send(messages.Stop("site", with_dependants=True))
    room.until(lambda: len(room.pending) == 2)
    assert targets(room) == [("jobs", True), ("site", True)]
    assert client.quiet()
    assert room.services.asked == []
    room.log_answers = 0
    assert isinstance(client.receive(), messages.Accepted)
    assert room.services.asked == [("stop", "site", ("jobs",))]


def test_one_dependant_that_may_not_be_stopped_refuses_the_whole(room: Any, tokens: tuple[str, str, str]) -> None:
    room.services.above = {"jobs": ["vault", "site"]}
    no = room.client().ask(messages.Stop("jobs", with_dependants=True))
    assert no.kind == "forbidden"
    assert targets(room) == [("vault", False), ("site", True), ("jobs", False)]
    assert room.services.asked == []


def test_what_is_being_stopped_already_is_waited_for_without_being_asked_about(room: Any) -> None:
    room.services.above, room.services.ending = {"site": ["vault"]}, {"vault"}
    assert isinstance(room.client().ask(messages.Stop("site")), messages.Accepted)
    assert room.services.asked == [("stop", "site", ("vault",))]
    assert targets(room) == [("site", True)]


def test_a_dependant_that_comes_while_the_record_is_written_is_decided_too(room: Any) -> None:
    room.services.above = {"site": ["jobs"]}
    room.log_answers = None
    client = room.client()
    client.send(messages.Stop("site", with_dependants=True))
    room.until(lambda: len(room.pending) == 2)
    room.services.above = {"site": ["vault", "jobs"]}
    room.log_answers = 0
    assert client.receive().kind == "forbidden"
    assert room.services.asked == []
    assert ("vault", False) in targets(room)
