"""Records on their way out: what is not taken stays, and is told."""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootd.log import forward
from rootd.log.forward import Sender


@pytest.fixture
def sender() -> Iterator[Sender]:
    made = Sender()
    yield made
    made.close()


def test_without_a_receiver_nothing_is_taken_and_the_error_says_which(
    sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "PATHS", {"journald": str(tmp_path / "none")})
    records = deque([(b"x", 2)])
    with pytest.raises(OSError, match=r"there is no .*/none"):
        sender.send("journald", 1, records)
    assert records == deque([(b"x", 2)])


def test_a_receiver_that_is_full_is_to_be_asked_again_soon(
    sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "PATHS", {"syslog": str(tmp_path / "log")})
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(tmp_path / "log"))
    records = deque([(b"x" * 1000, 1001)] * 10_000)
    with pytest.raises(OSError, match="does not take more") as caught:
        sender.send("syslog", 1, records)
    assert caught.value.errno == errno.ENOBUFS
    assert 0 < len(records) < 10_000
    receiver.close()


def test_a_long_record_goes_to_a_pipe_in_pieces_that_it_takes_at_once(sender: Sender) -> None:
    reader, writer = os.pipe()
    records = deque([(bytes(10_000), 10_001), (b"end", 4)])
    sender._fds = {1: writer}
    sender.send("inherit", 1, records)
    assert not records
    assert os.read(reader, 20_000) == bytes(10_000) + b"end"


def test_between_the_pieces_of_a_line_there_is_no_other_ones_line(sender: Sender) -> None:
    """What is left of it would begin a line, and could say that it is of any service."""
    reader, writer = os.pipe()
    os.write(writer, bytes(4096 * 15))  # room for one piece
    forger = deque([(b"a | " + b"x" * 4092 + b"sshd | accepted\n", 4110)])
    honest = deque([(b"b | word\n", 5)])
    sender._fds = {1: writer}
    with pytest.raises(OSError, match="does not read"):
        sender.send("inherit", 1, forger)
    os.read(reader, 4096 * 15)
    with pytest.raises(OSError, match="ends first") as caught:
        sender.send("inherit", 1, honest)
    assert caught.value.errno == errno.ENOBUFS
    sender.send("inherit", 1, forger)
    sender.send("inherit", 1, honest)
    assert os.read(reader, 9000) == b"a | " + b"x" * 4092 + b"sshd | accepted\nb | word\n"
    for descriptor in (reader, writer):
        os.close(descriptor)


def test_a_line_whose_rest_was_dropped_is_ended_before_the_next_one(sender: Sender) -> None:
    reader, writer = os.pipe()
    os.write(writer, bytes(4096 * 15))
    records = deque([(b"x" * 5000 + b"\n", 5001)])
    sender._fds = {1: writer}
    with pytest.raises(OSError, match="does not read"):
        sender.send("inherit", 1, records)
    os.read(reader, 4096 * 15)
    records.clear()
    sender.send("inherit", 1, deque([(b"b | word\n", 5)]))
    assert os.read(reader, 9000) == b"x" * 4096 + b"\nb | word\n"
    for descriptor in (reader, writer):
        os.close(descriptor)
