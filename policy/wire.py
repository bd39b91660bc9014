"""How messages are spelled: msgspec JSON, one message a SEQPACKET packet, at most LIMIT bytes.

Malformed means: close that connection, count it, and nothing else happens.

Duplicate keys in one object are not looked for: the last one counts, and the decoded struct is all that anybody
decides on, acts on, answers from and writes to the audit log. Packets are never handed on or decoded twice, so there
is no second reader to disagree with; a second parser that hunts for duplicates would be the first one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from policy import login, messages

LIMIT = 64 * 1024

T = TypeVar("T")


class Malformed(Exception):
    """The peer sent nonsense."""


class Codec(Generic[T]):
    """Encodes any message and decodes messages of one type only."""

    def __init__(self, kind: Any) -> None:
        self._encoder = msgspec.json.Encoder()
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind, strict=True)

    def encode(self, message: object, told: Callable[[bytes], bytes] = bytes) -> bytes:
        """Raises ValueError when the packet would be larger than LIMIT, or holds text that UTF-8 cannot spell.

        told: makes of what is spelled what is sent."""
        packet = told(self._encoder.encode(message))
        if len(packet) > LIMIT:
            raise ValueError(f"a message of {len(packet)} bytes, more than {LIMIT}")
        return packet

    def decode(self, packet: bytes) -> T:
        """Raises Malformed for anything but exactly one message of this codec's type."""
        if not packet or len(packet) > LIMIT:
            raise Malformed(f"a packet of {len(packet)} bytes")
        try:
            return self._decoder.decode(packet)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise Malformed(f"not a message: {error}") from None


REQUEST: Codec[messages.Request] = Codec(messages.Request)
ANSWER: Codec[messages.Answer] = Codec(messages.Answer)
ASK: Codec[login.Ask] = Codec(login.Ask)
TELL: Codec[login.Tell] = Codec(login.Tell)
PUSH: Codec[login.Push] = Codec(login.Push)
PULL: Codec[login.Pull] = Codec(login.Pull)
