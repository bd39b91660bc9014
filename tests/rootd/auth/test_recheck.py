"""What is found out about an account, with real accounts; and what it means for a session, for every answer."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st

from policy import login, wire
from rootd import accounts
from rootd.auth import recheck
from rootd.auth.pam import Refused, Unsure, Verdict
from rootd.config.settings import User

KEY = b"k" * 32
FINE = Verdict(True, "", True, "alice", 1001, ("alice",), "mark")


@pytest.mark.parametrize(
    "name",
    ["", "Alice", "\uff41\uff4c\uff49\uff43\uff45", "1001",
     "alice\n", "alice\0x", "a" * 33, "a" * 300, "../../x", "al ice", "-alice", "álice",
     "alice\\", "DOMAIN\\alice", "alice@example.org", "root\0", "\ud800x"],
)  # fmt: skip
def test_a10_a11_what_cannot_be_a_name_is_none(name: str) -> None:
    assert not recheck.is_name(name)
    with pytest.raises(Refused, match="unknown user"):
        recheck.find(name)


@pytest.mark.parametrize("name", ["root", "durward-nobody-has-this-name"])
def test_a10_nobody_is_found_under_a_name_that_nobody_has_or_that_is_roots(name: str) -> None:
    assert recheck.is_name(name)
    with pytest.raises(Refused):
        recheck.find(name)


@pytest.mark.parametrize("uid", [0, 4_294_967_295])
def test_a9_another_name_for_root_is_root_and_uid_minus_one_is_nobody(
    monkeypatch: pytest.MonkeyPatch, uid: int
) -> None:
    monkeypatch.setattr(accounts, "find_user", lambda _name: User(uid, 1001, (1001,), "/", "/bin/sh"))
    with pytest.raises(Refused):
        recheck.find("toor")


@pytest.mark.parametrize(
    ("password", "fine"),
    [("x", True), ("x" * 512, True), ("é" * 256, True), ("x" * 513, False), ("é" * 257, False), ("", False),
     ("x\0y", False), ("\0", False), ("x" * (1 << 20), False)],
)  # fmt: skip
def test_a21_pam_sees_no_password_that_is_empty_overlong_or_has_a_nul(password: str, fine: bool) -> None:
    assert recheck.is_password(password) is fine


@pytest.mark.parametrize(
    ("source", "host"),
    [("192.0.2.1", "192.0.2.1"), ("2001:DB8::1", "2001:db8::1"), ("unix", ""), ("", ""), ("evil.example", ""),
     ("192.0.2.1 x", "")],
)  # fmt: skip
def test_pam_is_told_of_addresses_and_of_nothing_else(source: str, host: str) -> None:
    assert recheck.remote_host(source) == host


@given(st.binary(), st.binary())
def test_marks_differ_exactly_when_the_fields_do(one: bytes, two: bytes) -> None:
    marks = [recheck.mark(KEY, "alice", field) for field in (one, two, None)]
    assert (marks[0] == marks[1]) is (one == two)
    assert marks[2] not in marks[:2]
    assert recheck.mark(b"other", "alice", one) != marks[0]
    assert recheck.mark(KEY, "bob", one) != marks[0]


@given(st.booleans(), st.booleans(), st.integers(-1, 2), st.sampled_from(["mark", "other", ""]), st.text(min_size=1))
def test_a14_a_session_goes_on_only_for_the_same_account_with_the_same_password(
    ok: bool, sure: bool, uid: int, mark: str, why: str
) -> None:
    verdict = Verdict(ok, why, sure, "alice", uid, (), mark)
    ended = recheck.ended(1, "mark", verdict)
    if not ok:
        assert ended == (why if sure else "")
    else:
        assert bool(ended) is (uid != 1 or mark != "mark")


def test_what_is_said_of_a_session_that_ends() -> None:
    assert recheck.ended(1001, "mark", FINE) == ""
    assert recheck.ended(1002, "mark", FINE) == "account gone"
    assert recheck.ended(1001, "old", FINE) == "password changed"
    assert recheck.ended(1001, "mark", Verdict(False, "expired")) == "expired"
    assert recheck.ended(1001, "mark", Verdict(False, "PAM crashed", sure=False)) == ""


def test_the_shadow_file_is_read_for_exactly_one_line(tmp_path, monkeypatch) -> None:
    path = tmp_path / "shadow"
    monkeypatch.setattr(recheck, "SHADOW", str(path))
    path.write_bytes(b"alice2:x2:1::::::\nalice:$y$one:19000:0:99999:7:::\nbob:!:\n\xff:y:\nempty::1:::::\nshort:z\n")
    assert recheck.shadow_field("alice") == b"$y$one"
    assert recheck.shadow_field("bob") == b"!"
    assert recheck.shadow_field("empty") == b""
    assert recheck.shadow_field("short") == b"z"
    assert recheck.shadow_field("alic") is None
    path.write_bytes(b"alice:a:\nalice:b:\n")
    with pytest.raises(Unsure, match="several lines"):
        recheck.shadow_field("alice")
    path.unlink()
    with pytest.raises(Unsure, match="cannot be read"):
        recheck.shadow_field("alice")


@pytest.mark.root
def test_groups_are_those_of_the_database_now(people) -> None:
    alice = people("alice")
    names = recheck.group_names(recheck.find(alice.name).groups)
    assert names == (alice.name,)
    assert recheck.group_names((alice.gid, 4_000_000_000)) == (alice.name,)
    assert os.getgrouplist(alice.name, alice.gid) == [alice.gid]


def test_group_names_that_no_rule_can_say_are_left_out_and_cost_nobody_his_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = ["webops", "g" * 300, "domain users@example.org", "", "\udc80", "a" * 32]
    monkeypatch.setattr(recheck.grp, "getgrgid", lambda gid: SimpleNamespace(gr_name=found[gid]))
    names = recheck.group_names(tuple(range(len(found))))
    assert names == ("a" * 32, "webops")
    up = login.SessionUp("0" * 64, "alice", 1001, list(names), 1.0, 1.0, 1)
    assert wire.PUSH.decode(wire.PUSH.encode(up)) == up
