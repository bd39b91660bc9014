"""Packets: what goes out comes back, and anything else is Malformed and nothing worse (attack rows B11, C1, C2, C4)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from examples import examples
from hypothesis import given, strategies as st
from msgspec import inspect

from policy import login, messages, wire

KINDS = {
    "request": (wire.REQUEST, messages.Request),
    "answer": (wire.ANSWER, messages.Answer),
    "ask": (wire.ASK, login.Ask),
    "tell": (wire.TELL, login.Tell),
    "push": (wire.PUSH, login.Push),
    "pull": (wire.PULL, login.Pull),
}
GOOD = b'{"id":1,"command":{"do":"restart","service":"site"}}'


def strategy(part: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a type, as msgspec describes it."""
    match part:
        case inspect.StructType():
            return st.builds(part.cls, **{field.name: strategy(field.type) for field in part.fields})
        case inspect.UnionType():
            return st.one_of([strategy(each) for each in part.types])
        case inspect.StrType() if part.pattern is not None:
            return st.from_regex(part.pattern)
        case inspect.StrType():
            return st.text(max_size=min(part.max_length or 20, 20))
        case inspect.IntType():
            lowest = part.ge if part.ge is not None else -(2**53)
            highest = part.le if part.le is not None else part.lt - 1 if part.lt is not None else 2**53
            return st.integers(lowest, highest)
        case inspect.FloatType():
            lowest = part.ge if part.ge is not None else part.gt
            beyond = part.gt is not None
            return st.floats(lowest, part.le, exclude_min=beyond, allow_nan=False, allow_infinity=False)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType():
            return st.sampled_from(part.values)
        case inspect.ListType():
            return st.lists(strategy(part.item_type), max_size=3)
        case inspect.VarTupleType():
            return st.lists(strategy(part.item_type), min_size=part.min_length or 0, max_size=3).map(tuple)
        case inspect.DictType():
            return st.dictionaries(strategy(part.key_type), strategy(part.value_type), max_size=3)
    raise AssertionError(part)


MESSAGES = {name: strategy(inspect.type_info(kind)) for name, (_, kind) in KINDS.items()}


def decoded(codec: wire.Codec[Any], packet: bytes) -> Any:
    """The message, or None when it is Malformed; whatever else happens fails the test."""
    try:
        return codec.decode(packet)
    except wire.Malformed:
        return None


@pytest.mark.parametrize("name", KINDS)
@examples(25)
@given(data=st.data())
def test_every_message_comes_back_as_it_was_sent(name: str, data: st.DataObject) -> None:
    codec: Any = KINDS[name][0]
    message = data.draw(MESSAGES[name])
    assert codec.decode(codec.encode(message)) == message


@pytest.mark.parametrize("name", KINDS)
@examples(25)
@given(packet=st.binary(max_size=300))
def test_c5_arbitrary_bytes_are_malformed_and_nothing_worse(name: str, packet: bytes) -> None:
    assert decoded(KINDS[name][0], packet) is None


@pytest.mark.parametrize("name", KINDS)
@examples(25)
@given(data=st.data(), cut=st.integers(0, 400), put=st.binary(max_size=4), drop=st.integers(0, 4))
def test_c5_a_damaged_message_is_malformed_or_another_message(
    name: str, data: st.DataObject, cut: int, put: bytes, drop: int
) -> None:
    codec: Any = KINDS[name][0]
    packet = codec.encode(data.draw(MESSAGES[name]))
    cut %= len(packet)
    message = decoded(codec, packet[:cut] + put + packet[cut + drop :])
    assert message is None or decoded(codec, codec.encode(message)) == message


@pytest.mark.parametrize("cut", range(1, len(GOOD)))
def test_c5_a_truncated_message_is_malformed(cut: int) -> None:
    with pytest.raises(wire.Malformed):
        wire.REQUEST.decode(GOOD[:cut])


def test_c1_a_packet_of_more_than_64_kib_is_malformed_unread_and_never_sent() -> None:
    assert wire.REQUEST.decode(GOOD.ljust(wire.LIMIT)) == wire.REQUEST.decode(GOOD)
    with pytest.raises(wire.Malformed, match="65537 bytes"):
        wire.REQUEST.decode(GOOD.ljust(wire.LIMIT + 1))
    room = wire.LIMIT - len(wire.ANSWER.encode(messages.Answer(1, messages.Done(""))))
    assert len(wire.ANSWER.encode(messages.Answer(1, messages.Done("x" * room)))) == wire.LIMIT
    with pytest.raises(ValueError, match="more than 65536"):
        wire.ANSWER.encode(messages.Answer(1, messages.Done("x" * (room + 1))))


def test_text_that_utf8_cannot_spell_is_not_sent() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        wire.ANSWER.encode(messages.Answer(1, messages.Done("\ud800")))


def test_c4_an_empty_packet_is_malformed() -> None:
    with pytest.raises(wire.Malformed, match="0 bytes"):
        wire.REQUEST.decode(b"")


@pytest.mark.parametrize(
    "packet",
    [
        b"[" * 60_000,
        b'{"id":1,"command":' + b'{"a":' * 12_000,
        b'{"id":' + b"9" * 60_000 + b',"command":{"do":"restart","service":"site"}}',
        b'{"id":9007199254740992,"command":{"do":"restart","service":"site"}}',
        b'{"id":-1,"command":{"do":"restart","service":"site"}}',
        b'{"id":NaN,"command":{"do":"restart","service":"site"}}',
        b'{"id":1e2,"command":{"do":"restart","service":"site"}}',
        b'{"id":1.0,"command":{"do":"restart","service":"site"}}',
        b'{"id":true,"command":{"do":"restart","service":"site"}}',
        b'{"id":"1","command":{"do":"restart","service":"site"}}',
        b'{"id":1,"command":{"do":"restart","service":"site","hard":1}}',
        b'{"id":1,"command":{"do":"restart","service":"\xff"}}',
        b'{"id":1,"command":{"do":"restart","service":"site"},"source":"\xff\xfe"}',
        b'{"id":1,"command":{"do":"restart","service":"\\ud800"}}',
        b"\xef\xbb\xbf" + GOOD,
        GOOD + GOOD,
        GOOD + b"\0",
        b'[1,{"do":"restart","service":"site"}]',
        b"null",
    ],
)
def test_c2_nonsense_of_every_kind_is_malformed(packet: bytes) -> None:
    with pytest.raises(wire.Malformed):
        wire.REQUEST.decode(packet)


@pytest.mark.parametrize(
    "command",
    [
        {"do": "restart"},
        {"service": "site"},
        {"do": "restart", "service": "site", "user": "root"},
        {"do": "__class__", "service": "site"},
        {"do": "restart", "service": "../../etc/web"},
        {"do": "restart", "service": "web\n"},
        {"do": "restart", "service": "group:web"},
        {"do": "signal", "service": "site", "signal": "9"},
        {"do": "signal", "service": "site", "signal": "HUP\n"},
        {"do": "scale", "service": "site", "processes": 0},
        {"do": "scale", "service": "site", "processes": 1025},
        {"do": "scale", "service": "site", "processes": "5"},
        {"do": "open-log", "service": "site", "process": "../audit"},
        {"do": "open-log", "service": "site", "rotated": -1},
        {"do": "open-audit", "rotated": -1},
        {"do": "open-audit", "service": "site"},
        {"do": "what-may-i", "action": "become-root"},
        {"do": "revoke", "user": "Alice"},
    ],
)
def test_c3_a_command_with_a_word_that_cannot_be_is_malformed(command: dict[str, object]) -> None:
    with pytest.raises(wire.Malformed):
        wire.REQUEST.decode(msgspec.json.encode({"id": 1, "command": command}))


@pytest.mark.parametrize("session", ["x", "ab" * 31, "AB" * 32, "ab" * 32 + "\n", "ab" * 33])
def test_a_session_id_that_was_never_given_out_is_malformed(session: str) -> None:
    with pytest.raises(wire.Malformed):
        wire.REQUEST.decode(msgspec.json.encode({"id": 1, "command": {"do": "status"}, "session": session}))


def test_b11_of_a_key_that_stands_twice_the_last_counts_and_the_struct_is_all_there_is() -> None:
    for key in (b'"service"', b'"\\u0073ervice"'):
        request = wire.REQUEST.decode(b'{"id":1,"command":{"do":"restart","service":"site",' + key + b':"other"}}')
        assert request.command == messages.Restart("other")
        assert b"site" not in wire.REQUEST.encode(request)


def test_b11_a_command_with_two_tags_is_malformed() -> None:
    for again in (b'"do":"stop"', b'"\\u0064o":"stop"'):
        with pytest.raises(wire.Malformed):
            wire.REQUEST.decode(b'{"id":1,"command":{"do":"restart",' + again + b',"service":"site"}}')
