"""rootd/keeper/backup: what a service manager is told, and what a keeper makes of what it hands over."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from manager import Manager

from rootd import trial, version
from rootd.keeper import backup, manifest, store
from rootd.keeper.backup import Backup
from rootd.keeper.manifest import Manifest

NOTED = Manifest({}, roles=("log", "supervisor"), asked=1, program="0", formats=version.written())


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "manager")
    yield manager
    manager.close()


def connected(manager: Manager) -> dict[str, int]:
    held, told = backup.found({"NOTIFY_SOCKET": str(manager.path), "FDSTORE": "9"}, trial.unreadable)
    assert told is None
    return held


def take_all(manager: Manager) -> None:
    while manager.take(wait=False):
        continue


def inode(fd: int) -> int:
    return os.fstat(fd).st_ino


def started_with(manager: Manager, names: list[str] | None = None) -> dict[str, object]:
    """What a process makes of it that is started with all that the manager keeps: see `begin`."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    argv, fds = manager.command(sys.executable, "-c", BEGIN, str(writer))
    if names is not None:
        pairs = [f"{name}={fd}" for name, fd in zip(names, fds, strict=True)]
        argv[argv.index(str(manager.path)) + 1 : argv.index("--")] = pairs
    argv[argv.index("--") :] = [f"result={writer}", *argv[argv.index("--") :]]
    pid = os.fork()
    if pid == 0:
        for fd in fds:
            os.set_inheritable(fd, True)
        os.execve(argv[0], argv, {"PYTHONPATH": os.pathsep.join(sys.path)})
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        words = json.loads(answer.read() or b"{}")
    os.waitpid(pid, 0)
    take_all(manager)
    return words


BEGIN = """
import json, os
from rootd import trial
from rootd.keeper import backup
from rootd.keeper.store import Store
names = os.environ["LISTEN_FDNAMES"].split(":")
result = os.dup(3 + names.index("result"))
held, told = backup.found(os.environ, trial.unreadable)
kept = Store(told.held if told else held)
kept.backup.flush()
answer = {name: os.fstat(fd).st_ino for name, fd in kept.held.items()}
os.write(result, json.dumps([answer, told and [told.roles, told.asked]]).encode())
"""


def filled(manager: Manager, *names: str) -> tuple[store.Store, dict[str, int]]:
    kept = store.Store(connected(manager))
    for name in names:
        assert kept.put(name, os.memfd_create(name))
    assert kept.backup is not None
    kept.backup.note(manifest.write(NOTED))
    assert kept.backup.flush()
    take_all(manager)
    return kept, {name: inode(fd) for name, fd in kept.held.items()}


def end(kept: store.Store) -> None:
    for name in list(kept.held):
        kept.drop(name)
    assert kept.backup is not None
    kept.backup.sock.close()
    os.close(kept.backup.names)


NAMES = ("settings", "socket/[::]:80", "generation/1", "pipe/ä%:\tb", "process/1/2/3/4/5")


def test_the_next_keeper_has_everything_by_its_name_in_its_order_and_what_was_noted(manager: Manager) -> None:
    kept, inodes = filled(manager, *NAMES)
    found, told = started_with(manager)
    assert found == inodes
    assert list(found) == list(NAMES)
    assert told == [list(NOTED.roles), NOTED.asked]
    assert len(manager.kept) == len(NAMES) + 1, "and it is kept as before"
    end(kept)


def test_what_is_dropped_is_no_longer_kept_and_its_number_is_given_again(manager: Manager) -> None:
    kept, inodes = filled(manager, *NAMES)
    before = set(manager.kept)
    kept.drop("settings")
    assert kept.backup is not None
    assert kept.backup.flush()
    take_all(manager)
    assert len(manager.kept) == len(before) - 1
    kept.put("settings", os.memfd_create("anew"))
    kept.backup.flush()
    take_all(manager)
    assert set(manager.kept) == before
    found, _ = started_with(manager)
    assert found == inodes | {"settings": inode(kept.held["settings"])}
    assert list(found)[-1] == "settings", "it is the youngest now"
    end(kept)


def test_a_manager_that_takes_nothing_stops_nobody_and_is_told_later_what_there_still_is(manager: Manager) -> None:
    kept = store.Store(connected(manager))
    assert kept.backup is not None
    for number in range(2_000):
        kept.put(f"process/{number}", os.memfd_create("x"))
    assert not kept.backup.flush()
    for number in range(1_990):
        kept.drop(f"process/{number}")
    kept.put("generation/1", os.memfd_create("x"))
    kept.backup.say(b"READY=1")
    kept.backup.note(manifest.write(NOTED))
    sent = 0
    while not kept.backup.flush():
        take_all(manager)
        sent += 1
        assert select.select([], [kept.backup.sock], [], 10.0)[1], "it is told when it may go on"
    take_all(manager)
    assert sent > 0
    assert manager.said == ["READY=1"]
    assert set(started_with(manager)[0]) == set(kept.held)
    assert len(manager.kept) == 12
    end(kept)


def test_an_orderly_end_leaves_nothing_there_whatever_was_still_to_be_told(manager: Manager) -> None:
    kept, _ = filled(manager, *NAMES)
    kept.put("late", os.memfd_create("x"))
    kept.drop("settings")
    assert kept.backup is not None
    manager.listen()
    kept.backup.clear()
    manager.settle()
    assert manager.kept == {}
    end(kept)


def test_what_was_kept_without_a_name_is_let_go_and_so_is_what_was_never_ours(manager: Manager) -> None:
    """Killed in between, the keeper had sent the descriptor and not yet written what it is called."""
    kept, inodes = filled(manager, *NAMES)
    assert kept.backup is not None
    kept.backup._send(b"FDSTORE=1\nFDPOLL=0\nFDNAME=77", 0)
    take_all(manager)
    assert "77" in manager.kept
    manager.kept["a.socket"] = os.dup(0)
    found, _ = started_with(manager)
    assert found == inodes
    assert "77" not in manager.kept
    end(kept)


@pytest.mark.parametrize("why", ["no configuration counts yet", "the names are gone", "a version from the future"])
def test_where_there_is_nothing_to_go_on_with_all_is_let_go_and_begins_anew(manager: Manager, why: str) -> None:
    names = [name for name in NAMES if why != "no configuration counts yet" or name != "generation/1"]
    kept, _ = filled(manager, *names)
    assert kept.backup is not None
    if why == "the names are gone":
        os.close(manager.kept.pop("0"))
    elif why == "a version from the future":
        kept.backup.note(manifest.write(NOTED._replace(formats={"store": 99})))
    assert [*started_with(manager)] == [{}, None]
    assert list(manager.kept) == ["0"], "the names alone, of the new one"
    end(kept)


def test_a_program_that_is_executed_in_its_place_goes_on_where_it_was(manager: Manager) -> None:
    kept, _ = filled(manager, *NAMES)
    kept.put("unsent", os.memfd_create("x"))
    kept.drop("settings")  # not told either
    again = store.Store({name: os.dup(fd) for name, fd in kept.everything().items()})
    assert again.backup is not None
    assert again.backup.flush()
    take_all(manager)
    assert len(manager.kept) == len(NAMES) + 1, "the names, and one came and one went"
    assert set(started_with(manager)[0]) == {*NAMES, "unsent"} - {"settings"}
    end(again)
    end(kept)


@pytest.mark.parametrize("how", ["executed in its place", "started after its death"])
def test_what_was_dropped_and_put_anew_is_never_mistaken_for_what_it_was(manager: Manager, how: str) -> None:
    """A socket that a service has spoilt, where the manager has not been told yet that there is another one."""
    kept, inodes = filled(manager, *NAMES)
    kept.drop("settings")
    kept.put("settings", os.memfd_create("anew"))
    if how == "executed in its place":
        again = store.Store({name: os.dup(fd) for name, fd in kept.everything().items()})
        assert again.backup is not None
        assert again.backup.flush()
        take_all(manager)
        assert started_with(manager)[0] == inodes | {"settings": inode(kept.held["settings"])}
        end(again)
    else:
        del inodes["settings"]
        assert started_with(manager)[0] == inodes
    assert len(manager.kept) == len(inodes) + 1, "and the names"
    end(kept)


def test_a_keeper_that_dies_while_it_clears_leaves_nothing_that_another_would_go_on_with(manager: Manager) -> None:
    kept, _ = filled(manager, *NAMES)
    assert kept.backup is not None
    for name in (backup.NAMES, *NAMES):
        kept.backup.drop(name)
    assert [*started_with(manager)] == [{}, None]
    assert list(manager.kept) == ["0"], "the names alone, by their number"
    end(kept)


def test_parts_of_the_keeper_that_is_gone_are_ended_before_anything_else(manager: Manager) -> None:
    kept, _ = filled(manager, *NAMES)
    pid = os.fork()
    if pid == 0:
        signal.pause()
    pidfd = os.pidfd_open(pid)
    assert kept.backup is not None
    kept.backup.put(f"{backup.PART}log", pidfd)
    kept.backup.flush()
    take_all(manager)
    assert set(started_with(manager)[0]) == set(NAMES)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    os.close(pidfd)
    end(kept)


@pytest.mark.parametrize(
    "environ", [{}, {"NOTIFY_SOCKET": "/nowhere"}, {"NOTIFY_SOCKET": "/nowhere", "FDSTORE": "0"}, {"FDSTORE": "9"}]
)
def test_where_no_manager_keeps_anything_there_is_none(environ: dict[str, str]) -> None:
    assert backup.found(environ, trial.unreadable) == ({}, None)
    assert store.Store().backup is None


def test_all_numbers_fit_into_one_variable_of_execve_and_the_note_into_its_place() -> None:
    whole = "LISTEN_FDNAMES=" + ":".join(f"{number:x}" for number in range(backup.LIMIT))
    assert len(whole) < 131_072
    assert store.LIMIT < backup.LIMIT
    noted = NOTED._replace(roles=("privileged", "log", "supervisor", "auth", "probe"), program="1.2.3+" + "f" * 64)
    assert len(manifest.write(noted)) < backup.HEAD // 2


def test_more_than_it_can_number_is_said_and_held_all_the_same(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backup, "LIMIT", 3)
    kept, _ = filled(manager, *NAMES)
    assert set(kept.held) == set(NAMES)
    assert len(manager.kept) == 3
    assert "'generation/1' is not kept by the service manager" in capfd.readouterr().err
    end(kept)


def test_a_manager_that_is_gone_is_said_and_stops_nobody(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    manager = Manager(tmp_path / "gone")
    held = connected(manager)
    manager.close()
    kept = store.Store(held)
    assert isinstance(kept.backup, Backup)
    assert kept.backup.flush(), "nothing is waited for"
    assert "the service manager does not take what is to be kept" in capfd.readouterr().err
    kept.put("settings", os.memfd_create("x"))
    kept.backup.clear()
    end(kept)
