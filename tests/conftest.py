"""What every test may use. Privileged tests skip with a reason when not root."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(
        reason="needs root: real users, real ports, real capabilities; run it by sudo ./packaging/test"
    )
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)
