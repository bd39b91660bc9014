"""The minute's re-check, made short: accounts that change under a session, restarts of auth and of the supervisor."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar, cast

import msgspec
import pytest

from policy import login
from rootd.auth import rounds, table

pytestmark = pytest.mark.root


@pytest.fixture
def minute(stage, monkeypatch):
    """auth, whose minutes are a fifth of a second."""
    monkeypatch.setattr(rounds, "EVERY", 0.2)
    stage.start()
    return stage


def confirmed(stage, known: str) -> login.SessionUp:
    push = stage.until(lambda push: isinstance(push, login.SessionUp) and push.hash == known)
    assert isinstance(push, login.SessionUp)
    return push


@pytest.mark.parametrize(
    ("change", "text", "why"),
    [
        (("usermod", "--lock", "{0}"), "", "locked"),
        (("passwd", "--quiet", "--lock", "{0}"), "", "locked"),
        (("usermod", "--password", "*", "{0}"), "", "locked"),
        (("chage", "--expiredate", "0", "{0}"), "", "expired"),
        (("chage", "--lastday", "0", "{0}"), "", "password must be changed"),
        (("chage", "--lastday", "2020-01-01", "--maxdays", "10", "--inactive", "5", "{0}"), "",
         "inactive since the password expired"),
        (("chpasswd",), "{0}:another\n", "password changed"),
        (("passwd", "--quiet", "--delete", "{0}"), "", "password changed"),
        (("usermod", "--uid", "61444", "{0}"), "", "account gone"),
        (("userdel", "{0}"), "", "unknown user"),
    ],
)  # fmt: skip
def test_a14_what_happens_to_an_account_ends_its_sessions_and_nobody_elses(minute, people, change, text, why) -> None:
    alice, bob = people("changing"), people("bob")
    one, other = (table.hash_of(minute.granted(person).token) for person in (alice, bob))
    confirmed(minute, one)
    people.run(*(word.format(alice.name) for word in change), text=text.format(alice.name))
    assert minute.down() == login.SessionDown(one, why, user=alice.name)
    confirmed(minute, other)
    people.remove("changing")


def test_a14_somebody_who_was_deleted_and_made_again_is_somebody_else(minute, people) -> None:
    alice = people("again")
    known = table.hash_of(minute.granted(alice).token)
    people.run("userdel", alice.name)
    people.run("useradd", "--no-create-home", "--uid", "61445", alice.name)
    people.run("chpasswd", text=f"{alice.name}:{alice.password}\n")
    assert minute.down().hash == known
    people.remove("again")


def test_a13_groups_are_those_of_now(minute, people) -> None:
    alice = people("alice")
    people.run("usermod", "--append", "--groups", "games", alice.name)
    known = table.hash_of(minute.granted(alice).token)
    assert confirmed(minute, known).groups == sorted([alice.name, "games"])
    people.run("gpasswd", "--delete", alice.name, "games")
    push = minute.until(lambda push: isinstance(push, login.SessionUp) and push.groups == [alice.name])
    assert push.hash == known


def test_sessions_are_taken_back_after_a_restart_once_they_are_checked(minute, people) -> None:
    alice, bob = people("alice"), people("bob")
    kept, locked = (table.hash_of(minute.granted(person).token) for person in (alice, bob))
    minute.kill()
    people.run("usermod", "--lock", bob.name)
    minute.pushed.clear()
    minute.start()
    minute.until(lambda push: push == login.SessionsEnd())
    minute.pushed.clear()
    confirmed(minute, kept)
    people("bob")
    assert all(getattr(push, "hash", kept) != locked for push in minute.pushed)


def test_after_a_restart_nothing_that_was_logged_out_or_revoked_comes_back(minute, people) -> None:
    alice = people("alice")
    one, two = minute.granted(alice), minute.granted(alice)
    client = minute.client()
    client.ask(login.Logout(one.token))
    assert minute.answer(client) == login.LoggedOut()
    minute.kill()
    minute.pushed.clear()
    minute.start()
    minute.until(lambda push: push == login.SessionsEnd())
    assert {push.hash for push in minute.pushed if isinstance(push, login.SessionUp)} <= {table.hash_of(two.token)}


def test_before_the_end_of_the_first_round_no_session_is_forgotten_by_the_supervisor(minute, people) -> None:
    """Every SessionUp of the sessions in the file comes before SessionsEnd."""
    hashes = {table.hash_of(minute.granted(people("alice")).token) for _ in range(3)}
    minute.kill()
    minute.pushed.clear()
    minute.start()
    told: set[str] = set()
    while True:
        push = minute.until(lambda _: True)
        if isinstance(push, login.SessionUp):
            told.add(push.hash)
        if push == login.SessionsEnd():
            break
    assert told == hashes


def test_a_new_supervisor_is_told_all_sessions_and_then_that_these_were_all(auth, people) -> None:
    hashes = {table.hash_of(auth.granted(people(short)).token) for short in ("alice", "bob")}
    auth.pushed.clear()
    auth.link()
    auth.until(lambda push: isinstance(push, login.SessionUp) and push.hash in hashes)
    auth.until(lambda push: isinstance(push, login.SessionUp) and push.hash in hashes)
    assert auth.until(lambda _: True) == login.SessionsEnd()


def test_what_was_never_checked_is_not_told_as_fresh_in_the_first_minute_after_a_boot() -> None:
    class Logins:
        table = table.Table("/nonexistent", "boot")
        confirmed: ClassVar[list[table.Session]] = []
        confirm = confirmed.append

        @staticmethod
        def push_pending() -> None:
            return

    one = table.Session("0" * 64, "alice", 1001, (), 9e9, 30.0, "mark")
    Logins.table.add(one)

    class Personal:
        @staticmethod
        def linked(fresh: float) -> None:
            return

    unused: Any = None
    made = rounds.Rounds(cast(Any, Logins), cast(Any, Personal), unused, unused, unused, lambda: 30.0)
    made.linked()
    assert Logins.confirmed == []
    one.checked = 20.0
    made.linked()
    assert Logins.confirmed == [one]


def test_a_file_of_another_boot_holds_nobody(minute, people) -> None:
    minute.granted(people("alice"))
    minute.kill()
    path = minute.path / "auth" / "sessions.json"
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(path.read_bytes()) | {"boot": "another"}))
    minute.pushed.clear()
    minute.start()
    assert minute.until(lambda _: True) == login.SessionsEnd()


def test_a_session_that_is_not_used_ends_and_one_that_is_does_not(stage, people, monkeypatch) -> None:
    monkeypatch.setattr(rounds, "EVERY", 0.2)
    monkeypatch.setattr(table, "LAG", 0.0)
    stage.serve(people.service, f"{people.service}-account", idle=1.0)
    stage.start()
    idle, used = (table.hash_of(stage.granted(people("alice")).token) for _ in range(2))
    until = time.monotonic() + 20.0
    while not any(isinstance(push, login.SessionDown) for push in stage.pushed):
        assert time.monotonic() < until
        stage.tell(login.Touched(used))
        stage.turn(None, until)
    assert stage.down() == login.SessionDown(idle, "idle", user=people("alice").name)


def test_a_session_ends_at_its_end_however_much_it_is_used(stage, people, monkeypatch) -> None:
    monkeypatch.setattr(rounds, "EVERY", 0.2)
    stage.serve(people.service, f"{people.service}-account", session=0.7)
    stage.start()
    known = table.hash_of(stage.granted(people("alice")).token)
    assert stage.down() == login.SessionDown(known, "expired", user=people("alice").name)


def test_who_cannot_be_checked_is_neither_confirmed_nor_ended(minute, people, service) -> None:
    name = service("vanishing", "auth required pam_unix.so nodelay\naccount required pam_unix.so\n")
    minute.kill()
    minute.serve(people.service, name)
    minute.pushed.clear()
    minute.start()
    alice = people("alice")
    known = table.hash_of(minute.granted(alice).token)
    confirmed(minute, known)
    os.unlink(f"/etc/pam.d/{name}")
    assert isinstance(minute.login(alice.name, "wrong"), login.Denied)  # a child of the last round may be under way
    minute.pushed.clear()
    for number in range(3):  # each takes longer than a round
        assert isinstance(minute.login(alice.name, "wrong", f"192.0.2.2{number}"), login.Denied)
    assert {type(push) for push in minute.pushed} == {login.LoginNoted}


def test_without_a_session_auth_sleeps_for_good(stage, monkeypatch) -> None:
    monkeypatch.setattr(rounds, "EVERY", 0.01)
    stage.start()
    stage.until(lambda push: push == login.SessionsEnd())

    def switches() -> str:
        with open(f"/proc/{stage.pid}/status") as status:
            return "".join(line for line in status if "ctxt_switches" in line)

    with open(f"/proc/{stage.pid}/wchan") as wchan:
        until = time.monotonic() + 10.0
        while "poll" not in wchan.read() and time.monotonic() < until:
            wchan.seek(0)
    before = switches()
    time.sleep(0.5)  # fifty of its minutes
    assert switches() == before
