"""What every test may use. Privileged tests skip with a reason when not root; where CI runs, none may skip.

The slow ones run only when -m names them, as the benchmark does.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" not in config.option.markexpr and (slow := [item for item in items if item.get_closest_marker("slow")]):
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(
        reason="needs root: real users, real ports, real capabilities; run it by sudo ./packaging/test"
    )
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """CI has everything that a test may want: what is skipped there would never be seen to fail."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and os.geteuid() == 0:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} may not be skipped under CI: {report.longrepr}"
    return report
