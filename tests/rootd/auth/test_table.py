"""The table of sessions: what is kept, what its file is, and what a wrong file does."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import msgspec
import pytest

from rootd.auth import table
from rootd.auth.table import LAG, Session, Table, hash_of, new_token

BOOT = "00000000-0000-4000-8000-000000000001"


def session(number: int = 0, user: str = "alice", ends: float = 100.0, used: float = 0.0) -> Session:
    return Session(hash_of(str(number)), user, 1001, ("alice", "webops"), ends, used, "mark", 5.0)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "sessions.json")


def test_a16_every_token_is_another_one_and_only_its_hash_can_be_found() -> None:
    made = [new_token() for _ in range(100)]
    assert len({token for token, _ in made}) == 100
    for token, known in made:
        assert re.fullmatch("[0-9a-f]{64}", token)
        assert re.fullmatch("[0-9a-f]{64}", known)
        assert hash_of(token) == known != token


def test_what_is_saved_is_taken_back_unchecked_with_the_same_key(path: str) -> None:
    first = Table(path, BOOT)
    for number in range(3):
        first.add(session(number, user=f"user{number % 2}"))
    first.save()
    again = Table(path, BOOT)
    assert again.key != first.key
    assert again.load() == ""
    assert again.key == first.key
    assert [one.hash for one in again.all()] == [one.hash for one in first.all()]
    assert {one.checked for one in again.all()} == {None}
    assert again.users() == ["user0", "user1"]
    assert len(again) == 3


def test_the_file_is_for_auth_alone_and_has_no_token(path: str) -> None:
    made = Table(path, BOOT)
    token, known = new_token()
    made.add(msgspec.structs.replace(session(), hash=known))
    made.save()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert token not in Path(path).read_text()
    assert os.listdir(Path(path).parent) == ["sessions.json"]


def test_a_session_that_nobody_was_told_of_is_not_saved(path: str) -> None:
    made = Table(path, BOOT)
    made.add(msgspec.structs.replace(session(), open=False))
    made.save()
    again = Table(path, BOOT)
    again.load()
    assert len(again) == 0


def test_a4_sessions_of_another_boot_are_nobodys(path: str) -> None:
    made = Table(path, BOOT)
    made.add(session())
    made.save()
    again = Table(path, BOOT.replace("1", "2"))
    assert again.load() == ""
    assert len(again) == 0
    assert again.key != made.key


def test_without_a_file_there_are_no_sessions(path: str) -> None:
    made = Table(path, BOOT)
    assert made.load() == ""
    assert len(made) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"",
        lambda text: text[:-5],
        lambda text: text.replace(b'"uid":1001', b'"uid":-1'),
        lambda text: text.replace(b'"uid":1001', b'"uid":"1001"'),
        lambda text: text.replace(b'"uid":1001', b'"uid":4294967295'),
        lambda text: text.replace(b'"user":"alice"', b'"user":"../../x"'),
        lambda text: text.replace(b'"user":', b'"who":'),
        lambda text: b"\xff\xfe" + text,
        lambda text: b"[" * 100_000,
    ],
)
def test_a_file_that_was_not_written_so_holds_no_sessions(path: str, change) -> None:
    made = Table(path, BOOT)
    made.add(session())
    made.save()
    Path(path).write_bytes(change(Path(path).read_bytes()))
    again = Table(path, BOOT)
    assert path in again.load()
    assert len(again) == 0


def test_a_file_that_is_a_link_is_not_followed(path: str, tmp_path: Path) -> None:
    made = Table(str(tmp_path / "elsewhere"), BOOT)
    made.add(session())
    made.save()
    os.symlink(tmp_path / "elsewhere", path)
    again = Table(path, BOOT)
    assert path in again.load()
    assert len(again) == 0
    again.save()
    assert not os.path.islink(path)


def test_a_login_beyond_the_limit_of_a_person_ends_that_persons_oldest(path: str, monkeypatch) -> None:
    monkeypatch.setattr(table, "PER_USER", 3)
    made = Table(path, BOOT)
    assert made.add(session(100, "bob")) == []
    for number in range(3):
        assert made.add(session(number)) == []
    too_many = made.add(session(3))
    assert [one.hash for one in too_many] == [hash_of("0")]
    for one in too_many:
        made.drop(one.hash)
    assert [one.hash for one in made.of("alice")] == [hash_of(str(number)) for number in (1, 2, 3)]
    assert len(made.of("bob")) == 1


def test_a_full_table_takes_nobody_else(path: str, monkeypatch) -> None:
    monkeypatch.setattr(table, "LIMIT", 2)
    made = Table(path, BOOT)
    made.add(session(1))
    made.add(session(2, "bob"))
    with pytest.raises(OverflowError, match="2 sessions"):
        made.add(session(3, "carol"))
    assert made.users() == ["alice", "bob"]


def test_what_is_dropped_is_gone_and_dropping_it_again_is_nothing(path: str) -> None:
    made = Table(path, BOOT)
    made.add(session(1))
    assert made.find(hash_of("1")) is not None
    assert made.drop(hash_of("1")) is not None
    assert made.drop(hash_of("1")) is None
    assert made.find(hash_of("1")) is None
    assert made.of("alice") == made.users() == made.all() == []


def test_a_session_ends_at_its_end_and_when_nobody_used_it(path: str) -> None:
    one = session(ends=1_000.0, used=100.0)
    assert one.over(200.0, 300.0 + LAG - 0.1) == ""
    assert one.over(200.0, 300.0 + LAG) == "idle"
    assert one.over(2_000.0, 999.9) == ""
    assert one.over(2_000.0, 1_000.0) == "expired"
    made = Table(path, BOOT)
    made.add(one)
    made.touch(one.hash, 250.0)
    made.touch(hash_of("unknown"), 250.0)
    assert one.over(200.0, 300.0 + LAG) == ""
