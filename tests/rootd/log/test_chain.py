"""The form of a record. security.md E3, §6."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from rootd.log import chain
from userapi.audit import verify

KEY = bytes(range(32))
TIME = "2026-11-23T12:00:00.000000Z"


def chain_of(*bodies: dict[str, Any], key: bytes = KEY) -> list[bytes]:
    lines, head = [], chain.NO_HEAD
    for n, body in enumerate(bodies):
        line = chain.make(n, TIME, chain.canonical(body), head, key)
        lines.append(line + b"\n")
        head, key = chain.digest(line), chain.next_key(key)
    return lines


def test_a_record_reads_as_its_number_its_time_its_body_sorted_then_hash_and_mac() -> None:
    line = chain_of({"kind": "b", "a": "é\n\0"})[0]
    assert line.startswith(
        b'{"n":0,"time":"2026-11-23T12:00:00.000000Z","a":"\\u00e9\\n\\u0000","kind":"b","prev":"000'
    )
    assert list(json.loads(line)) == ["n", "time", "a", "kind", "prev", "mac"]


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
        b'{"kind":[]}', b'{"kind":{}}', b'{"kind":"x","a":"\xff"}', b'{"kind":"x","a":"\n"}',
        b'\xef\xbb\xbf{"kind":"x"}',
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
    assert not verify.verify([line + b"\n"], {0: KEY}).problems


@given(st.binary(max_size=200))
def test_E3_bytes_that_are_no_body_are_refused_and_never_raise_anything_else(raw: bytes) -> None:
    for data in (raw, b'{"kind":"x","a":"' + raw + b'"}'):
        try:
            members = chain.parse_body(data)
        except ValueError:
            continue
        line = chain.make(0, TIME, members, chain.NO_HEAD, KEY)
        assert chain.parse(line).signed == line[:-74] + b"}"
