"""rootd/landlock: what a process reaches afterwards, in a child; and what an older kernel is asked for."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rootd import landlock

READ = landlock.READ_FILE | landlock.READ_DIR
needed = pytest.mark.skipif(landlock.version() < 1, reason="this kernel has no Landlock")


def in_a_child(act: Callable[[], None]) -> int:
    """The errno that it ended with, 0 for none."""
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            act()
            status = 0
        except OSError as error:
            status = error.errno or 255
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def reads(path: Path, granted: list[tuple[str | bytes, int]]) -> int:
    def act() -> None:
        landlock.restrict(landlock.version(), granted)
        os.close(os.open(path, os.O_RDONLY))

    return in_a_child(act)


@needed
def test_what_is_named_is_reached_and_nothing_else(tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    folder, file = str(tmp_path / "in"), os.fsencode(tmp_path / "in" / "file")
    assert reads(tmp_path / "in/file", [(folder, READ)]) == 0
    assert reads(tmp_path / "in/file", [(file, READ)]) == 0, "of a file the rights of a directory are left out"
    assert reads(tmp_path / "in", [(file, READ)]) == errno.EACCES
    assert reads(tmp_path / "out/file", [(folder, READ)]) == errno.EACCES
    assert reads(tmp_path / "in/file", []) == errno.EACCES


@needed
def test_a_path_that_is_granted_twice_has_both_rights(tmp_path: Path) -> None:
    def act() -> None:
        rights = landlock.rights(landlock.version()) & ~landlock.EXECUTE
        landlock.restrict(landlock.version(), [(str(tmp_path), READ), (str(tmp_path), rights & ~READ)])
        (tmp_path / "new").write_text("x")
        (tmp_path / "new").read_text()

    assert in_a_child(act) == 0


@needed
def test_a_path_that_is_not_there_is_an_error_and_restricts_nothing(tmp_path: Path) -> None:
    assert reads(tmp_path, [(str(tmp_path / "nothing"), READ)]) == errno.ENOENT


def test_an_older_kernel_is_asked_for_the_rights_that_it_knows() -> None:
    assert [landlock.rights(abi).bit_length() for abi in range(1, 9)] == [13, 14, 15, 15, 16, 16, 16, 16]
