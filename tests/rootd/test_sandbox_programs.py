"""The walls of a part that may execute named programs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rootd import confine, sandbox

UID = 61_012  # of nobody's
LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")

pytestmark = pytest.mark.root


def ended(act: Callable[[], object]) -> int:
    """The exit status of a process of nobody's that does this; 70 when it raises."""
    pid = os.fork()
    if pid == 0:
        try:
            confine.become(UID, UID, ())
            act()
            os._exit(0)
        except BaseException:
            os._exit(70)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def enter(*programs: str) -> None:
    sandbox.enter(read=("/usr", "/lib", "/lib64", "/etc"), execute=(*programs, *LOADERS), fork=True)


@pytest.mark.parametrize(("program", "status"), [("/usr/bin/false", 70), ("/usr/bin/true", 0)])
def test_a_program_that_is_named_can_be_executed(program: str, status: int) -> None:
    """Were `false` named, the self-test could not tell it from a hole."""

    def act() -> None:
        enter("/usr/bin/true")
        os.execv(program, [program])

    assert ended(act) == status


def test_no_other_program_can_not_even_a_copy(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o755)
    copy = tmp_path / "true"
    copy.write_bytes(Path("/usr/bin/true").read_bytes())
    copy.chmod(0o755)
    for other in (str(copy), "/bin/sh", "/usr/bin/env"):

        def act(other: str = other) -> None:
            enter("/usr/bin/true")
            try:
                os.execv(other, [other])
            except PermissionError:
                os._exit(13)

        assert ended(act) == 13


def test_a_process_that_could_execute_anything_does_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "restrict_files", lambda *_: True)

    def act() -> None:
        enter("/usr/bin/true")
        os._exit(0)

    assert ended(act) == 1  # it is `false` now


def test_without_landlock_the_files_are_guarded_by_their_modes_and_the_rest_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "restrict_files", lambda *_: False)

    def act() -> None:
        enter("/usr/bin/true")
        try:
            os.setuid(0)
        except PermissionError:
            os._exit(13)

    assert ended(act) == 13


def test_without_a_program_that_is_named_none_can_be_executed() -> None:
    def act() -> None:
        sandbox.enter(read=("/usr", "/lib", "/lib64"))
        try:
            os.execv("/usr/bin/true", ["true"])
        except PermissionError:
            os._exit(13)

    assert ended(act) == 13
