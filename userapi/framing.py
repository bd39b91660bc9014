"""Where a request ends: how many bytes of what a connection has sent so far are the first request.

Pure. This decides only how long to wait; what the bytes mean is gunicorn's parser's to say, which is handed
exactly these bytes and nothing after them. Where the two could disagree, the connection closes after the answer.
"""

from __future__ import annotations

import re
from typing import NamedTuple

HEAD = 16 * 1024  # bytes of request line and headers
BODY = 16 * 1024  # bytes of a body that are waited for
TLS = b"\x16"  # a ClientHello begins so, and who sends it to us waits for an answer

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


class Framing:
    """Looks at the first request of bytes that grow. Each byte is looked at once, however many pieces they come in."""

    def __init__(self) -> None:
        self._seen = 0  # no head ends before
        self._whole: Whole | None = None  # what the head says, once there is one
        self._wait = Wait()

    def look(self, data: bytes | bytearray) -> Wait | Whole | Bad:
        """`data` is what it was the last time, or more."""
        if data[:1] == TLS:
            return Bad(400)
        if self._whole is None:
            end = data.find(b"\r\n\r\n", self._seen, HEAD + 4)
            if end < 0:
                self._seen = max(0, len(data) - 3)
                return Bad(431) if len(data) > HEAD else self._wait
            head = bytes(data[: end + 2])
            self._whole = _measured(head)
            self._wait = Wait(bool(_EXPECT.search(head)))
        return self._whole if len(data) >= self._whole.length else self._wait


def _measured(head: bytes) -> Whole:
    """The request with this head, whose last \\r\\n is the first half of what ends it."""
    size = len(head) + 2
    if _CODING.search(head):
        return Whole(size, True)
    lengths = _LENGTH.findall(head)
    if len(lengths) != len(_ANY_LENGTH.findall(head)) or len(lengths) > 1:
        return Whole(size, True)
    length = int(lengths[0]) if lengths else 0
    return Whole(size, True) if length > BODY else Whole(size + length, False)
