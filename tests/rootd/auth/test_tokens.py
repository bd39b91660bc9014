"""Personal tokens as they are kept: two clocks, one file, limits."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, strategies as st

from policy.scope import Scope
from rootd.auth.tokens import LIMIT, PER_USER, SAVE_EVERY, SLACK, State, Token, Tokens

BOOT, NEXT = "11111111-aaaa", "22222222-bbbb"
DAY = 86400.0
WALL = 1_795_000_000.0  # a day of 2026


def token(number: int = 1, user: str = "alice", name: str = "", length: float = 90 * DAY, now: float = 100.0) -> Token:
    scope = Scope(name or f"t{number}", ("view",), ("site",))
    return Token(f"{number:064x}", user, 1001, scope, WALL, WALL + length, now + length)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "tokens.json")


def kept(path: str, *found: Token, boot: str = BOOT, now: float = 100.0) -> Tokens:
    made = Tokens(path, boot)
    for one in found:
        made.add(one, State(), now, WALL)
    made.save(now)
    return made


def test_a_token_ends_by_the_clock_that_says_so_first() -> None:
    one = token(length=10 * DAY)
    assert one.over(100.0, WALL) == ""
    assert one.over(100.0 + 9 * DAY, WALL + 9 * DAY) == ""
    assert one.over(100.0, WALL + 10 * DAY) == "expired"
    assert one.over(100.0 + 10 * DAY, WALL) == "expired"
    assert one.until(100.0, WALL) == 100.0 + 10 * DAY
    assert one.until(100.0, WALL + 9 * DAY) == 100.0 + DAY


def test_a_wall_clock_before_the_token_was_made_is_not_believed() -> None:
    one = token()
    assert one.over(100.0, WALL - SLACK) == ""
    assert one.over(100.0, WALL - SLACK - 1) == "the clock has a time before it was made"
    assert one.over(100.0, 0.0) != ""


@given(st.lists(st.tuples(st.floats(0, 40 * DAY), st.floats(-400 * DAY, 400 * DAY), st.booleans()), max_size=12))
def test_whatever_is_done_to_the_wall_clock_no_token_is_alive_for_longer_than_its_length(
    history: list[tuple[float, float, bool]],
) -> None:
    """Each: for how long the machine runs, by how much its clock is off then, and whether it is started anew."""
    one, now, alive = token(length=30 * DAY), 100.0, 0.0
    for runs, off, restarts in history:
        wall = WALL + off
        if not one.over(now, wall):
            alive += min(runs, one.until(now, wall) - now)
        now += runs
        if restarts:
            one.ends, now = max(5.0 + one.ends - now, 0.0), 5.0
    assert alive <= 30 * DAY + 1e-3


def test_they_come_back_with_what_is_left_of_their_time(path: str) -> None:
    one = token(length=10 * DAY)
    kept(path, one, now=100.0)
    same, after = Tokens(path, BOOT), Tokens(path, NEXT)
    assert same.load(100.0 + DAY) == ""
    assert after.load(7.0) == ""
    assert same.all()[0].ends == 100.0 + 10 * DAY
    assert after.all()[0].ends == 7.0 + 10 * DAY
    assert after.state(after.all()[0]).why == "not checked yet"


def test_one_whose_time_was_up_before_the_boot_stays_over_and_can_be_saved_again(path: str) -> None:
    one = token(length=DAY)
    made = kept(path, one)
    made.save(100.0 + 3 * DAY)
    after = Tokens(path, NEXT)
    assert after.load(5.0) == ""
    assert after.all()[0].over(5.0, WALL) in ("", "expired")
    after.save(50.0)
    assert Tokens(path, NEXT).load(50.0) == ""


def test_the_file_is_for_auth_alone_and_has_no_token_that_was_not_answered(path: str) -> None:
    made = kept(path, token(1))
    made.add(token(2), State(open=False), 100.0, WALL)
    made.save(100.0)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert sorted(os.listdir(os.path.dirname(path))) == ["tokens.json"]
    assert [one["hash"] for one in msgspec.json.decode(Path(path).read_bytes())["tokens"]] == [token(1).hash]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"boot":"x","at":0,"tokens":[{}]}', b"\xff" * 100, b"[" * 9999])
def test_a_damaged_file_is_put_aside_and_said_and_holds_nobody(path: str, damage: bytes) -> None:
    Path(path).write_bytes(damage)
    made = Tokens(path, BOOT)
    said = made.load(100.0)
    assert "no personal token works" in said
    assert "tokens.json.damaged" in said
    assert Path(f"{path}.damaged").read_bytes() == damage
    assert len(made) == 0
    made.add(token(), State(), 100.0, WALL)
    made.save(100.0)
    assert Tokens(path, BOOT).load(100.0) == ""


def test_every_single_changed_byte_is_harmless(path: str) -> None:
    """It is damaged, or it is another token's hash, name or time: no crash, and nobody is more than the file says."""
    kept(path, token())
    text = Path(path).read_bytes()
    for at in range(0, len(text), 3):
        Path(path).write_bytes(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :])
        made = Tokens(path, BOOT)
        said = made.load(100.0)
        assert len(made) == (0 if said else 1)


def test_a_link_in_its_place_is_not_followed(path: str, tmp_path: Path) -> None:
    kept(str(tmp_path / "other"), token())
    os.symlink(tmp_path / "other", path)
    made = Tokens(path, BOOT)
    assert "no personal token works" in made.load(100.0)
    assert len(made) == 0


def test_what_cannot_be_written_is_tried_again(path: str, tmp_path: Path) -> None:
    made = kept(path, token())
    os.mkdir(f"{path}.new")
    made.drop(token().hash)
    with pytest.raises(OSError, match="directory"):
        made.save(100.0)
    assert made.dirty
    os.rmdir(f"{path}.new")
    made.save(100.0)
    assert not made.dirty
    assert b"alice" not in Path(path).read_bytes()


def test_use_is_noted_to_the_minute_and_written_with_the_next_save(path: str) -> None:
    made = kept(path, token())
    made.touch(token().hash, WALL + 61.0)
    made.touch("f" * 64, WALL)
    assert made.all()[0].used == (WALL + 61.0) // 60 * 60
    assert not made.is_due(100.0 + SAVE_EVERY - 1)
    assert made.is_due(100.0 + SAVE_EVERY)


def test_nobody_has_more_than_his_share_and_what_has_expired_makes_room(path: str) -> None:
    made = Tokens(path, BOOT)
    for number in range(PER_USER):
        made.add(token(number, length=DAY if number else 90 * DAY), State(), 100.0, WALL)
    with pytest.raises(OverflowError, match="you have 20 tokens"):
        made.add(token(99), State(), 100.0, WALL)
    made.add(token(98, "bob"), State(), 100.0, WALL)
    made.add(token(99), State(), 100.0 + 2 * DAY, WALL + 2 * DAY)
    assert [one.scope.name for one in made.of("alice")] == ["t0", "t99"]
    assert made.named("alice", "t99") is made.find(token(99).hash)
    assert made.named("bob", "t99") is None


def test_there_are_never_more_than_the_limit(path: str) -> None:
    made = Tokens(path, BOOT)
    for number in range(LIMIT):
        made.add(token(number, f"u{number // PER_USER}"), State(), 100.0, WALL)
    with pytest.raises(OverflowError, match="1000 tokens"):
        made.add(token(LIMIT, "late"), State(), 100.0, WALL)


def test_what_has_expired_of_others_makes_room_when_there_is_none(path: str) -> None:
    made = Tokens(path, BOOT)
    for number in range(LIMIT):
        made.add(token(number, f"u{number // PER_USER}", length=DAY if number < 2 else 90 * DAY), State(), 100.0, WALL)
    made.add(token(LIMIT, "late"), State(), 100.0 + 2 * DAY, WALL + 2 * DAY)
    assert len(made) == LIMIT - 1


def test_a_file_that_has_what_was_revoked_and_cannot_be_replaced_is_removed(path: str) -> None:
    made = kept(path, token(1), token(2, "bob"))
    os.mkdir(f"{path}.new")  # as where the disk is full: nothing can be written, and what is there be removed
    made.drop(token(1).hash)
    assert made.is_stale
    with pytest.raises(OSError, match="directory"):
        made.save(100.0)
    assert not made.is_stale
    assert not os.path.exists(path)
    os.rmdir(f"{path}.new")
    assert made.dirty
    made.save(100.0)
    again = Tokens(path, BOOT)
    assert again.load(100.0) == ""
    assert [one.user for one in again.all()] == ["bob"]


def test_a_file_without_anything_that_was_revoked_stays_although_it_cannot_be_replaced(path: str) -> None:
    made = kept(path, token(1, length=DAY), token(2, "bob"))
    os.mkdir(f"{path}.new")
    made.add(token(3), State(), 100.0 + 2 * DAY, WALL + 2 * DAY)  # in the place of one that has expired
    made.drop(token(3).hash)  # and was never in the file
    with pytest.raises(OSError, match="directory"):
        made.save(100.0)
    assert b"bob" in Path(path).read_bytes()
