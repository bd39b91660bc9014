"""Logins as the api and the supervisor see them: auth with its real uid, real PAM, real accounts."""

from __future__ import annotations

import contextlib
import select
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from policy import login, wire
from rootd.auth import logins, pam, table

pytestmark = pytest.mark.root

DENIED = login.Denied(logins.REFUSED)


def source(number: int) -> str:
    """One that nobody has used."""
    return f"198.51.100.{number}"


def test_the_right_password_is_granted_once_the_supervisor_has_seen_the_session(auth, people) -> None:
    alice = people("alice")
    auth.answers_seen = False
    client = auth.client()
    client.ask(login.Login(alice.name, alice.password, "192.0.2.1"))
    up = auth.until(lambda push: isinstance(push, login.SessionUp))
    assert isinstance(up, login.SessionUp)
    client.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.sock.recv(1)
    client.sock.settimeout(30.0)
    auth.tell(login.Seen(up.number))
    granted = auth.answer(client)
    assert isinstance(granted, login.Granted)
    assert (up.user, up.uid, up.groups, up.hash) == (alice.name, alice.uid, [alice.name], table.hash_of(granted.token))
    assert up.idle == 1_800.0
    assert 28_790 < up.ends - time.clock_gettime(time.CLOCK_BOOTTIME) <= 28_800
    ends = datetime.strptime(granted.expires, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert 28_790 < ends.timestamp() - time.time() <= 28_801
    assert auth.until(lambda _: True) == login.LoginNoted(alice.name, "192.0.2.1", True, "", up.hash)


def test_a8_without_the_supervisors_word_there_is_no_session(stage, people, monkeypatch) -> None:
    monkeypatch.setattr(logins, "SEEN", 0.3)
    stage.start()
    alice = people("alice")
    stage.answers_seen = False
    answer = stage.login(alice.name, alice.password)
    assert answer == login.Denied(logins.LATER, logins.CROWDED)
    up = stage.until(lambda push: isinstance(push, login.SessionUp))
    assert isinstance(up, login.SessionUp)
    assert stage.down() == login.SessionDown(up.hash, "never seen by the supervisor", user=up.user)
    assert stage.why() == "the supervisor did not answer"


def test_a8_a_login_without_a_supervisor_waits_for_the_next_one(stage, people) -> None:
    stage.start(linked=False)
    alice = people("alice")
    client = stage.client()
    client.ask(login.Login(alice.name, alice.password, "192.0.2.1"))
    stage.link()
    assert isinstance(stage.answer(client), login.Granted)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("usermod", "--lock"), "wrong password, or locked"),
        (("passwd", "--quiet", "--lock"), "wrong password, or locked"),
        (("chage", "--expiredate", "0"), "expired"),
        (("chage", "--lastday", "0"), "password must be changed"),
        (
            ("chage", "--lastday", "2020-01-01", "--maxdays", "10", "--inactive", "5"),
            "inactive since the password expired",
        ),
    ],
)
def test_a14_a15_an_account_in_trouble_is_refused_in_the_words_of_a_wrong_password(auth, people, change, why) -> None:
    alice = people("trouble")
    people.run(*change, alice.name)
    assert auth.login(alice.name, alice.password) == DENIED
    assert auth.why() == why
    people.remove("trouble")


@pytest.mark.parametrize("password", ["", "x", "anything"])
def test_a15_an_account_with_an_empty_password_is_nobodys(auth, people, password: str) -> None:
    alice = people("alice")
    people.run("passwd", "--quiet", "--delete", alice.name)
    assert auth.login(alice.name, password) == DENIED
    assert not any(isinstance(push, login.SessionUp) for push in auth.pushed)


@pytest.mark.parametrize(
    ("name", "noted"),
    [("Dwta-alice", ""), ("dwta-alice\n", ""), ("dwta-alice\0x", ""), ("\uff11\uff10\uff10\uff11", ""), ("0", ""),
     ("1001", ""),
     ("a" * 250, ""), ("../../../etc/shadow", ""), (" dwta-alice", ""), ("dwta-nobody", "dwta-nobody"),
     ("root", "root"), ("daemon", "daemon")],
)  # fmt: skip
def test_a10_a11_whoever_cannot_log_in_is_told_the_same_and_nothing_is_made(auth, people, name, noted) -> None:
    alice = people("alice")
    auth.until(lambda push: push == login.SessionsEnd())
    before = sorted(str(path) for path in auth.path.rglob("*"))
    assert auth.login(name, alice.password) == DENIED
    note = auth.until(lambda push: isinstance(push, login.LoginNoted))
    assert isinstance(note, login.LoginNoted)
    assert (note.user, note.ok) == (noted, False)
    assert sorted(str(path) for path in auth.path.rglob("*")) == before


@pytest.mark.parametrize("password", ["x" * 513, "x" * 4096, "", "{0}\0", "{0}\0x", "\0", "{0} ", "{0}\n"])
def test_a21_passwords_that_nobody_has(auth, people, password: str) -> None:
    alice = people("alice")
    assert auth.login(alice.name, password.format(alice.password)) == DENIED


def test_a12_logins_of_two_people_at_once_are_never_mixed_up(auth, people) -> None:
    pair = [people("alice"), people("bob")]
    told: dict[str, Any] = {}
    for turn in range(30):
        clients = [(auth.client(), pair[(turn + number) % 2]) for number in range(4)]
        for number, (client, person) in enumerate(clients):
            client.ask(login.Login(person.name, person.password, source(number)))
        for client, person in clients:
            granted = auth.answer(client)
            assert isinstance(granted, login.Granted)
            assert (granted.user, granted.uid) == (person.name, person.uid)
            told[table.hash_of(granted.token)] = person
            client.close()
    ups = [push for push in auth.pushed if isinstance(push, login.SessionUp)]
    assert len(told) == 120
    assert all((up.user, up.uid) == (told[up.hash].name, told[up.hash].uid) for up in ups)


def test_a17_what_cannot_be_a_name_counts_once_against_its_source() -> None:
    class Anything:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

    unused: Any = Anything()
    made = logins.Logins(
        unused, 1.0, 1.0, unused, unused, unused, unused, lambda: 100.0, lambda: 0.0, unused.say, unused.begun
    )
    made.asked(unused, login.Login("no name", "x", source(77)))
    levels = {key: entry.level for key, entry in made._throttle._entries.items()}
    assert levels == {("?", source(77)): 1.0, ("", source(77)): 1.0, ("?", ""): 1.0}


def test_a16_every_login_has_a_token_of_its_own_and_logout_ends_it_at_once(auth, people) -> None:
    alice = people("alice")
    one, two = auth.granted(alice), auth.granted(alice)
    assert one.token != two.token
    client = auth.client()
    client.ask(login.Logout(one.token))
    assert auth.answer(client) == login.LoggedOut()
    assert auth.down() == login.SessionDown(table.hash_of(one.token), "logout", user=alice.name)
    client.ask(login.Logout(one.token))
    assert isinstance(auth.answer(client), login.Denied)
    text = (auth.path / "auth" / "sessions.json").read_text()
    assert table.hash_of(one.token) not in text
    assert table.hash_of(two.token) in text
    assert two.token not in text


def test_a16_what_was_revoked_ends_at_once_for_one_person_or_for_all(auth, people) -> None:
    alice, bob = people("alice"), people("bob")
    hashes = [table.hash_of(auth.granted(person).token) for person in (alice, bob, alice)]
    auth.tell(login.RevokeSessions(alice.name))
    assert {auth.down().hash, auth.down().hash} == {hashes[0], hashes[2]}
    auth.tell(login.RevokeSessions("", 7))
    assert auth.until(lambda push: isinstance(push, login.SessionDown | login.Revoked)) == login.Revoked(7)
    assert auth.down() == login.SessionDown(hashes[1], "revoked", user=bob.name)
    assert '"sessions":[]' in (auth.path / "auth" / "sessions.json").read_text()


def test_a16_a_revocation_is_answered_when_the_file_knows_of_it(auth, people) -> None:
    """A file that cannot be written has the session still: an auth that is started again takes it back."""
    alice = people("alice")
    known = table.hash_of(auth.granted(alice).token)
    (auth.path / "auth" / "sessions.json.new").mkdir()
    auth.tell(login.RevokeSessions(alice.name, 8))
    assert auth.down().hash == known
    auth.pushed.clear()
    auth.tell(login.RevokeSessions("nobody", 9))
    assert isinstance(auth.login("dwta-nobody", "x"), login.Denied)
    assert not [push for push in auth.pushed if isinstance(push, login.Revoked)]
    (auth.path / "auth" / "sessions.json.new").rmdir()
    auth.tell(login.RevokeSessions("nobody", 10))
    answered = [auth.until(lambda push: isinstance(push, login.Revoked)) for _ in range(3)]
    assert answered == [login.Revoked(8), login.Revoked(9), login.Revoked(10)]
    assert known not in (auth.path / "auth" / "sessions.json").read_text()


def test_a16_a_login_that_is_revoked_before_it_is_answered_is_refused(auth, people) -> None:
    alice = people("alice")
    auth.answers_seen = False
    client = auth.client()
    client.ask(login.Login(alice.name, alice.password, "192.0.2.1"))
    up = auth.until(lambda push: isinstance(push, login.SessionUp))
    assert isinstance(up, login.SessionUp)
    auth.tell(login.RevokeSessions())
    auth.tell(login.Seen(up.number))
    assert auth.answer(client) == DENIED


def test_a8_a_session_that_nobody_waits_for_is_none(auth, people) -> None:
    alice = people("alice")
    client = auth.client()
    auth.answers_seen = False
    client.ask(login.Login(alice.name, alice.password, "192.0.2.1"))
    up = auth.until(lambda push: isinstance(push, login.SessionUp))
    assert isinstance(up, login.SessionUp)
    client.close()
    auth.tell(login.Seen(up.number))
    assert auth.down() == login.SessionDown(up.hash, "nobody waited for it", user=up.user)


def test_a17_four_workers_with_fifty_attempts_each(auth, people) -> None:
    alice = people("alice")
    answers = []
    for _ in range(4):
        clients = [auth.client() for _ in range(50)]
        for client in clients:
            client.ask(login.Login(alice.name, "wrong", "203.0.113.9"))
        answers += [auth.answer(client) for client in clients]
        for client in clients:
            client.close()
    assert len(answers) == 200
    assert sum(answer == DENIED for answer in answers) <= 6
    assert all(isinstance(answer, login.Denied) and answer.retry_after > 0 for answer in answers if answer != DENIED)
    notes = [push for push in auth.pushed if isinstance(push, login.LoginNoted)]
    assert len(notes) < 12
    assert auth.login(alice.name, alice.password, "203.0.113.9") not in (DENIED, None)


def test_a18_the_victim_logs_in_from_elsewhere_while_somebody_guesses(auth, people) -> None:
    alice = people("alice")
    for number in range(40):
        auth.login(alice.name, "wrong", f"203.0.113.{number % 4}")
    assert auth.granted(alice, "192.0.2.77").user == alice.name


@pytest.mark.alone
def test_a19_nobody_learns_from_the_answer_or_its_time_what_is_wrong(stage, people) -> None:
    right, locked, expired, change = people("alice"), people("locked"), people("expired"), people("change")
    stage.start()
    people.run("usermod", "--lock", locked.name)
    people.run("chage", "--expiredate", "0", expired.name)
    people.run("chage", "--lastday", "0", change.name)
    kinds: dict[str, tuple[str, str]] = {
        "wrong": (right.name, "wrong"), "unknown": ("dwta-unknown", "wrong"), "no name": ("No Name", "wrong"),
        "locked": (locked.name, locked.password), "expired": (expired.name, expired.password),
        "change": (change.name, change.password), "system": ("daemon", "wrong"), "root": ("root", "wrong"),
        "long": (right.name, "x" * 600),
    }  # fmt: skip
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(9):
        for first in range(3):  # three at a time: one of each third, and each as often the first to be read as the last
            asked = {}
            batch = list(enumerate(kinds.items()))[first::3]
            for number, (kind, (user, password)) in batch[turn % 3 :] + batch[: turn % 3]:
                client = stage.client()
                asked[client.sock] = (kind, time.monotonic())
                client.ask(login.Login(user, password, f"10.{turn}.{number}.1"))
            while asked:
                ready, _, _ = select.select(list(asked), [], [], 30.0)
                assert ready
                for sock in ready:
                    kind, begun = asked.pop(sock)
                    times[kind].append(time.monotonic() - begun)
                    assert wire.TELL.decode(sock.recv(wire.LIMIT)) == DENIED
                    sock.close()
    medians = {kind: sorted(found)[len(found) // 2] for kind, found in times.items()}
    # as near to each other as this machine's noise lets the same question be to itself
    noise = max(sorted(found)[-2] - sorted(found)[1] for found in times.values())
    assert max(medians.values()) - min(medians.values()) < max(0.02, noise), medians
    assert min(medians.values()) >= logins.FLOOR
    for short in ("locked", "expired", "change"):
        people.remove(short)


def test_a20_while_twenty_are_wrong_somebody_else_logs_in(auth, people) -> None:
    alice, bob, carol = people("alice"), people("bob"), people("carol")
    auth.granted(bob)
    begun = time.monotonic()
    assert auth.login(carol.name, "wrong", source(30)) == DENIED
    alone = time.monotonic() - begun
    clients = [auth.client() for _ in range(20)]
    for number, client in enumerate(clients):
        client.ask(login.Login(alice.name, "wrong", source(number)))
    begun = time.monotonic()
    auth.granted(bob)
    assert time.monotonic() - begun < 20 * alone  # as it would be if each had to end before the next
    assert {auth.answer(client) for client in clients} <= {DENIED}


def test_a22_after_wrong_passwords_the_right_one_is_refused_without_pam_being_asked(auth, people) -> None:
    """pam_faillock is not used: for an account that is not root's it fails open. The delay is auth's own."""
    for suffix in ("", "-account"):
        with open(f"/etc/pam.d/{people.service}{suffix}") as text:
            assert not any("faillock" in line.partition("#")[0] for line in text)
    alice = people("alice")
    for _ in range(3):
        answer = auth.login(alice.name, "wrong", "192.0.2.9")
    answer = auth.login(alice.name, alice.password, "192.0.2.9")
    assert isinstance(answer, login.Denied)
    assert answer.retry_after > 0


def test_more_attempts_than_there_is_room_for_are_told_to_come_again(
    stage, people, service, module, monkeypatch
) -> None:
    name = service("hang", f"auth required {module} hang\naccount required pam_unix.so\n")
    monkeypatch.setattr(pam, "PATIENCE", 0.5)
    stage.serve(name, f"{people.service}-account")
    stage.start()
    clients = [stage.client() for _ in range(50)]
    for number, client in enumerate(clients):
        client.ask(login.Login(("daemon", "bin", "sys")[number % 3], "x", source(number)))
    answers = [stage.answer(client) for client in clients]
    assert all(isinstance(answer, login.Denied) for answer in answers)
    assert sum(answer.retry_after > 0 for answer in answers) >= 50 - 8 - 32
    assert sum(answer == DENIED for answer in answers) == 8 + 32
    assert "PAM did not answer within" in stage.errors.read_text()


# the door where the kernel says who somebody is


def peer(auth, uid: int) -> login.Tell | None:
    client = auth.client(uid, "peer")
    client.ask(login.PeerLogin())
    answer = auth.answer(client)
    client.close()
    return answer


def test_somebody_local_is_believed_to_be_who_the_kernel_says(auth, people) -> None:
    alice = people("alice")
    granted = peer(auth, alice.uid)
    assert isinstance(granted, login.Granted)
    assert (granted.user, granted.uid) == (alice.name, alice.uid)


@pytest.mark.parametrize("change", [("usermod", "--lock"), ("chage", "--expiredate", "0"), ("chage", "--lastday", "0")])
def test_a14_an_account_in_trouble_is_refused_there_too(auth, people, change: tuple[str, ...]) -> None:
    alice = people("trouble")
    people.run(*change, alice.name)
    assert peer(auth, alice.uid) == DENIED
    people.remove("trouble")


@pytest.mark.parametrize("uid", [0, 4_000_000_000 - 7])
def test_a9_root_and_uids_of_nobody_are_refused_there(auth, uid: int) -> None:
    assert peer(auth, uid) == DENIED


@pytest.mark.parametrize("role", ["auth", "api"])
def test_a_part_of_ours_is_nobody_there(auth, people, role: str) -> None:
    """One that has been taken over is no local account, whatever the machine's PAM says of it."""
    client = auth.client(getattr(people, role).uid, "peer")
    with contextlib.suppress(BrokenPipeError):
        client.ask(login.PeerLogin())
    assert auth.answer(client) is None
    client.close()


def test_somebody_local_who_asks_again_and_again_is_slowed_down(auth, people) -> None:
    alice = people("alice")
    answers = [peer(auth, alice.uid) for _ in range(30)]
    assert sum(isinstance(answer, login.Granted) for answer in answers) <= 11
    assert isinstance(answers[-1], login.Denied)
    assert isinstance(peer(auth, people("bob").uid), login.Granted)
