"""What a rule asks besides who, what and where, at the desk: enforced at each step, and told in answers and records."""

from __future__ import annotations

from typing import Any

from policy import messages, wire
from policy.parse import parse
from policy.rules import Policy
from rootd.supervisor.operations import Refusal

DAY = 86_400.0
OFFICE = """
[[grant]]
id = "sight"
who = ["user:alice"]
may = ["view"]
on = ["site"]
[[grant]]
id = "office"
who = ["user:alice"]
may = ["view", "restart", "reload"]
on = ["*"]
when = { days = "Tue", hours = "09:00-18:00", timezone = "UTC" }
"""


def office(room: Any, text: str = OFFICE) -> Any:
    policy = parse([("policy.d/10-web.toml", text)], room.services.groups)
    assert isinstance(policy, Policy), policy
    room.desk.policy = policy
    return room.client()


def test_outside_of_its_window_a_rule_grants_nothing_and_the_refusal_says_when_it_will(room: Any) -> None:
    alice = office(room)
    assert isinstance(alice.ask(messages.Restart("site")), messages.Accepted)
    room.wall += DAY
    told = alice.ask(messages.Restart("site"))
    assert (told.kind, told.text) == (
        "forbidden",
        "denied: no rule lets alice restart site now; the rule 'office' would, Tue 09:00-18:00 UTC; it next opens"
        " Tue 09:00",
    )
    assert room.decisions()[-1]["why"] == told.text
    assert len(room.services.asked) == 1


def test_a_window_that_closes_while_the_record_is_written_has_closed(room: Any) -> None:
    alice = office(room)
    room.log_answers = None
    alice.send(messages.Restart("site"))
    room.until(lambda: room.pending)
    room.wall += DAY
    room.log_answers = 0
    assert alice.receive().kind == "forbidden"
    assert not room.services.asked
    assert [record["allowed"] for record in room.decisions()] == [True, False]


def test_b10_lists_rights_and_explanations_follow_the_window(room: Any) -> None:
    alice = office(room)
    assert [found.name for found in alice.ask(messages.Status()).services] == ["site", "jobs", "vault"]
    assert alice.ask(messages.WhatMayI(action="restart", service="jobs")).allowed
    room.wall += DAY
    assert [found.name for found in alice.ask(messages.Status()).services] == ["site"]
    assert alice.ask(messages.Status("jobs")).kind == "unknown"
    assert [(right.service, right.actions) for right in alice.ask(messages.WhatMayI()).rights] == [("site", ["view"])]
    assert alice.ask(messages.WhatMayI(action="restart", service="jobs")).kind == "unknown"


def test_b10_a_watcher_sees_no_more_of_what_a_window_has_closed(room: Any) -> None:
    alice = office(room)
    alice.send(messages.Watch())
    assert isinstance(alice.receive(), messages.Watching)
    room.services.changed("jobs")
    assert alice.receive().service == "jobs"
    room.wall += DAY
    room.services.changed("jobs")
    room.services.changed("site")
    assert alice.receive().service == "site"


def test_from_where_somebody_asks_counts_as_the_api_tells_it(room: Any) -> None:
    for network, kind in (("198.51.100.0/24", messages.Accepted), ("203.0.113.0/24", messages.Refused)):
        alice = office(room, OFFICE + f'from = ["{network}"]\n')
        assert isinstance(alice.ask(messages.Restart("site")), kind)
        assert room.decisions()[-1]["from"] == "198.51.100.7"
        assert ("jobs" in [found.name for found in alice.ask(messages.Status()).services]) == (
            kind is messages.Accepted
        )


def test_a_reason_is_demanded_recorded_and_kept_for_both_decisions(room: Any) -> None:
    alice = office(room, OFFICE + "reason = true\n")
    told = alice.ask(messages.Restart("site"))
    assert told.kind == "forbidden"
    assert "say why, by --reason TEXT" in told.text
    assert "reason" not in room.decisions()[-1]
    assert not room.services.asked
    alice.raw(wire.REQUEST.encode(messages.Request(1, messages.Restart("site"), "1" * 64, "", "disk «full»")))
    assert isinstance(alice.receive(), messages.Accepted)
    assert (room.decisions()[-1]["reason"], room.decisions()[-1]["rule"]) == ("disk «full»", "office")


def test_who_cancels_gives_no_reason_and_who_may_reload_sees_it_without_one(room: Any) -> None:
    alice = office(room, OFFICE + "reason = true\n")
    number = room.services.restart("site", 0.0, "x")
    reload = room.services.operations.begin("reload", "", "y", 0.0).number
    assert {one.number for one in alice.ask(messages.ListOperations()).operations} == {number, reload}
    assert isinstance(alice.ask(messages.Cancel(number)), messages.Done)


LIMITED = OFFICE + 'limit = "2 in 10m"\n'


def test_what_has_begun_is_charged_and_what_was_refused_is_not(room: Any) -> None:
    alice = office(room, LIMITED)
    room.services.refusal = Refusal("conflict", "not now")
    assert [alice.ask(messages.Restart("site")).kind for _ in range(3)] == ["conflict"] * 3
    room.services.refusal = None
    assert isinstance(alice.ask(messages.Restart("site")), messages.Accepted)
    assert isinstance(alice.ask(messages.Restart("site")), messages.Accepted)
    told = alice.ask(messages.Restart("site"))
    assert (told.kind, told.text) == (
        "forbidden",
        "denied: the rule 'office' (10-web.toml:7) lets alice restart site 2 in 10m, which is used up: again in 600 s",
    )
    assert room.decisions()[-1]["why"] == told.text
    assert alice.ask(messages.WhatMayI(action="restart", service="site")).text == told.text
    assert alice.ask(messages.Status("site")).services, "who only looks is not limited"
    assert isinstance(alice.ask(messages.Restart("jobs")), messages.Accepted), "another service"
    room.now += 600
    room.login("1" * 64, "alice", 1001, ["webops"])
    assert isinstance(room.client().ask(messages.Restart("site")), messages.Accepted)


def test_two_that_are_recorded_at_once_do_not_share_the_last_one(room: Any) -> None:
    office(room, OFFICE + 'limit = "1 in 10m"\n')
    room.log_answers = None
    clients = [room.client(), room.client()]
    for client in clients:
        client.send(messages.Restart("site"))
    room.until(lambda: len(room.pending) == 2)
    room.log_answers = 0
    assert sorted(type(client.receive()).__name__ for client in clients) == ["Accepted", "Refused"]
    assert len(room.services.asked) == 1


def test_what_is_stopped_with_its_dependants_is_charged_for_each(room: Any) -> None:
    text = LIMITED.replace('"restart"', '"stop"').replace("2 in", "1 in")
    alice = office(room, text)
    room.services.above = {"site": ["jobs"]}
    assert isinstance(alice.ask(messages.Stop("site", with_dependants=True)), messages.Accepted)
    assert "used up" in alice.ask(messages.Stop("jobs")).text
    assert alice.ask(messages.Stop("site", with_dependants=True)).kind == "forbidden"
