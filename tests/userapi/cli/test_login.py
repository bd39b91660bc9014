"""Logging in and out."""

from __future__ import annotations

import json
import os

import pytest

from policy import login, wire


def test_a_login_is_kept_and_a_logout_forgets_it(durward, world):
    ended = durward("login", "-u", "alice", "--password-stdin", stdin="right\n")
    assert (ended.returncode, ended.stdout) == (0, f"logged in as alice until {world.now}\n")
    assert durward.session.stat().st_mode & 0o777 == 0o600
    assert durward("status").returncode == 0
    assert durward("logout").stdout == "logged out\n"
    assert durward("status").returncode == 77
    assert world.token not in durward.session.read_text()
    assert durward("logout").stdout == "there was no session\n"


def test_a16_a_token_that_somebody_kept_is_worth_nothing_after_logout(alice, world):
    kept = alice.session.read_text()
    alice("logout")
    alice.session.write_text(kept)
    assert alice("status").returncode == 77


def test_a_wrong_password_is_77_and_keeps_nothing(durward):
    ended = durward("login", "-u", "alice", "--password-stdin", stdin="wrong\n")
    assert (ended.returncode, ended.stderr) == (77, "login refused\n")
    assert not durward.session.exists()


def test_a_throttled_login_is_75_and_says_when(durward, world):
    world.auth.script = lambda _: login.Denied(text="too many attempts", retry_after=3.2)
    ended = durward("login", "-u", "alice", "--password-stdin", stdin="right\n")
    assert (ended.returncode, ended.stderr) == (75, "too many attempts; try again in 4 s\n")
    world.auth.script = lambda _: login.Denied(text="try again later", retry_after=3.2)
    assert durward("login", "-u", "alice", "--password-stdin", stdin="right\n").stderr == "try again in 4 s\n"


def test_the_password_is_the_line_and_nothing_is_taken_from_it(durward, world):
    durward("login", "-u", "alice", "--password-stdin", stdin=" pass word \nmore\n")
    assert world.auth.asked[0].password == " pass word "
    durward("login", "-u", "alice", "--password-stdin", stdin="\n")
    assert world.auth.asked[1].password == ""
    assert durward("login", "-u", "alice", "--password-stdin").returncode == 2


def test_e9_the_password_is_in_no_argument_and_no_environment(durward):
    assert "--password " not in durward("login", "-h").stdout


def test_the_user_is_this_process_s_own_when_none_is_named(durward, world):
    import pwd

    durward("login", "--password-stdin", stdin="right\n")
    assert world.auth.asked[0].user == pwd.getpwuid(os.getuid()).pw_name


def test_without_a_terminal_a_password_is_not_asked_for(durward, world):
    ended = durward("login", "-u", "alice", start_new_session=True)
    assert ended.returncode == 2
    assert "--password-stdin" in ended.stderr
    assert world.auth.asked == []


@pytest.fixture
def peer(world):
    """auth's second socket."""
    peer = type(world.auth)(world.run / "peer.sock", wire.ASK.decode, lambda _, tell: wire.TELL.encode(tell))
    peer.script = lambda _: login.Granted(token=world.token, user="alice", uid=1001, expires=world.now)
    yield peer
    peer.close()


def test_where_the_kernel_vouches_no_password_is_needed(durward, peer):
    ended = durward("login", "--json")
    assert ended.returncode == 0
    assert set(json.loads(ended.stdout)) == {"user", "expires"}
    assert peer.asked == [login.PeerLogin()]
    assert durward("status").returncode == 0


def test_who_names_a_user_types_a_password_all_the_same(durward, peer):
    durward("login", "-u", "alice", "--password-stdin", stdin="right\n")
    assert peer.asked == []


def test_a_peer_login_that_is_denied_is_a_denial(durward, peer):
    peer.script = lambda _: login.Denied(text="the account is locked")
    ended = durward("login")
    assert ended.returncode == 77
    assert ended.stderr.startswith("the account is locked\n")


def test_a_session_file_that_others_can_read_is_refused(alice):
    alice.session.chmod(0o644)
    ended = alice("status")
    assert ended.returncode == 77
    assert "not yours alone" in ended.stderr


def test_root_needs_no_login(durward, root):
    assert durward("--root", "login", "-u", "x", "--password-stdin", stdin="x\n").returncode == 2
    assert durward("--root", "logout").returncode == 2
