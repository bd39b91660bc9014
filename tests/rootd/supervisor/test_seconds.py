"""A second person's approval at the desk: what was asked for is what runs, once, in the asker's name."""

from __future__ import annotations

from typing import Any

import pytest

from policy import messages, wire
from policy.parse import parse
from policy.rules import Policy

ALICE, BOB, EVE, CAROL = (str(number) * 64 for number in (1, 2, 3, 4))
TWO = """
[[grant]]
id = "two"
who = ["group:webops"]
may = ["view", "stop", "signal", "scale"]
on = ["site", "group:back"]
approval = { by = ["group:leads"], within = "10m" }
"""


@pytest.fixture
def leads(room: Any) -> Any:
    """alice asks; carol, of the leads, may approve, and view nothing; bob and eve may not."""
    use(room, TWO)
    room.login(CAROL, "carol", 1004, ["leads"])
    return room


def use(room: Any, text: str) -> None:
    policy = parse([("policy.d/10-web.toml", text)], room.services.groups)
    assert isinstance(policy, Policy), policy
    room.desk.policy = policy


def ask(room: Any, command: messages.Command, who: str = ALICE, reason: str = "") -> Any:
    client = room.client()
    client.raw(wire.REQUEST.encode(messages.Request(1, command, who, "198.51.100.7", reason)))
    return client.receive()


def test_what_somebody_may_not_alone_waits_and_nothing_happens(leads: Any) -> None:
    told = ask(leads, messages.Stop("site"), reason="disk full")
    assert told == messages.Waits(1, "stop site waits for approval 1 by group:leads, until at 1600: durward approve 1")
    assert not leads.services.asked
    record = leads.decisions()[-1]
    assert (record["allowed"], record["rule"], record["reason"]) == (False, "two", "disk full")
    assert record["why"] == "stop site waits for approval 1 by group:leads, until at 1600"


def test_who_is_named_approves_and_exactly_that_runs_in_the_askers_name(leads: Any) -> None:
    ask(leads, messages.Signal("site", "HUP"), reason="disk full")
    asked = leads.decisions()[-1]
    told = ask(leads, messages.Approve(1), CAROL)
    assert told == messages.Done("approved: alice's signal site, signal HUP has begun, as operation 1", 1)
    assert leads.services.asked == [("signal", "site", "HUP")]
    approving, running = leads.decisions()[-2:]
    assert (approving["user"], approving["action"], approving["allowed"]) == ("carol", "approve", True)
    assert approving["asked"] == {"approval": 1}
    assert (running["id"], running["user"], running["allowed"]) == (asked["id"], "alice", True)
    assert (running["approved_by"], running["approval"], running["reason"]) == ("carol", 1, "disk full")
    assert running["from"] == "198.51.100.7"
    leads.services.end(1)
    assert (leads.outcomes()[-1]["id"], leads.outcomes()[-1]["ok"]) == (asked["id"], True)
    assert leads.services.operations.find(1).user == "alice"


def test_however_much_waits_all_of_it_is_listed(leads: Any) -> None:
    for person in range(8):
        token, client = str(person) * 63 + "f", leads.client()
        leads.login(token, f"user{person}", 2000 + person, ["webops"])
        for number in range(1, 11):
            asked = messages.Request(1, messages.Scale("site", number), token, "", "\U0001f4a5" * 200)
            client.raw(wire.REQUEST.encode(asked))
            assert isinstance(client.receive(), messages.Waits)
    client, found = leads.client(), []
    client.send(messages.ListApprovals(), CAROL)
    while not found or found[-1].more:
        found.append(client.receive())
    assert [one.number for packet in found for one in packet.approvals] == list(range(1, 81))
    assert len(found) > 1


def test_what_others_require_is_asked_for_only_by_who_may_stop_those_too_and_not_named_to_others(leads: Any) -> None:
    leads.services.above = {"site": ["jobs", "vault"]}
    no = ask(leads, messages.Stop("site", with_dependants=True))
    hidden = "denied: it would stop another service too, and no rule lets alice stop that"
    assert (no.kind, no.text) == ("forbidden", hidden)
    assert [(record["target"], record["allowed"]) for record in leads.decisions()[-2:]] == [
        ("vault", False), ("site", False)
    ]  # fmt: skip
    assert ask(leads, messages.ListApprovals()).approvals == []
    leads.services.above = {"site": ["jobs"]}
    told = ask(leads, messages.Stop("site", with_dependants=True))
    assert told.text.startswith("stop site, jobs waits for approval 1 by group:leads")
    assert isinstance(ask(leads, messages.Approve(1), CAROL), messages.Done)
    assert leads.services.asked == [("stop", "site", ("jobs",))]


def test_what_cannot_be_shown_whole_cannot_be_approved(leads: Any) -> None:
    many = [f"{'service' * 8}-{number:03}" for number in range(200)]
    leads.services.groups |= dict.fromkeys(many, ("back",))
    leads.services.above = {"site": many}
    no = ask(leads, messages.Stop("site", with_dependants=True))
    assert (no.kind, no.text) == (
        "conflict",
        "site and 200 services that require it are too many to be shown to who approves: ask for some of them first",
    )
    assert ask(leads, messages.ListApprovals()).approvals == []


def test_it_is_approved_once(leads: Any) -> None:
    ask(leads, messages.Stop("site"))
    assert isinstance(ask(leads, messages.Approve(1), CAROL), messages.Done)
    assert ask(leads, messages.Approve(1), CAROL).kind == "forbidden"
    assert len(leads.services.asked) == 1


def test_two_who_approve_at_once_begin_it_once(leads: Any) -> None:
    leads.login(EVE, "eve", 1003, ["leads"])
    ask(leads, messages.Stop("site"))
    leads.log_answers = None
    clients = [leads.client(), leads.client()]
    for client, who in zip(clients, (CAROL, EVE), strict=True):
        client.send(messages.Approve(1), who)
    leads.until(lambda: len(leads.pending) == 2)
    leads.log_answers = 0
    assert sorted(type(client.receive()).__name__ for client in clients) == ["Done", "Refused"]
    assert len(leads.services.asked) == 1


@pytest.mark.parametrize("who", [ALICE, BOB, EVE])
def test_nobody_else_approves_and_least_of_all_the_asker(leads: Any, who: str) -> None:
    leads.login(ALICE, "alice", 1001, ["webops", "leads"])
    ask(leads, messages.Stop("site"))
    told = ask(leads, messages.Approve(1), who)
    assert told.kind == "forbidden"
    assert ("asked for himself" if who == ALICE else "nothing of the number 1 waits") in told.text
    assert not leads.services.asked
    if who != ALICE:
        assert told.text == ask(leads, messages.Approve(99), who).text.replace("99", "1")


def test_root_approves_what_it_likes(leads: Any) -> None:
    ask(leads, messages.Stop("site"))
    client = leads.client("root")
    assert isinstance(client.ask(messages.Approve(1), ""), messages.Done)
    assert leads.services.asked == [("stop", "site")]


def test_after_its_time_it_is_not_there(leads: Any) -> None:
    ask(leads, messages.Stop("site"))
    leads.now += 600
    leads.login(CAROL, "carol", 1004, ["leads"])
    assert ask(leads, messages.Approve(1), CAROL).kind == "forbidden"
    assert not leads.services.asked


def test_the_askers_session_must_last(leads: Any) -> None:
    ask(leads, messages.Stop("site"))
    leads.sessions.revoke("alice")
    told = ask(leads, messages.Approve(1), CAROL)
    assert (told.kind, told.text) == ("conflict", "the session of alice is over: nothing was done")
    assert not leads.services.asked
    end = next(record for record in leads.outcomes() if record["action"] == "stop")
    assert (end["user"], end["uid"], end["approved_by"], end["ok"]) == ("alice", 1001, "carol", False)
    assert end["id"] == next(record["id"] for record in leads.decisions() if record["action"] == "stop")


@pytest.mark.parametrize(
    "now",
    [
        "",
        TWO.replace('"two"', '"other"'),
        TWO.replace('"stop", ', ""),
        TWO + '[[deny]]\nid = "no"\nwho = ["user:alice"]\nmay = ["stop"]\non = ["*"]\n',
        TWO.replace("group:webops", "group:nobody"),
        TWO.replace("group:leads", "user:erin"),
    ],
)
def test_what_the_rules_do_not_allow_any_more_is_not_done(leads: Any, now: str) -> None:
    ask(leads, messages.Stop("site"))
    use(leads, now)
    assert isinstance(ask(leads, messages.Approve(1), CAROL), messages.Refused)
    assert not leads.services.asked


def test_a_rule_that_wants_another_approval_now_is_not_met_by_this_one(leads: Any) -> None:
    ask(leads, messages.Stop("site"))
    other = TWO.replace('"two"', '"a-other"')
    use(leads, TWO.replace('"stop", ', "") + other)
    told = ask(leads, messages.Approve(1), CAROL)
    assert told.kind == "conflict"
    assert "another rule applies now" in told.text
    assert not leads.services.asked


def test_what_fails_is_told_to_who_approved_it_and_must_be_asked_for_again(leads: Any) -> None:
    from rootd.supervisor.operations import Already, Refusal

    for refusal, kind in ((Refusal("conflict", "not now"), messages.Refused), (Already("it is"), messages.Done)):
        waits = ask(leads, messages.Stop("site"))
        leads.services.refusal = refusal
        told = ask(leads, messages.Approve(waits.approval), CAROL)
        assert isinstance(told, kind)
        assert "alice's stop site" in told.text
        assert ask(leads, messages.ListApprovals(), CAROL).approvals == []
        leads.services.refusal = None


def test_b10_what_waits_is_listed_to_who_asked_and_to_who_may_approve(leads: Any) -> None:
    ask(leads, messages.Stop("site"), reason="disk full")
    mine = ask(leads, messages.ListApprovals()).approvals
    assert mine == [
        messages.ApprovalInfo(1, "alice", "stop site", "disk full", "group:leads", "at 1000", "at 1600", True, "two")
    ]
    assert [one.yours for one in ask(leads, messages.ListApprovals(), CAROL).approvals] == [False]
    assert ask(leads, messages.ListApprovals(), EVE).approvals == []
    use(leads, TWO + '[[grant]]\nid = "sees"\nwho = ["user:eve"]\nmay = ["approve"]\n')
    assert len(ask(leads, messages.ListApprovals(), EVE).approvals) == 1
    assert ask(leads, messages.Approve(1), EVE).kind == "forbidden"


def test_dependants_that_were_not_approved_are_not_stopped_with_it(leads: Any) -> None:
    leads.services.above = {"site": ["jobs"]}
    waits = ask(leads, messages.Stop("site", with_dependants=True))
    assert waits.text.startswith("stop site, jobs waits for approval 1")
    leads.services.groups["more"] = ("back",)
    leads.services.above = {"site": ["jobs", "more"]}
    assert isinstance(ask(leads, messages.Approve(1), CAROL), messages.Refused)
    assert not leads.services.asked
    ask(leads, messages.Stop("site", with_dependants=True))
    assert isinstance(ask(leads, messages.Approve(2), CAROL), messages.Done)
    assert leads.services.asked == [("stop", "site", ("jobs", "more"))]


def test_a_limit_is_charged_when_it_is_done_and_not_when_it_is_asked_for(leads: Any) -> None:
    use(leads, TWO + 'limit = "1 in 1h"\n')
    ask(leads, messages.Stop("site"))
    assert isinstance(ask(leads, messages.Stop("site"), reason="again"), messages.Waits)
    assert isinstance(ask(leads, messages.Approve(1), CAROL), messages.Done)
    assert "used up" in ask(leads, messages.Approve(2), CAROL).text
    assert "used up" in ask(leads, messages.Stop("site")).text
    assert len(leads.services.asked) == 1


def test_b10_a_service_that_may_not_be_viewed_is_unknown_and_nothing_waits(leads: Any) -> None:
    use(leads, TWO.replace('"view", ', ""))
    assert ask(leads, messages.Stop("site")).kind == "unknown"
    assert ask(leads, messages.ListApprovals()).approvals == []


def test_too_much_that_waits_is_told_and_recorded(leads: Any) -> None:
    for number in range(10):
        assert isinstance(ask(leads, messages.Stop("site"), reason=str(number)), messages.Waits)
    told = ask(leads, messages.Stop("site"), reason="more")
    assert told.kind == "later"
    assert leads.decisions()[-1]["why"] == told.text


def test_where_the_log_cannot_be_written_an_approval_begins_nothing(leads: Any) -> None:
    ask(leads, messages.Stop("site"))
    leads.log_answers = 28
    assert ask(leads, messages.Approve(1), CAROL).kind == "later"
    assert not leads.services.asked


def test_what_nobody_approves_in_time_is_an_event_and_the_end_of_its_story(leads: Any) -> None:
    use(leads, TWO.replace('"10m"', '"1m"'))
    leads.login(EVE, "eve", 1003, ["webops"])
    watcher, stranger = leads.client(), leads.client()
    assert isinstance(watcher.ask(messages.Watch(), EVE), messages.Watching)
    assert isinstance(stranger.ask(messages.Watch(), CAROL), messages.Watching)
    ask(leads, messages.Stop("site"), reason="disk full")
    asked = leads.decisions()[-1]["id"]
    leads.pass_time(59)
    assert watcher.quiet()
    leads.pass_time(1)
    told = watcher.receive()
    assert isinstance(told, messages.Lapsed)
    assert (told.approval, told.service) == (1, "site")
    assert told.text == "approval 1 expired: nobody approved in time: stop site"
    assert stranger.quiet()
    record = leads.outcomes()[-1]
    assert (record["id"], record["ok"], record["action"], record["target"]) == (asked, False, "stop", "site")
    assert record["result"] == "approval 1 expired: nobody approved in time"
    assert (record["user"], record["uid"]) == ("alice", 1001), "who had asked"
    assert "approved_by" not in record


def test_who_has_asked_takes_it_back_and_nobody_else_does(leads: Any) -> None:
    ask(leads, messages.Stop("site"), reason="disk full")
    asked = leads.decisions()[-1]["id"]
    for who in (BOB, EVE, CAROL):
        told = ask(leads, messages.Withdraw(1), who)
        assert (told.kind, told.text) == ("unknown", "nothing that you have asked for waits as number 1")
        assert leads.decisions()[-1]["allowed"] is False
    assert ask(leads, messages.Withdraw(2)).kind == "unknown"
    assert ask(leads, messages.Withdraw(1)) == messages.Done("approval 1 taken back by alice: stop site")
    assert (leads.decisions()[-1]["command"], leads.decisions()[-1]["target"]) == ("withdraw", "site")
    assert [(record["id"] == asked, record["ok"]) for record in leads.outcomes()] == [(True, False), (False, True)]
    assert ask(leads, messages.Withdraw(1)).kind == "unknown"
    assert ask(leads, messages.Approve(1), CAROL).kind == "forbidden"
    assert not leads.services.asked


def test_root_takes_back_what_it_likes(leads: Any) -> None:
    ask(leads, messages.Stop("site"))
    assert isinstance(leads.client("root").ask(messages.Withdraw(1), ""), messages.Done)
    assert ask(leads, messages.ListApprovals()).approvals == []


def test_what_was_taken_back_while_the_log_was_written_is_not_taken_back_twice(leads: Any) -> None:
    ask(leads, messages.Stop("site"))
    leads.log_answers = None
    clients = [leads.client(), leads.client()]
    for client in clients:
        client.send(messages.Withdraw(1))
    leads.until(lambda: len(leads.pending) == 2)
    leads.log_answers = 0
    assert sorted(type(client.receive()).__name__ for client in clients) == ["Done", "Refused"]
