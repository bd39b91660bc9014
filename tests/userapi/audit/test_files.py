"""The files of an audit log: their order, compressed ones, and spans of them."""

from __future__ import annotations

import gzip
from contextlib import nullcontext
from pathlib import Path

import pytest

from userapi.audit import files
from userapi.audit.files import Span


def line(n: int, time: str = "2026-11-23T12:00:00.000000Z") -> bytes:
    return f'{{"n":{n},"time":"{time}","kind":"x"}}\n'.encode()


def test_files_are_in_the_order_of_their_first_records_whatever_they_are_called(tmp_path: Path) -> None:
    for name, first in (("audit.jsonl", 9), ("audit-b.jsonl", 0), ("other.jsonl", 4)):
        (tmp_path / name).write_bytes(line(first) + line(first + 1))
    (tmp_path / "audit-a.jsonl.gz").write_bytes(gzip.compress(line(2)))
    (tmp_path / "empty.jsonl").write_bytes(b"")
    found = files.paths([str(tmp_path), str(tmp_path / "other.jsonl"), str(tmp_path / "empty.jsonl")])
    assert [Path(path).name for path in found] == [
        "audit-b.jsonl", "audit-a.jsonl.gz", "other.jsonl", "audit.jsonl", "empty.jsonl",
    ]  # fmt: skip
    with files.open_plain(found[1]) as file:
        assert file.read() == line(2)


def test_a_folder_without_a_log_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no audit log in"):
        files.paths([str(tmp_path)])


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("0", "0"),
        ("17", "17"),
        ("2026-11", "2026-11"),
        ("2026-11-27T14:05", "2026-11-27T14:05"),
        ("2026-11-27T14:05:06Z", "2026-11-27T14:05:06"),
        ("2026-11-27T00:05+01:00", "2026-11-26T23:05"),
        ("2026-11-27T14:05:06-02:30", "2026-11-27T16:35:06"),
        ("2026-11-27T14:05:06.123+00:00", "2026-11-27T14:05:06.123"),
    ],
)
def test_a_bound_is_a_number_or_the_beginning_of_a_time(text: str, plain: str) -> None:
    assert files.bound(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "-1",
        "yesterday",
        "2026-1-1",
        "14:05",
        "٣",
        "2026-11-27 14:05",
        "²",
        "2026-11-27T25:05+01:00",
        "0001-01-01T00:00+01:00",
    ],
)
def test_everything_else_is_no_bound(text: str) -> None:
    with pytest.raises(ValueError, match="is no number of a record and no time in UTC"):
        files.bound(text)


def spanned(span: Span, lines: list[bytes]) -> tuple[list[bytes], int]:
    source = iter(lines)
    first, skipped = files.skip(span, source)
    return [*files.until(span, [*first, *source])], skipped


def test_a_span_is_by_number_or_by_time_and_both_ends_are_in_it() -> None:
    lines = [line(n, f"2026-11-23T12:0{n}:00.000000Z") for n in range(6)]
    assert spanned(Span(), lines) == (lines, 0)
    assert spanned(Span("2", "4"), lines) == (lines[2:5], 2)
    assert spanned(Span("2026-11-23T12:02", "2026-11-23T12:04"), lines) == (lines[2:5], 2)
    assert spanned(Span("2026-11-23T12:02:01"), lines) == (lines[3:], 3)
    assert spanned(Span("9"), lines) == ([], 0)
    assert spanned(Span("1", "1"), [lines[0], b"rubbish\n", lines[1], b"rubbish\n", lines[2]]) == (
        [lines[1], b"rubbish\n"],
        2,
    )


def test_how_far_it_is_read_is_told_now_and_then() -> None:
    told: list[int] = []
    lines = [b"x" * 999 + b"\n"] * 3_000
    assert sum(1 for _ in files.lines(lines, told.append)) == 3_000
    assert told[-1] == 3_000_000
    assert 2 <= len(told) <= 4


@pytest.mark.parametrize(
    ("since", "until", "over"),
    [
        ("5", "3", True), ("3", "3", False), ("10", "9", True), ("", "3", False), ("3", "", False),
        ("2026-11-27", "2026-11-26", True), ("2026-11-27T14:05", "2026-11-27", False), ("2026-11", "2026-11-27", False),
        ("5", "2026-11-26", False), ("2026-11-26", "5", False),
    ],
)  # fmt: skip
def test_a_span_that_ends_before_it_begins_is_none(since: str, until: str, over: bool) -> None:
    with pytest.raises(ValueError, match="is before") if over else nullcontext():
        files.Span(since, until).check()
