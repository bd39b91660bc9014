"""Two browsers: alice's, who has logged in, and a stranger's."""

from __future__ import annotations

import pytest
from browsing import Browser

from policy import messages


@pytest.fixture
def browser(app, world, token) -> Browser:
    """alice's, who has logged in."""
    world.answers[messages.ListApprovals] = messages.Approvals([])
    return Browser(app.test_client(), token)


@pytest.fixture
def stranger(app) -> Browser:
    return Browser(app.test_client(), "")
