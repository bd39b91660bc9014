"""Where a request ends: how many bytes of what a connection has sent so far are the first request.

Pure. This decides only how long to wait; what the bytes mean is gunicorn's parser's to say, which is handed
exactly these bytes and nothing after them. Where the two could disagree, the connection closes after the answer.
"""

from __future__ import annotations

import re
from typing import NamedTuple

HEAD = 16 * 1024  # bytes of request line and headers
BODY = 16 * 1024  # bytes of a body that are waited for

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*(?=\r\n)", re.IGNORECASE)
_ANY_LENGTH = re.compile(rb"content[-_]length", re.IGNORECASE)
_CODING = re.compile(rb"transfer[-_]encoding", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)


class Wait(NamedTuple):
    """More must come. `expects`: the head is there, and the peer waits for 100 Continue."""

    expects: bool = False


class Whole(NamedTuple):
    """The first `length` bytes are a request. `last`: nothing that follows may be believed."""

    length: int
    last: bool


class Bad(NamedTuple):
    """This will never be a request of ours."""

    status: int


def first_request(data: bytes | bytearray) -> Wait | Whole | Bad:
    end = data.find(b"\r\n\r\n", 0, HEAD + 4)
    if end < 0:
        return Bad(431) if len(data) > HEAD else Wait()
    size = end + 4
    head = bytes(data[: end + 2])
    if _CODING.search(head):
        return Whole(size, True)
    lengths = _LENGTH.findall(head)
    if len(lengths) != len(_ANY_LENGTH.findall(head)) or len(lengths) > 1:
        return Whole(size, True)
    length = int(lengths[0]) if lengths else 0
    if length > BODY:
        return Whole(size, True)
    if len(data) < size + length:
        return Wait(bool(_EXPECT.search(head)))
    return Whole(size + length, False)
