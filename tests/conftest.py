"""What every test may use. Privileged tests skip with a reason when not root; where CI runs, none may skip.

The slow ones, and those that boot systemd or drive a browser, run only when -m names them, as the benchmark does.
Two processes may share the work (pytest-xdist): what uses the same accounts stays in one of them, and so does a file.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
settings.register_profile("untimed", settings(), deadline=None)  # how long one takes says what else the machine does
settings.load_profile("untimed")
TOGETHER = ("system", "rootd/auth")  # each has the accounts of a run for itself


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker in ("slow", "systemd", "browser"):
        if marker not in config.option.markexpr and (long := [i for i in items if i.get_closest_marker(marker)]):
            config.hook.pytest_deselected(items=long)
            items[:] = [item for item in items if item not in long]
    items.sort(key=lambda item: not item.path.is_relative_to(TESTS / "system"))  # the longest first
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(
        reason="needs root: real users, real ports, real capabilities; run it by sudo ./packaging/test"
    )
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0].removeprefix("tests/")
            return next((folder for folder in TOGETHER if file.startswith(f"{folder}/")), file)

    return Together(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """CI has everything that a test may want: what is skipped there would never be seen to fail."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and os.geteuid() == 0:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} may not be skipped under CI: {report.longrepr}"
    return report
