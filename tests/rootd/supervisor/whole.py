"""A message as root is told it: without the marks around names of services."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from rootd.supervisor import mentions

T = TypeVar("T")


def whole(message: T) -> T:
    return msgspec.json.decode(
        mentions.told(msgspec.json.encode(message), lambda: lambda whose: True), type=type(message)
    )
