"""rootd/keeper/main on a machine that is short of processes or descriptors: it lives on."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from theatre import Theatre, opened

from rootd import ipc
from rootd.keeper import main as keeper
from rootd.privileged import spawn


@contextlib.contextmanager
def descriptors(most: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_an_upgrade_that_cannot_be_tried_nor_refused_for_want_of_descriptors_is_said_and_ends_nobody(
    capfd: pytest.CaptureFixture[str],
) -> None:
    parent = keeper.Keeper({}, command=("/nowhere",))
    ours, theirs = ipc.pair()
    parent.begun = True
    parent.due.clear()
    parent.children["privileged"] = keeper.Child(os.getpid(), ipc.Link(ours), 100.0)
    with descriptors(3):
        parent.renewal.ask(7)
    assert "nothing was changed: it cannot be tried now: Too many open files" in capfd.readouterr().err
    parent.children["privileged"].link.close()
    os.close(parent.children["privileged"].pidfd)
    for sock in (theirs, parent.wakeup, parent.writer):
        sock.close()
    parent.loop.close()


def test_as_much_as_privileged_may_store_can_be_handed_to_the_next_one_however_few_may_be_open(tmp_path: Path) -> None:
    with descriptors(1024):
        kept, theatre = spawn.Kept(), Theatre(tmp_path)
    names = list[str]()
    while not kept.full("site", 0):
        names.append(f"process/{len(names)}")
        kept.add(names[-1])
    for _ in opened(theatre):
        theatre.begin()
        for name in names:
            theatre.order("privileged", do="send", op=ipc.STORE, name=name, fd=1)
        theatre.order("privileged", do="exit", status=1)
        assert theatre.enter("privileged")["privileged"]["held"] == sorted(names)
        assert "cannot be" not in theatre.stderr.read_text()


def test_a_part_that_cannot_be_forked_or_linked_now_is_started_later(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Processes or descriptors are short: the keeper goes on, and tries again."""

    def short(*_: object) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    parent = keeper.Keeper({})
    monkeypatch.setattr(keeper.os, "fork", short)  # type: ignore[attr-defined]
    parent.try_start("auth", 100.0)
    assert parent.due["auth"] == 100.0 + keeper.BACKOFF_CAP
    assert "auth cannot be started now: Resource temporarily unavailable" in capfd.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(parent, "start", short)
    ours, theirs = ipc.pair()
    pid = os.fork()
    if pid == 0:
        signal.pause()
    parent.children["auth"] = keeper.Child(pid, ipc.Link(ours), 100.0)
    parent.due.clear()
    parent.try_start("auth", 100.0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert not parent.due  # its death is seen by reap
    parent.children["auth"].link.close()
    os.close(parent.children["auth"].pidfd)
    theirs.close()
    for sock in (parent.wakeup, parent.writer):
        sock.close()
    parent.loop.close()
