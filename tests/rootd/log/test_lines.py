"""Lines and what is made of them."""

from __future__ import annotations

import json

from hypothesis import given, strategies as st

from rootd.log import lines
from rootd.log.lines import Whose, split

WHOSE = Whose("site", "site.1", 2, 77)
TIME = "2026-01-02T03:04:05.000006Z"


@given(st.binary(max_size=80) | st.text("ab\n", max_size=60).map(str.encode), st.integers(1, 20))
def test_every_byte_is_in_one_line_which_says_how_many_it_stands_for(data: bytes, limit: int) -> None:
    found = list(split(data, limit))
    assert sum(stands_for for _, stands_for in found) == len(data)
    at = 0
    for line, stands_for in found:
        assert data[at : at + stands_for].removesuffix(b"\n") == line
        assert len(line) <= limit
        at += stands_for


@given(st.text("ab\n", max_size=60).map(str.encode), st.integers(1, 20))
def test_what_has_ended_is_whole_lines_and_parts_of_those_that_are_too_long(data: bytes, limit: int) -> None:
    end = lines.whole(data, limit)
    assert len(data) - end < limit
    assert b"\n" not in data[end:]
    whole = data[: data.rfind(b"\n") + 1]
    assert lines.short(whole, limit) == all(len(line) <= limit for line in whole.split(b"\n"))
    assert data in (b"", whole) or not lines.short(data, limit)


@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), min_size=1, max_size=10))
def test_lines_that_are_stamped_together_are_as_they_were_one_by_one(several: list[bytes]) -> None:
    text = b"\n".join(several)
    assert lines.stamped(text, TIME) == b"".join(lines.stamped(line, TIME) for line in several)
    assert lines.as_json(text, TIME, WHOSE) == b"".join(lines.as_json(line, TIME, WHOSE) for line in several)
    assert all(json.loads(line) for line in lines.as_json(text, TIME, WHOSE).splitlines())


def test_time_is_rfc_3339() -> None:
    assert lines.time_of(1_767_323_045_000_006_000) == "2026-01-02T03:04:05.000006Z"


def test_a_json_line_is_one_line_of_ascii_whatever_the_service_wrote() -> None:
    made = lines.as_json(b'\xff\x1b[31m"\r\xc3\xa9', TIME, WHOSE)
    assert made.isascii()
    assert made.count(b"\n") == 1
    assert json.loads(made) == {
        "time": TIME, "service": "site", "process": "site.1", "stream": "stderr", "line": '\\xff\x1b[31m"\ré',
    }  # fmt: skip


def test_journald_gets_fields_of_ours_and_the_message_last() -> None:
    made = lines.for_journald(b"PRIORITY=0 is no field", WHOSE)
    assert made.split(b"\n")[0] == b"PRIORITY=4"
    assert b"\nDURWARD_PROCESS=site.1\n" in made
    assert b"\nSYSLOG_IDENTIFIER=site\n" in made
    assert made.endswith(b"\nMESSAGE=PRIORITY=0 is no field\n")


def test_syslog_gets_rfc_5424() -> None:
    made = lines.for_syslog(b"a\0b", TIME, WHOSE).split(b" ")
    assert (made[0], made[1], made[3], made[4], made[5]) == (b"<28>1", TIME.encode(), b"site", b"site.1", b"stderr")
    assert made[-2:] == [b"-", b"a#000b"]


def test_what_goes_to_our_own_output_says_whose_it_is() -> None:
    assert lines.prefixed(lines.stamped(b"x", TIME), WHOSE) == b"site.1 | 2026-01-02T03:04:05.000006Z x\n"
