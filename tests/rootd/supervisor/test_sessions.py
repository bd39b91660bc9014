"""Who is logged in, and every way in which he is not."""

from __future__ import annotations

import ast
import hashlib
import re
from pathlib import Path

import pytest

from policy import login
from policy.scope import Scope
from rootd.supervisor import sessions
from rootd.supervisor.sessions import CONFIRMED, LIMIT, REVOKING_LIMIT, TOUCH, Sessions

TOKEN = "a" * 64
KEY = hashlib.sha256(TOKEN.encode()).hexdigest()
FOR_EVER = 1e9


def up(key: str = KEY, user: str = "alice", uid: int = 1001, **words: object) -> login.SessionUp:
    fields = {"groups": ["webops"], "ends": FOR_EVER, "idle": 1800.0, "number": 5} | words
    return login.SessionUp(key, user, uid, **fields)  # type: ignore[arg-type]


@pytest.fixture
def live() -> Sessions:
    known = Sessions()
    assert known.push(up(), 100.0) == login.Seen(5)
    return known


def test_a_session_is_found_by_its_token_and_names_its_person(live: Sessions) -> None:
    found = live.find(TOKEN, 101.0)
    assert found is not None
    assert (found.identity.user, found.identity.uid, found.identity.groups) == ("alice", 1001, {"webops"})
    assert found.identity.session == KEY[:12]
    assert not found.identity.root


@pytest.mark.parametrize("token", ["", TOKEN.upper(), TOKEN[:-1], TOKEN + "a", KEY, "b" * 64, TOKEN + "\n"])
def test_a3_no_other_token_finds_it_and_its_hash_does_not_either(live: Sessions, token: str) -> None:
    assert live.find(token, 101.0) is None


def test_a3_a_session_of_another_boot_or_instance_is_unknown_here(live: Sessions) -> None:
    assert live.find(TOKEN, 101.0) is not None
    assert Sessions().find(TOKEN, 101.0) is None


def test_a5_sessions_are_only_looked_up_by_digest() -> None:
    tree = ast.parse(Path(sessions.__file__).read_text())
    names = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert not [name for name in names if re.search(r"(?<!\.)\btoken\b", name)]  # a field `token` is a scope
    uses = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "encode"]
    assert [use for use in uses if use != "msgspec.json.encode"] == ["token.encode"]


def test_a4_a_session_ends_at_its_absolute_end(live: Sessions) -> None:
    live.push(up(ends=200.0), 110.0)
    assert live.find(TOKEN, 199.9) is not None
    assert live.find(TOKEN, 200.0) is None


def test_a_session_ends_when_no_command_came_for_its_idle_time(live: Sessions) -> None:
    live.push(up(idle=50.0), 100.0)
    found = live.find(TOKEN, 149.0)
    assert found is not None
    found.touch(149.0)
    assert live.find(TOKEN, 198.0) is not None
    assert live.find(TOKEN, 199.0) is None


def test_a_confirmation_does_not_count_as_use(live: Sessions) -> None:
    live.push(up(idle=50.0), 140.0)
    assert live.find(TOKEN, 150.0) is None


def test_a8_a_session_that_auth_does_not_confirm_is_refused_and_comes_back_when_it_does(live: Sessions) -> None:
    assert live.find(TOKEN, 100.0 + CONFIRMED - 0.1) is not None
    assert live.find(TOKEN, 100.0 + CONFIRMED) is None
    live.push(up(), 400.0)
    assert live.find(TOKEN, 401.0) is not None


def test_a13_a_confirmation_brings_the_groups_of_now(live: Sessions) -> None:
    live.push(up(groups=[]), 160.0)
    found = live.find(TOKEN, 161.0)
    assert found is not None
    assert not found.identity.groups


def test_a13_what_auth_ends_is_over_at_once(live: Sessions) -> None:
    assert live.push(login.SessionDown(KEY, "groups changed"), 101.0) is None
    assert live.find(TOKEN, 101.0) is None


def test_ending_what_is_unknown_does_nothing(live: Sessions) -> None:
    live.push(login.SessionDown("c" * 64, "logout"), 101.0)
    live.push(login.LoginNoted("x", "y", False, "z"), 101.0)
    assert live.find(TOKEN, 101.0) is not None


def test_a_restarted_auth_ends_what_it_does_not_tell(live: Sessions) -> None:
    live.push(up("c" * 64, "bob", 1002), 101.0)
    live.linked()
    live.push(up(), 102.0)
    assert live.still("c" * 64, 103.0) is not None, "until auth has told everything"
    live.push(login.SessionsEnd(), 103.0)
    assert live.still("c" * 64, 103.0) is None
    assert live.find(TOKEN, 103.0) is not None


@pytest.mark.parametrize(("user", "uid"), [("bob", 1001), ("alice", 1002)])
def test_a_session_never_becomes_another_persons(live: Sessions, user: str, uid: int) -> None:
    assert live.push(up(user=user, uid=uid), 101.0) is None
    assert live.find(TOKEN, 101.0) is None


@pytest.mark.parametrize(("user", "uid"), [("root:", 0), ("alice", -1), ("alice", 2**32 - 1), ("1001", 1001)])
def test_a9_nobody_impossible_is_logged_in(user: str, uid: int) -> None:
    known = Sessions()
    assert known.push(up(user=user, uid=uid), 1.0) is None
    assert known.find(TOKEN, 1.0) is None


def test_uid_0_with_a_session_is_not_root() -> None:
    known = Sessions()
    known.push(up(user="root", uid=0), 1.0)
    found = known.find(TOKEN, 1.0)
    assert found is not None
    assert not found.identity.root


def test_there_is_a_limit_and_whoever_is_in_stays_in(live: Sessions) -> None:
    for number in range(LIMIT - 1):
        assert live.push(up(f"{number:064x}"), 100.0)
    assert live.push(up("f" * 64), 100.0) is None
    assert live.push(up(), 100.0) is not None
    assert live.find(TOKEN, 100.0) is not None


def test_auth_is_told_of_use_now_and_then(live: Sessions) -> None:
    found = live.find(TOKEN, 101.0)
    assert found is not None
    assert found.touch(101.0) is None
    assert found.touch(100.0 + TOUCH) == login.Touched(KEY)
    assert found.touch(101.0 + TOUCH) is None


def test_auth_is_told_sooner_when_the_idle_time_is_short() -> None:
    known = Sessions()
    known.push(up(idle=4.0), 100.0)
    found = known.find(TOKEN, 101.0)
    assert found is not None
    assert found.touch(101.0) == login.Touched(KEY)


def test_what_was_revoked_stays_ended_whatever_auth_still_says_until_it_has_answered(live: Sessions) -> None:
    live.push(up("c" * 64, "bob", 1002), 101.0)
    assert live.revoke("alice") == 1
    assert live.find(TOKEN, 102.0) is None
    assert live.push(up(), 103.0) is None, "a confirmation that was on its way"
    assert live.find(TOKEN, 103.0) is None
    assert live.still("c" * 64, 103.0) is not None
    live.push(login.SessionDown(KEY, "revoked"), 104.0)
    assert live.push(up("d" * 64), 104.0) is None, "a login that was under way"
    live.push(login.Revoked(1), 105.0)
    assert live.push(up("e" * 64), 105.0) is not None, "a later login"
    assert live.revoke("") == 2
    assert live.still("c" * 64, 105.0) is None


def test_an_answer_to_an_earlier_revocation_does_not_answer_a_later_one(live: Sessions) -> None:
    live.revoke("alice")
    live.revoke("bob")
    live.revoke("alice")
    live.push(login.Revoked(1), 101.0)
    assert live.revoking() == [login.RevokeSessions("bob", 2), login.RevokeSessions("alice", 3)]
    live.revoke("")
    assert live.revoking() == [login.RevokeSessions("", 4)], "which is about alice and bob too"
    assert live.push(up(), 102.0) is None
    live.push(login.Revoked(4), 103.0)
    assert live.revoking() == []


def test_a_revocation_that_is_not_answered_counts_for_the_next_supervisor(live: Sessions) -> None:
    live.revoke("alice")
    following = Sessions()
    assert following.restore(live.to_keep()) == ""
    assert following.push(up(), 1.0) is None
    assert following.revoking() == [login.RevokeSessions("alice", 1)]
    following.revoke("bob")
    assert following.revoking()[-1].number == 2
    assert Sessions().restore(b"") == ""


@pytest.mark.parametrize("kept", [b"{", b"[]", b'{"alice":"1"}', b'{"alice":-1}', b"\xff", b'{"\xff":1}'])
def test_where_it_is_not_known_what_was_revoked_everybody_is_logged_out(kept: bytes) -> None:
    known = Sessions()
    assert known.restore(kept).startswith("what was revoked is damaged, everybody is logged out: ")
    assert known.push(up(), 1.0) is None
    assert known.revoking() == [login.RevokeSessions("", 1)]


def test_revocations_that_auth_leaves_unanswered_have_their_limit_and_everybodys_is_always_possible() -> None:
    known = Sessions()
    for number in range(REVOKING_LIMIT):
        known.revoke(f"user{number}")
    with pytest.raises(OverflowError, match="wait for auth"):
        known.revoke("alice")
    known.revoke("")
    assert len(known.revoking()) == 1


SCOPE = Scope("deploy", ("view", "restart"), ("site",))


def test_a_personal_token_carries_its_scope_and_does_not_end_by_not_being_used() -> None:
    known = Sessions()
    known.push(up(token=SCOPE, idle=1e12), 100.0)
    found = known.find(TOKEN, 101.0)
    assert found is not None
    assert found.identity.token == SCOPE
    assert found.touch(101.0) == login.Touched(KEY)  # the first use is told at once
    assert found.touch(102.0) is None
    assert (known.token_name(KEY), known.token_name("c" * 64)) == ("deploy", "")


@pytest.mark.parametrize(
    ("before", "after"), [(SCOPE, None), (None, SCOPE), (SCOPE, Scope("deploy", ("stop",), ("*",)))]
)
def test_a_token_never_becomes_one_for_something_else_nor_a_session(before: Scope | None, after: Scope | None) -> None:
    known = Sessions()
    known.push(up(token=before), 100.0)
    assert known.push(up(token=after), 101.0) is None
    assert known.find(TOKEN, 101.0) is None


def test_the_end_of_one_is_answered_where_that_is_asked_for(live: Sessions) -> None:
    assert live.push(login.SessionDown(KEY, "revoked", 9), 101.0) == login.Seen(9)
    assert live.push(login.SessionDown(KEY, "revoked", 10), 101.0) == login.Seen(10)
    assert live.find(TOKEN, 101.0) is None


def test_a16_tokens_are_revoked_with_the_sessions() -> None:
    known = Sessions()
    known.push(up(), 100.0)
    known.push(up("b" * 64, token=SCOPE), 100.0)
    known.push(up("c" * 64, "bob", 1002, token=SCOPE), 100.0)
    assert (known.tokens("alice"), known.tokens("")) == (1, 2)
    assert known.revoke("alice") == 2
    assert known.push(up("b" * 64, token=SCOPE), 101.0) is None
    assert (known.tokens("alice"), known.tokens("")) == (0, 1)
