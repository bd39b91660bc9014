"""The form of a record, and that every change to a log is found. security.md E3, §6."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from rootd.log import chain

KEY = bytes(range(32))
TIME = "2026-11-23T12:00:00.000000Z"


def chain_of(*bodies: dict[str, Any], key: bytes = KEY) -> list[bytes]:
    lines, head = [], chain.NO_HEAD
    for n, body in enumerate(bodies):
        line = chain.make(n, TIME, chain.canonical(body), head, key)
        lines.append(line + b"\n")
        head, key = chain.digest(line), chain.next_key(key)
    return lines


def small_log(torn: bytes = b'{"n":2,"ti') -> list[bytes]:
    said = [len(torn), chain.digest(torn).hex()]
    lines = chain_of(
        {"kind": "start", "reason": "first"},
        {"kind": "decision", "user": "alice", "allowed": True},
        {"kind": "start", "reason": "crash", "torn": said},
        {"kind": "stop", "reason": "end"},
    )
    return [*lines[:2], *(torn + b"\n").splitlines(keepends=True), *lines[2:]]


def test_an_unchanged_log_has_no_problems_with_the_first_key_and_without_it() -> None:
    lines = small_log()
    head = chain.digest(lines[-1].rstrip(b"\n"))
    assert chain.verify(lines, {0: KEY}) == chain.Report(4, 2, 10, 4, head, True, ())
    assert chain.verify(lines) == chain.Report(4, 2, 10, 4, head, False, ())
    assert chain.verify([], {0: KEY}).problems == ()


def test_a_record_reads_as_its_number_its_time_its_body_sorted_then_hash_and_mac() -> None:
    line = chain_of({"kind": "b", "a": "é\n\0"})[0]
    assert line.startswith(
        b'{"n":0,"time":"2026-11-23T12:00:00.000000Z","a":"\\u00e9\\n\\u0000","kind":"b","prev":"000'
    )
    assert list(json.loads(line)) == ["n", "time", "a", "kind", "prev", "mac"]


def test_every_change_of_one_bit_is_found() -> None:
    data = b"".join(small_log())
    for at in range(len(data)):
        for bit in range(8):
            changed = data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]
            assert chain.verify(split(changed), {0: KEY}).problems, (at, bit)


def test_every_change_of_one_byte_is_found() -> None:
    data = b"".join(chain_of({"kind": "start"}, {"kind": "x"}))
    for at in range(len(data)):
        for value in range(256):
            if value != data[at]:
                changed = data[:at] + bytes([value]) + data[at + 1 :]
                assert chain.verify(split(changed), {0: KEY}).problems, (at, value)


def split(data: bytes) -> list[bytes]:
    """As a file opened in binary gives its lines: at newlines only."""
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def test_every_byte_removed_or_doubled_is_found() -> None:
    data = b"".join(small_log())
    for at in range(len(data)):
        assert chain.verify(split(data[:at] + data[at + 1 :]), {0: KEY}).problems, at
        assert chain.verify(split(data[: at + 1] + data[at:]), {0: KEY}).problems, at


def test_removed_swapped_and_doubled_lines_are_found_even_without_a_key() -> None:
    lines = chain_of(*({"kind": "x", "i": i} for i in range(5)))
    for i in range(4):  # the last one's removal is what anchors are for
        assert chain.verify(lines[:i] + lines[i + 1 :]).problems, i
    for i in range(5):
        assert chain.verify(lines[: i + 1] + lines[i:]).problems, i
        for j in range(i):
            swapped = list(lines)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            assert chain.verify(swapped).problems, (i, j)


def test_a_problem_names_its_line() -> None:
    lines = chain_of(*({"kind": "x", "i": i} for i in range(4)))
    lines[1] = lines[1].replace(b'"i":1', b'"i":7')
    problems = chain.verify(lines, {0: KEY}).problems
    assert [p.line for p in problems] == [2, 3]
    assert "changed" in problems[0].text


def test_a_rewritten_chain_is_found_with_the_first_key_and_only_with_it() -> None:
    forged = chain_of({"kind": "x", "user": "nobody"}, key=bytes(32))
    assert not chain.verify(forged).problems
    assert chain.verify(forged, {0: KEY}).problems


def test_a_torn_line_is_allowed_only_directly_before_a_start_that_names_it() -> None:
    assert not chain.verify(small_log(b"half\nand another half"), {0: KEY}).problems
    assert not chain.verify(small_log(b""), {0: KEY}).problems
    lines = small_log()
    assert chain.verify([*lines[:2], *lines[3:]], {0: KEY}).problems, "the torn line was taken away"
    assert chain.verify([lines[0], lines[2], lines[1], *lines[3:]], {0: KEY}).problems, "it stands elsewhere"
    assert chain.verify([*lines, b"half"], {0: KEY}).problems
    assert chain.verify([*lines, b"half\n"], {0: KEY}).problems


def test_a_log_that_continues_another_begins_where_that_ended() -> None:
    lines = chain_of(*({"kind": "x", "i": i} for i in range(4)))
    first = chain.verify(lines[:2], {0: KEY})
    assert not chain.verify(lines[2:], {0: KEY}, (first.next_n, first.head)).problems
    assert chain.verify(lines[2:], {0: KEY}).problems


def test_a_new_first_key_counts_from_its_number_on_and_an_older_one_does_not_reach_it() -> None:
    lines = chain_of({"kind": "x"}, {"kind": "x"})
    other = b"k" * 32
    line = chain.make(2, TIME, chain.canonical({"kind": "start"}), chain.digest(lines[-1][:-1]), other)
    exported = f"0 {KEY.hex()}\n2 {other.hex()}\n7 beef\nrubbish\n3".encode()
    assert chain.parse_keys(exported) == {0: KEY, 2: other}
    assert not chain.verify([*lines, line + b"\n"], chain.parse_keys(exported)).problems
    assert chain.verify([*lines, line + b"\n"], {0: KEY}).problems
    assert "no key was given" in chain.verify([*lines, line + b"\n"], {2: other}).problems[0].text


def test_an_impossible_number_is_reported_and_costs_nothing() -> None:
    line = chain.make(10**15, TIME, chain.canonical({"kind": "x"}), chain.NO_HEAD, KEY)
    assert "was due" in chain.verify([line + b"\n"], {0: KEY}).problems[0].text


@pytest.mark.parametrize("name", sorted(chain.RESERVED))
def test_a_body_cannot_name_a_field_of_the_chain(name: str) -> None:
    with pytest.raises(ValueError, match="belongs to the chain"):
        chain.parse_body(json.dumps({"kind": "decision", name: 1}).encode())


@pytest.mark.parametrize("kind", sorted(chain.OWN_KINDS))
def test_a_body_cannot_say_that_it_is_logs_own_record(kind: str) -> None:
    with pytest.raises(ValueError, match="log's own"):
        chain.parse_body(json.dumps({"kind": kind}).encode())


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"kind":1}', b'{"kind":"x","a":NaN}', b'{"kind":"x","a":-Infinity}',
        b'{"kind":"x","a":1e999}', b'{"kind":"x","kind":"y"}', b'{"kind":"x","a":{"b":1,"b":2}}', b'{"kind":"x"} ,',
        b'{"kind":"x","a":"\xff"}', b'{"kind":"x","a":"\n"}', b'\xef\xbb\xbf{"kind":"x"}',
        b'{"kind":"x","a":' + b"[" * 20_000 + b"]" * 20_000 + b"}", b'{"kind":"x","a":' + b"9" * 10_000 + b"}",
    ],
)  # fmt: skip
def test_a_body_that_is_not_one_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        chain.parse_body(raw)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
bodies = st.dictionaries(st.text().filter(lambda name: name not in chain.RESERVED), values, max_size=5)


@given(bodies, st.text())
def test_E3_one_event_is_one_ascii_line_whatever_is_in_it_and_reads_back_the_same(body: Any, text: str) -> None:
    body = {**body, "kind": "decision", "user": text + "\n\r\0\x1b[2J\u2028" + text}
    raw = json.dumps(body).encode()
    line = chain.make(0, TIME, chain.parse_body(raw), chain.NO_HEAD, KEY)
    assert line.isascii()
    assert all(32 <= byte < 127 for byte in line)
    assert chain.parse(line).body == body
    assert not chain.verify([line + b"\n"], {0: KEY}).problems


@given(st.binary(max_size=200))
def test_E3_bytes_that_are_no_body_are_refused_and_never_raise_anything_else(raw: bytes) -> None:
    for data in (raw, b'{"kind":"x","a":"' + raw + b'"}'):
        try:
            members = chain.parse_body(data)
        except ValueError:
            continue
        line = chain.make(0, TIME, members, chain.NO_HEAD, KEY)
        assert chain.parse(line).signed == line[:-74] + b"}"


@given(st.binary(max_size=300))
def test_bytes_that_are_no_record_are_a_problem_and_never_an_exception(raw: bytes) -> None:
    if raw.strip(b"\n"):
        assert chain.verify(split(raw), {0: KEY}).problems
