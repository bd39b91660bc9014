"""A log directory with a mover over it, and one with an audit log; the tests of rootd/log share them."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from disks import Disk

from rootd.log import audit, chain
from rootd.log.audit import Audit
from rootd.log.rotate import Mover
from rootd.log.source import Source
from userapi.audit import verify


class Place:
    """A log directory, a state directory, and what Audit said."""

    def __init__(self, log: Path, state: Path) -> None:
        self.log, self.state = log, state
        self.said: list[str] = []
        self.opened: list[tuple[Audit, list[int]]] = []
        log.mkdir(exist_ok=True)
        state.mkdir(exist_ok=True)
        self.file, self.key = log / audit.AUDIT, state / audit.KEY
        self.size = 0  # bytes after which the next file is begun

    def open(self) -> Audit:
        fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (self.log, self.state)]
        log = Audit(*fds, str(self.state), lambda: "now", self.said.append, self.size)
        self.opened.append((log, fds))
        return log

    def close(self) -> None:
        for log, fds in self.opened:
            log._release()
            for fd in fds:
                os.close(fd)
        self.opened.clear()

    def keys(self) -> dict[int, bytes]:
        return chain.parse_keys((self.state / audit.INITIAL).read_bytes())

    def files(self) -> list[Path]:
        """The oldest first."""
        return [*sorted(self.log.glob("audit-*.jsonl")), *([self.file] if self.file.exists() else [])]

    def verify(self) -> verify.Report:
        verifier = verify.Verifier(self.keys())
        for path in self.files():
            with path.open("rb") as file:
                verifier.feed(file, path.name)
        return verifier.end()

    def bodies(self) -> list[dict[str, Any]]:
        found = []
        for line in b"".join(path.read_bytes() for path in self.files()).splitlines():
            with contextlib.suppress(ValueError):
                found.append(chain.parse(line).body)
        return found

    def numbers(self) -> list[int]:
        """The tests give each decision a number."""
        return [body["number"] for body in self.bodies() if body["kind"] == "decision"]

    def starts(self) -> list[str]:
        return [body["reason"] for body in self.bodies() if body["kind"] == "start"]


class House:
    """A log directory with a Mover over it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = path.with_name(f"{path.name}-run")
        self.run.mkdir(exist_ok=True)
        self.said: list[str] = []
        self.drained: list[Source] = []
        self.mover = self.start()

    def start(self) -> Mover:
        self.root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self.spools = os.open(self.run, os.O_RDONLY | os.O_DIRECTORY)
        return Mover(self.root, self.spools, self.drained.append, self.said.append)

    def pipe(self, process: str = "site", stream: int = 1, run: int = 1, size: int = 1 << 30, keep: int = 10) -> int:
        """The write end of a pipe that the mover reads; it does not block."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self.mover.add(Source(process, stream, run, 7, size, keep), reader)
        os.set_blocking(writer, False)
        return writer

    def ready(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.mover, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def settle(self, now: float = 0.0) -> None:
        """Turn until nothing is ready."""
        while self.ready(0):
            self.mover.turn(now)

    def close(self) -> None:
        self.mover.close()
        os.close(self.root)
        os.close(self.spools)

    def text(self, name: str = "site/stdout.log") -> bytes:
        """A log with its rotated predecessors, oldest first."""
        return b"".join(file.read_bytes() for file in self.files(name))

    def files(self, name: str = "site/stdout.log") -> list[Path]:
        current = self.path / name
        if not current.parent.is_dir():
            return []
        older = [file for file in current.parent.iterdir() if file.name.startswith(f"{current.name}.")]
        older.sort(key=lambda file: -int(file.suffix[1:]))
        return older + ([current] if current.exists() else [])


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    (tmp_path / "log").mkdir()
    house = House(tmp_path / "log")
    yield house
    house.close()


@pytest.fixture
def places() -> type[Place]:
    return Place


@pytest.fixture
def houses() -> type[House]:
    return House


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "audit", tmp_path / "state")
    yield place
    place.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Place]:
    """The log directory is a tmpfs of 64 KiB."""
    (tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "durward-test", tmp_path / "small"], check=True)
    try:
        place = Place(tmp_path / "small" / "audit", tmp_path / "state")
        yield place
        place.close()
    finally:
        subprocess.run(["umount", "--lazy", tmp_path / "small"], check=True)


@pytest.fixture
def tiny(house: House) -> Iterator[Path]:
    """<log>/full is a file system of its own, 64 KiB."""
    place = house.path / "full"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "durward-test", place], check=True)
    try:
        yield place
    finally:
        for file in house.mover.shelf.files.values():
            file.close()
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def disks(tmp_path: Path, houses: Any) -> Iterator[Callable[..., Disk]]:
    path = tmp_path / "log"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "durward-test", path], check=True)
    yield lambda form, size=1 << 30, drop=True: Disk(path, houses, form, size, drop=drop)
    subprocess.run(["umount", "--lazy", path], check=True)
