"""Compressed logs are read as what they were, and broken ones end where they break."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from rootd.log.pack import Packer
from userapi import packed, tail
from userapi.tail import Tail


def compressed(folder: Path, data: bytes) -> tuple[Path, int]:
    """What log makes of it, and the inode that it had."""
    (folder / "site").mkdir(exist_ok=True)
    plain = folder / "site/stdout.log.1"
    plain.write_bytes(data)
    inode = plain.stat().st_ino
    root = os.open(folder, os.O_RDONLY)
    packer = Packer(root, print)
    packer.want("site", "stdout.log")
    while packer.busy:
        packer.step(0.0)
    os.close(root)
    return folder / "site/stdout.log.1.gz", inode


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.integers(0, 300), st.integers(0, 300), st.integers(0, 9), st.integers(1, 400))
def test_every_part_of_it_is_what_it_was(
    tmp_path: Path, data: bytes, start: int, end: int, lines: int, most: int
) -> None:
    path, inode = compressed(tmp_path, data)
    fd = os.open(path, os.O_RDONLY)
    same = os.memfd_create("plain")
    os.write(same, data)
    try:
        assert packed.original(fd) == (inode, len(data))
        assert b"".join(packed.pieces(fd, start, end)) == data[start:end]
        if most >= len(data):
            assert packed.last_lines(fd, len(data), lines, most) == tail.last_lines(same, lines, most)
    finally:
        os.close(fd)
        os.close(same)
        path.unlink()


@pytest.mark.parametrize("content", [b"", b"plain\n", gzip.compress(b"not by us", mtime=0)])
def test_what_log_has_not_made_is_plain(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    assert packed.original(fd) is None
    os.close(fd)


def test_a_broken_one_ends_where_it_breaks_and_a_bomb_comes_in_pieces(tmp_path: Path) -> None:
    path, _ = compressed(tmp_path, bytes(10 << 20))
    whole = path.read_bytes()
    fd = os.open(path, os.O_RDWR)
    assert max(map(len, packed.pieces(fd, 0, 10 << 20))) <= packed.PIECE
    os.ftruncate(fd, len(whole) // 2)
    assert sum(map(len, packed.pieces(fd, 0, 10 << 20))) < 10 << 20
    os.pwrite(fd, b"nonsense", len(whole) // 4)
    assert sum(map(len, packed.pieces(fd, 0, 10 << 20))) < 10 << 20
    os.close(fd)


def test_a_reader_walks_over_compressed_files_and_finds_its_place_in_one(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/stdout.log").write_bytes(b"four\n")
    _, inode = compressed(tmp_path, b"one\ntwo\nthree\n")

    def opener(rotated: int) -> int | None:
        name = f"stdout.log.{rotated}.gz" if rotated else "stdout.log"
        try:
            return os.open(tmp_path / "site" / name, os.O_RDONLY)
        except FileNotFoundError:
            return None

    def told(begin: Any) -> bytes:
        reader = Tail(opener)
        begin(reader)
        data = b"".join(reader.more(False))
        reader.close()
        return data

    assert told(lambda reader: reader.begin(3)) == b"two\nthree\nfour\n"
    assert told(lambda reader: reader.resume(tail.Cursor(inode, 4))) == b"two\nthree\nfour\n"


def test_a_service_that_imitates_the_header_in_the_file_being_written_fools_nobody(tmp_path: Path) -> None:
    path, _ = compressed(tmp_path, b"hidden\n")
    reader = Tail(lambda rotated: None if rotated else os.open(path, os.O_RDONLY))
    reader.begin(10)
    assert b"".join(reader.more(False)) == path.read_bytes()
    reader.close()
