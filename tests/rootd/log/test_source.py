"""Names of pipes, and where a file ends. security.md E1."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from rootd.config.logs import How, pack
from rootd.log import source
from rootd.log.source import Source

# --- names


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/x", "A", "-x", ".x", "a b", "a\0", "a\n", "é", "a" * 81]
)
def test_E1_a_process_name_that_could_leave_the_directory_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a process"):
        source.check(Source(name, 1, 1, 1, 1, 1))


@pytest.mark.parametrize(
    "wrong",
    [
        Source("site", 0, 1, 1, 1, 1), Source("site", 3, 1, 1, 1, 1), Source("site", 1, 1, 1, 0, 1),
        Source("site", 1, 1, 1, -5, 1), Source("site", 1, 1, 1, 1, -1), Source("site", 1, 1, 1, 1, 1_001),
    ],
)  # fmt: skip
def test_a_source_out_of_range_is_refused(wrong: Source) -> None:
    with pytest.raises(ValueError, match=r"stream|range"):
        source.check(wrong)


def test_a_name_of_the_store_says_whose_pipe_it_is() -> None:
    assert source.source_of("pipe/site.0/stderr/12/5000/10/1027") == Source("site.0", 2, 12, 1027, 5000, 10)


@pytest.mark.parametrize(
    "name",
    [
        "", "pipe", "pipe/site/stdout/1/2/3", "pipe/site/stdout/1/2/3/4/5", "pipe/../stdout/1/2/3/4",
        "pipe/site/other/1/2/3/4", "pipe/site/stdout/x/2/3/4", "pipe/site/stdout/-1/2/3/4",
        "notify/site/stdout/1/2/3/4", "pipe/site/stdout/\u0661/2/3/4",
    ],
)  # fmt: skip
def test_any_other_name_of_the_store_is_refused(name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        source.source_of(name)


# --- where a file ends


@given(st.lists(st.binary(max_size=120), max_size=8), st.integers(1, 60), st.integers(1, 40), st.data())
def test_a_file_ends_at_a_newline_whenever_one_is_within_reach(
    pieces: list[bytes], limit: int, slack: int, data: st.DataObject
) -> None:
    """cut, played over any text that comes in any pieces: every byte once, every file in its bounds."""
    text = b"\n".join(pieces)
    files, at, steps = [b""], 0, 0
    while at < len(text):
        steps += 1
        assert steps < 10_000
        size = len(files[-1])
        room, reach = limit - size, limit - size + slack
        window = text[at : at + min(data.draw(st.integers(1, 50)), max(reach, 1))]
        take, full = source.cut(window, room, reach, files[-1].endswith(b"\n"))
        assert 0 <= take <= len(window)
        files[-1] += window[:take]
        at += take
        if full:
            assert files[-1], "an empty file is never rotated"
            files.append(b"")
    assert b"".join(files) == text
    for file in files[:-1]:
        assert len(file) <= limit + slack
        assert file.endswith(b"\n") or len(file) == limit + slack
        if len(file) > limit:
            assert b"\n" not in file[limit - 1 : -1], "it could have ended earlier"


def test_how_a_log_is_kept_is_in_the_name_and_nonsense_is_refused() -> None:
    word = pack(How(3, age=86_400, compress=1, target=1))
    assert source.source_of(f"pipe/site/stdout/1/5000/{word}/7") == Source("site", 1, 1, 7, 5000, word)
    with pytest.raises(ValueError, match="out of range"):
        source.source_of(f"pipe/site/stdout/1/5000/{1 << 90}/7")
