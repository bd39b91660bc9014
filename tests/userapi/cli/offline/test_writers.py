"""userapi/cli/offline/writers: who may change what a path leads to, on a file system beneath a folder of root's."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from userapi.cli.offline.writers import ENTRY, Ground, Hand, Look, Names, entries_of

pytestmark = pytest.mark.root
ALICE, BOB, OPS = 61001, 61002, 61003
NAMES = Names(
    {0: frozenset({"root"}), ALICE: frozenset({"alice"}), BOB: frozenset({"bob"})},
    {0: frozenset({"root"}), OPS: frozenset({"ops"})},
)


@pytest.fixture
def top() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="durward-test-writers-", dir="/run"))
    path.chmod(0o755)
    (path / "srv" / "site").mkdir(parents=True)
    for folder in (path / "srv", path / "srv" / "site"):
        folder.chmod(0o755)
    run = path / "srv" / "site" / "run"
    run.write_text("#!/bin/sh\n:\n")
    run.chmod(0o755)
    yield path
    shutil.rmtree(path)


def look(top: Path, path: str = "/srv/site/run") -> Look:
    return Ground(NAMES, str(top)).look(path)


def hand(at: str, users: str = "", groups: str = "", everybody: bool = False) -> Hand:
    return Hand(at, frozenset(users.split()), frozenset(groups.split()), everybody)


def acl(path: Path, *words: str) -> None:
    subprocess.run(["setfacl", "-m", *words, str(path)], check=True)


def test_what_is_roots_alone_nobody_may_write(top: Path) -> None:
    found = look(top)
    assert (found.hands, found.real, found.unseen) == ((), "/srv/site/run", "")


def test_the_owner_may_even_where_the_mode_says_no(top: Path) -> None:
    os.chown(top / "srv/site/run", ALICE, 0)
    (top / "srv/site/run").chmod(0o555)
    assert look(top).hands == (hand("/srv/site/run", "alice"),)


def test_a_group_and_everybody_may_by_the_mode(top: Path) -> None:
    os.chown(top / "srv/site/run", 0, OPS)
    (top / "srv/site/run").chmod(0o775)
    assert look(top).hands == (hand("/srv/site/run", groups="ops"),)
    (top / "srv/site/run").chmod(0o757)
    assert look(top).hands == (hand("/srv/site/run", everybody=True),)


def test_who_may_write_a_directory_above_may_replace_it_and_must_be_able_to_enter(top: Path) -> None:
    os.chown(top / "srv", 0, OPS)
    (top / "srv").chmod(0o775)
    assert look(top).hands == (hand("/srv", groups="ops"),)
    (top / "srv").chmod(0o765)
    assert look(top).hands == ()
    os.chown(top / "srv", BOB, 0)
    assert look(top).hands == (hand("/srv", "bob"),)


def test_in_a_sticky_directory_only_owners_replace_what_is_there(top: Path) -> None:
    (top / "srv" / "site").chmod(0o1777)
    assert look(top).hands == ()
    os.chown(top / "srv/site/run", ALICE, 0)
    assert look(top).hands == (hand("/srv/site", "alice"), hand("/srv/site/run", "alice"))
    assert look(top, "/srv/site/missing").hands == (hand("/srv/site", groups="root", everybody=True),)


def test_an_access_control_list_counts_as_far_as_its_mask_lets_it(top: Path) -> None:
    run = top / "srv/site/run"
    acl(run, f"u:{ALICE}:rw,g:{OPS}:rw,u:{BOB}:r")
    assert look(top).hands == (hand("/srv/site/run", "alice", "ops"),)
    acl(run, "m::r")
    assert look(top).hands == ()
    acl(top / "srv", f"u:{BOB}:wx")
    assert look(top).hands == (hand("/srv", "bob"),)


def test_the_owning_group_of_a_list_is_not_what_the_mode_shows(top: Path) -> None:
    run = top / "srv/site/run"
    os.chown(run, 0, OPS)
    acl(run, f"u:{ALICE}:rw,g::r")
    assert run.stat().st_mode & 0o020
    assert look(top).hands == (hand("/srv/site/run", "alice"),)
    acl(run, "g::rw")
    assert look(top).hands == (hand("/srv/site/run", "alice", "ops"),)


def test_every_directory_of_a_link_and_of_what_it_leads_to_counts(top: Path) -> None:
    (top / "links").mkdir(mode=0o755)
    (top / "links" / "current").symlink_to("/srv/site")
    os.chown(top / "links", ALICE, 0)
    os.chown(top / "srv", BOB, 0)
    found = look(top, "/links/current/run")
    assert found.real == "/srv/site/run"
    assert found.hands == (hand("/links", "alice"), hand("/srv", "bob"))


def test_links_stay_beneath_the_prefix_whether_they_are_relative_or_not(top: Path) -> None:
    (top / "srv" / "a").symlink_to("../../../../srv/./site/run")
    (top / "srv" / "b").symlink_to("/srv/a")
    assert look(top, "/srv/b").real == "/srv/site/run"
    assert look(top, "/srv//site/../site/run").real == "/srv/site/run"


def test_what_leads_nowhere_says_who_could_make_it(top: Path) -> None:
    (top / "srv" / "round").symlink_to("round")
    os.chown(top / "srv", ALICE, 0)
    for path in ("/srv/round", "/srv/none/deeper", "/srv/site/run/deeper"):
        found = look(top, path)
        assert (found.hands, found.real, found.mode) == ((hand("/srv", "alice"),), "", 0)


def test_a_directory_itself_is_written_by_who_may_make_something_in_it(top: Path) -> None:
    (top / "srv" / "site").chmod(0o1777)
    assert look(top, "/srv/site").hands == (hand("/srv/site", groups="root", everybody=True),)


def test_to_write_a_socket_is_to_connect_to_it_and_only_its_owner_may_change_it(top: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(top / "s"))
        (top / "s").chmod(0o777)
        assert look(top, "/s").hands == ()
        os.chown(top / "s", ALICE, 0)
        assert look(top, "/s").hands == (hand("/s", "alice"),)


def test_numbers_without_a_name_are_told_as_numbers(top: Path) -> None:
    os.chown(top / "srv/site/run", 4242, 4343)
    (top / "srv/site/run").chmod(0o775)
    assert look(top).hands == (Hand("/srv/site/run", frozenset({"uid 4242"}), frozenset({"gid 4343"})),)


def test_every_name_of_a_number_is_told(top: Path) -> None:
    os.chown(top / "srv/site/run", ALICE, 0)
    names = Names({ALICE: frozenset({"alice", "admin"})}, {})
    assert Ground(names, str(top)).look("/srv/site/run").hands == (hand("/srv/site/run", "alice admin"),)


def test_what_may_not_be_looked_at_is_said(top: Path) -> None:
    (top / "srv" / "site").chmod(0o700)
    os.chown(top / "srv", BOB, 0)
    pid = os.fork()
    if not pid:
        os.setresuid(ALICE, ALICE, ALICE)
        found = look(top)
        good = found.unseen == "/srv/site/run: Permission denied" and found.hands == (hand("/srv", "bob"),)
        os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_the_first_line_is_read_as_far_as_it_goes(top: Path) -> None:
    ground = Ground(NAMES, str(top))
    assert ground.first_line("/srv/site/run") == b"#!/bin/sh"
    assert ground.first_line("/srv/site/run", 4) == b"#!/b"


def test_a_list_that_is_cut_short_is_read_as_far_as_it_is_whole() -> None:
    whole = b"\2\0\0\0" + ENTRY.pack(2, 6, ALICE)
    assert [*entries_of(whole + b"\1\2\3")] == [(2, 6, ALICE)]
    assert [*entries_of(whole[:4])] == []
