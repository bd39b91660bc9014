"""Reading logs through descriptors, rotation included."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from userapi import tail
from userapi.tail import Cursor, Tail, cursor, last_lines


class Log:
    """A log as rootd keeps it: stdout.log, .1, .2."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "stdout.log"
        self.path.touch()
        self.opened: list[int] = []

    def write(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def rotate(self) -> None:
        for number in range(8, 0, -1):
            older = self.path.with_name(f"stdout.log.{number}")
            if older.exists():
                older.rename(self.path.with_name(f"stdout.log.{number + 1}"))
        self.path.rename(self.path.with_name("stdout.log.1"))
        self.path.touch()

    def open(self, rotated: int) -> int | None:
        try:
            name = f"stdout.log.{rotated}" if rotated else "stdout.log"
            self.opened.append(os.open(self.path.with_name(name), os.O_RDONLY))
        except FileNotFoundError:
            return None
        return self.opened[-1]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def begun(log: Log, lines: int) -> tuple[Tail, bytes]:
    reader = Tail(log.open)
    reader.begin(lines)
    return reader, b"".join(reader.more(False))


def test_the_last_lines_are_told(log):
    log.write(b"a\nb\nc\n")
    assert begun(log, 2)[1] == b"b\nc\n"


def test_a_last_line_without_end_counts(log):
    log.write(b"a\nb\nc")
    assert begun(log, 2)[1] == b"b\nc"


def test_no_lines_is_none(log):
    log.write(b"a\n")
    assert begun(log, 0)[1] == b""


@given(st.lists(st.sampled_from([b"", b"x", b"yy" * 3]), max_size=12), st.integers(0, 14), st.sampled_from([b"", b"z"]))
def test_last_lines_are_what_python_says_they_are(lines, count, rest):
    data = b"".join(line + b"\n" for line in lines) + rest
    expected = data.splitlines(keepends=True)[-count:] if count else []
    descriptor = os.memfd_create("log")
    try:
        os.write(descriptor, data)
        before, tail.PIECE = tail.PIECE, 3
        start, _ = last_lines(descriptor, count)
        assert data[start:] == b"".join(expected)
    finally:
        tail.PIECE = before
        os.close(descriptor)


def test_lines_that_were_rotated_away_are_told_too(log):
    log.write(b"a\nb\n")
    log.rotate()
    log.write(b"c\n")
    log.rotate()
    log.write(b"d\n")
    assert begun(log, 3)[1] == b"b\nc\nd\n"


def test_more_than_the_most_is_cut(log, monkeypatch):
    monkeypatch.setattr(tail, "MOST", 8)
    monkeypatch.setattr(tail, "PIECE", 4)
    log.write(b"aaa\n" * 100)
    assert len(begun(log, 50)[1]) <= 8


def test_last_lines_are_so_many_though_more_is_written_meanwhile_and_who_follows_gets_that_next(log):
    log.write(b"one\ntwo\nthree\n")
    reader = Tail(log.open)
    reader.begin(2)
    log.write(b"four\n")
    assert b"".join(reader.more(False)) == b"two\nthree\n"
    assert b"".join(reader.more(False)) == b"four\n"
    reader.close()


def test_a_log_that_does_not_exist_yet_is_followed_from_its_first_byte_on(log):
    log.path.unlink()
    reader, got = begun(log, 10)
    assert got == b"".join(reader.more(True)) == b""
    log.write(b"a\n")
    assert b"".join(reader.more(True)) == b"a\n"
    reader.close()


def test_lines_that_somebody_renamed_away_are_told_once_while_nothing_else_is_written(log):
    log.write(b"a\nb\n")
    log.rotate()
    log.path.unlink()
    reader, got = begun(log, 1)
    place = Cursor(reader.start.inode, reader.start.offset + len(got))
    assert got + b"".join(reader.more(True)) == b"b\n"
    log.write(b"c\n")
    assert b"".join(reader.more(True)) == b"c\n"
    reader.close()
    log.path.unlink()
    reader.resume(place)
    log.write(b"d\n")
    assert b"".join(reader.more(True)) == b"d\n"
    reader.close()


def test_a_follower_sees_what_is_written_and_goes_on_after_each_rotation(log):
    log.write(b"a\n")
    reader, got = begun(log, 10)
    log.write(b"b\n")
    got += b"".join(reader.more(False))
    log.write(b"c\n")
    log.rotate()
    log.write(b"d\n")
    log.rotate()
    log.write(b"e\n")
    got += b"".join(reader.more(True))
    assert got == b"a\nb\nc\nd\ne\n"


def test_a_follower_whose_file_was_deleted_goes_on_with_the_oldest_there_is(log):
    log.write(b"a\n")
    reader, _ = begun(log, 10)
    log.rotate()
    log.path.with_name("stdout.log.1").unlink()
    log.write(b"b\n")
    assert b"".join(reader.more(True)) == b"b\n"


def test_a_follower_of_a_log_that_was_made_shorter_goes_on_with_what_is_in_it(log):
    log.write(b"a\nb\nc\n")
    reader, got = begun(log, 10)
    os.truncate(log.path, 0)
    log.write(b"d\n")
    assert b"".join(reader.more(False)) == b"d\n"
    log.write(b"e\n")
    assert b"".join(reader.more(False)) == b"e\n"
    place = Cursor(reader.start.inode, reader.start.offset + len(got))
    again = Tail(log.open)
    again.resume(place)
    assert b"".join(again.more(True)) == b"d\ne\n"


def test_a_follower_of_a_log_that_was_cleared_goes_on_with_the_new_one(log):
    log.write(b"a\n")
    log.rotate()
    log.write(b"b\n")
    reader, _ = begun(log, 10)
    log.path.with_name("stdout.log.1").unlink()
    log.path.unlink()
    log.path.write_bytes(b"c\n")
    assert b"".join(reader.more(False)) == b"c\n"


def test_a_reader_that_comes_back_misses_nothing_and_gets_nothing_twice(log):
    log.write(b"a\nb\n")
    reader, got = begun(log, 10)
    place = Cursor(reader.start.inode, reader.start.offset + len(got))
    reader.close()
    log.write(b"c\n")
    log.rotate()
    log.write(b"d\n")
    again = Tail(log.open)
    again.resume(place)
    assert b"".join(again.more(True)) == b"c\nd\n"
    later = Tail(log.open)
    later.resume(Cursor(place.inode, place.offset + 4))
    assert b"".join(later.more(True)) == b""
    log.write(b"e\n")
    assert b"".join(later.more(False)) == b"e\n"


def test_a_place_that_is_gone_is_the_beginning_of_the_newest_file(log):
    log.write(b"a\n")
    reader = Tail(log.open)
    reader.resume(Cursor(1, 1))
    assert b"".join(reader.more(False)) == b"a\n"


def test_every_descriptor_is_closed(log):
    log.write(b"a\n")
    log.rotate()
    log.write(b"b\n")
    reader, _ = begun(log, 10)
    log.rotate()
    list(reader.more(True))
    reader.close()
    unread = Tail(log.open)
    unread.begin(10)
    unread.close()
    for descriptor in log.opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


@pytest.mark.parametrize("text", ["", "1", "1:", ":1", "a:1", "-1:2", "1:٣", "1:" + "1" * 50])
def test_a_place_is_two_numbers(text):
    assert cursor("12:34") == Cursor(12, 34)
    assert str(Cursor(12, 34)) == "12:34"
    with pytest.raises(ValueError, match="INODE"):
        cursor(text)


def test_no_log_yet_is_nothing_until_it_is_there(log):
    log.path.unlink()
    reader, got = begun(log, 10)
    assert got == b""
    log.write(b"a\n")
    assert b"".join(reader.more(True)) == b"a\n"


def read_as_it_grows(log: Log, reader: Tail, check: bool, rotate: bool = False) -> bytes:
    got = b""
    for data in reader.more(check):
        got += data
        assert len(got) < 100, "it would never end"
        if rotate:
            log.rotate()
        log.write(b"b\n")
    return got


def test_a_log_that_grows_as_fast_as_it_is_read_gives_the_caller_his_turn(log):
    log.write(b"a\n")
    reader = Tail(log.open)
    reader.begin(10)
    assert [read_as_it_grows(log, reader, check) for check in (False, True, False)] == [b"a\n", b"b\n", b"b\n"]


def test_a_log_that_is_rotated_as_fast_as_it_is_read_gives_the_caller_his_turn(log):
    log.write(b"a\n")
    reader = Tail(log.open)
    reader.begin(10)
    assert read_as_it_grows(log, reader, True, rotate=True) == b"a\nb\n"
    assert b"".join(reader.more(True)) == b"b\n"


def test_a_check_asks_the_opener_however_the_log_grows(log):
    def no(rotated: int) -> int | None:
        raise PermissionError

    log.write(b"a\n")
    reader = Tail(log.open)
    reader.begin(10)
    reader._open = no
    assert read_as_it_grows(log, reader, False) == b"a\n"
    with pytest.raises(PermissionError):
        read_as_it_grows(log, reader, True)
