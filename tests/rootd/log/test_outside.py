"""Anchors and records on their way out of the machine."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rootd.config import settings
from rootd.log import chain, outside
from rootd.log.outside import HOUR, MINUTE, Outside
from userapi.audit import verify

TIME = "2026-11-23T12:00:00.000000Z"
HEAD = bytes(range(32))


class Receivers:
    """journald and syslog, as sockets of the test's own; and the time."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths = {name: str(path / name) for name in ("journald", "syslog")}
        monkeypatch.setattr(outside, "PATHS", self.paths)
        self.socks: dict[str, socket.socket] = {}
        self.made: list[Outside] = []
        self.said: list[str] = []

    def listen(self, *names: str) -> None:
        for name in names:
            self.socks[name] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.socks[name].bind(self.paths[name])
            self.socks[name].setblocking(False)

    def heard(self, name: str) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self.socks[name].recv(1 << 18))
            except BlockingIOError:
                return found

    def make(self, **conf: Any) -> Outside:
        self.made.append(Outside(settings.Audit("refuse", **conf), lambda: TIME, self.said.append))
        return self.made[-1]

    def close(self) -> None:
        for one in [*self.made, *self.socks.values()]:
            one.close()


@pytest.fixture
def receivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receivers]:
    made = Receivers(tmp_path, monkeypatch)
    yield made
    made.close()


def line(**body: Any) -> bytes:
    return chain.make(7, TIME, chain.canonical({"kind": "decision", **body}), HEAD, bytes(32)) + b"\n"


def test_an_anchor_goes_out_at_once_then_each_minute_in_which_something_was_written_then_each_hour(
    receivers: Receivers,
) -> None:
    receivers.listen("journald")
    out = receivers.make()
    assert out.next() is None, "there is nothing yet"
    out.tend(5.0, -1, HEAD)
    sent = []
    due = {10.0, 20.0, 69.9, 70.0, 71.0, 200.0, 130.0 + HOUR, 140.0 + HOUR}
    for now in (10.0, 20.0, 69.9, 70.0, 71.0, 130.0):
        if now != 130.0:
            out.written([line()])
        out.tend(now, 7, HEAD)
        if receivers.heard("journald"):
            sent.append(now)
    assert sent == [10.0, 70.0, 130.0]
    assert out.next() == 130.0 + HOUR
    for now in (131.0, 130.0 + MINUTE, 129.0 + HOUR, 130.0 + HOUR, 140.0 + HOUR):
        out.tend(now, 7, HEAD)
        if receivers.heard("journald"):
            sent.append(now)
    assert sent[3:] == [130.0 + HOUR], "and idle hours have one too"
    assert due


@pytest.mark.parametrize("target", ["journald", "syslog"])
def test_the_verifier_reads_what_was_sent(receivers: Receivers, target: str) -> None:
    receivers.listen(target)
    out = receivers.make(anchors=target)
    out.written([line()])
    out.tend(0.0, 7, HEAD)
    (packet,) = receivers.heard(target)
    assert verify.parse_anchors(packet.decode()) == [verify.Anchor(7, HEAD, TIME)] * packet.count(b"number=7 head")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert f"boot={boot}".encode() in packet
    assert re.search(rb"boottime=[0-9]+[.][0-9]{3}", packet)
    if target == "journald":
        assert b"\nDURWARD_ANCHOR_NUMBER=7\n" in packet
    else:
        assert packet.startswith(b"<85>1 2026-11-23T12:00:00.000000Z ")
        assert b'[durward@32473 number="7" head="' in packet


def test_by_itself_it_takes_journald_or_syslog_or_says_nothing(receivers: Receivers) -> None:
    out = receivers.make()
    out.written([line()])
    out.tend(0.0, 7, HEAD)
    assert receivers.said == [], "there is neither: doctor says so"
    receivers.listen("syslog")
    out.anchor(1.0, 7, HEAD)
    assert len(receivers.heard("syslog")) == 1
    receivers.listen("journald")
    out.anchor(2.0, 7, HEAD)
    assert (len(receivers.heard("journald")), receivers.heard("syslog")) == (1, [])


def test_none_means_none(receivers: Receivers) -> None:
    receivers.listen("journald", "syslog")
    out = receivers.make(anchors="none")
    out.written([line()])
    assert out.next() is None
    out.tend(1e9, 7, HEAD)
    assert receivers.heard("journald") == receivers.heard("syslog") == []


@pytest.mark.parametrize("target", ["journald", "syslog"])
def test_each_record_goes_out_whole_with_its_fields_beside_it(receivers: Receivers, target: str) -> None:
    receivers.listen(target)
    out = receivers.make(forward=target, anchors="none")
    evil = 'a"b]c\\d\nMESSAGE=no'
    out.written([line(user="alice", allowed=False, target=evil), line(user="bob")])
    first, second = receivers.heard(target)
    assert line(user="alice", allowed=False, target=evil).rstrip(b"\n") in first
    assert b"bob" in second
    if target == "journald":
        assert b"\nDURWARD_AUDIT_USER=alice\n" in first
        assert b"\nDURWARD_AUDIT_ALLOWED=false\n" in first
        assert first.count(b"\nMESSAGE=") == 1
    else:
        assert b' user="alice" target="a\\\\\\"b\\]c' in first
        assert b'allowed="false"' in first
        assert first.count(b"\n") == 0
    assert json.loads(second[second.index(b'{"n":7') :])["user"] == "bob"


def test_what_nobody_takes_is_said_once_counted_and_told_by_the_next_anchor(receivers: Receivers) -> None:
    receivers.listen("journald")
    out = receivers.make(forward="syslog", anchors="journald")
    out.written([line(), line()])
    out.written([line()])
    assert len(receivers.said) == 1
    assert "syslog does not take it: No such file or directory" in receivers.said[0]
    out.tend(0.0, 7, HEAD)
    assert b" lost=3" in receivers.heard("journald")[0]
    receivers.listen("syslog")
    out.written([line()])
    assert len(receivers.heard("syslog")) == 1
    out.anchor(1.0, 7, HEAD)
    assert b"lost" not in receivers.heard("journald")[0]


def test_a_receiver_that_does_not_read_keeps_nobody_waiting(receivers: Receivers) -> None:
    receivers.listen("syslog")
    out = receivers.make(forward="syslog", anchors="none")
    out.written([line(text="x" * 10_000)] * 1_000)
    assert 0 < out.lost < 1_000
