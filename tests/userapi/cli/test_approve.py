"""durward approve [N], and what the asker is told meanwhile."""

from __future__ import annotations

import json

import msgspec
import pytest

from policy import messages

WAITS = messages.Waits(3, "stop site waits for approval 3 by group:leads, until then: durward approve 3")
INFO = messages.ApprovalInfo(3, "bob", "stop site", "disk full", "group:leads", "a", "b")
MINE = messages.ApprovalInfo(4, "alice", "restart site", "", "user:erin", "a", "b", True)


def test_what_is_not_done_yet_is_75_so_that_a_script_does_not_go_on(alice, world):
    world.answers[messages.Stop] = WAITS
    ended = alice("stop", "site")
    assert (ended.returncode, ended.stdout) == (75, WAITS.text + "\n")
    ended = alice("stop", "site", "--json")
    assert (ended.returncode, json.loads(ended.stdout)) == (75, {"approval": 3, "text": WAITS.text})


def test_of_several_those_that_wait_are_told_apart(alice, world):
    world.answers[messages.Stop] = WAITS
    ended = alice("stop", "site", "worker")
    assert ended.returncode == 75
    assert "not approved yet: site, worker" in ended.stderr


@pytest.mark.parametrize("way", [[], ["--root"]])
def test_an_approval_says_what_has_begun(alice, world, root, way):
    world.answers[messages.Approve] = messages.Done("approved: bob's stop site has begun, as operation 7")
    ended = alice(*way, "approve", "3", "--reason", "seen")
    assert (ended.returncode, ended.stdout) == (0, "approved: bob's stop site has begun, as operation 7\n")
    asked = (root if way else world.supervisor).asked
    assert (asked[0].command, asked[0].reason) == (messages.Approve(3), "seen")


@pytest.mark.parametrize("way", [[], ["--root"]])
def test_without_a_number_it_lists_what_waits(alice, world, root, way):
    world.answers[messages.ListApprovals] = messages.Approvals([INFO, MINE])
    ended = alice(*way, "approve")
    assert (ended.returncode, ended.stdout) == (
        0,
        "3  bob: stop site (disk full); by group:leads, until b\n"
        "4  alice: restart site; yours, for user:erin, until b\n",
    )
    told = json.loads(alice(*way, "approve", "--json").stdout)
    assert [one["number"] for one in told["approvals"]] == [3, 4]


@pytest.mark.parametrize("way", [[], ["--root"]])
def test_of_a_reload_it_tells_what_would_change_or_why_nothing(alice, world, root, way):
    would = msgspec.structs.replace(INFO, text="reload", changes="would change: added: db; policy: changed")
    stale = msgspec.structs.replace(MINE, text="reload", stale="the files have become others")
    world.answers[messages.ListApprovals] = messages.Approvals([would, stale])
    assert alice(*way, "approve").stdout.splitlines()[1::2] == [
        "   would change: added: db; policy: changed",
        "   the files have become others",
    ]
    told = json.loads(alice(*way, "approve", "--json").stdout)["approvals"]
    assert told[0]["changes"] == would.changes
    assert (root if way else world.supervisor).asked[-1].command == messages.ListApprovals(changes=True)


def test_where_nothing_waits_it_says_so(alice, world):
    world.answers[messages.ListApprovals] = messages.Approvals([])
    ended = alice("approve")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == "nothing waits that you may approve or have asked for\n"


@pytest.mark.parametrize("word", ["0", "-1", "x", "3.5"])
def test_what_is_no_number_is_usage(alice, world, word):
    ended = alice("approve", "--", word)
    assert (ended.returncode, "is no number of what waits: durward approve lists it" in ended.stderr) == (2, True)
    assert not world.supervisor.asked


@pytest.mark.parametrize("way", [[], ["--root"]])
def test_who_has_asked_takes_it_back(alice, world, root, way):
    world.answers[messages.Withdraw] = messages.Done("approval 3 taken back by alice: stop site")
    ended = alice(*way, "approve", "--withdraw", "3", "--reason", "not needed")
    assert (ended.returncode, ended.stdout) == (0, "approval 3 taken back by alice: stop site\n")
    asked = (root if way else world.supervisor).asked
    assert (asked[0].command, asked[0].reason) == (messages.Withdraw(3), "not needed")
    ended = alice(*way, "approve", "--withdraw")
    assert (ended.returncode, ended.stdout) == (2, "")
