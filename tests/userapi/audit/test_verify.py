"""That every change to a log is found, and called by its name. security.md E3, E5, §6."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
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
    assert verify.verify(lines, {0: KEY}) == verify.Report(4, 2, 10, 4, head, True, (), first=0)
    assert verify.verify(lines) == verify.Report(4, 2, 10, 4, head, False, (), first=0)
    assert verify.verify([], {0: KEY}).problems == ()


def test_every_change_of_one_bit_is_found() -> None:
    data = b"".join(small_log())
    for at in range(len(data)):
        for bit in range(8):
            changed = data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]
            assert verify.verify(split(changed), {0: KEY}).problems, (at, bit)


def test_every_change_of_one_byte_is_found() -> None:
    data = b"".join(chain_of({"kind": "start"}, {"kind": "x"}))
    for at in range(len(data)):
        for value in range(256):
            if value != data[at]:
                changed = data[:at] + bytes([value]) + data[at + 1 :]
                assert verify.verify(split(changed), {0: KEY}).problems, (at, value)


def split(data: bytes) -> list[bytes]:
    """As a file opened in binary gives its lines: at newlines only."""
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def test_every_byte_removed_or_doubled_is_found() -> None:
    data = b"".join(small_log())
    for at in range(len(data)):
        assert verify.verify(split(data[:at] + data[at + 1 :]), {0: KEY}).problems, at
        assert verify.verify(split(data[: at + 1] + data[at:]), {0: KEY}).problems, at


def test_removed_swapped_and_doubled_lines_are_found_even_without_a_key() -> None:
    lines = chain_of(*({"kind": "x", "i": i} for i in range(5)))
    for i in range(4):  # the last one's removal is what anchors are for
        assert verify.verify(lines[:i] + lines[i + 1 :]).problems, i
    for i in range(5):
        assert verify.verify(lines[: i + 1] + lines[i:]).problems, i
        for j in range(i):
            swapped = list(lines)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            assert verify.verify(swapped).problems, (i, j)


def test_a_problem_names_its_line() -> None:
    lines = chain_of(*({"kind": "x", "i": i} for i in range(4)))
    lines[1] = lines[1].replace(b'"i":1', b'"i":7')
    problems = verify.verify(lines, {0: KEY}).problems
    assert [(p.line, p.record, p.damage) for p in problems] == [(2, 1, "changed")], "and not what follows from it"


def test_a_rewritten_chain_is_found_with_the_first_key_and_only_with_it() -> None:
    forged = chain_of({"kind": "x", "user": "nobody"}, key=bytes(32))
    assert not verify.verify(forged).problems
    assert verify.verify(forged, {0: KEY}).problems


def test_a_torn_line_is_allowed_only_directly_before_a_start_that_names_it() -> None:
    assert not verify.verify(small_log(b"half\nand another half"), {0: KEY}).problems
    assert not verify.verify(small_log(b""), {0: KEY}).problems
    lines = small_log()
    assert verify.verify([*lines[:2], *lines[3:]], {0: KEY}).problems, "the torn line was taken away"
    assert verify.verify([lines[0], lines[2], lines[1], *lines[3:]], {0: KEY}).problems, "it stands elsewhere"
    assert verify.verify([*lines, b"half"], {0: KEY}).problems
    assert verify.verify([*lines, b"half\n"], {0: KEY}).problems


def test_a_log_that_continues_another_begins_where_that_ended() -> None:
    lines = chain_of(*({"kind": "x", "i": i} for i in range(4)))
    first = verify.verify(lines[:2], {0: KEY})
    assert not verify.verify(lines[2:], {0: KEY}, (first.next_n, first.head)).problems
    assert verify.verify(lines[2:], {0: KEY}).problems


def test_a_new_first_key_counts_from_its_number_on_and_an_older_one_does_not_reach_it() -> None:
    lines = chain_of({"kind": "x"}, {"kind": "x"})
    other = b"k" * 32
    line = chain.make(2, TIME, chain.canonical({"kind": "start"}), chain.digest(lines[-1][:-1]), other)
    exported = f"0 {KEY.hex()}\n2 {other.hex()}\n7 beef\nrubbish\n3".encode()
    assert chain.parse_keys(exported) == {0: KEY, 2: other}
    assert not verify.verify([*lines, line + b"\n"], chain.parse_keys(exported)).problems
    assert verify.verify([*lines, line + b"\n"], {0: KEY}).problems
    assert "no key was given" in verify.verify([*lines, line + b"\n"], {2: other}).problems[0].text


def test_an_impossible_number_is_reported_and_costs_nothing() -> None:
    line = chain.make(10**15, TIME, chain.canonical({"kind": "x"}), chain.NO_HEAD, KEY)
    assert "says that it is record" in verify.verify([line + b"\n"], {0: KEY}).problems[0].text


@given(st.binary(max_size=300))
def test_bytes_that_are_no_record_are_a_problem_and_never_an_exception(raw: bytes) -> None:
    if raw.strip(b"\n"):
        assert verify.verify(split(raw), {0: KEY}).problems


# --- the damage by its name


def ten() -> list[bytes]:
    return chain_of({"kind": "start", "reason": "first"}, *({"kind": "x", "i": i} for i in range(9)))


def damages(lines: list[bytes], keys: dict[int, bytes] | None, **more: Any) -> list[tuple[int, str]]:
    return [(problem.record, problem.damage) for problem in verify.verify(lines, keys, **more).problems]


WITH_AND_WITHOUT = pytest.mark.parametrize("keys", [{0: KEY}, None], ids=["with the key", "the chain alone"])


@WITH_AND_WITHOUT
def test_a_removed_record_is_called_removed_and_nothing_else_is_told(keys: Any) -> None:
    lines = ten()
    for i in range(9):
        assert damages(lines[:i] + lines[i + 1 :], keys) == [(i, "removed")], i
    assert damages(lines[:2] + lines[7:], keys) == [(2, "removed")]


@WITH_AND_WITHOUT
def test_a_doubled_record_is_called_doubled(keys: Any) -> None:
    lines = ten()
    for i in range(10):
        for at in range(i + 1, 11):
            assert damages([*lines[:at], lines[i], *lines[at:]], keys) == [(i, "doubled")], (i, at)


@WITH_AND_WITHOUT
def test_records_that_changed_places_are_called_reordered(keys: Any) -> None:
    lines = ten()
    for i in range(10):
        for j in range(i + 1, 10):
            swapped = list(lines)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            found = damages(swapped, keys)
            assert found[0] == (i, "reordered"), (i, j)
            assert {damage for _, damage in found} == {"reordered"}, (i, j)


@WITH_AND_WITHOUT
def test_a_record_that_was_moved_further_on_is_called_reordered(keys: Any) -> None:
    lines = ten()
    for i in range(8):
        for to in range(i + 1, 10):
            moved = lines[:i] + lines[i + 1 :]
            moved.insert(to, lines[i])
            assert damages(moved, keys)[0] == (i, "reordered"), (i, to)


@WITH_AND_WITHOUT
def test_an_inserted_line_is_called_inserted(keys: Any) -> None:
    lines = ten()
    for at in range(1, 10):
        assert damages([*lines[:at], b"no record\n", *lines[at:]], keys) == [(at, "inserted")], at


def test_a_changed_byte_of_a_record_names_that_record_with_the_key() -> None:
    lines = ten()
    for i, line in enumerate(lines):
        for at in range(len(line) - 1):
            changed = line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]
            if b"\n" not in changed[:-1]:
                first = damages([*lines[:i], changed, *lines[i + 1 :]], {0: KEY})[0]
                assert first == (i, "changed"), (i, at, changed)


def test_without_the_key_a_changed_byte_names_that_record_as_far_as_its_successor_vouches() -> None:
    lines = ten()
    for i, line in enumerate(lines[:-1]):
        for at in range(len(line) - 1):
            changed = line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]
            if b"\n" not in changed[:-1]:
                first = damages([*lines[:i], changed, *lines[i + 1 :]], None)[0]
                assert first == (i, "changed"), (i, at, changed)


@WITH_AND_WITHOUT
def test_a_log_that_is_cut_anywhere_in_a_line_is_called_truncated(keys: Any) -> None:
    data = b"".join(ten())
    for end in range(1, len(data)):
        if data[end - 1 : end] != b"\n":
            assert damages(split(data[:end]), keys)[-1][1] == "truncated", end


# --- anchors


def anchor(line: bytes, n: int) -> verify.Anchor:
    return verify.Anchor(n, chain.digest(line[:-1]), TIME)


@WITH_AND_WITHOUT
def test_a_log_that_is_shorter_than_an_anchor_is_called_truncated(keys: Any) -> None:
    lines = ten()
    for length in range(10):
        for n in range(10):
            found = damages(lines[:length], keys, anchors=[anchor(lines[n], n)])
            assert found == ([(length, "truncated")] if n >= length else []), (length, n)


def test_a_whole_log_made_again_with_the_key_is_found_by_an_anchor_alone() -> None:
    """Who had audit.initial, or a snapshot of the machine, can make records that the key verifies."""
    forged = chain_of({"kind": "start", "reason": "first"}, *({"kind": "x", "i": -i} for i in range(9)))
    assert damages(forged, {0: KEY}) == []
    assert damages(forged, {0: KEY}, anchors=[anchor(ten()[5], 5)]) == [(5, "replaced")]
    report = verify.verify(ten(), {0: KEY}, anchors=[anchor(line, n) for n, line in enumerate(ten())])
    assert (report.anchors, report.problems) == (10, ())


def test_anchors_are_read_from_journal_lines_syslog_and_json_and_rubbish_is_left_out() -> None:
    head = "ab" * 32
    text = f"""
    Nov 27 14:00:00 host durward[1]: audit anchor number=7 head={head} time={TIME} boot=x
    <86>1 {TIME} host durward - - [anchor@32473 number="8" head="{head}" time="{TIME}"] audit anchor
    {{"number": 9, "head": "{head}", "time": "{TIME}"}}
    number=10 head=abc
    rubbish
    """
    found = verify.parse_anchors(text)
    assert found == [verify.Anchor(n, bytes.fromhex(head), TIME) for n in (7, 8, 9)]
    with pytest.raises(ValueError, match="no anchor"):
        verify.parse_anchors("nothing\n")


# --- long logs


def long_log(size: int) -> list[bytes]:
    lines, head, key = [], chain.NO_HEAD, KEY
    body = {
        "kind": "decision",
        "user": "alice",
        "uid": 1000,
        "from": "192.0.2.1",
        "action": "restart",
        "rule": "webops",
    }
    for n in range(size):
        members = chain.canonical({"kind": "start", "reason": "first"} if n == 0 else body)
        line = chain.make(n, TIME, members, head, key)
        lines.append(line + b"\n")
        head, key = chain.digest(line), chain.next_key(key)
    return lines


def tampered(lines: list[bytes], rng: random.Random) -> Iterator[tuple[int, str, list[bytes]]]:
    """The record, what was done, and the log then; one of each kind at a place of chance."""
    n = rng.randrange(1, len(lines) - 1)
    line, at = lines[n], rng.randrange(len(lines[n]) - 1)
    yield n, "changed", [*lines[:n], line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :], *lines[n + 1 :]]
    yield n, "removed", lines[:n] + lines[n + 1 :]
    yield n, "doubled", [*lines[:n], line, *lines[n:]]
    yield n, "reordered", [*lines[:n], lines[n + 1], line, *lines[n + 2 :]]
    yield n, "truncated", [*lines[:n], line[: max(at, 1)]]


@pytest.mark.parametrize("size", [5_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_in_a_long_log_each_kind_of_damage_is_found_at_its_record(size: int) -> None:
    lines = long_log(size)
    assert verify.verify(lines, {0: KEY}).problems == ()
    rng = random.Random(size)
    for _ in range(3):
        for n, damage, log in tampered(lines, rng):
            first = verify.verify(log, {0: KEY}).problems[0]
            assert (first.record, first.damage) == (n, damage)
            assert first.line == n + 1 + (damage == "doubled")


@pytest.mark.slow
def test_a_million_records_are_verified_within_seconds() -> None:
    lines = long_log(1_000_000)
    begun = time.process_time()
    assert verify.verify(lines, {0: KEY}).problems == ()
    assert time.process_time() - begun < 20


def test_a_log_of_nothing_but_doubled_records_is_not_slow_to_refuse() -> None:
    """Going back to an older key costs no more than a few thousand hashes, each time."""
    lines = long_log(9_000)
    report = verify.verify([*lines, *lines[100:2_100]], {0: KEY})
    assert (len(report.problems), report.more) == (verify.TOLD, 1_000)


def test_a_report_as_json_is_one_object_that_says_whether_all_is_well() -> None:
    told = json.loads(verify.as_json(verify.verify(ten()[:5] + ten()[6:], {0: KEY})))
    assert (told["ok"], told["records"], told["macs"]) == (False, 9, True)
    assert told["problems"][0] == {
        "file": "", "line": 6, "record": 5, "damage": "removed", "text": "record 5 was removed: record 6 follows",
    }  # fmt: skip
