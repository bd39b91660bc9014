"""Output that is stamped, sent on or lost: every byte is somewhere, or counted."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rootd.config.logs import FORMATS, TARGETS, How, pack
from rootd.log import forward, rotate
from rootd.log.source import Source, name_of

DROP = pack(How(1000, drop=1))


def how(target: str = "file", form: str = "plain", **rest: int) -> int:
    return pack(How(1000, target=TARGETS.index(target), form=FORMATS.index(form), **rest))


@pytest.fixture
def lost(house: Any) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    house.mover._lost = lambda _source, size, lines, over: told.append((size, lines)) if over else None
    return told


def put(writer: int, data: bytes, house: Any, now: float) -> None:
    """All of it, however often the pipe is full."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(writer, view) :]
        except BlockingIOError:
            house.mover.tend(now)
            house.mover.turn(now)
            now += 0.25
    house.settle(now)


def test_on_a_full_disk_every_byte_is_in_the_file_or_counted_and_the_log_says_where(
    house: Any, tiny: Path, lost: list[tuple[int, int]]
) -> None:
    """<log>/full has 64 KiB: the writer is never stopped for good, another service notices nothing."""
    writer, other = house.pipe(process="full", keep=DROP), house.pipe(process="other", run=2, keep=DROP)
    text = b"".join(b"line %06d\n" % n for n in range(60_000))
    put(writer, text, house, 0.0)
    os.write(other, b"not concerned\n")
    house.settle(30.0)
    house.mover.tend(60.0)
    house.settle(60.0)
    assert house.text("other/stdout.log") == b"not concerned\n"
    assert any("dropped and counted" in said for said in house.said)
    kept = (tiny / "stdout.log").read_bytes()
    os.truncate(tiny / "stdout.log", 0)  # somebody makes room
    os.write(writer, b"after\n")
    house.settle(1_000.0)
    after = (tiny / "stdout.log").read_bytes()
    assert after.startswith(b"[durward: lost here, of stdout: ")
    assert after.endswith(b": No space left on device]\nafter\n")
    assert len(kept) + sum(size for size, _ in lost) == len(text)
    assert text.startswith(kept)
    assert sum(lines for _, lines in lost) == text.count(b"\n") - kept.count(b"\n")


def test_a_service_that_is_to_wait_waits_and_loses_nothing(house: Any, tiny: Path, lost: list[tuple[int, int]]) -> None:
    writer = house.pipe(process="full", keep=1000)
    text, sent = b"x" * 63 + b"\n", 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += os.write(writer, text * 64)
            house.settle(0.0)
    for now in range(2, 20):
        house.mover.tend(float(now))
        house.settle(float(now))
    os.truncate(tiny / "stdout.log", (kept := 4096))
    gone = (64 << 10) - kept
    house.mover.tend(30.0)
    house.settle(30.0)
    assert (tiny / "stdout.log").stat().st_size <= sent - gone + (64 << 10)
    assert lost == []


def test_a_loss_that_nobody_could_be_told_of_is_reported_at_the_end_of_the_pipe(
    house: Any, tiny: Path, lost: list[tuple[int, int]]
) -> None:
    (tiny / "filler").write_bytes(bytes(64 << 10))
    writer = house.pipe(process="full", keep=DROP)
    os.write(writer, b"one\ntwo\n")
    house.settle(0.0)
    house.mover.tend(5.0)
    house.settle(5.0)
    os.close(writer)
    house.settle(5.0)
    house.mover.tend(10.0)
    house.settle(10.0)
    assert house.drained
    assert lost == [(8, 2)]


def test_stamped_lines_have_their_time_and_files_end_with_whole_lines(house: Any) -> None:
    house.mover._wall = lambda: 1_767_323_045_000_006_000
    writer = house.pipe(keep=how(form="stamped"), size=120)
    os.write(writer, b"one\ntwo\nhal")
    house.settle()
    os.write(writer, b"f\nthree\nfour\nlast")
    os.close(writer)
    house.settle()
    stamp = b"2026-01-02T03:04:05.000006Z "
    lines = (b"one", b"two", b"half", b"three", b"four", b"last")
    assert house.text() == b"".join(stamp + line + b"\n" for line in lines)
    assert all(file.stat().st_size <= 120 for file in house.files())
    assert len(house.files()) > 1


def test_json_lines_tell_two_streams_in_one_service_apart(house: Any) -> None:
    out, err = house.pipe(keep=how(form="json")), house.pipe(stream=2, keep=how(form="json"))
    os.write(out, b"fine\n")
    os.write(err, b"\xff bad\n")
    house.settle()
    assert json.loads(house.text())["stream"] == "stdout"
    assert json.loads(house.text("site/stderr.log"))["line"] == "\\xff bad"


def test_a_line_of_ten_megabytes_is_moved_in_bounded_pieces(house: Any) -> None:
    writer = house.pipe(keep=how(form="stamped"), size=100 << 20)
    put(writer, b"y" * (10 << 20) + b"\n", house, 0.0)
    assert house.text().count(b"y") == 10 << 20


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = str(tmp_path / "journal")
    monkeypatch.setattr(forward, "PATHS", {"journald": path, "syslog": path})
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(path)
    receiver.setblocking(False)
    yield receiver
    receiver.close()


def test_while_a_receiver_is_not_there_what_is_lost_so_far_is_told_and_each_that_is_missing_is_named(
    house: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {name: str(tmp_path / name) for name in ("journald", "syslog")}
    monkeypatch.setattr(forward, "PATHS", paths)
    told: list[tuple[str, int, int, bool]] = []
    house.mover._lost = lambda source, *rest: told.append((source.process, *rest))
    for number, name in enumerate(paths):
        writer = house.pipe(process=name, run=number, keep=how(name, drop=1))
        os.write(writer, b"one\ntwo\n")
    for now in (0.0, 1.0, 2.0):
        house.mover.tend(now)
        house.settle(now)
    assert told == [("journald", 8, 2, False), ("syslog", 8, 2, False)]
    for path in paths.values():
        assert [said for said in house.said if "dropped and counted" in said and path in said]


def received(sock: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(sock.recv(1 << 17))
        except BlockingIOError:
            return found


def test_journald_gets_each_line_with_its_fields_and_there_is_no_file(house: Any, journal: socket.socket) -> None:
    writer = house.pipe(stream=2, keep=how("journald"))
    os.write(writer, b"one\ntwo\n")
    house.settle()
    first, second = received(journal)
    assert b"DURWARD_PROCESS=site\n" in first
    assert b"PRIORITY=4\n" in first
    assert (first[-12:], second[-12:]) == (b"MESSAGE=one\n", b"MESSAGE=two\n")
    assert house.files("site/stderr.log") == []


@pytest.mark.parametrize(("alone", "service"), [(0, "web"), (1, "web.7")])
def test_a_service_whose_name_ends_like_a_process_is_told_from_a_process(
    house: Any, journal: socket.socket, alone: int, service: str
) -> None:
    writer = house.pipe(process="web.7", keep=how("journald", alone=alone))
    os.write(writer, b"one\n")
    house.settle()
    assert f"\nDURWARD_SERVICE={service}\nDURWARD_PROCESS=web.7\n".encode() in received(journal)[0]


def test_a_line_of_nothing_but_nuls_is_sent_in_parts_that_a_receiver_takes(house: Any, journal: socket.socket) -> None:
    writer = house.pipe(keep=how("syslog"))
    os.write(writer, bytes(50_000) + b"\n")
    got = []
    for now in range(5):  # not all of it has room at once
        house.mover.tend(float(now))
        house.settle(float(now))
        got += received(journal)
    assert sum(record.count(b"#000") for record in got) == 50_000
    assert len(got) == 5


def test_a_record_that_a_receiver_will_never_take_is_dropped_and_counted_and_the_others_go_on(
    house: Any, journal: socket.socket, lost: list[tuple[int, int]]
) -> None:
    house.mover.open_sender()._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    writer = house.pipe(keep=how("journald"))
    os.write(writer, b"before\n" + b"x" * 40_000 + b"\nafter\n")
    house.settle()
    os.write(writer, b"later\n")
    house.settle()
    assert lost == [(40_001, 1)]
    texts = [record.rpartition(b"MESSAGE=")[2] for record in received(journal)]
    assert texts[:2] == [b"before\n", b"after\n"]
    assert texts[2].endswith(b": Message too long]\n")
    assert texts[3:] == [b"later\n"]


def test_a_receiver_that_was_started_again_is_found(house: Any, journal: socket.socket) -> None:
    writer = house.pipe(keep=how("syslog", drop=1))
    path = journal.getsockname()
    journal.close()
    os.unlink(path)
    os.write(writer, b"waits a moment\n")
    house.settle(0.0)
    again = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    again.bind(path)
    again.setblocking(False)
    house.mover.tend(1.0)
    house.settle(1.0)
    assert received(again)[0].endswith(b" waits a moment")
    again.close()


def test_a_receiver_that_does_not_read_costs_counted_lines_and_nobody_waits(
    house: Any, journal: socket.socket, lost: list[tuple[int, int]]
) -> None:
    writer = house.pipe(keep=how("journald", drop=1))
    text = b"".join(b"line %06d\n" % n for n in range(30_000))
    put(writer, text, house, 0.0)
    got = received(journal)
    for now in range(1_000, 1_010):
        if now == 1_008:
            os.close(writer)
        house.mover.tend(float(now))
        house.settle(float(now))
        got += received(journal)
    assert house.drained
    lines = [record for record in got if b"MESSAGE=line " in record]
    assert lost
    assert len(lines) + sum(count for _, count in lost) == 30_000
    assert len(lines) * 12 + sum(size for size, _ in lost) == len(text)
    assert any(b"MESSAGE=[durward: lost here" in record for record in got)


def test_what_goes_to_our_own_output_waits_for_who_reads_it(house: Any) -> None:
    reader, ours = os.pipe()
    house.mover.open_sender()._fds = {1: ours, 2: ours}
    writer = house.pipe(keep=how("inherit"))
    os.write(writer, b"hello\n")
    house.settle()
    assert os.read(reader, 100) == b"site | hello\n"
    os.set_blocking(ours, False)
    filled = 0
    while True:
        try:
            filled += os.write(ours, bytes(4096))
        except BlockingIOError:
            break
    os.write(writer, b"later\n")
    house.settle(0.0)
    assert house.mover.next() == rotate.SOON
    while filled:
        filled -= len(os.read(reader, filled))
    house.mover.tend(1.0)
    house.settle(1.0)
    assert os.read(reader, 100) == b"site | later\n"


def gift(writer: int, page: mmap.mmap, size: int) -> None:
    """vmsplice(2): what is in the pipe is the page itself, which its owner goes on writing to."""
    buffer = (ctypes.c_char * size).from_buffer(page)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), size)
    assert ctypes.CDLL(None, use_errno=True).vmsplice(writer, vector, 1, 0) == size, os.strerror(ctypes.get_errno())


def test_a_service_that_rewrites_what_it_has_written_while_log_looks_at_it_spoils_its_own_lines_alone(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = how(form="stamped")
    writer, other = (
        house.pipe(process=name, run=run, size=100, keep=keep) for run, name in ((1, "site"), (2, "other"))
    )
    page = mmap.mmap(-1, 4096)
    page[:200] = b"line\n" * 40
    gift(writer, page, 200)
    look = house.mover._look

    def seen(fd: int, count: int) -> bytes:
        window: bytes = look(fd, count)
        page[:200] = b"x" * 200
        return window

    monkeypatch.setattr(house.mover, "_look", seen)
    house.settle()
    os.write(other, b"not concerned\n")
    house.settle()
    assert house.text("other/stdout.log").endswith(b" not concerned\n")
    assert [line.rpartition(b" ")[2] for line in house.text().splitlines()] == [b"line"] * 40
    os.close(writer)
    house.settle()
    assert os.listdir(house.run) == [name_of(Source("other", 1, 2, 7, 100, keep))]


def test_what_could_not_be_looked_at_of_one_service_is_never_seen_as_anothers(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a service splices into its pipe may be a page that cannot be read any more."""
    keep = how(form="stamped")
    one, other = house.pipe(keep=keep), house.pipe(process="other", run=2, keep=keep)
    real = os.read

    def spoilt(fd: int, count: int) -> bytes:
        monkeypatch.setattr(os, "read", real)
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))

    monkeypatch.setattr(os, "read", spoilt)
    os.write(one, b"mine\n")
    house.settle()
    os.write(other, b"theirs\n")
    house.settle()
    assert [line.rpartition(b" ")[2] for line in house.text("other/stdout.log").splitlines()] == [b"theirs"]
    house.mover.tend(5.0)
    house.settle(5.0)
    assert [line.rpartition(b" ")[2] for line in house.text().splitlines()] == [b"mine"]
