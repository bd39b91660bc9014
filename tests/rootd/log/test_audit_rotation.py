"""The audit log over several files: one chain, whatever happens between two of them."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from rootd.log import audit, chain


def record(**fields: Any) -> str:
    return chain.canonical({"kind": "decision", **fields})


@pytest.fixture
def turning(place: Any) -> Any:
    """The next file is begun after a kilobyte."""
    place.size = 1_000
    return place


def test_a_full_file_is_named_by_its_first_record_and_the_chain_goes_on_in_the_next(turning: Any) -> None:
    log = turning.open()
    for n in range(30):
        assert log.settle([record(number=n)]) == 0
    log.close("end")
    files = turning.files()
    assert len(files) > 5
    for path in files:
        first = chain.parse(path.read_bytes().splitlines()[0]).n
        assert path.name in ("audit.jsonl", f"audit-{first:016d}.jsonl")
    assert turning.numbers() == list(range(30))
    assert turning.starts() == ["first"], "a new file is no start"
    report = turning.verify()
    assert (report.problems, report.records) == ((), 32)


def test_a_log_that_was_ended_between_two_files_goes_on_in_order(turning: Any) -> None:
    log = turning.open()
    for n in range(20):
        log.settle([record(number=n)])
    log.close("end")
    last = max(path.name for path in turning.files() if path.name != audit.AUDIT)
    turning.file.rename(turning.log / f"audit-{chain.parse(turning.file.read_bytes().splitlines()[0]).n:016d}.jsonl")
    assert last
    turning.open().settle([record(number=20)])
    assert turning.starts() == ["first", "clean"]
    assert turning.numbers() == list(range(21))
    assert not turning.verify().problems


def test_a_full_file_that_is_lost_whole_or_in_part_is_found(turning: Any) -> None:
    log = turning.open()
    for n in range(30):
        log.settle([record(number=n)])
    path = turning.files()[2]
    data = path.read_bytes()
    path.unlink()
    assert turning.verify().problems[0].damage == "removed"
    path.write_bytes(data[: data.index(b"\n") + 1])
    assert turning.verify().problems[0].damage == "removed"


def test_a_lost_key_at_the_beginning_of_a_file_begins_a_new_one_at_the_next_number(turning: Any) -> None:
    log = turning.open()
    for n in range(20):
        log.settle([record(number=n)])
    n = chain.parse(turning.file.read_bytes().splitlines()[0]).n
    turning.file.rename(turning.log / f"audit-{n:016d}.jsonl")
    turning.key.unlink()
    turning.open().settle([record(number=20)])
    assert turning.starts()[-1].startswith("damaged: its key is lost")
    assert not turning.verify().problems


def test_a_name_that_is_taken_is_not_overwritten_and_the_file_grows_on(turning: Any) -> None:
    taken = turning.log / "audit-0000000000000000.jsonl"
    log = turning.open()
    log.settle([record(number=0)])
    taken.write_bytes(b"precious")
    for n in range(1, 20):
        assert log.settle([record(number=n)]) == 0
    assert taken.read_bytes() == b"precious"
    taken.unlink()
    assert turning.numbers() == list(range(20))
    assert not turning.verify().problems


def test_a_next_file_that_cannot_be_made_refuses_and_is_made_when_it_can(
    turning: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = turning.open()
    n = 0
    while turning.file.stat().st_size < turning.size if turning.file.exists() else True:
        assert log.settle([record(number=n)]) == 0
        n += 1
    real = os.open

    def full(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if path == audit.AUDIT and flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        assert log.settle([record(number=900)]) == errno.ENOSPC
    assert log.settle([record(number=n)]) == 0
    assert turning.numbers() == list(range(n + 1))
    assert turning.starts() == ["first", "trouble: a new file could not be begun"]
    assert not turning.verify().problems
