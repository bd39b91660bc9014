"""A log directory that can be full, with one service that writes there: what its files have, and what is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from rootd.config.logs import FORMATS, How, pack
from rootd.log.source import Source

STAMP = len("2026-01-02T03:04:05.000006Z ")
NOTICE = re.compile(rb"\[durward: lost here, of stdout: (\d+) bytes, (\d+) lines: .*\]")
TEXT = b"".join(b"line %02d %s\n" % (n, b"x" * (n % 7)) for n in range(12))
remove = os.unlink  # of what the test itself removes: no kill is counted there


class Disk:
    """A log directory of 24 KiB, which can be full, one service that writes, and one log after another."""

    def __init__(self, path: Path, houses: Any, form: str, size: int, *, drop: bool = True) -> None:
        self.path, self.houses, self.form = path, houses, form
        self.source = Source("site", 1, 1, 7, size, pack(How(1000, drop=drop, form=FORMATS.index(form))))
        self.reader, self.writer = os.pipe()
        self.house: Any = None

    def start(self) -> None:
        self.house = self.houses(self.path)
        self.house.mover.add(self.source, os.dup(self.reader))

    def killed(self) -> None:
        """As a kill does: nothing is written that is not written yet."""
        self.house.close()
        self.start()

    def ended(self, now: float) -> None:
        self.house.mover.last(now)
        self.killed()

    def say(self, text: bytes) -> None:
        os.write(self.writer, text)

    def fill(self) -> None:
        with (self.path / "ballast").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                return

    def free(self) -> None:
        if (self.path / "ballast").exists():
            remove(self.path / "ballast")

    def turn(self, now: float) -> None:
        self.house.mover.tend(now)
        self.house.settle(now)

    def close(self) -> None:
        if self.house is not None:
            self.house.close()
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)
        for entry in (*self.path.iterdir(), *self.path.with_name("log-run").iterdir()):
            shutil.rmtree(entry) if entry.is_dir() else remove(entry)

    def end_of_pipe(self, now: float) -> None:
        os.close(self.writer)
        self.writer = -1
        for later in range(5):
            self.turn(now + later)
        assert self.house.drained
        assert not [name for name in os.listdir(self.house.run) if name.startswith("pipe,")]

    @property
    def lines(self) -> list[bytes]:
        found: list[bytes] = self.house.text().splitlines()
        if self.form == "stamped":
            return [line[STAMP:] for line in found]
        return [json.loads(line)["line"].encode() for line in found] if self.form == "json" else found

    @property
    def kept(self) -> list[bytes]:
        return [line for line in self.lines if not NOTICE.fullmatch(line)]

    @property
    def noticed(self) -> list[tuple[int, int]]:
        matches = map(NOTICE.fullmatch, self.lines)
        return [(int(match[1]), int(match[2])) for match in matches if match]

    @property
    def lost(self) -> tuple[int, int]:
        return self.house.mover.totals.all().get(("site", 1), (0, 0))  # type: ignore[no-any-return]

    def check(self, step: int) -> None:
        """What is in the files with what is counted is what was written, to the byte."""
        written = TEXT.splitlines()
        whole = [line for line in self.kept if line in written]
        parts = [line for line in self.kept if line not in written]
        assert whole == sorted(set(whole)), step
        assert self.form == "plain" or not parts, step
        size = sum(map(len, whole)) + len(whole) + sum(map(len, parts))
        assert (size + self.lost[0], len(whole) + self.lost[1]) == (len(TEXT), TEXT.count(b"\n")), step
        assert sum(lost for lost, _ in self.noticed) <= self.lost[0], f"{step}: no notice stands there twice"
