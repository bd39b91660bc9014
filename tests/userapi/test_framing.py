"""Where a request ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userapi.framing import BODY, HEAD, Bad, Wait, Whole, first_request

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


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
