"""Numbered lines of a hundred writers, through rotation, a full disk and kill -9 of log: there once, or counted.

Proven by counting: what is in the files, with what is counted as lost, is what was written, to the byte.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from log_stage import Stage

from rootd import ipc
from rootd.config.logs import FORMATS, TARGETS, How, pack
from rootd.log import forward, rotate
from rootd.log.spool import _HEAD

pytestmark = pytest.mark.root

KINDS = ("wait", "plain", "stamped", "json", "journald")
ROUNDS, LINES, SIZE = 12, 200, 8_000  # a file holds less than a round: the last one is written, whatever is lost before
LINE = re.compile(rb"\d{6} x*")
STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z ")
NOTICE = re.compile(rb"\[durward: lost here, of stdout: \d+ bytes, \d+ lines: .*\]")


def line(number: int) -> bytes:
    return b"%06d %s" % (number, b"x" * (number % 90))


def keep_of(kind: str) -> int:
    form = kind if kind in FORMATS else "plain"
    target = kind if kind in TARGETS else "file"
    return pack(How(1000, drop=kind != "wait", target=TARGETS.index(target), form=FORMATS.index(form)))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Its logs are on a tmpfs of their own; it gives a disk less patience than in earnest."""
    path = Path(tempfile.mkdtemp(prefix="durward-lines-"))
    path.chmod(0o755)
    monkeypatch.setattr(rotate, "GRACE", 0.05)
    monkeypatch.setattr(rotate, "RETRY", 0.05)
    monkeypatch.setattr(forward, "PATHS", dict.fromkeys(("journald", "syslog"), str(path / "journal")))
    stage = Stage(path, disk="64m")
    stage.start()
    yield stage
    stage.close()
    subprocess.run(["umount", "--lazy", path / "log"], check=True)
    shutil.rmtree(path)


@pytest.fixture
def journal(stage: Stage) -> Iterator[socket.socket]:
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(stage.path / "journal"))
    (stage.path / "journal").chmod(0o666)
    receiver.setblocking(False)
    yield receiver
    receiver.close()


def write(go: int, out: int, step: int) -> None:
    """A writer: a round of lines for each byte that it is given, in pieces that are no lines."""
    for number in range(ROUNDS):
        os.read(go, 1)
        view = memoryview(b"".join(line(n) + b"\n" for n in range(number * LINES, (number + 1) * LINES)))
        while view:
            view = view[os.write(out, view[:step]) :]


def messages(receiver: socket.socket, got: dict[str, list[bytes]]) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            fields, _, text = receiver.recv(1 << 17).rpartition(b"\nMESSAGE=")
            process = fields.partition(b"DURWARD_PROCESS=")[2].partition(b"\n")[0].decode()
            got.setdefault(process, []).append(text.removesuffix(b"\n"))


def lines_of(folder: Path, kind: str) -> list[bytes]:
    files = sorted(folder.glob("stdout.log*"), key=lambda file: -int(file.suffix[1:]) if file.suffix != ".log" else 0)
    assert len(files) > 1, "it was rotated"
    found = b"".join(file.read_bytes() for file in files).splitlines()
    if kind == "stamped":
        assert all(STAMP.match(one) for one in found)
        return [one[28:] for one in found]
    return [json.loads(one)["line"].encode() for one in found] if kind == "json" else found


def give_up(stage: Stage) -> None:
    """Wait until the full disk has cost something of each kind."""
    missing = {"plain", "stamped", "json"}
    while missing:
        stage.ping()
        for file in (stage.path / "run/log").glob("pipe,*"):
            with contextlib.suppress(FileNotFoundError, struct.error):
                if _HEAD.unpack_from(file.read_bytes())[5]:
                    missing.discard(file.name.removeprefix("pipe,").partition("-")[0])


def test_of_a_hundred_writers_every_line_is_there_once_or_counted_as_lost(stage: Stage, journal: socket.socket) -> None:
    names = [f"{KINDS[n % len(KINDS)]}-{n}" for n in range(100)]
    goes, children = [], []
    for run, name in enumerate(names, 1):
        out = stage.pipe(run, SIZE, name, keep_of(name.partition("-")[0]))
        go, give = os.pipe()
        if (child := os.fork()) == 0:
            try:
                os.close(give)
                write(go, out, 37 + 61 * run)
            finally:
                os._exit(0)
        children.append(child)
        goes.append(give)
        ipc.close_all((go, out))
    got: dict[str, list[bytes]] = {}
    ballast = stage.path / "log/ballast"
    for number in range(ROUNDS):
        for give in goes:
            os.write(give, b".")
        if number in (3, 8):
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(bytes(1 << 20)):
                    pass
        if number in (6, 10):
            ballast.unlink()
        if number in (4, 9):
            give_up(stage)
        messages(journal, got)
        stage.kill()
        stage.start()
    ipc.close_all(goes)
    left = set(names)
    while left:
        left.discard(stage.wait(stage.privileged, ipc.DRAINED).name)
        messages(journal, got)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)
    stage.kill()
    stage.start()
    lost = stage.losses()
    written = sum(len(line(n)) + 1 for n in range(ROUNDS * LINES))
    kinds_lost = dict.fromkeys(KINDS, 0)
    for name in names:
        kind = name.partition("-")[0]
        kinds_lost[kind] += lost.get(name, (0, 0))[0]
        there = got.get(name, []) if kind == "journald" else lines_of(stage.path / "log" / name, kind)
        found = [one for one in there if not NOTICE.fullmatch(one)]
        whole = [one for one in found if LINE.fullmatch(one) and one == line(int(one[:6]))]
        parts = [one for one in found if one not in whole]
        numbers = [int(one[:6]) for one in whole]
        assert numbers == sorted(set(numbers)), name
        size, count = lost.get(name, (0, 0))
        size += sum(map(len, whole)) + len(whole) + sum(map(len, parts))
        count += len(whole)
        if kind == "journald":  # a record that was on its way at a kill is counted, though it may have arrived
            assert 0 <= count - ROUNDS * LINES <= ROUNDS + 1, name
            assert 0 <= size - written <= (ROUNDS + 1) * 100, name
        else:
            assert (size, count) == (written, ROUNDS * LINES), name
        assert not parts or kind == "plain", "of a plain file the beginning of a line may be there, whose rest is lost"
    assert kinds_lost["wait"] == 0
    assert all(kinds_lost[kind] for kind in ("plain", "stamped", "json"))
    assert not list((stage.path / "run/log").glob("pipe,*")), "nothing is on its way any more"
