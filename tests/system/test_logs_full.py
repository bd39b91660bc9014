"""A whole house whose disk is full for a while, and whose log is killed again and again: each line is there once, or
counted. Of what is plain and waits for room none is lost.

Proven by counting: what is in the files, with what `describe` counts as lost, is what was written, to the byte.
"""

from __future__ import annotations

import contextlib
import json
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import House
from people import People
from space import Space
from test_logs import text

from policy import messages
from rootd.log.spool import _HEAD

pytestmark = pytest.mark.root

PROGRAM = r"""
import os, sys, time
folder, n, size = sys.argv[1], 0, 0
while not os.path.exists(folder + "/enough"):
    data = b"".join(b"%06d %s\n" % (m, b"x" * (m % 90)) for m in range(n, n + 40))
    n, size, view = n + 40, size + len(data), memoryview(data)
    while view:
        view = view[os.write(1, view[:997]):]
    time.sleep(float(sys.argv[2]))
with open(folder + "/new." + os.environ["DURWARD_PROCESS"].replace(":", "."), "w") as file:
    file.write("%d %d" % (n, size))
os.rename(file.name, file.name.replace("/new.", "/"))
"""
ONE = """
[service.{kind}]
command = ["@PREFIX@/bin/python3", "-I", "-c", '''{program}''', "{folder}", "{pause}"]
user = "@jobs@"
processes = {writers}
restart = {{ policy = "never" }}
log = {{ size = "64K", keep = 1000, {how} }}
"""
KINDS = {
    "waits": 'full = "wait"',
    "plain": 'full = "drop"',
    "stamped": 'format = "stamped"',
    "json": 'format = "json"',
    "sent": 'target = "inherit"',
}
STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z ")
LINE = re.compile(rb"\d{6} x*")
NOTICE = re.compile(rb"\[durward: lost here, of stdout: \d+ bytes, (\d+) lines: .*\]")
LOST = re.compile(r"(\S+) stdout: (\d+) bytes, (\d+) lines")


def line(number: int) -> bytes:
    return b"%06d %s" % (number, b"x" * (number % 90))


@contextlib.contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "durward-test", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def lines_of(house: House, kind: str, process: str) -> list[bytes]:
    if kind == "sent":
        begin = process.encode() + b" | "
        said = house.messages_file.read_bytes().splitlines()
        return [one.removeprefix(begin) for one in said if one.startswith(begin)]
    found = text(house.log / process, "stdout").splitlines()
    assert len([*(house.log / process).glob("stdout.log*")]) > 1, "it was rotated"
    if kind == "stamped":
        assert all(STAMP.match(one) for one in found)
        return [one[28:] for one in found]
    return [json.loads(one)["line"].encode() for one in found] if kind == "json" else found


def lost(house: House, kind: str) -> dict[str, tuple[int, int]]:
    """By process: bytes and lines."""
    said = house.ask(messages.Describe(kind))
    assert isinstance(said, messages.Description), said
    found = [match for line in said.lost if (match := LOST.fullmatch(line))]
    assert len(found) == len(said.lost), said.lost
    return {match[1].replace(":", "."): (int(match[2]), int(match[3])) for match in found}


@pytest.mark.parametrize(
    ("writers", "kills", "pause"), [(2, 3, 0.02), pytest.param(20, 20, 0.5, marks=pytest.mark.slow)]
)
def test_on_a_full_disk_and_through_kill_9_of_log_every_line_is_there_once_or_counted(
    people: People, space: Space, writers: int, kills: int, pause: float
) -> None:
    house = House(people, space, {}, policy={})
    counts = house.folder / "counts"
    counts.mkdir()
    counts.chmod(0o777)
    for kind, how in KINDS.items():
        one = ONE.format(kind=kind, how=how, program=PROGRAM, folder=counts, writers=writers, pause=pause)
        house.write(f"services.d/{kind}.toml", one)
    try:
        with disk(house.log, "128m"), house.running():
            begun = house.status()
            assert {one.state for service in begun.values() for one in service.processes} == {"RUNNING"}, begun
            torture(house, kills)
            (counts / "enough").touch()
            names = [f"{kind}.{number}" for kind in KINDS for number in range(writers)]
            house.until(lambda: all((counts / name).exists() for name in names), "all have written", 120)
            house.until(lambda: not on_its_way(house), "nothing is on its way any more")
            for kind in KINDS:
                gone = lost(house, kind)
                assert kind == "sent" or bool(gone) == (kind != "waits"), (kind, gone)
                for number in range(writers):
                    process = f"{kind}.{number}"
                    written = tuple(map(int, (counts / process).read_text().split()))
                    look(house, kind, process, written, gone.get(process, (0, 0)), kills)
    finally:
        house.remove()


def losing(house: House) -> set[str]:
    """Of which services something is lost already, and is not told before there is room to tell it."""
    found = set()
    for head in on_its_way(house):
        with contextlib.suppress(FileNotFoundError, struct.error), head.open("rb") as file:
            if _HEAD.unpack(file.read(_HEAD.size))[5]:
                found.add(head.name.removeprefix("pipe,").partition(".")[0])
    return found


def on_its_way(house: House) -> list[Path]:
    """The spools of the writers."""
    return [path for kind in KINDS for path in (house.run_dir / "log").glob(f"pipe,{kind}.*")]


def torture(house: House, kills: int) -> None:
    """In the middle of it the disk is full, for so long that what does not wait is lost."""
    ballast = house.log / "ballast"
    for number in range(kills):
        if number == kills // 2:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(bytes(1 << 20)):
                    pass
            house.until(lambda: losing(house) >= {"plain", "stamped", "json"}, "some of each is lost")
        house.wait_back("log", house.kill9("log"))
    ballast.unlink()


def is_whole(text: bytes) -> bool:
    return bool(LINE.fullmatch(text)) and text == line(int(text[:6]))


def without_their_ends(found: list[bytes], written: int) -> set[bytes]:
    """Lines of which the disk took all but the newline, which is counted as lost: the one that follows them is that of
    a notice, which tells of one line more than is missing by the numbers."""
    ends = set()
    for before, said, after in zip(found, found[1:], [*found[2:], line(written)], strict=False):
        notice = NOTICE.fullmatch(said)
        if notice and is_whole(before) and is_whole(after) and int(after[:6]) - int(before[:6]) == int(notice[1]):
            ends.add(before)
    return ends


def look(house: House, kind: str, process: str, written: tuple[int, ...], gone: tuple[int, int], kills: int) -> None:
    """One process's lines, to the byte."""
    there = lines_of(house, kind, process)
    found = [one for one in there if not NOTICE.fullmatch(one)]
    open_ones = without_their_ends(there, written[0]) if kind == "plain" else set()
    whole = [one for one in found if is_whole(one) and one not in open_ones]
    known = set(whole)
    parts = [one for one in found if one not in known]
    numbers = [int(one[:6]) for one in whole]
    assert numbers == sorted(set(numbers)), process
    assert not parts or kind == "plain", "of a plain file the beginning of a line may be there, whose rest is lost"
    size = gone[0] + sum(map(len, whole)) + len(whole) + sum(map(len, parts))
    count = gone[1] + len(whole)
    if kind == "sent":  # a line that was on its way at a kill is counted, though it may have arrived
        assert 0 <= count - written[0] <= kills, process
        assert 0 <= size - written[1] <= kills * 100, process
    else:
        assert (count, size) == written, process
