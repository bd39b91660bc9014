"""What auth may tell the supervisor, and what it cannot say (attack rows A9, A10)."""

from __future__ import annotations

import msgspec
import pytest

from policy import login, wire

HASH = "ab" * 32


def up(**changed: object) -> bytes:
    fields = {"hash": HASH, "user": "alice", "uid": 1001, "groups": ["webops"], "ends": 99.5, "idle": 1800, "number": 7}
    return msgspec.json.encode({"push": "up", **fields, **changed})


def test_a_session_is_told_to_the_supervisor() -> None:
    assert wire.PUSH.decode(up()) == login.SessionUp(HASH, "alice", 1001, ["webops"], 99.5, 1800.0, 7)


@pytest.mark.parametrize("uid", [-1, 2**32 - 1, 2**32, -(2**31), 2**70, 1.0, True, "1001", None])
def test_a9_a_uid_that_cannot_be_is_malformed(uid: object) -> None:
    with pytest.raises(wire.Malformed):
        wire.PUSH.decode(up(uid=uid))


@pytest.mark.parametrize("uid", [0, 1, 2**31, 4_000_000_000, 2**32 - 2])
def test_a9_a_uid_that_can_be_is_taken_as_it_is(uid: int) -> None:
    told = wire.PUSH.decode(up(uid=uid))
    assert isinstance(told, login.SessionUp)
    assert told.uid == uid


@pytest.mark.parametrize(
    "user", ["", "Alice", "\uff41\uff4c\uff49\uff43\uff45", "1001", "alice\n", "alice\0x", "a" * 300]
)
def test_a10_a_user_that_cannot_be_is_malformed(user: str) -> None:
    with pytest.raises(wire.Malformed):
        wire.PUSH.decode(up(user=user))


@pytest.mark.parametrize(
    "changed", [{"hash": HASH + "0"}, {"hash": HASH.upper()}, {"hash": HASH + "\n"}, {"ends": -1}, {"idle": "30m"}]
)
def test_a_session_with_an_impossible_hash_or_end_is_malformed(changed: dict[str, object]) -> None:
    with pytest.raises(wire.Malformed):
        wire.PUSH.decode(up(**changed))


def test_a_group_with_a_name_of_another_directory_does_not_break_the_link() -> None:
    told = wire.PUSH.decode(up(groups=["Domain Users@EXAMPLE", "webops"]))
    assert isinstance(told, login.SessionUp)
    assert told.groups == ["Domain Users@EXAMPLE", "webops"]


def test_a_source_with_control_characters_is_malformed() -> None:
    for source in ("a\nb", "\x1b[31m", "é", "x" * 101):
        with pytest.raises(wire.Malformed):
            wire.ASK.decode(msgspec.json.encode({"do": "login", "user": "a", "password": "p", "source": source}))
