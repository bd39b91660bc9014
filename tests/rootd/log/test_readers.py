"""One more group that may read log files, as a member of it finds them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rootd.config.logs import How, pack
from rootd.log import readers

pytestmark = pytest.mark.root
ADM, OTHERS = 64_325, 64_326  # groups that no machine has
READERS = pack(How(5, mode=0o640, compress=1, readers=ADM))


def can_read(path: Path, gid: int) -> bool:
    """Whether somebody who is in this group alone can."""
    who = [f"--reuid={gid}", f"--regid={gid}", "--clear-groups"]
    return subprocess.run(["setpriv", *who, "cat", path], capture_output=True, check=False).returncode == 0


def entered(path: Path) -> None:
    """The directories above the log directory are for everybody here."""
    for above in path.parents:
        if above.stat().st_mode & 0o777 == 0o700:
            above.chmod(0o755)


def test_its_members_read_what_is_written_and_what_was_rotated_and_nobody_else_does(house: Any) -> None:
    entered(house.path)
    house.path.chmod(0o2750)
    writer = house.pipe(keep=READERS, size=10)
    os.write(writer, b"one\ntwo\nthree\nfour\n")
    house.settle()
    assert len(house.files()) > 1
    for file in house.files():
        assert can_read(file, ADM), file
        assert not can_read(file, OTHERS), file
        assert file.stat().st_mode & 0o777 == 0o640
    other = house.pipe(process="other", run=2, keep=pack(How(5, mode=0o640)))
    os.write(other, b"x\n")
    house.settle()
    assert not can_read(house.path / "other/stdout.log", ADM)


def test_files_from_before_are_shared_when_they_are_opened_and_another_group_takes_the_place_of_the_first(
    house: Any,
) -> None:
    entered(house.path)
    file = house.path / "site/stdout.log"
    for run, (gid, gids) in enumerate([(0, ()), (ADM, (ADM,)), (OTHERS, (OTHERS,))], start=1):
        writer = house.pipe(run=run, keep=pack(How(5, mode=0o640, readers=gid)))
        os.write(writer, b"x\n")
        house.settle()
        os.close(writer)
        house.settle()
        assert [other for other in (ADM, OTHERS) if can_read(file, other)] == list(gids)


def test_what_root_has_set_on_a_directory_stays(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    readers.allow(fd, OTHERS, readers.LOOK)
    readers.allow(fd, ADM, readers.ENTER)
    assert readers.read(fd)[readers.GROUP, OTHERS] == readers.LOOK
    assert readers.read(fd)[readers.GROUP, ADM] == readers.ENTER
    os.close(fd)
