"""rootd/forked: a child is a child, and ends as one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from rootd import forked


def status_of(act: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        with forked.ending():
            act()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("act", "status"),
    [
        (lambda: None, 0),
        (lambda: sys.exit(71), 71),
        (lambda: sys.exit("in words"), forked.FAILED),
        (lambda: 1 / 0, forked.FAILED),
        (lambda: os.kill(os.getpid(), 9), -9),
    ],
)
def test_it_ends_with_what_it_was_forked_for_and_says_how(act: Callable[[], object], status: int) -> None:
    assert status_of(act) == status


def test_what_went_wrong_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        raise RuntimeError("of a child")

    assert status_of(act) == forked.FAILED
    assert "RuntimeError: of a child" in capfd.readouterr().err


def test_it_has_its_link_and_the_standard_descriptors_alone_and_its_name() -> None:
    link, other = os.pipe()

    def act() -> None:
        forked.alone(other)
        forked.called("somebody-with-a-long-name")
        with open("/proc/self/comm") as comm:
            name = comm.read()
        found = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
        os.write(3, f"{found[:4]} {len(found)} {os.get_inheritable(3)} {name}".encode())

    assert status_of(act) == 0
    os.close(other)
    with open(link) as said:
        assert said.read() == "[0, 1, 2, 3] 5 False durward-somebod\n"  # and that of the listing
