"""auth as a process with its real account: what it answers, whom it believes, what it is. SECURITY.md rows A."""

from __future__ import annotations

import pytest

from policy import login

pytestmark = pytest.mark.root


def test_the_right_password_is_granted_a_session_that_the_supervisor_has_seen(auth, people) -> None:
    alice = people("alice")
    granted = auth.granted(alice)
    assert (granted.user, granted.uid) == (alice.name, alice.uid)
    up = next(push for push in auth.pushed if isinstance(push, login.SessionUp))
    assert (up.user, up.uid) == (alice.name, alice.uid)


def test_a_wrong_password_is_refused(auth, people) -> None:
    assert isinstance(auth.login(people("alice").name, "wrong"), login.Denied)
    assert auth.why() == "wrong password, or locked"
