"""What a reload would change, for who is to agree to it: looks by themselves, and at the desk."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
from reloads import JOBS

from policy import messages, wire
from policy.parse import parse
from policy.rules import Policy
from rootd import ipc
from rootd.supervisor.looks import LIMIT, RECENT, Looks, Seen, wrong

ALICE, CAROL, DAN = (str(number) * 64 for number in (1, 4, 5))
SEEN, OTHER = Seen("aa", "added: site", "", ""), Seen("bb", "no change", "", "")
TWO = """
[[grant]]
id = "two"
who = ["group:webops"]
may = ["reload"]
approval = { by = ["group:leads"], within = "10m" }
[[grant]]
id = "sight"
who = ["user:dan"]
may = ["view"]
on = ["*"]
"""


class Alone:
    """Looks, and who has been told what."""

    def __init__(self) -> None:
        self.begun, self.told, self.why = 0, list[tuple[str, Any]](), ""
        self.looks = Looks(self.begin)

    def begin(self) -> str:
        self.begun += 1
        return self.why

    def ask(self, who: str, now: float, *, afresh: bool = False) -> None:
        self.looks.ask(lambda seen: self.told.append((who, seen)), now, afresh=afresh)


def test_who_asks_during_a_look_shares_it_but_who_wants_what_is_from_now_on_gets_one_of_his_own() -> None:
    alone = Alone()
    alone.ask("a", 0.0)
    alone.ask("b", 0.1)
    alone.ask("c", 0.2, afresh=True)
    assert (alone.begun, alone.told, alone.looks.until) == (1, [], LIMIT)
    alone.looks.told(SEEN, 1.0)
    assert (alone.begun, alone.told) == (2, [("a", SEEN), ("b", SEEN)])
    alone.looks.told(OTHER, 2.0)
    alone.looks.told(SEEN, 3.0)
    assert (alone.begun, alone.told[2:], alone.looks.until) == (2, [("c", OTHER)], None)


def test_what_was_seen_lately_is_told_again_until_it_is_old_or_another_configuration_counts() -> None:
    alone = Alone()
    alone.ask("a", 0.0)
    alone.looks.told(SEEN, 1.0)
    alone.ask("b", RECENT)
    assert alone.told == [("a", SEEN), ("b", SEEN)]
    alone.ask("c", RECENT + 1.0)
    assert alone.begun == 2
    alone.looks.told(SEEN, 20.0)
    alone.looks.forget()
    alone.ask("d", 20.1)
    assert alone.begun == 3


def test_what_cannot_be_looked_at_is_told_at_once_and_not_remembered() -> None:
    alone = Alone()
    alone.why = "a reload is under way"
    alone.ask("a", 0.0)
    assert (alone.told, alone.looks.until) == ([("a", "a reload is under way")], None)
    alone.why = ""
    alone.ask("b", 0.1)
    assert alone.begun == 2


def test_mistakes_are_told_by_the_first_and_their_number() -> None:
    one = messages.Problem("services.d/a.toml", 3, "service.a", "is wrong")
    assert wrong([]) == ""
    assert wrong([one]) == "services.d/a.toml:3: service.a: is wrong"
    assert wrong([messages.Problem("a.toml", 0, "", "x"), one, one]) == "a.toml: x (and 2 more)"


class Leads:
    """alice asks; carol, who may view nothing, and dan, who may view all, may approve."""

    def __init__(self, room: Any, generation: Callable[..., Any]) -> None:
        self.room, self.generation, self.number = room, generation, 1
        policy = parse([("policy.d/10-web.toml", TWO)], room.services.groups)
        assert isinstance(policy, Policy), policy
        room.desk.policy = policy
        room.login(CAROL, "carol", 1004, ["leads"])
        room.login(DAN, "dan", 1005, ["leads"])

    def files(self, more: str = "", **words: Any) -> None:
        """privileged has read these now."""
        self.number += 1
        made = self.generation({"services.d/jobs.toml": JOBS + more}, self.number)
        assert self.room.sent[-1].op == ipc.STAGE
        self.room.reloads.staged(made.table(seq=self.room.sent[-1].seq, **words), made.fd, self.room.now)

    def begin(self, command: messages.Command, who: str) -> Any:
        client = self.room.client()
        client.raw(wire.REQUEST.encode(messages.Request(1, command, who, "198.51.100.7", "")))
        self.room.settle()
        return client

    def ask(self, command: messages.Command, who: str, more: str = "", **words: Any) -> Any:
        """With a look at these files in between."""
        client = self.begin(command, who)
        self.files(more, **words)
        return client.receive()

    def listed(self, who: str, more: str = "", **words: Any) -> messages.ApprovalInfo:
        self.room.pass_time(RECENT)
        found: messages.ApprovalInfo = self.ask(messages.ListApprovals(changes=True), who, more, **words).approvals[0]
        return found


@pytest.fixture
def leads(room: Any, generation: Callable[..., Any]) -> Leads:
    return Leads(room, generation)


def test_a_reload_waits_as_what_it_would_change_and_each_approver_sees_that_in_the_names_that_he_may_read(
    leads: Leads,
) -> None:
    told = leads.ask(messages.Reload(), ALICE)
    assert told.text.startswith("reload waits for approval 1 by group:leads")
    assert len(leads.room.decisions()[-1]["asked"]["shown"]) == 32
    assert leads.listed(DAN).changes == "would change: added: jobs; policy: changed"
    assert leads.listed(CAROL).changes == "would change: added: 1 service that you may not view; policy: changed"
    own = leads.listed(ALICE)
    assert (own.changes, own.stale, own.yours) == ("", "", True), "who may not reload alone may not look alone"
    client = leads.begin(messages.ListApprovals(), CAROL)
    assert client.receive().approvals[0].changes == "", "nobody looks who was not asked to"


def test_files_that_have_changed_since_are_said_and_the_approval_changes_nothing(leads: Leads) -> None:
    leads.ask(messages.Reload(), ALICE)
    for who in (CAROL, ALICE):
        found = leads.listed(who, 'environment = { COLOUR = "blue" }\n')
        assert found.stale.startswith("the files, or what counts, have changed since this was asked for")
        assert found.changes == ""
    assert leads.listed(CAROL).stale == "", "they are as they were again"
    begun = leads.begin(messages.Approve(1), CAROL)
    leads.files('environment = { COLOUR = "blue" }\n')
    assert isinstance(begun.receive(), messages.Done)
    ended = leads.room.services.operations.find(1).events[-1]
    assert (ended.ok, ended.text.startswith("nothing was changed: since it was shown")) == (False, True)
    assert leads.room.sent[-1].op == ipc.ABORT


def test_what_was_approved_is_taken(leads: Leads) -> None:
    leads.ask(messages.Reload(), ALICE)
    leads.begin(messages.Approve(1), CAROL)
    leads.files()
    assert leads.room.sent[-1].op == ipc.COMMIT


def test_a_dry_run_that_waits_and_a_reload_of_what_was_shown_are_asked_for_as_they_are(leads: Leads) -> None:
    for number, command in enumerate((messages.Reload(dry_run=True), messages.Reload(shown="0" * 32)), 1):
        assert leads.begin(command, ALICE).receive().approval == number
    assert leads.room.sent == []


def test_files_with_mistakes_or_that_cannot_be_looked_at_now_are_told_and_nothing_waits(leads: Leads) -> None:
    no = leads.ask(messages.Reload(), ALICE, "nonsense = 1\n")
    assert (no.kind, no.text.startswith("nothing waits: the files cannot be used: ")) == ("conflict", True)
    assert "nonsense" not in no.text, "it is about a service that she may not view"
    client = leads.begin(messages.Reload(), ALICE)
    leads.room.reloads.done(ipc.Message(ipc.DONE, seq=leads.room.sent[-1].seq, arg=errno.ETIMEDOUT), 1.0)
    assert client.receive().kind == "later"
    client = leads.begin(messages.Reload(), ALICE)
    leads.room.pass_time(LIMIT)
    leads.room.settle()
    assert "it takes too long to read the files" in client.receive().text
    client = leads.begin(messages.Reload(), ALICE)
    leads.room.reloads.facts(leads.room.reloads.current, leads.room.now)
    assert "privileged was started again meanwhile" in client.receive().text
    assert leads.begin(messages.ListApprovals(changes=True), CAROL).receive().approvals == []


def test_a_reload_does_not_wait_for_a_look_and_who_lists_is_told_why_nothing_is_known(leads: Leads) -> None:
    leads.ask(messages.Reload(), ALICE)
    leads.room.pass_time(RECENT)
    client = leads.begin(messages.ListApprovals(changes=True), CAROL)
    leads.room.reloads.begin("id", True, leads.room.now)
    assert [one.op for one in leads.room.sent[-2:]] == [ipc.ABORT, ipc.STAGE]
    assert client.receive().approvals[0].changes == "not known now: a reload has begun meanwhile"
    again = leads.begin(messages.ListApprovals(changes=True), CAROL).receive()
    assert again.approvals[0].changes == "not known now: a reload is under way"


def test_what_takes_root_to_read_waits_as_it_is_and_says_that_nobody_knows(leads: Leads) -> None:
    unread = {"flags": ipc.NEEDS_ROOT | ipc.INVALID}
    assert leads.ask(messages.Reload(), ALICE, **unread).approval == 1
    assert "shown" not in leads.room.decisions()[-1]["asked"]
    assert leads.listed(CAROL, **unread).changes.startswith("needs root again")
    assert leads.listed(DAN).changes == "would change: added: jobs; policy: changed"
    assert leads.listed(DAN, "nonsense = 1\n").stale.startswith("the files have mistakes by now")


def test_who_has_logged_out_meanwhile_is_told_nothing(leads: Leads) -> None:
    client = leads.begin(messages.Reload(), ALICE)
    leads.room.desk.sessions.revoke("alice")
    leads.files()
    assert client.receive().kind == "no-session"
    assert [*leads.room.approvals.all()] == []
