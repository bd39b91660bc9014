"""Personal tokens as the api and the supervisor see them: auth with its real uid, real accounts, short minutes."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from policy import login
from policy.scope import Scope
from rootd.auth import personal, rounds, table, tokens

pytestmark = pytest.mark.root

SCOPE = Scope("deploy", ("view", "restart"), ("site",))
DAY = 86400.0


@pytest.fixture
def minute(stage, monkeypatch):
    """auth, whose minutes are a fifth of a second."""
    monkeypatch.setattr(rounds, "EVERY", 0.2)
    stage.start()
    return stage


def ask(stage, question: login.TokenAsk) -> login.Tell | None:
    client = stage.client()
    client.ask(question)
    answer = stage.answer(client)
    client.close()
    return answer


def made(stage, session: str, scope: Scope = SCOPE, seconds: float = 30 * DAY) -> tuple[str, login.SessionUp]:
    """The token, and what the supervisor was told of it."""
    stage.pushed.clear()
    answer = ask(stage, login.MakeToken(session, scope, seconds, "192.0.2.1"))
    assert isinstance(answer, login.TokenMade), (answer, stage.errors.read_text())
    up = stage.until(lambda push: isinstance(push, login.SessionUp) and push.token is not None)
    assert isinstance(up, login.SessionUp)
    return answer.token, up


def revoked(stage, session: str, name: str) -> login.Tell | None:
    """The answer, once the supervisor has said that it knows."""
    client = stage.client()
    stage.pushed.clear()
    client.ask(login.RevokeToken(session, name))
    down = stage.until(lambda push: isinstance(push, login.SessionDown) and push.number)
    stage.tell(login.Seen(down.number))
    answer = stage.answer(client)
    client.close()
    return answer


def refused(answer: login.Tell | None) -> tuple[str, str]:
    assert isinstance(answer, login.TokenRefused), answer
    return answer.kind, answer.text


def listed(stage, session: str) -> list[login.TokenInfo]:
    answer = ask(stage, login.ListTokens(session))
    assert isinstance(answer, login.Tokens), answer
    return answer.tokens


def up_again(stage, known: str) -> login.SessionUp:
    push = stage.until(lambda push: isinstance(push, login.SessionUp) and push.hash == known)
    assert isinstance(push, login.SessionUp)
    return push


def test_a_token_is_told_once_and_kept_as_its_hash(auth, people) -> None:
    alice = people("alice")
    session = auth.granted(alice).token
    token, up = made(auth, session)
    assert re.fullmatch("durward_[0-9a-f]{64}", token)
    assert (up.hash, up.user, up.uid, up.token) == (table.hash_of(token), alice.name, alice.uid, SCOPE)
    assert 0 < up.ends - time.clock_gettime(time.CLOCK_BOOTTIME) <= 30 * DAY
    noted = auth.until(lambda push: isinstance(push, login.TokenNoted))
    assert isinstance(noted, login.TokenNoted)
    assert (noted.what, noted.user, noted.source, noted.scope) == ("made", alice.name, "192.0.2.1", SCOPE)
    file = auth.path / "state" / "auth" / "tokens.json"
    assert up.hash in file.read_text()
    assert (os.stat(file).st_uid, os.stat(file).st_mode & 0o7777) == (people.auth.uid, 0o600)
    for written in (*auth.path.rglob("*.json"), auth.errors):
        assert token.removeprefix("durward_") not in written.read_text()
    (info,) = listed(auth, session)
    assert (info.scope, info.used, info.trouble) == (SCOPE, "", "")
    auth.tell(login.Touched(up.hash))
    while not (info := listed(auth, session)[0]).used:
        pass
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:00Z", info.used)


def test_a_token_is_answered_when_the_supervisor_has_seen_it_and_else_there_is_none(stage, people, monkeypatch) -> None:
    monkeypatch.setattr(personal, "SEEN", 0.3)
    stage.start()
    session = stage.granted(people("alice")).token
    stage.answers_seen = False
    kind, _ = refused(ask(stage, login.MakeToken(session, SCOPE, DAY)))
    assert kind == "later"
    assert stage.down().why == "never seen by the supervisor"
    assert listed(stage, session) == []
    assert "deploy" not in (stage.path / "state" / "auth" / "tokens.json").read_text()
    client = stage.client()
    stage.pushed.clear()
    client.ask(login.MakeToken(session, SCOPE, DAY))
    up = stage.until(lambda push: isinstance(push, login.SessionUp))
    assert isinstance(up, login.SessionUp)
    client.close()
    stage.tell(login.Seen(up.number))
    assert stage.down() == login.SessionDown(up.hash, "nobody waited for it", user=up.user)


def test_who_may_not_make_one_is_told_why(stage, people, monkeypatch) -> None:
    monkeypatch.setattr(tokens, "PER_USER", 2)
    stage.start()
    alice = people("alice")
    session = stage.granted(alice).token
    assert refused(ask(stage, login.MakeToken("0" * 64, SCOPE, DAY)))[0] == "no-session"
    assert refused(ask(stage, login.ListTokens("0" * 64)))[0] == "no-session"
    assert refused(ask(stage, login.RevokeToken("0" * 64, "deploy")))[0] == "no-session"
    kind, text = refused(ask(stage, login.MakeToken(session, SCOPE, 91 * DAY)))
    assert (kind, text) == ("invalid", "a token lives 90 days at most ([auth] token_longest)")
    assert refused(ask(stage, login.MakeToken(session, Scope("x", ("view",)), DAY)))[0] == "invalid"
    made(stage, session)
    assert refused(ask(stage, login.MakeToken(session, SCOPE, DAY)))[0] == "conflict"
    made(stage, session, Scope("second", ("audit",)))
    kind, text = refused(ask(stage, login.MakeToken(session, Scope("third", ("audit",)), DAY)))
    assert (kind, text) == ("conflict", "you have 2 tokens, which is the limit: revoke one")
    bob = stage.granted(people("bob")).token
    made(stage, bob)  # the same name is another person's own
    assert refused(ask(stage, login.RevokeToken(bob, "second"))) == ("unknown", "you have no token 'second'")
    assert [one.scope.name for one in listed(stage, bob)] == ["deploy"]


def test_a_session_that_is_not_fresh_makes_no_token_and_0_forbids_them(stage, people, monkeypatch) -> None:
    monkeypatch.setattr(personal, "FRESH", 0.0)
    stage.start()
    session = stage.granted(people("alice")).token
    kind, text = refused(ask(stage, login.MakeToken(session, SCOPE, DAY)))
    assert kind == "no-session"
    assert text.startswith("log in again")
    assert listed(stage, session) == []
    stage.kill()
    stage.serve(people.service, f"{people.service}-account", longest=0.0)
    stage.start()
    kind, text = refused(ask(stage, login.MakeToken(session, SCOPE, DAY)))
    assert (kind, text) == ("forbidden", "there are no personal tokens here: [auth] token_longest is 0s")


def test_nobody_makes_tokens_without_end_and_others_still_can(stage, people, monkeypatch) -> None:
    monkeypatch.setattr(personal, "OFTEN", 2)
    stage.start()
    session = stage.granted(people("alice")).token
    for _ in range(2):
        made(stage, session)
        assert revoked(stage, session, "deploy") == login.TokenRevoked()
    kind, text = refused(ask(stage, login.MakeToken(session, SCOPE, DAY)))
    assert (kind, text) == ("later", "you have made 2 tokens within the hour: try again later")
    made(stage, stage.granted(people("bob")).token)


@pytest.mark.parametrize("token", ["durward_" + "0" * 64, "0" * 63])
def test_a_token_cannot_even_ask_for_another(auth, token) -> None:
    client = auth.client()
    client.ask(login.MakeToken(token, SCOPE, DAY))
    assert auth.answer(client) is None


def test_one_that_is_revoked_is_out_of_the_file_and_answered_when_the_supervisor_knows(auth, people) -> None:
    session = auth.granted(people("alice")).token
    _, up = made(auth, session)
    client = auth.client()
    client.ask(login.RevokeToken(session, "deploy", "192.0.2.1"))
    down = auth.until(lambda push: isinstance(push, login.SessionDown))
    assert isinstance(down, login.SessionDown)
    assert (down.hash, down.why) == (up.hash, "revoked")
    assert down.number > 0
    assert up.hash not in (auth.path / "state" / "auth" / "tokens.json").read_text()
    client.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.sock.recv(1)
    client.sock.settimeout(30.0)
    auth.tell(login.Seen(down.number))
    assert auth.answer(client) == login.TokenRevoked()
    assert listed(auth, session) == []


def test_a16_revoking_a_person_ends_his_tokens_too_once_the_file_knows(auth, people) -> None:
    alice, bob = people("alice"), people("bob")
    _, up = made(auth, auth.granted(alice).token)
    other = auth.granted(bob).token
    made(auth, other)
    folder = auth.path / "state" / "auth"
    folder.chmod(0o500)  # as where it can only be read
    auth.tell(login.RevokeSessions(alice.name, 7))
    auth.until(lambda push: push == login.SessionDown(up.hash, "revoked", user=up.user))
    assert len(listed(auth, other)) == 1
    assert not [push for push in auth.pushed if isinstance(push, login.Revoked)]
    folder.chmod(0o700)
    auth.tell(login.RevokeSessions("nobody", 8))
    assert auth.until(lambda push: isinstance(push, login.Revoked)) == login.Revoked(7)
    assert up.hash not in (auth.path / "state" / "auth" / "tokens.json").read_text()


def test_a16_what_is_revoked_is_out_of_the_tokens_file_although_that_of_sessions_cannot_be_written(
    auth, people
) -> None:
    alice = people("alice")
    _, up = made(auth, auth.granted(alice).token)
    (auth.path / "auth").chmod(0o500)
    auth.tell(login.RevokeSessions(alice.name, 7))
    auth.until(lambda push: push == login.SessionDown(up.hash, "revoked", user=up.user))
    assert listed(auth, auth.granted(people("bob")).token) == []
    assert "sessions cannot be saved" in auth.errors.read_text()
    assert up.hash not in (auth.path / "state" / "auth" / "tokens.json").read_text(), "a boot ends sessions alone"
    assert not [push for push in auth.pushed if isinstance(push, login.Revoked)]
    (auth.path / "auth").chmod(0o700)


def test_tokens_outlive_auth_a_new_password_and_a_new_boot(minute, people) -> None:
    alice = people("changing")
    _, up = made(minute, minute.granted(alice).token)
    people.run("chpasswd", text=f"{alice.name}:another\n")
    minute.kill()
    sessions = minute.path / "auth" / "sessions.json"
    sessions.unlink()
    minute.pushed.clear()
    minute.start()
    again = up_again(minute, up.hash)
    assert (again.user, again.uid, again.token) == (up.user, up.uid, SCOPE)
    assert again.ends <= up.ends + 0.001  # two clocks are read, one after the other
    assert login.SessionsEnd() not in minute.pushed  # it was told before that
    minute.link()  # a new supervisor
    minute.pushed.clear()
    assert up_again(minute, up.hash).token == SCOPE
    people.remove("changing")


@pytest.mark.parametrize(
    ("change", "why", "back"),
    [
        (("usermod", "--lock", "{0}"), "locked", ("usermod", "--unlock", "{0}")),
        (("chage", "--expiredate", "0", "{0}"), "expired", ("chage", "--expiredate", "-1", "{0}")),
    ],
)
def test_a14_a_token_sleeps_while_its_account_may_not_log_in(minute, people, change, why, back) -> None:
    alice = people("changing")
    _, up = made(minute, minute.granted(alice).token)
    people.run(*(word.format(alice.name) for word in change))
    minute.until(lambda push: push == login.SessionDown(up.hash, why, user=up.user))
    minute.pushed.clear()
    people.run(*(word.format(alice.name) for word in back))
    assert up_again(minute, up.hash).token == SCOPE
    people.remove("changing")


def test_a14_a_token_of_a_deleted_account_sleeps_and_after_a_while_is_no_more(stage, people, monkeypatch) -> None:
    monkeypatch.setattr(rounds, "EVERY", 0.2)
    monkeypatch.setattr(personal, "GONE", 1.0)
    stage.start()
    alice = people("changing")
    _, up = made(stage, stage.granted(alice).token)
    people.run("userdel", alice.name)
    stage.until(lambda push: push == login.SessionDown(up.hash, "unknown user", user=up.user))
    file = stage.path / "state" / "auth" / "tokens.json"
    until = time.monotonic() + 20.0
    stage.granted(people("bob"))  # whose session is told of again and again
    while up.hash in file.read_text():
        assert time.monotonic() < until
        stage.turn(None, until)
    people.remove("changing")


def test_a14_an_account_with_another_uid_is_another_and_its_groups_are_those_of_now(minute, people) -> None:
    alice = people("changing")
    _, up = made(minute, minute.granted(alice).token)
    people.run("usermod", "--append", "--groups", "games", alice.name)
    minute.until(lambda push: isinstance(push, login.SessionUp) and push.hash == up.hash and "games" in push.groups)
    people.run("usermod", "--uid", "61445", alice.name)
    minute.until(lambda push: push == login.SessionDown(up.hash, "account gone", user=up.user))
    file, until = minute.path / "state" / "auth" / "tokens.json", time.monotonic() + 20.0
    minute.granted(people("bob"))  # whose session is told of again and again
    while up.hash in file.read_text():  # it is written when the minute's look at all of them is over
        assert time.monotonic() < until
        minute.turn(None, until)
    people.remove("changing")


def test_one_that_has_expired_is_told_and_shown_and_its_name_is_free_again(minute, people) -> None:
    session = minute.granted(people("alice")).token
    _, up = made(minute, session, seconds=0.5)
    minute.until(lambda push: push == login.SessionDown(up.hash, "expired", user=up.user))
    assert [one.trouble for one in listed(minute, session)] == ["expired"]
    made(minute, session)
    assert [one.trouble for one in listed(minute, session)] == [""]


def test_a_damaged_file_is_said_and_recorded_and_logins_go_on(stage, people) -> None:
    file: Path = stage.path / "state" / "auth" / "tokens.json"
    file.write_bytes(b"not ours")
    os.chown(file, people.auth.uid, people.auth.gid)
    stage.start()
    session = stage.granted(people("alice")).token
    noted = stage.until(lambda push: isinstance(push, login.TokenNoted))
    assert isinstance(noted, login.TokenNoted)
    assert noted.what == "damaged"
    assert "no personal token works" in stage.errors.read_text()
    assert file.with_name("tokens.json.damaged").read_bytes() == b"not ours"
    assert listed(stage, session) == []
    made(stage, session)


def test_a_supervisor_that_is_started_again_meanwhile_is_told_of_the_token_that_waits(auth, people) -> None:
    session = auth.granted(people("alice")).token
    auth.answers_seen = False
    client = auth.client()
    client.ask(login.MakeToken(session, SCOPE, DAY))
    first = auth.until(lambda push: isinstance(push, login.SessionUp) and push.token is not None)
    auth.pushed.clear()
    auth.link()
    again = auth.until(lambda push: isinstance(push, login.SessionUp) and push.token is not None)
    assert isinstance(first, login.SessionUp)
    assert isinstance(again, login.SessionUp)
    assert (again.hash, again.number) == (first.hash, first.number)
    auth.tell(login.Seen(again.number))
    assert isinstance(auth.answer(client), login.TokenMade)


def test_one_that_is_revoked_is_answered_although_the_supervisor_is_silent_or_away(stage, people, monkeypatch) -> None:
    monkeypatch.setattr(personal, "SEEN", 0.2)
    stage.start()
    session = stage.granted(people("alice")).token
    for name in ("one", "two"):
        made(stage, session, Scope(name, ("audit",)))
    stage.answers_seen = False
    assert ask(stage, login.RevokeToken(session, "one")) == login.TokenRevoked()
    assert stage.supervisor is not None
    stage.supervisor.close()
    stage.supervisor = None
    assert ask(stage, login.RevokeToken(session, "two")) == login.TokenRevoked()
    stage.pushed.clear()
    stage.link()
    noted = stage.until(lambda push: isinstance(push, login.TokenNoted))  # was kept for it
    assert isinstance(noted, login.TokenNoted)
    assert (noted.what, noted.scope) == ("revoked", Scope("two", ("audit",)))


def test_where_the_disk_is_full_no_token_is_made_and_a_revoked_one_is_in_no_file(auth, people) -> None:
    session = auth.granted(people("alice")).token
    made(auth, session)
    blocked = auth.path / "state" / "auth" / "tokens.json.new"
    blocked.mkdir()
    kind, text = refused(ask(auth, login.MakeToken(session, Scope("second", ("audit",)), DAY)))
    assert (kind, text) == ("failed", "the token cannot be kept: auth's messages say why")
    client = auth.client()
    client.ask(login.RevokeToken(session, "deploy"))
    down = auth.until(lambda push: isinstance(push, login.SessionDown) and push.number > 0)
    assert isinstance(down, login.SessionDown)
    auth.tell(login.Seen(down.number))
    assert auth.answer(client) == login.TokenRevoked()
    assert "tokens.json cannot be written, tried again each minute: Is a directory\n" in auth.errors.read_text()
    assert "Is a directory; it is not there now, so tokens end when auth does" in auth.errors.read_text()
    assert listed(auth, session) == []
    blocked.rmdir()
    made(auth, session)


def test_one_that_is_revoked_where_its_file_can_only_be_read_says_so(auth, people) -> None:
    session = auth.granted(people("alice")).token
    made(auth, session)
    folder = auth.path / "state" / "auth"
    folder.chmod(0o500)
    client = auth.client()
    client.ask(login.RevokeToken(session, "deploy"))
    down = auth.until(lambda push: isinstance(push, login.SessionDown) and push.number > 0)
    assert isinstance(down, login.SessionDown)
    auth.tell(login.Seen(down.number))
    kind, text = refused(auth.answer(client))
    assert (kind, text.startswith("it works no more, but the file still has it")) == ("failed", True)
    folder.chmod(0o700)
    made(auth, session)
    assert [one.scope.name for one in listed(auth, session)] == ["deploy"]
