"""rootd/keeper/manifest: what is written is read again, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from rootd.keeper import manifest
from rootd.keeper.manifest import Manifest, Unreadable

NAMES = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1, max_size=60)
NUMBERS = st.integers(0, 1 << 31)
MANIFESTS = st.builds(
    Manifest,
    st.dictionaries(NAMES, NUMBERS, max_size=20),
    st.lists(st.sampled_from(["log", "supervisor", "auth", "probe"])).map(tuple),
    st.lists(st.tuples(NUMBERS, st.integers(-64, 255)), max_size=20).map(tuple),
    st.integers(0, 3),
    st.integers(0, 9),
    st.sampled_from(["", "0.1.0+abc"]),
    st.dictionaries(st.sampled_from(["state", "store", "a form of its own"]), st.integers(0, 99)),
)
GOOD = manifest.write(Manifest({"lock": 4, "process/1/2 3": 5}, ("log",), ((77, -9),), 1, 2, "p", {"state": 3}))


@given(MANIFESTS)
def test_what_is_written_is_read_again(told: Manifest) -> None:
    found = manifest.read(manifest.write(told))
    assert found == told
    assert list(found.held) == list(told.held), "the oldest first, as it was"


@pytest.mark.parametrize("cut", range(1, len(GOOD)))
def test_what_has_no_end_is_not_read_in_part(cut: int) -> None:
    with pytest.raises(Unreadable):
        manifest.read(GOOD[:-cut])


def test_a_later_version_is_refused_by_its_number_and_says_what_could_be_read() -> None:
    with pytest.raises(Unreadable, match=r"writes version 2 of what it tells, and this one reads 1\Z"):
        manifest.read(GOOD.replace(b"keeper 1", b"keeper 2", 1))
    with pytest.raises(Unreadable, match="version 0"):
        manifest.read(GOOD.replace(b"keeper 1", b"keeper 0", 1))


def test_a_range_of_versions_is_spelled_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "VERSION", 3)
    with pytest.raises(Unreadable, match="reads 1 to 3"):
        manifest.read(GOOD.replace(b"keeper 1", b"keeper 4", 1))
    assert manifest.read(GOOD).asked == 1


@pytest.mark.parametrize(
    "line", [b"held x name", b"reaped 1", b"reaped 1 x", b"format x state", b"unheard of", b"", b"held"]
)
def test_a_line_that_says_nothing_known_is_named(line: bytes) -> None:
    with pytest.raises(Unreadable, match="line 5 "):
        manifest.read(GOOD.replace(b"role log", line, 1))


@pytest.mark.parametrize("text", [b"", b"\xff", b"durward keeper one\nend\n", b"something else 1\nend\n"])
def test_what_is_something_else_is_refused(text: bytes) -> None:
    with pytest.raises(Unreadable):
        manifest.read(text)


def test_how_often_it_was_asked_to_end_is_a_number() -> None:
    with pytest.raises(Unreadable, match="line 2 "):
        manifest.read(GOOD.replace(b"asked 1", b"asked often", 1))
