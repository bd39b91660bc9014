"""How a log is kept, as a number in a pipe's name: what is packed comes out, and what is nonsense is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from rootd.config import keys, logs
from rootd.config.logs import FORMATS, TARGETS, How, pack, unpack

HOWS = st.builds(
    How, st.integers(0, 1000), st.integers(0, (1 << 28) - 1), st.integers(0, 0o777), st.integers(0, 1),
    st.integers(0, 1), st.integers(0, len(TARGETS) - 1), st.integers(0, len(FORMATS) - 1), st.integers(0, 1),
    st.integers(0, 1), st.integers(0, (1 << 32) - 1),
)  # fmt: skip


@given(HOWS)
def test_what_is_packed_comes_out(how: How) -> None:
    assert unpack(pack(how)) == how
    assert len(str(pack(how))) <= 27, "that long a number has room in a pipe's name"


def test_a_number_of_an_older_version_is_how_many_files_are_kept_and_nothing_else() -> None:
    assert unpack(10) == How(10)


@given(st.integers(0, (1 << 88) - 1))
def test_any_other_number_is_refused_or_means_what_it_says(word: int) -> None:
    try:
        how = unpack(word)
    except ValueError:
        return
    assert pack(how) == word


@pytest.mark.parametrize("how", [How(1024), How(1, age=1 << 28), How(1, mode=0o1000), How(-1)])
def test_a_field_that_does_not_fit_is_refused(how: How) -> None:
    with pytest.raises(ValueError, match="out of range"):
        pack(how)


def log(**given: object) -> dict[str, object]:
    return {name: keys.parse(key.type, given.get(name, key.default)) if given.get(name, key.default) is not None else
            None for name, key in keys.SECTIONS["log"].items()}  # fmt: skip


def test_what_is_configured_is_what_is_packed() -> None:
    assert logs.how_of(log()) == ((50 << 20, pack(How(10, mode=0o640, drop=1))), ("stdout", "stderr"))
    chosen = log(age="1d", keep=3, compress=True, mode="0600", full="wait", target="journald", stderr="stdout")
    how = How(3, 86_400, 0o600, 1, 0, 1, 0, 1)
    assert logs.how_of(chosen) == ((50 << 20, pack(how)), ("stdout",))
    assert logs.how_of(log(target="null"))[1] == ()
    assert [unpack(logs.how_of(log(), name)[0][1]).alone for name in ("", "web", "web.0", "web.x")] == [0, 0, 1, 0]


def test_who_may_read_them_too_is_in_it() -> None:
    assert unpack(logs.how_of(log(), readers=4_000_000_000)[0][1]).readers == 4_000_000_000


@pytest.mark.parametrize(
    ("given", "where"),
    [({"mode": "0600"}, "log.mode"), ({"target": "journald"}, "log.readers"), ({"target": "null"}, "log.readers")],
)
def test_readers_of_what_nobody_can_read_are_a_mistake(given: dict[str, object], where: str) -> None:
    assert [key for key, _ in logs.problems(log(readers="adm", **given))] == [where]
    assert not list(logs.problems(log(**given)))


def test_the_longest_age_fits() -> None:
    assert unpack(logs.how_of(log(age="3000d"))[0][1]).age == 3000 * 86_400
