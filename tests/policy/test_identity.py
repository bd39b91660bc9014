"""Nobody impossible asks (attack rows A9, A10)."""

from __future__ import annotations

from typing import Any

import pytest

from policy.identity import ROOT, Identity, person

HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize("uid", [-1, 2**32 - 1, 2**32, -(2**31), 2**70, True, 1001.0, "1001", None])
def test_a9_an_identity_with_an_impossible_uid_cannot_be_made(uid: Any) -> None:
    with pytest.raises(ValueError, match="is not a uid"):
        Identity("alice", uid)
    with pytest.raises(ValueError, match="is not a uid"):
        person("alice", uid, [], HASH)


@pytest.mark.parametrize("uid", [0, 1, 65534, 2**31, 4_000_000_000, 2**32 - 2])
def test_a9_a_possible_uid_is_kept_and_is_not_root_by_itself(uid: int) -> None:
    somebody = person("alice", uid, ["webops"], HASH)
    assert somebody == Identity("alice", uid, frozenset({"webops"}), HASH[:12])
    assert not somebody.root


@pytest.mark.parametrize("user", ["", "Alice", "\uff41lice", "1001", "alice\n", "alice\0x", "a" * 300])
def test_a10_an_identity_with_an_impossible_name_cannot_be_made(user: str) -> None:
    with pytest.raises(ValueError, match="is not a user name"):
        Identity(user, 1001)


def test_groups_that_no_policy_can_name_are_left_out() -> None:
    assert person("alice", 1001, ["webops", "Domain Users", "\x1b[31m", "1001", "webops"], HASH).groups == {"webops"}
    with pytest.raises(ValueError, match="is not the name of a Unix group"):
        Identity("alice", 1001, frozenset({"Domain Users"}))


@pytest.mark.parametrize("session", ["x", HASH, HASH[:12] + "\n", HASH[:11], "ABCDEF012345"])
def test_a_session_is_shown_by_twelve_digits_of_its_hash(session: str) -> None:
    with pytest.raises(ValueError, match="session's hash"):
        Identity("alice", 1001, session=session)


def test_only_root_is_root() -> None:
    assert ROOT.root
    for user, uid, groups, session in (
        ("alice", 0, frozenset[str](), ""),
        ("root", 1001, frozenset[str](), ""),
        ("root", 0, frozenset({"wheel"}), ""),
        ("root", 0, frozenset[str](), HASH[:12]),
    ):
        with pytest.raises(ValueError, match="is root"):
            Identity(user, uid, groups, session, root=True)


def test_an_identity_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        person("alice", 1001, [], HASH).root = True  # type: ignore[misc]
