"""What every test may use. Privileged tests skip with a reason when not root; where CI runs, none may skip.

The slow ones, and those that boot systemd or drive a browser, run only when -m names them, as the benchmark does.
Some processes may share the work (pytest-xdist): a file stays in one of them, and so does what uses the same accounts
or numbers of users; those of tests/system belong to each process, since what runs there is mostly waiting. One that
is marked as alone measures time finer than the others leave it, and runs while they run nothing.
Each of them collects all tests, but begins with others: what pytest makes of their asserts takes half a minute, and is
kept (DURWARD_TEST_BYTECODE) for the other processes and for the next run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
settings.register_profile("untimed", settings(), deadline=None)  # how long one takes says what else the machine does
settings.load_profile("untimed")
TOGETHER = ("rootd/auth", "rootd/privileged", "rootd/keeper")  # each looks at all processes of its users
LONG = ("userapi/test_worker.py",)  # it waits for half a minute, where hardly anything else is left to be run
FIRST = tuple(TESTS / name for name in ("system", *TOGETHER, *LONG))  # what takes longest, so that all end together

LOCKS = pytest.StashKey[tuple[int, int]]()


@pytest.fixture(scope="session", autouse=True)
def _turns(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two files of a run that several processes share, open to its end: whose turn it is to begin; who runs a test."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = tmp_path_factory.getbasetemp().parent  # the processes' own are in it
        turn, running = (os.open(shared / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC) for name in ("turn", "running"))
        request.config.stash[LOCKS] = turn, running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Who is to be alone holds the turn while the others end what they run, so that he need not wait for ever."""
    if LOCKS not in item.config.stash:
        return (yield)  # a process's first
    turn, running = item.config.stash[LOCKS]
    fcntl.flock(turn, fcntl.LOCK_EX)
    fcntl.flock(running, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
    fcntl.flock(turn, fcntl.LOCK_UN)
    try:
        return (yield)
    finally:
        fcntl.flock(running, fcntl.LOCK_UN)  # children that were forked have the same one


@contextlib.contextmanager
def kept_bytecode() -> Iterator[None]:
    """What is imported meanwhile is taken from the cache and goes there, not into somebody's checkout."""
    before = sys.pycache_prefix, sys.dont_write_bytecode
    if cache := os.environ.get("DURWARD_TEST_BYTECODE"):
        sys.pycache_prefix, sys.dont_write_bytecode = cache, False
    try:
        yield
    finally:
        sys.pycache_prefix, sys.dont_write_bytecode = before


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, object]:
    with kept_bytecode():
        report = yield
    if isinstance(collector, pytest.Dir) and report.passed and "PYTEST_XDIST_WORKER" in os.environ:
        number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
        begin = number * len(report.result) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        report.result = report.result[begin:] + report.result[:begin]
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker in ("slow", "systemd", "browser"):
        if marker not in config.option.markexpr and (long := [i for i in items if i.get_closest_marker(marker)]):
            config.hook.pytest_deselected(items=long)
            items[:] = [item for item in items if item not in long]
    if "PYTEST_XDIST_WORKER" in os.environ:  # all need the same order, wherever they began
        items.sort(key=lambda item: item.path)
    first = {path: [not path.is_relative_to(folder) for folder in FIRST] for path in {item.path for item in items}}
    items.sort(key=lambda item: first[item.path])
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
