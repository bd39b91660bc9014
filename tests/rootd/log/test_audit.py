"""The audit log on disk: killed at every step, out of space, changed behind log's back. security.md E3, E4, §6."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from rootd.log import audit, chain
from userapi.audit import verify


def record(**fields: Any) -> str:
    return chain.canonical({"kind": "decision", **fields})


def deed(number: int) -> dict[str, Any]:
    return {"kind": "deed", "number": number}


def test_the_first_start_makes_a_chain_that_the_exported_key_verifies(place: Any) -> None:
    log = place.open()
    assert log.settle() == 0
    log.note(deed(1))
    assert log.waiting
    assert log.settle([record(user="alice"), record(user="bob")]) == 0
    assert not log.waiting
    log.close("end")
    report = place.verify()
    assert (report.records, report.starts, report.problems, report.macs) == (5, 1, (), True)
    assert [body["kind"] for body in place.bodies()] == ["start", "deed", "decision", "decision", "stop"]
    assert place.starts() == ["first"]
    assert place.file.stat().st_mode & 0o777 & ~0o640 == 0
    assert place.key.stat().st_mode & 0o777 == 0o600
    assert place.said == [f"a first key of the audit log is in {place.state}/audit.initial: move it off this machine"]


def test_each_start_says_whether_the_one_before_it_ended_in_order(place: Any) -> None:
    first = place.open()
    first.settle([record(user="alice")])
    first.close("end")
    second = place.open()
    second.settle([record(user="bob")])
    third = place.open()
    third.settle()
    assert place.starts() == ["first", "clean", "crash"]
    assert not place.verify().problems


def test_the_key_that_is_kept_makes_no_older_record(place: Any) -> None:
    log = place.open()
    log.settle([record(i=i) for i in range(5)])
    kept = audit.State.unpacked(place.key.read_bytes())
    assert kept is not None
    lines = place.file.read_bytes().splitlines()
    assert kept.n == len(lines)
    assert kept.head == chain.digest(lines[-1])
    assert not any(chain.is_authentic(chain.parse(line), kept.key) for line in lines)
    key = place.keys()[0]
    for _ in lines:
        assert key != kept.key
        key = chain.next_key(key)
    assert key == kept.key


# --- changed behind log's back


def test_a_log_without_its_last_records_starts_damaged_and_verify_says_so(place: Any) -> None:
    place.open().settle([record(number=n) for n in range(5)])
    lines = place.file.read_bytes().splitlines(keepends=True)
    place.file.write_bytes(b"".join(lines[:-2]))
    place.open().settle()
    assert place.starts()[-1].startswith("damaged")
    assert any("damaged" in text for text in place.said)
    assert place.verify().problems


def test_an_edited_last_record_starts_damaged_and_verify_says_so(place: Any) -> None:
    place.open().settle([record(user="alice")])
    place.file.write_bytes(place.file.read_bytes().replace(b"alice", b"clair"))
    place.open().settle()
    assert place.starts()[-1].startswith("damaged")
    assert place.verify().problems


def test_a_file_that_somebody_changes_or_removes_under_a_running_log_is_noticed_at_the_next_record(place: Any) -> None:
    log = place.open()
    log.settle([record(number=1)])
    with place.file.open("ab") as file:
        file.write(b"smuggled\n")
    assert log.settle([record(number=2)]) == 0
    assert place.starts()[-1].startswith("damaged")
    place.file.unlink()
    assert log.settle([record(number=3)]) == 0
    assert place.starts() == ["damaged: the file was changed by somebody else"]
    assert place.numbers() == [3]
    assert place.verify().problems, "the numbers go on: what is missing is seen"


@pytest.mark.parametrize("damage", [b"", b"short", bytes(104), bytes(105)])
def test_a_lost_key_begins_a_new_one_that_is_exported_and_said(place: Any, damage: bytes) -> None:
    place.open().settle([record(number=1)])
    old = place.keys()
    place.key.write_bytes(damage)
    place.open().settle([record(number=2)])
    assert place.starts()[-1].startswith("damaged: its key is lost")
    assert set(place.keys()) == {0, 2}
    assert not place.verify().problems, "who has both keys can check all of it"
    with place.file.open("rb") as file:
        assert verify.verify(file, old).problems, "who took the first key away sees that another one was begun"


def test_a_lost_key_and_a_torn_line_at_once_are_survived(place: Any) -> None:
    place.open().settle([record(number=1)])
    place.key.unlink()
    with place.file.open("ab") as file:
        file.write(b'{"n":2,"tim')
    place.open().settle([record(number=2)])
    assert place.numbers() == [1, 2]
    report = place.verify()
    assert (report.problems, report.torn) == ((), 11)


@pytest.mark.parametrize("name", [audit.AUDIT, audit.KEY])
@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "directory"])
def test_E1_what_is_not_a_plain_file_of_its_own_is_not_written(place: Any, name: str, kind: str) -> None:
    target = place.log.parent / "target"
    target.write_bytes(b"precious")
    path = (place.log if name == audit.AUDIT else place.state) / name
    if kind == "link":
        path.symlink_to(target)
    elif kind == "hard link":
        path.hardlink_to(target)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert place.open().settle([record(number=1)]) != 0
    assert target.read_bytes() == b"precious"


# --- disk trouble


@pytest.mark.root
def test_E4_a_full_disk_is_said_with_its_errno_and_leaves_whole_records_only(small: Any) -> None:
    log = small.open()
    number = 0
    while (code := log.settle([record(number=number, text="x" * 1_000)])) == 0:
        number += 1
    assert code == errno.ENOSPC
    assert number > 30
    assert small.file.read_bytes()[-1:] == b"\n"
    assert small.numbers() == list(range(number))
    assert not small.verify().problems
    log.note(deed(1))
    assert log.settle([record(number=900, text="x" * 1_000)]) == errno.ENOSPC
    assert len([text for text in small.said if "No space" in text]) == 1
    big = small.log / "big"
    os.truncate(small.file, small.file.stat().st_size)
    big.touch()
    assert small.starts() == ["first"], "it goes on where it was, without starting again"


@pytest.mark.root
def test_E4_deeds_wait_for_space_and_nothing_is_lost_or_doubled_when_it_returns(small: Any) -> None:
    ballast = small.log / "ballast"
    log = small.open()
    assert log.settle([record(number=0)]) == 0
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    number = 1
    while log.settle([record(number=number, text="x" * 500)]) == 0:
        number += 1
    for n in range(20):
        log.note(deed(n))
    assert log.settle() == errno.ENOSPC
    assert log.waiting
    assert log.trouble == errno.ENOSPC
    ballast.unlink()
    assert log.settle([record(number=number)]) == 0
    assert not log.waiting
    assert [body["number"] for body in small.bodies() if body["kind"] == "deed"] == list(range(20))
    assert small.numbers() == list(range(number + 1))
    assert not small.verify().problems
    assert small.said[-1] == "the audit log is being written again"


@pytest.mark.root
def test_E4_a_log_that_starts_on_a_full_disk_refuses_and_begins_when_there_is_space(small: Any) -> None:
    ballast = small.log / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    log = small.open()
    assert log.settle() == errno.ENOSPC
    assert log.settle([record(number=0)]) == errno.ENOSPC
    ballast.unlink()
    assert log.settle([record(number=1)]) == 0
    assert small.starts() == ["first"]
    assert small.numbers() == [1]
    assert not small.verify().problems


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, times: int = 1) -> None:
    real, left = getattr(os, name), [times]

    def call(*args: Any, **kwargs: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize("name", ["write", "fdatasync", "pwrite"])
def test_E4_a_failure_of_any_step_takes_the_whole_batch_back(
    place: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    log = place.open()
    log.settle([record(number=0)])
    before = place.file.read_bytes()
    with monkeypatch.context() as patch:
        failing(patch, name, errno.EIO)
        assert log.settle([record(number=1), record(number=2)]) == errno.EIO
        assert place.file.read_bytes() == before
    assert log.settle([record(number=3)]) == 0
    assert place.numbers() == [0, 3]
    assert place.starts() == ["first"]
    assert not place.verify().problems


def test_what_cannot_be_taken_back_stays_torn_before_a_new_start(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log = place.open()
    log.settle([record(number=0)])
    real = os.write
    with monkeypatch.context() as patch:
        calls = iter([1])

        def short(fd: int, data: bytes) -> int:
            if next(calls, 0):
                return real(fd, bytes(data)[:30])
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "write", short)
        failing(patch, "ftruncate", errno.EPERM)  # an append-only file (chattr +a)
        assert log.settle([record(number=1)]) == errno.ENOSPC
    assert log.settle([record(number=2)]) == 0
    assert place.numbers() == [0, 2]
    assert place.starts() == ["first", "trouble: a record could not be taken back"]
    assert (place.verify().torn, place.verify().problems) == (30, ())


def test_deeds_beyond_the_limit_are_counted_in_a_record_of_their_own(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "NOTED_LIMIT", 10)
    log = place.open()
    for n in range(15):
        log.note(deed(n))
    assert log.settle() == 0
    assert [body for body in place.bodies() if body["kind"] == "lost"] == [{"kind": "lost", "deeds": 5}]
    assert len([body for body in place.bodies() if body["kind"] == "deed"]) == 10
    assert not place.verify().problems


def test_many_records_of_one_turn_cost_one_fdatasync(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log = place.open()
    log.settle()
    real, calls = os.fdatasync, [0]

    def counted(fd: int) -> None:
        calls[0] += 1
        real(fd)

    monkeypatch.setattr(os, "fdatasync", counted)
    log.settle([record(number=n) for n in range(64)])
    assert calls == [1]


def test_a_record_is_on_disk_before_anybody_is_told(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log = place.open()
    log.settle()
    order: list[str] = []
    for name in ("write", "fdatasync", "pwrite"):
        real = getattr(os, name)

        def call(*args: Any, _real: Callable[..., Any] = real, _name: str = name) -> Any:
            order.append(_name)
            return _real(*args)

        monkeypatch.setattr(os, name, call)
    log.settle([record(number=1)])
    assert order == ["write", "fdatasync", "pwrite"]


def test_no_lock_is_ever_asked_for(place: Any) -> None:
    import fcntl

    log = place.open()
    log.settle()
    with place.file.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        assert log.settle([record(number=1)]) == 0
    assert json.loads(place.file.read_bytes().splitlines()[-1])["number"] == 1
