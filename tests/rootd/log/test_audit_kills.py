"""The audit log, killed at every system call that it makes. DESIGN §9, security.md §6."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rootd.log import chain


def record(**fields: Any) -> str:
    return chain.canonical({"kind": "decision", **fields})


def deed(number: int) -> dict[str, Any]:
    return {"kind": "deed", "number": number}


CALLS = ("open", "write", "pwrite", "fdatasync", "fsync", "ftruncate", "close", "rename")


def kill_at(step: int, mode: str) -> None:
    """From now on in this process: SIGKILL before, after or in the middle of the step-th call of CALLS."""
    count = iter(range(1_000_000))

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(count) != step:
                return real(*args, **kwargs)
            if mode == "half" and name == "write":  # the key is 104 bytes of one page and sector: whole or not at all
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            elif mode == "after":
                with contextlib.suppress(OSError):
                    real(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(name, getattr(os, name)))


def killed(step: int, mode: str, work: Callable[[Callable[[int], None]], None]) -> tuple[bool, list[int]]:
    """Run work(acknowledge) in a child that is killed at a step. Whether it was, and what it acknowledged."""
    reader, writer = os.pipe()
    tell = os.write
    pid = os.fork()
    if pid == 0:
        try:
            kill_at(step, mode)
            work(lambda number: void(tell(writer, bytes([number]))))
        finally:
            os._exit(0)
    os.close(writer)
    acknowledged = list(iter_bytes(reader))
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status), acknowledged


def void(_: object) -> None:
    return None


def iter_bytes(fd: int) -> Iterator[int]:
    with os.fdopen(fd, "rb") as file:
        yield from file.read()


def session(place: Any, first: int) -> Callable[[Callable[[int], None]], None]:
    """Start; a record; two records and a deed at once; end."""

    def work(acknowledge: Callable[[int], None]) -> None:
        log = place.open()
        for batch in ([first], [first + 1, first + 2]):
            log.note(deed(first + 100 + batch[0]))
            if log.settle([record(number=number) for number in batch]) == 0:
                for number in batch:
                    acknowledge(number)
        log.close("end")

    return work


def check_after_a_kill(place: Any, acknowledged: list[int]) -> None:
    """The next start repairs what the kill left; nothing acknowledged is lost, nothing is twice or out of order."""
    log = place.open()
    assert log.settle([record(number=255)]) == 0
    report = place.verify()
    assert report.problems == ()
    assert report.next_n == report.records == log.next_n
    written = place.numbers()
    assert written == sorted(set(written))
    assert set(acknowledged) <= set(written)
    assert not any(reason.startswith("damaged") for reason in place.starts()), place.starts()
    place.close()


@pytest.mark.parametrize("mode", ["before", "after", "half"])
def test_a_kill_at_any_step_leaves_a_log_that_verifies_and_holds_all_that_was_acknowledged(
    places: Any, tmp_path: Path, mode: str
) -> None:
    torn = 0
    for step in range(1_000):
        place = places(tmp_path / f"log{step}", tmp_path / f"state{step}")
        was_killed, acknowledged = killed(step, mode, session(place, 1))
        check_after_a_kill(place, acknowledged)
        torn += place.verify().torn
        if not was_killed:
            assert acknowledged == [1, 2, 3]
            assert place.starts() == ["first", "clean"]
            break
        assert "clean" not in place.starts() or place.numbers()[:-1] == [1, 2, 3]
    assert step > 20
    assert (torn > 0) == (mode == "half")


@pytest.mark.parametrize("mode", ["before", "after", "half"])
def test_a_kill_at_any_step_of_a_rotation_leaves_a_chain_that_goes_on_in_the_next_file(
    places: Any, tmp_path: Path, mode: str
) -> None:
    for step in range(1_000):
        place = places(tmp_path / f"log{step}", tmp_path / f"state{step}")
        place.size = 200  # a file for each batch
        was_killed, acknowledged = killed(step, mode, session(place, 1))
        check_after_a_kill(place, acknowledged)
        if not was_killed:
            assert acknowledged == [1, 2, 3]
            assert len(place.files()) >= 3
            break
    assert step > 30


@pytest.mark.parametrize("mode", ["before", "after", "half"])
def test_a_kill_at_any_step_of_the_repair_of_a_torn_line_is_repaired_too(
    places: Any, tmp_path: Path, mode: str
) -> None:
    for step in range(1_000):
        place = places(tmp_path / f"log{step}", tmp_path / f"state{step}")
        place.open().settle([record(number=0)])
        key = place.key.read_bytes()
        place.open().settle([record(number=1)])
        place.key.write_bytes(key)  # as if killed in the middle of that write
        os.truncate(place.file, place.file.stat().st_size - 50)
        was_killed, acknowledged = killed(step, mode, session(place, 2))
        check_after_a_kill(place, acknowledged)
        if not was_killed:
            break
    assert step > 10


def test_lines_that_were_written_and_not_acknowledged_are_kept_when_they_are_whole(place: Any) -> None:
    log = place.open()
    log.settle()
    key = place.key.read_bytes()
    log.settle([record(number=n) for n in range(40)])
    place.key.write_bytes(key)
    os.truncate(place.file, place.file.stat().st_size - 1)  # even the newline of the last is missing
    check_after_a_kill(place, list(range(40)))
    assert place.verify().torn == 0


def test_the_end_is_found_behind_much_that_was_written_after_the_key(place: Any) -> None:
    log = place.open()
    log.settle()
    key = place.key.read_bytes()
    for n in range(8):
        log.settle([record(number=n, text="x" * 40_000)])
    place.key.write_bytes(key)
    check_after_a_kill(place, list(range(8)))
