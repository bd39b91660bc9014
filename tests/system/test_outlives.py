"""A process that outlives SIGKILL: what was left of a run is known, and ended, whichever part is killed meanwhile.

A process that is stopped at its own end by a tracer stands for one in an uninterruptible sleep: both end later.

Source: ptrace(2) PTRACE_O_TRACEEXIT.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator

import pytest
import templates
from house import House
from people import processes_of

from policy import messages

pytestmark = pytest.mark.root

SEIZE, DETACH, TRACE_EXIT, WALL = 0x4206, 17, 0x40, 0x40000000
RESTART = 'restart = { backoff = "0.05s..0.1s" }'
SERVICES = {
    "family.toml": templates.plain("family", "fork", more=RESTART),
    "other.toml": templates.plain("other", more="autostart = false"),
}
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


@contextlib.contextmanager
def held(pid: int) -> Iterator[None]:
    """Its end is not finished before this is."""
    assert libc.ptrace(SEIZE, pid, None, TRACE_EXIT) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
        assert os.waitpid(pid, WALL)[0] == pid, "it has come to its end"
    finally:
        libc.ptrace(DETACH, pid, None, None)


@pytest.mark.parametrize("parts", [("privileged",), ("supervisor",), ("privileged", "supervisor")])
def test_a_service_is_not_started_beside_what_is_left_of_it_whoever_is_killed(
    make_house: Callable[..., House], parts: tuple[str, ...]
) -> None:
    house = make_house(SERVICES, policy={}).start()
    jobs = {house.people["jobs"].uid}
    (main,) = house.pids("family")
    house.until(lambda: len(processes_of(jobs)) == 2, "both are there")
    (child,) = set(processes_of(jobs)) - {main}
    with held(child):
        os.kill(main, signal.SIGKILL)
        house.until(lambda: house.status()["family"].state != "RUNNING", "its end is known")
        for part in parts:
            house.wait_back(part, house.kill9(part))
        for command in (messages.Start("other"), messages.Stop("other")):  # so long is long enough for both
            assert house.operate(command)[1].ok
        assert set(processes_of(jobs)) <= {main, child}
    house.wait_for(lambda seen: seen["family"].state == "RUNNING", "it is started again")
    house.until(lambda: len(processes_of(jobs)) == 2, "both are there again")
    assert not {main, child} & set(processes_of(jobs))
    assert house.operate(messages.Stop("family"))[1].ok
    assert processes_of(jobs) == {}
