"""The link to auth, with auth played over a real socket."""

from __future__ import annotations

import array
import hashlib
import os
import select
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from policy import login, wire
from policy.scope import Scope
from rootd import ipc
from rootd.supervisor import auth_link
from rootd.supervisor.auth_link import MOST_GROUPS, AuthLink
from rootd.supervisor.sessions import Sessions

TOKEN = "a" * 64
UP = login.SessionUp(hashlib.sha256(TOKEN.encode()).hexdigest(), "alice", 1001, ["webops"], 1e9, 1800.0, 3)


class Ends:
    """The two ends of the link."""

    def __init__(self, kept: bytes = b"") -> None:
        self.loop = ipc.Loop()
        self.sessions = Sessions()
        self.sessions.restore(kept)
        self.records: list[Any] = []
        self.notes: list[str] = []
        self.is_crowded = False  # as the audit log would say
        audit: Any = self
        self.kept = b""
        self.link = AuthLink(self.loop, lambda: 100.0, self.sessions, audit, self.notes.append, self.keep)
        self.auth: socket.socket | None = None
        self.connect()

    def keep(self, kept: bytes) -> None:
        self.kept = kept

    def record(self, body: Any) -> None:
        self.records.append(body)

    def connect(self) -> None:
        self.close()
        self.auth, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.auth.setblocking(False)
        self.link.connect(ours.detach())

    def close(self) -> None:
        if self.auth is not None:
            self.auth.close()
            self.auth = None

    def shut(self) -> None:
        self.close()
        self.link.disconnect()
        self.loop.close()

    def push(self, *pushes: login.Push | bytes) -> None:
        assert self.auth is not None
        for push in pushes:
            self.auth.send(push if isinstance(push, bytes) else wire.PUSH.encode(push))
        self.turn()

    def turn(self) -> None:
        for _ in range(3):
            self.link.watch()
            self.loop.turn(0)

    def pulled(self) -> list[login.Pull]:
        """Everything that auth was told."""
        assert self.auth is not None
        found: list[login.Pull] = []
        while select.select([self.auth], [], [], 0)[0]:
            packet = self.auth.recv(wire.LIMIT)
            if not packet:
                break
            found.append(wire.PULL.decode(packet))
            self.turn()
        return found

    @property
    def is_live(self) -> bool:
        return self.sessions.find(TOKEN, 100.0) is not None


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.shut()


def test_a_session_counts_once_it_is_answered(ends: Ends) -> None:
    assert not ends.link.is_told
    ends.push(UP, login.SessionsEnd())
    assert ends.pulled() == [login.Seen(3)]
    assert ends.is_live
    assert ends.link.is_told


def test_a_login_goes_to_the_audit_log(ends: Ends) -> None:
    ends.push(login.LoginNoted("eve", "198.51.100.7", False, "wrong password"))
    assert ends.records == [
        {"kind": "login", "user": "eve", "from": "198.51.100.7", "ok": False, "why": "wrong password", "session": ""}
    ]


def test_the_audit_log_says_which_session_a_login_began_and_why_it_ended(ends: Ends) -> None:
    ends.push(UP, login.LoginNoted("alice", "", True, "", UP.hash), login.SessionDown(UP.hash, "logout", user="alice"))
    session = UP.hash[:12]
    assert [(record["kind"], record["session"]) for record in ends.records] == [("login", session), ("logout", session)]
    assert (ends.records[1]["user"], ends.records[1]["why"]) == ("alice", "logout")


def test_the_audit_log_says_in_which_groups_somebody_is_at_a_login_and_when_they_change(ends: Ends) -> None:
    others = msgspec.structs.replace(UP, groups=["webops", "leads"])
    ends.push(UP, login.LoginNoted("alice", "", True, "", UP.hash), UP, others, others)
    session = UP.hash[:12]
    assert [(record["kind"], record["session"], record["groups"]) for record in ends.records] == [
        ("login", session, ["webops"]), ("groups", session, ["leads", "webops"]),
    ]  # fmt: skip


def test_of_very_many_groups_the_record_says_how_many_it_leaves_out(ends: Ends) -> None:
    many = msgspec.structs.replace(UP, groups=[f"g{number}" for number in range(MOST_GROUPS + 3)])
    ends.push(many, login.LoginNoted("alice", "", True, "", UP.hash))
    assert (len(ends.records[0]["groups"]), ends.records[0]["more_groups"]) == (MOST_GROUPS, 3)


def test_of_a_session_that_is_not_known_no_groups_are_claimed(ends: Ends) -> None:
    ends.push(login.LoginNoted("alice", "", True, "", UP.hash))
    assert "groups" not in ends.records[0]


def test_an_auth_that_floods_the_audit_log_is_left_out_of_it_and_that_is_said(ends: Ends) -> None:
    ends.is_crowded = True
    ends.push(*[login.LoginNoted("eve", "", False, "claimed")] * 11)
    assert ends.records == []
    assert [note[-10:] for note in ends.notes] == ["(1 so far)", "10 so far)"]
    ends.is_crowded = False
    ends.push(login.LoginNoted("eve", "", False, "claimed"), login.SessionDown(UP.hash, "claimed"))
    assert len(ends.records) == 2


@pytest.mark.parametrize(
    "garbage",
    [b"{", b"null", b'{"push":"root"}', wire.PUSH.encode(UP)[:-1], b'{"push":"down"}', b" " * 70_000,
     wire.PUSH.encode(UP).replace(b"1001", b"-1"), wire.PUSH.encode(UP).replace(b'"alice"', b'"root:"')],
    ids=range(8),
)  # fmt: skip
def test_a8_after_garbage_auth_is_not_heard_again_and_nobody_is_logged_in_by_it(ends: Ends, garbage: bytes) -> None:
    ends.push(garbage)
    assert "the link to auth is closed" in ends.notes[0]
    assert not ends.is_live
    with pytest.raises(OSError, match=r"."):
        ends.push(UP)
    assert not ends.is_live


def test_a8_an_auth_that_dies_logs_nobody_in_or_out(ends: Ends) -> None:
    ends.push(UP)
    ends.pulled()
    ends.close()
    ends.turn()
    assert ends.is_live
    assert ends.notes == []
    assert not ends.link.tell(login.Touched(UP.hash))


def test_c6_descriptors_are_not_taken_from_auth_either(ends: Ends) -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert ends.auth is not None
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1]))]
    ends.auth.sendmsg([wire.PUSH.encode(UP)], rights)
    ends.turn()
    assert not ends.is_live
    assert len(os.listdir("/proc/self/fd")) == before - 1, "the link is closed"


def test_a_revocation_is_told_to_each_auth_until_one_has_answered(ends: Ends) -> None:
    ends.push(UP)
    ends.pulled()
    ends.close()
    ends.turn()
    ends.sessions.revoke("alice")
    assert not ends.link.tell(login.RevokeSessions("alice", 1))
    for _ in range(2):  # the first one dies before it has read it
        ends.connect()
    assert ends.pulled() == [login.RevokeSessions("alice", 1)]
    ends.push(UP)
    assert ends.pulled() == [], "not seen"
    assert not ends.is_live
    ends.push(login.Revoked(1))
    ends.connect()
    assert ends.pulled() == []


def test_a_revocation_that_auth_never_read_survives_the_deaths_of_both(ends: Ends) -> None:
    ends.push(UP)
    ends.sessions.revoke("")
    assert ends.link.tell(login.RevokeSessions("", 1))
    ends.close()
    after = Ends(ends.kept)
    after.push(UP, login.SessionsEnd())
    assert not after.is_live
    assert after.pulled() == [login.RevokeSessions("", 1)]
    after.push(login.Revoked(1))
    assert after.kept == b"{}"
    after.shut()


def test_an_auth_that_does_not_read_is_told_later_and_holds_nobody_up(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_link, "WAITING", 50)
    told = 0
    while ends.link.tell(login.Seen(told)):
        told += 1
        assert told < 100_000
    assert ends.pulled() == [login.Seen(number) for number in range(told)]


def test_a_revocation_is_told_even_to_an_auth_that_does_not_read(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth_link, "WAITING", 50)
    while ends.link.tell(login.Seen(1)):
        pass
    assert ends.link.tell(login.RevokeSessions("alice", 1))
    assert ends.pulled()[-1] == login.RevokeSessions("alice", 1)


def test_a_restarted_auth_replaces_the_old_link(ends: Ends) -> None:
    ends.push(UP)
    ends.connect()
    assert ends.is_live, "until it has told everything"
    ends.push(login.SessionsEnd())
    assert not ends.is_live


def test_an_event_for_a_link_that_is_closed_means_nothing(ends: Ends) -> None:
    ends.link.disconnect()
    ends.link.watch()
    ends.link._hear(select.EPOLLIN)


def test_what_happens_to_a_personal_token_is_in_the_audit_log_by_its_name(ends: Ends) -> None:
    scope = Scope("deploy", ("view", "restart"), ("site",))
    ends.push(msgspec.structs.replace(UP, token=scope))
    ends.push(login.TokenNoted("alice", "192.0.2.1", "made", scope, "2027-01-01T00:00:00Z", UP.hash))
    ends.push(login.SessionDown(UP.hash, "locked", user="alice"))
    ends.push(login.TokenNoted("", "", "damaged", why="the file"))
    session = UP.hash[:12]
    assert ends.records == [
        {"kind": "token", "user": "alice", "from": "192.0.2.1", "what": "made", "token": "deploy",
         "for": "view, restart on site", "expires": "2027-01-01T00:00:00Z", "why": "", "session": session},
        {"kind": "logout", "session": session, "why": "locked", "user": "alice", "token": "deploy"},
        {"kind": "token", "user": "", "from": "", "what": "damaged", "expires": "", "why": "the file", "session": ""},
    ]  # fmt: skip
