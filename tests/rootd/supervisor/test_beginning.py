"""What the supervisor is handed, in a process of its own that really becomes its account."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from supervisor_daemon import SUPERVISOR_UID, settings_of

from rootd import ipc
from rootd.config import settings as settings_file
from rootd.supervisor import beginning

pytestmark = pytest.mark.root
Hand = Callable[..., Any]


def memfd(name: str, content: bytes) -> int:
    fd = os.memfd_create(name)
    os.write(fd, content)
    return fd


def begun(keeper: ipc.Link, theirs: Any, hand: Callable[[ipc.Link], None]) -> Any:
    """What has begun in a fork, as JSON: uid, life, number of the generation that was made early; None if nothing."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            keeper.close()
            found = beginning.begin(os.dup(theirs.fileno()))
            told = found and (os.getuid(), found.life, found.made is not None, sorted(found.inherited.held))
            os.write(writer, json.dumps(told).encode())
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(0)
    os.close(writer)
    theirs.close()
    hand(keeper)
    with open(reader, "rb") as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(told)


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the supervisor's account gets to, as it does not into pytest's folders of root's."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        for folder in ("run/supervisor", "log", "state/choices"):
            Path(name, folder).mkdir(parents=True)
        yield Path(name)


@pytest.fixture
def start() -> Hand:

    def start(*held: tuple[str, int], ends: bool = False) -> Any:
        ours, theirs = ipc.pair()

        def hand(keeper: ipc.Link) -> None:
            for name, fd in held:
                keeper.send(ipc.Message(ipc.HELD, name=name), fd)
            if not ends:
                keeper.send(ipc.Message(ipc.HELD_END))
            keeper.close()

        return begun(ipc.Link(ours), theirs, hand)

    return start


@pytest.fixture
def text(place: Path) -> bytes:
    return settings_file.to_json(settings_of(place))


def test_its_life_is_the_settings_that_the_keeper_holds(start: Hand, text: bytes) -> None:
    one, other = memfd("settings", text), memfd("settings", text)
    lives = [start(("settings", fd))[:2] for fd in (one, one, other)]
    assert lives[0] == lives[1] != lives[2]
    assert {uid for uid, _ in lives} == {SUPERVISOR_UID}


def test_in_another_boot_settings_of_the_same_number_are_another_life(
    start: Hand, text: bytes, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the run directory is kept: the kernel counts the inodes of each boot anew."""
    settings, lives = memfd("settings", text), []
    for boot in ("0f6d", "91c3"):
        (place / boot).write_text(boot)
        monkeypatch.setattr(beginning, "BOOT_ID", str(place / boot))
        lives.append(start(("settings", settings))[1])
    assert lives[0] != lives[1]


def test_what_was_made_early_goes_with_the_settings_of_those_that_began(
    start: Hand, text: bytes, generation: Any
) -> None:
    staged = ("staged/generation", generation({}, 1).fd), ("staged/settings", memfd("s", text))
    settings = memfd("settings", text)
    uid, life, early, held = start(*staged, ("door/root", settings), ("settings", settings))
    assert (uid, early, held) == (SUPERVISOR_UID, True, ["door/root"])
    assert life == start(("settings", settings))[1]


def test_other_settings_than_those_that_were_made_early_are_begun_with_anew(
    start: Hand, place: Path, text: bytes, generation: Any
) -> None:
    staged = ("staged/generation", generation({}, 1).fd), ("staged/settings", memfd("s", text))
    others = settings_of(place)._replace(config="/etc/other")
    assert start(*staged, ("settings", memfd("settings", settings_file.to_json(others)))) is None


def test_without_a_keeper_nothing_begins(start: Hand, text: bytes) -> None:
    assert start(ends=True) is None
    assert start(("settings", memfd("settings", text)), ends=True) is None
