"""The Authorization header."""

from __future__ import annotations

import pytest

from userapi.session import bearer

TOKEN = "0123456789abcdef" * 4


def test_a_bearer_token_is_taken():
    assert bearer(f"Bearer {TOKEN}") == TOKEN
    assert bearer(f"Bearer durward_{TOKEN}") == f"durward_{TOKEN}"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}\n",
        f"Bearer  {TOKEN}",
        f"Bearer {TOKEN} ",
        f"Bearer {TOKEN}0",
        f"Bearer durward_{TOKEN}0",
        f"Bearer durward_durward_{TOKEN}",
        f"Bearer Durward_{TOKEN}",
        "Bearer durward_",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN[:-1]}٣",
        f"Bearer {TOKEN}, Bearer {TOKEN}",
    ],
)
def test_anything_else_is_no_session(header):
    assert bearer(header) == ""
