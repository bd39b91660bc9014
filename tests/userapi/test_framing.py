"""Where a request ends."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from userapi.framing import BODY, HEAD, Bad, Framing, Wait, Whole

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def first_request(data: bytes) -> Wait | Whole | Bad:
    return Framing().look(data)


def post(*headers: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


def test_a_request_without_a_body_ends_with_its_head():
    assert first_request(GET + GET) == Whole(len(GET), False)


def test_a_request_with_a_length_ends_with_its_body():
    data = post(b"Content-Length: 4", body=b"abcd")
    assert first_request(data + GET) == Whole(len(data), False)
    assert first_request(data[:-1]) == Wait()


def test_who_expects_100_continue_is_told_apart():
    assert first_request(post(b"Expect: 100-continue", b"Content-Length: 4")) == Wait(True)


@pytest.mark.parametrize(
    "headers",
    [
        [b"Content-Length: 4", b"Content-Length: 5"],
        [b"Content-Length: 4, 4"],
        [b"Content-Length : 4"],
        [b"Content_Length: 4"],
        [b"Content-Length: +4"],
        [b"Content-Length: 4x"],
        [b"Content-Length: -1"],
        [b"Content-Length:\x0b4"],
        [b"X: y\nContent-Length: 4"],
        [b"X: y", b" Content-Length: 4"],
        [b"Transfer-Encoding: chunked"],
        [b"Transfer_Encoding: chunked"],
        [b"transfer-encoding:chunked", b"Content-Length: 3"],
        [b"Content-Length: %d" % (BODY + 1)],
        [b"Content-Length: 99999999999999999999999"],
    ],
)
def test_where_the_length_can_be_doubted_nothing_that_follows_is_believed(headers):
    data = post(*headers)
    assert first_request(data + GET) == Whole(len(data), True)


def test_a_head_without_an_end_is_refused_when_it_is_too_long():
    assert first_request(b"a" * HEAD) == Wait()
    assert first_request(b"a" * (HEAD + 1)) == Bad(431)


@given(st.binary(max_size=200), st.integers(min_value=0, max_value=200))
def test_more_bytes_never_change_what_was_whole(data, cut):
    begun = first_request(data[:cut])
    if isinstance(begun, Whole):
        assert first_request(data) == begun
        assert begun.length <= cut


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n\r\n", b"Content-Length: 4", b"Expect: 100-continue", b"a"])))
def test_what_comes_in_pieces_is_what_comes_at_once(pieces):
    framing, data = Framing(), bytearray()
    for piece in pieces:
        data += piece
        assert framing.look(data) == first_request(data)


def test_no_byte_of_a_dripped_request_is_looked_at_twice():
    class Data(bytearray):
        looked = 0

        def find(self, what, start, end):
            Data.looked += min(end, len(self)) - start
            return super().find(what, start, end)

    framing, data = Framing(), Data()
    for byte in post(b"X: " + b"y" * 1000, b"Content-Length: 2000"):
        data.append(byte)
        found = framing.look(data)
    head, looked = len(data), Data.looked
    assert looked <= 4 * head
    for _ in range(2000):
        assert found == Wait()
        data += b"z"
        found = framing.look(data)
    assert (found, Data.looked) == (Whole(head + 2000, False), looked)


def test_who_begins_tls_where_there_is_none_is_refused_at_once():
    assert first_request(b"\x16\x03\x01") == Bad(400)
