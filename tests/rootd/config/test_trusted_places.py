"""rootd/config/trusted: where Durward's own directories may be, on a real file system with real owners and links."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from rootd.config import trusted

pytestmark = pytest.mark.root
NOBODY = 65534


def exposed(path: str, uid: int = 0) -> str:
    """What is wrong with it; nothing when it is good."""
    try:
        trusted.check_place(path, uid)
    except PermissionError as error:
        return str(error.strerror)
    return ""


@pytest.fixture
def place(root_directory: Path) -> Path:
    """What [paths] may name: two directories down, the last of them not there yet."""
    (root_directory / "above").mkdir(mode=0o755)
    return root_directory / "above" / "log"


def test_e1_a_place_of_ours_is_good_where_all_that_is_there_is_roots_or_it_is_our_own(place: Path) -> None:
    assert exposed(str(place)) == ""
    assert exposed(str(place / "deep" / "er")) == ""
    place.mkdir(mode=0o700)
    assert exposed(str(place)) == ""
    os.chown(place, NOBODY, 0)
    place.chmod(0o2770)
    assert exposed(str(place), NOBODY) == ""
    assert exposed(str(place)) == f"{place} belongs to uid {NOBODY}, not to root: choose another place"


@pytest.mark.parametrize(
    ("mode", "owner", "said"),
    [
        (0o777, 0, "can be written by everybody (mode 0777)"),
        (0o1777, 0, "can be written by everybody (mode 1777)"),
        (0o775, 0, "can be written by its group, or whom its ACL names (mode 0775)"),
        (0o755, NOBODY, f"belongs to uid {NOBODY}, not to root"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_e1_a_place_that_somebody_else_could_put_another_in_is_refused(
    place: Path, mode: int, owner: int, said: str, there: bool
) -> None:
    if there:
        place.mkdir()
    os.chown(place.parent, owner, 0)
    place.parent.chmod(mode)
    assert exposed(str(place), NOBODY) == f"{place.parent} {said}: choose another place"


def test_a_group_of_the_systems_may_write_above_the_logs_and_nowhere_else(place: Path) -> None:
    """Ubuntu's /var/log is root's and syslog's, mode 0775."""
    group = "can be written by its group, or whom its ACL names (mode 0775): choose another place"
    os.chown(place.parent, 0, 4)
    place.parent.chmod(0o775)
    assert exposed(str(place), NOBODY) == ""
    assert exposed(str(place)) == f"{place.parent} {group}"
    subprocess.run(["setfacl", "--modify", f"user:{NOBODY}:rwx", place.parent], check=True)
    assert exposed(str(place), NOBODY) == f"{place.parent} {group}"
    subprocess.run(["setfacl", "--remove-all", place.parent], check=True)
    os.chown(place.parent, 0, trusted.PEOPLE)
    assert exposed(str(place), NOBODY) == f"{place.parent} {group}"


def test_e1_a_place_of_roots_that_everybody_may_write_is_refused_though_it_is_roots(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)
    assert exposed(str(place)) == f"{place} can be written by everybody (mode 0777): choose another place"


def test_e1_a_link_above_a_place_of_ours_must_be_roots_and_what_it_leads_to_is_looked_at_too(place: Path) -> None:
    other, link = place.parent / "other", place.parent / "link"
    for path in (other, other / "real"):
        path.mkdir(mode=0o755)
    link.symlink_to("../above/other/real")
    assert exposed(f"{link}/log") == ""
    other.chmod(0o777)
    assert exposed(f"{link}/log").startswith(f"{other} can be written by everybody")
    other.chmod(0o755)
    (other / "real").rmdir()
    (other / "real").symlink_to("/")
    os.chown(other / "real", NOBODY, NOBODY, follow_symlinks=False)
    assert exposed(f"{link}/log") == f"{other}/real is a symbolic link: choose another place"
    (other / "real").unlink()
    (other / "real").symlink_to(link)
    with pytest.raises(OSError, match="Too many levels"):
        exposed(f"{link}/log")


def test_e1_a_place_of_ours_is_no_link_and_no_file(place: Path) -> None:
    place.symlink_to("/var")
    os.chown(place, NOBODY, NOBODY, follow_symlinks=False)
    for uid in (0, NOBODY):
        assert exposed(str(place), uid) == f"{place} is a symbolic link: choose another place"
    place.unlink()
    place.touch()
    assert exposed(str(place)) == f"{place} is not a directory: choose another place"
